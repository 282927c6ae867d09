import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from link_testing import HANDSHAKE, assert_same, make_report, make_step

from hilserl.errors import TransportError
from hilserl.link import link_pb2
from hilserl.link.codec import decode_record, decode_status, decode_weights, encode_record, encode_status, encode_weights
from hilserl.link.limits import ENVELOPE_BYTES, MAX_ALARMS
from hilserl.link.messages import LearnerAlarm, LearnerStatus, Record, Weights, check_name, weights_hash


@pytest.mark.parametrize("record", [make_step(3), make_step(4, ended=True), make_report(2)], ids=["step", "last step", "episode"])
def test_a_record_comes_back(record: Record) -> None:
    assert_same(decode_record(encode_record(record)), record)


def test_every_field_of_a_report_travels() -> None:
    """Distinct values, so that two swapped fields are seen."""
    report = make_report(2)
    values = [value for value in dataclasses.astuple(report) if not isinstance(value, bool)]
    assert len(set(values)) == len(values)
    for name in ("is_success", "evaluation"):
        other = dataclasses.replace(report, **{name: not getattr(report, name)})
        assert decode_record(encode_record(other)) == other


def test_values_as_numpy_scalars_travel_too() -> None:
    step = dataclasses.replace(make_step(3), episode=np.int64(2), reward=np.float32(0.5), is_intervention=np.bool_(True))
    received = decode_record(encode_record(step))
    assert (received.episode, received.reward, received.is_intervention) == (2, 0.5, True)


@pytest.mark.parametrize("phase", ["warming_up", "training", "finished", "failed"])
def test_a_status_comes_back(phase: str) -> None:
    status = LearnerStatus(phase, -3, 40, 5, 6, 7, "all is well", (LearnerAlarm("regressed", "It is worse. Stop."),))
    assert decode_status(encode_status(status)) == status


def test_the_alarms_of_a_learner_with_much_to_say_fit_into_an_envelope() -> None:
    alarm = LearnerAlarm("a" * 10_000, "\N{FACE WITH TEARS OF JOY}" * 10_000)
    wire = encode_status(LearnerStatus("training", message=alarm.text, alarms=(alarm,) * 1000))
    assert wire.ByteSize() < ENVELOPE_BYTES
    assert len(decode_status(wire).alarms) == MAX_ALARMS


def test_an_unknown_phase_is_refused() -> None:
    with pytest.raises(TransportError, match="unknown phase 17"):
        decode_status(link_pb2.LearnerStatus(phase=17))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"action": np.array([0.0, np.nan, 0.0], np.float32)}, "action .* is not finite"),
        ({"action": np.zeros(3)}, "must be float32 of shape"),
        ({"action": np.zeros((1, 3), np.float32)}, "must be float32 of shape"),
        ({"reward": float("inf")}, "reward is inf"),
        ({"observation": {}}, "observation is empty"),
        ({"truncated": True}, "final_observation is missing"),
        ({"final_observation": {"observation.state": np.zeros(1)}}, "final_observation is set"),
        ({"terminated": True, "final_observation": {"observation.state": np.zeros(1)}}, r"final_observation has \['observation.state'\]"),
    ],
)
def test_a_step_that_must_not_be_learned_from_is_refused_with_its_place(change: dict, reason: str) -> None:
    with pytest.raises(TransportError, match=f"Episode 1 step 3: .*{reason}"):
        encode_record(dataclasses.replace(make_step(13), **change))


def test_a_received_step_is_checked_too() -> None:
    message = link_pb2.Record.FromString(encode_record(make_step(13)))
    message.step.reward = float("nan")
    with pytest.raises(TransportError, match="reward is nan"):
        decode_record(message.SerializeToString())


@pytest.mark.failure("R18")
@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 300), st.booleans())
def test_garbage_is_an_error_of_the_link_and_nothing_else(garbage: bytes, at: int, splice: bool) -> None:
    """Random bytes, and random bytes inside a valid record, either decode or raise TransportError."""
    valid = encode_record(make_step(1))
    try:
        decode_record(valid[:at] + garbage + valid[at + len(garbage) :] if splice else garbage)
    except TransportError:
        return


def make_weights(version: int = 1) -> Weights:
    return Weights.create(version, {"actor.w": np.arange(6, dtype=np.float32).reshape(2, 3), "scale": np.float64(2.0).reshape(())})


def test_weights_come_back_writable() -> None:
    weights = make_weights()
    received = decode_weights(encode_weights(weights, HANDSHAKE), HANDSHAKE)
    assert (received.version, received.content_hash) == (1, weights.content_hash)
    for name, tensor in received.tensors.items():
        np.testing.assert_array_equal(tensor, weights.tensors[name])
        assert tensor.flags.writeable


def test_the_hash_of_weights_covers_names_values_shapes_and_dtypes() -> None:
    base = {"w": np.arange(6, dtype=np.float32)}
    others = [{"v": base["w"]}, {"w": base["w"] + 1}, {"w": base["w"].reshape(2, 3)}, {"w": base["w"].view(np.int32)}]
    assert len({weights_hash(tensors) for tensors in (base, *others)}) == 5
    assert weights_hash({"a": base["w"], "b": base["w"]}) == weights_hash({"b": base["w"], "a": base["w"].astype(">f4")})


@pytest.mark.failure("L18")
@pytest.mark.parametrize("field", ["architecture_hash", "schema_hash"])
def test_weights_of_another_policy_are_refused(field: str) -> None:
    payload = encode_weights(make_weights(), HANDSHAKE)
    with pytest.raises(TransportError, match="Weights version 1 are for architecture and schema"):
        decode_weights(payload, dataclasses.replace(HANDSHAKE, **{field: "other"}))


def test_damaged_weights_are_refused() -> None:
    message = link_pb2.Weights.FromString(encode_weights(make_weights(), HANDSHAKE))
    message.tensors[0].data = bytes(24)
    with pytest.raises(TransportError, match="damaged on the way"):
        decode_weights(message.SerializeToString(), HANDSHAKE)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "x" * 65])
def test_a_name_that_cannot_name_a_folder_is_refused(name: str) -> None:
    with pytest.raises(TransportError, match="robot_id is"):
        check_name(name, "robot_id")
