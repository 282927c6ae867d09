"""The wire form of what `messages` declares; what comes in is checked before anybody uses it.

The bytes of a record are the same in the actor's journal, on the wire and in the learner's
journal.
"""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
from google.protobuf.message import DecodeError, Message

from hilserl.errors import TransportError
from hilserl.link import link_pb2
from hilserl.link.limits import (
    MAX_ALARM_NAME,
    MAX_ALARM_TEXT,
    MAX_ALARMS,
    MAX_COUNT,
    MAX_OBSERVATION_TENSORS,
    MAX_STATUS_TEXT,
    MAX_WEIGHT_TENSORS,
    MAX_WEIGHTS_BYTES,
)
from hilserl.link.messages import (
    NOTHING_FROZEN,
    EpisodeReport,
    FrozenTensors,
    Handshake,
    LearnerAlarm,
    LearnerStatus,
    Phase,
    Record,
    Step,
    Weights,
    weights_hash,
)
from hilserl.link.tensors import decode_named, decode_tensor, encode_named, encode_tensor, length_prefix, named_fields
from hilserl.link.wire import ACTOR_MESSAGE, RECORD, WEIGHTS, Shape, check_shape

_PHASE_CODES = {phase: link_pb2.LearnerStatus.Phase.Value(phase.upper()) for phase in get_args(Phase)}
_PHASES = {code: phase for phase, code in _PHASE_CODES.items()}


def encode_record(record: Record) -> bytes:
    """Return the wire and journal form of one record.

    Raises:
        TransportError: A value that must not be learned from: not finite, or a
            `final_observation` that does not fit the flags.
    """
    if isinstance(record, Step):
        _check_step(record)
        step = link_pb2.Step()
        step.episode, step.step, step.reward = record.episode, record.step, record.reward
        # bool(): environments hand out numpy's, which protobuf does not take.
        step.terminated, step.truncated, step.is_intervention = map(bool, (record.terminated, record.truncated, record.is_intervention))
        encode_tensor(record.action, step.action)
        parts = [step.SerializeToString(), *named_fields(record.observation, step.OBSERVATION_FIELD_NUMBER)]
        if record.final_observation is not None:
            parts += named_fields(record.final_observation, step.FINAL_OBSERVATION_FIELD_NUMBER)
        return b"".join((length_prefix(link_pb2.Record.STEP_FIELD_NUMBER, sum(map(len, parts))), *parts))
    else:
        _check_report(record)
        message = link_pb2.Record()
        report = message.episode
        report.episode, report.episode_return, report.length = record.episode, record.return_, record.length
        report.is_success, report.evaluation = bool(record.is_success), bool(record.evaluation)
        report.intervention_steps, report.seconds, report.weights_version = (
            record.intervention_steps,
            record.seconds,
            record.weights_version,
        )
        report.environment_steps, report.late_steps = record.environment_steps, record.late_steps
        report.longest_period_s, report.observation_age_s = record.longest_period_s, record.observation_age_s
        if record.true_success is not None:
            report.true_success = bool(record.true_success)
    payload: bytes = message.SerializeToString()
    return payload


def decode_record(payload: bytes) -> Record:
    """Return the record of `payload`; its arrays are read-only views.

    Raises:
        TransportError: Not a record, or one that must not be learned from.
    """
    message = parse(link_pb2.Record, payload, RECORD)
    kind = message.WhichOneof("kind")
    if kind == "step":
        step = message.step
        final = decode_named(step.final_observation, what="final observation", limit=MAX_OBSERVATION_TENSORS)
        record = Step(
            episode=step.episode,
            step=step.step,
            observation=decode_named(step.observation, what="observation", limit=MAX_OBSERVATION_TENSORS),
            action=decode_tensor(step.action),
            reward=step.reward,
            terminated=step.terminated,
            truncated=step.truncated,
            is_intervention=step.is_intervention,
            final_observation=final or None,
        )
        _check_step(record)
        return record
    if kind == "episode":
        report = message.episode
        received = EpisodeReport(
            episode=report.episode,
            return_=report.episode_return,
            length=report.length,
            is_success=report.is_success,
            intervention_steps=report.intervention_steps,
            seconds=report.seconds,
            evaluation=report.evaluation,
            weights_version=report.weights_version,
            environment_steps=report.environment_steps,
            late_steps=report.late_steps,
            longest_period_s=report.longest_period_s,
            observation_age_s=report.observation_age_s,
            true_success=report.true_success if report.HasField("true_success") else None,
        )
        _check_report(received)
        return received
    raise TransportError("A received record is neither a step nor an episode. The sender speaks another protocol.")


def _check_step(step: Step) -> None:
    where = f"Episode {step.episode} step {step.step}"
    _check_counts(where, step.episode, step.step)
    action = step.action
    if action.dtype != np.float32 or action.ndim != 1:
        raise TransportError(f"{where}: the action has dtype {action.dtype} and shape {action.shape}; it must be float32 of shape (A,).")
    if not all(map(math.isfinite, action.tolist())):  # faster than numpy for a few
        raise TransportError(f"{where}: the action {action.tolist()} is not finite.")
    if not math.isfinite(step.reward):
        raise TransportError(f"{where}: the reward is {step.reward}.")
    if not step.observation:
        raise TransportError(f"{where}: the observation is empty.")
    ended = step.terminated or step.truncated
    if ended != (step.final_observation is not None):
        raise TransportError(
            f"{where}: terminated={step.terminated}, truncated={step.truncated}, but final_observation is "
            f"{'missing' if ended else 'set'}. It is set exactly where an episode ends."
        )
    if step.final_observation is not None and step.final_observation.keys() != step.observation.keys():
        raise TransportError(
            f"{where}: final_observation has {sorted(step.final_observation)}, the observation {sorted(step.observation)}."
        )


def _check_report(report: EpisodeReport) -> None:
    where = f"The report of episode {report.episode}"
    counts = (report.length, report.intervention_steps, report.weights_version, report.environment_steps, report.late_steps)
    _check_counts(where, report.episode, *counts)
    numbers = (report.return_, report.seconds, report.longest_period_s, report.observation_age_s)
    if not all(map(math.isfinite, numbers)):
        raise TransportError(f"{where} has a number that is not finite: return {report.return_}, times {numbers[1:]} s.")


def _check_counts(where: str, *counts: int) -> None:
    if not all(0 <= count <= MAX_COUNT for count in counts):
        raise TransportError(f"{where}: a number is below 0 or above {MAX_COUNT}: {counts}.")


def encode_status(status: LearnerStatus) -> link_pb2.LearnerStatus:
    """Return the wire form of the learner's status."""
    return link_pb2.LearnerStatus(
        phase=_PHASE_CODES[status.phase],
        owed_updates=status.owed_updates,
        max_owed_updates=status.max_owed_updates,
        environment_steps=status.environment_steps,
        updates=status.updates,
        weights_version=status.weights_version,
        message=status.message[:MAX_STATUS_TEXT],
        alarms=[link_pb2.Alarm(name=alarm.name[:MAX_ALARM_NAME], text=alarm.text[:MAX_ALARM_TEXT]) for alarm in status.alarms[:MAX_ALARMS]],
    )


def decode_status(message: link_pb2.LearnerStatus) -> LearnerStatus:
    """Return the learner's status.

    Raises:
        TransportError: A phase that this version does not know, a text longer than any, or more alarms than there can be.
    """
    if len(message.message) > MAX_STATUS_TEXT:
        raise TransportError(f"The learner's status has a text of {len(message.message)} characters, at most {MAX_STATUS_TEXT} are read.")
    if len(message.alarms) > MAX_ALARMS or any(
        len(alarm.text) > MAX_ALARM_TEXT or len(alarm.name) > MAX_ALARM_NAME for alarm in message.alarms
    ):
        raise TransportError(f"The learner's status has more than {MAX_ALARMS} alarms, or one of more than {MAX_ALARM_TEXT} characters.")
    if message.phase not in _PHASES:
        raise TransportError(f"The learner reports the unknown phase {message.phase}. Install the same hilserl on both hosts.")
    return LearnerStatus(
        phase=_PHASES[message.phase],
        owed_updates=message.owed_updates,
        max_owed_updates=message.max_owed_updates,
        environment_steps=message.environment_steps,
        updates=message.updates,
        weights_version=message.weights_version,
        message=message.message,
        alarms=tuple(LearnerAlarm(alarm.name, alarm.text) for alarm in message.alarms),
    )


def encode_weights(weights: Weights, handshake: Handshake) -> bytes:
    """Return the wire form of weights without their frozen part, bound to the handshake's schema and architecture.

    With `encode_frozen`'s bytes behind it, it is the wire form of all of them.
    """
    message = link_pb2.Weights(
        version=weights.version,
        content_hash=weights.content_hash,
        architecture_hash=handshake.architecture_hash,
        schema_hash=handshake.schema_hash,
        frozen_hash=weights.frozen.content_hash,
    )
    encode_named(weights.trained, message.tensors)
    payload: bytes = message.SerializeToString()
    return payload


def encode_frozen(frozen: FrozenTensors) -> bytes:
    """Return the wire form of frozen tensors; equal ones, such as two cameras' encoders have, are in it once."""
    message = link_pb2.Weights()
    names: dict[str, str] = {}
    for name, array in frozen.tensors.items():
        first = names.setdefault(weights_hash({"": array}), name)
        if first == name:
            encode_tensor(array, message.frozen.add(), name)
        else:
            message.frozen_copies[name] = first
    payload: bytes = message.SerializeToString()
    return payload


def decode_weights(payload: bytes, handshake: Handshake, known: FrozenTensors = NOTHING_FROZEN) -> Weights:
    """Return weights whose content is what was published.

    Args:
        payload: Wire form, with the frozen tensors or, if `known` are the same, without them.
        handshake: This actor's.
        known: Frozen tensors received before.

    Returns:
        Weights whose trained arrays are writable copies, and whose frozen ones are read-only.

    Raises:
        TransportError: Damaged, for another architecture or schema than `handshake`'s, or without
            frozen tensors that are not `known`.
    """
    message = parse(link_pb2.Weights, payload, WEIGHTS)
    theirs = (message.architecture_hash, message.schema_hash)
    if theirs != (handshake.architecture_hash, handshake.schema_hash):
        raise TransportError(
            f"Weights version {message.version} are for architecture and schema {_short(*theirs)}, this actor has "
            f"{(handshake.architecture_hash, handshake.schema_hash)}. Start both with the same configuration."
        )
    frozen = _decode_frozen(message, known)
    views = decode_named(message.tensors, what="set of weights", limit=MAX_WEIGHT_TENSORS)
    trained = {name: array.copy() for name, array in views.items()}
    _check_hash(message.version, "weights", weights_hash(trained, frozen.content_hash), message.content_hash)
    return Weights(message.version, message.content_hash, trained, frozen)


def _decode_frozen(message: link_pb2.Weights, known: FrozenTensors) -> FrozenTensors:
    if message.frozen_hash and not message.frozen:
        if message.frozen_hash != known.content_hash:
            raise TransportError(
                f"Weights version {message.version} came without their frozen tensors, hash {message.frozen_hash[:64]}; "
                f"this actor has {known.content_hash or 'none'}."
            )
        return known
    tensors = decode_named(message.frozen, what="set of frozen weights", limit=MAX_WEIGHT_TENSORS)
    size = sum(array.nbytes for array in tensors.values())
    for name, source in message.frozen_copies.items():
        if name in tensors or source not in tensors or len(tensors) >= MAX_WEIGHT_TENSORS:
            raise TransportError(f"Weights version {message.version}: the frozen `{name[:200]}` cannot be a copy of `{source[:200]}`.")
        tensors[name] = tensors[source]
        size += tensors[source].nbytes
        if size > MAX_WEIGHTS_BYTES:  # a copy costs nothing on the wire, and as much to hash as any other
            raise TransportError(
                f"Weights version {message.version}: the frozen tensors have more than {MAX_WEIGHTS_BYTES} bytes; refused."
            )
    frozen = FrozenTensors.create(tensors)
    _check_hash(message.version, "frozen tensors", frozen.content_hash, message.frozen_hash)
    return frozen


def _check_hash(version: int, what: str, found: str, announced: str) -> None:
    if found != announced:
        raise TransportError(
            f"Weights version {version}: the {what} have the hash `{found}`, `{announced[:64]}` was announced: damaged on the way."
        )


def _short(*texts: str) -> tuple[str, ...]:
    return tuple(text[:64] for text in texts)


def encode_handshake(handshake: Handshake) -> link_pb2.Handshake:
    """Return the wire form of a handshake."""
    return link_pb2.Handshake(
        protocol_version=handshake.protocol_version,
        run_id=handshake.run_id,
        schema_hash=handshake.schema_hash,
        architecture_hash=handshake.architecture_hash,
    )


def decode_handshake(message: link_pb2.Handshake) -> Handshake:
    """Return a peer's handshake."""
    return Handshake(message.run_id, message.schema_hash, message.architecture_hash, message.protocol_version)


def decode_actor_message(payload: bytes) -> link_pb2.ActorMessage:
    """Parse one message of an actor's stream; its records are still bytes.

    Raises:
        TransportError: Not a message, or one with more records than are taken at once.
    """
    return parse(link_pb2.ActorMessage, payload, ACTOR_MESSAGE)


def parse(kind: type[Message], payload: bytes, shape: Shape | None = None) -> Message:
    """Parse protobuf bytes.

    Args:
        kind: Of message.
        payload: Its bytes.
        shape: What is looked at first, where they come from a peer.

    Raises:
        TransportError: They are not a message of this kind.
    """
    if shape is not None:
        check_shape(payload, shape)
    try:
        return kind.FromString(payload)
    except DecodeError as error:
        raise TransportError(
            f"{len(payload)} bytes are not a {kind.DESCRIPTOR.name}: {error}. The sender is damaged or speaks another protocol."
        ) from error
