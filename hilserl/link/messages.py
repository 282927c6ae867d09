"""What actor and learner tell each other, as frozen dataclasses; `codec` has their wire form.

Everything an actor says about its episodes travels as one ordered stream of records, a `Step`
or an `EpisodeReport` each.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, Self

import numpy as np

from hilserl.errors import TransportError

PROTOCOL_VERSION = 2

Phase = Literal["warming_up", "training", "finished", "failed"]
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def check_name(name: str, what: str) -> str:
    """Return `name` if it can name a folder and travel as an identity.

    Raises:
        TransportError: Empty, too long, or other characters than letters, digits, `_`, `.`, `-`.
    """
    if not _NAME.fullmatch(name) or set(name) == {"."}:
        raise TransportError(f"{what} is {name!r}: use 1 to 64 letters, digits, `_`, `.` and `-`.")
    return name


@dataclass(frozen=True, eq=False)
class Step:
    """One control step: what was seen, what was executed, what came of it.

    Attributes:
        episode: Number of the episode within the run of this actor.
        step: Number of the step within the episode, from 0.
        observation: Flat dict of arrays *before* the action, such as `observation.state` (S,).
        action: Executed action in the policy's space, shape (A,), float32 in [-1, 1].
        reward: Reward of the step.
        terminated: The task itself ended here: no bootstrap.
        truncated: The episode was cut here, such as by time: bootstrap from `final_observation`.
        is_intervention: A human acted.
        final_observation: Observation *after* the last action, set exactly where the episode
            ended. Elsewhere the `observation` of the next step of the episode is that one.
    """

    episode: int
    step: int
    observation: Mapping[str, np.ndarray]
    action: np.ndarray
    reward: float
    terminated: bool
    truncated: bool
    is_intervention: bool
    final_observation: Mapping[str, np.ndarray] | None = None


@dataclass(frozen=True)
class EpisodeReport:
    """One finished episode.

    Attributes:
        episode: Number of the episode within the run of this actor.
        return_: Sum of rewards.
        length: Control steps.
        is_success: Judged by the environment or the person.
        intervention_steps: Steps in which a human acted.
        seconds: Duration [s].
        evaluation: The policy acted deterministically; its steps were not sent for learning.
        weights_version: Newest weights the episode acted with.
        environment_steps: Steps that this actor has sent, all episodes together.
        late_steps: Control steps that began more than a tenth of the period after their time.
        longest_period_s: Longest time between two control steps [s]; 0: they were not paced.
        observation_age_s: Greatest age of an observation when the action chosen from it began [s].
        true_success: What the simulation knows, where a classifier or a person judged in one; None: nobody knows.
    """

    episode: int
    return_: float
    length: int
    is_success: bool
    intervention_steps: int
    seconds: float
    evaluation: bool
    weights_version: int
    environment_steps: int
    late_steps: int = 0
    longest_period_s: float = 0.0
    observation_age_s: float = 0.0
    true_success: bool | None = None


Record = Step | EpisodeReport


@dataclass(frozen=True)
class LearnerAlarm:
    """What is wrong with learning now.

    Attributes:
        name: Such as `q_above_bound`.
        text: A sentence with what is wrong, and behind it the remedy.
    """

    name: str
    text: str


@dataclass(frozen=True)
class LearnerStatus:
    """How learning goes, as the actor sees it.

    Attributes:
        phase: `finished` and `failed` tell the actor to end its run.
        owed_updates: Updates that the learner owes for the steps it received.
        max_owed_updates: Above it the actor waits; 0: it never does.
        environment_steps: Steps received.
        updates: Updates done.
        weights_version: Newest weights published; 0: none yet. Filled in by the server.
        message: One line for a person, such as why it failed.
        alarms: Those that stand.
    """

    phase: Phase = "warming_up"
    owed_updates: int = 0
    max_owed_updates: int = 0
    environment_steps: int = 0
    updates: int = 0
    weights_version: int = 0
    message: str = ""
    alarms: tuple[LearnerAlarm, ...] = ()


@dataclass(frozen=True, eq=False)
class FrozenTensors:
    """Parameters that no update changes, such as a pretrained encoder's: hashed, encoded and sent once.

    Attributes:
        content_hash: `weights_hash(tensors)`; empty where there are none.
        tensors: By name; they must stay as they are.
    """

    content_hash: str = ""
    tensors: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def create(cls, tensors: Mapping[str, np.ndarray]) -> Self:
        """Hash `tensors`."""
        return cls(weights_hash(tensors), tensors) if tensors else cls()


NOTHING_FROZEN = FrozenTensors()


@dataclass(frozen=True, eq=False)
class Weights:
    """One version of what the actor's policy needs.

    Attributes:
        version: Larger for newer weights, from 1.
        content_hash: `weights_hash(trained, frozen.content_hash)`.
        trained: Parameters by name that differ from version to version.
        frozen: Those that do not.
    """

    version: int
    content_hash: str
    trained: Mapping[str, np.ndarray]
    frozen: FrozenTensors = NOTHING_FROZEN

    @classmethod
    def create(cls, version: int, trained: Mapping[str, np.ndarray], frozen: FrozenTensors = NOTHING_FROZEN) -> Self:
        """Hash `trained` and pack them; `frozen` is hashed already.

        Raises:
            ValueError: A tensor is in both.
        """
        if both := trained.keys() & frozen.tensors.keys():
            raise ValueError(f"{sorted(both)} are both trained and frozen")
        return cls(version, weights_hash(trained, frozen.content_hash), trained, frozen)

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """All parameters by name."""
        return {**self.frozen.tensors, **self.trained}


@dataclass(frozen=True)
class Handshake:
    """What both sides must have in common before the first record.

    Attributes:
        run_id: Which training run; letters, digits, `_`, `.`, `-`.
        schema_hash: Hash of the feature schema.
        architecture_hash: Hash of what defines the policy's networks.
        protocol_version: Version of this protocol.
    """

    run_id: str
    schema_hash: str
    architecture_hash: str
    protocol_version: int = field(default=PROTOCOL_VERSION)

    def differences(self, learner: Handshake) -> list[str]:
        """Say what this (the actor's) handshake has other than the learner's."""
        return [
            f"{_HANDSHAKE_MEANING[item.name]}: the actor has {getattr(self, item.name)!r}, the learner {getattr(learner, item.name)!r}"
            for item in fields(self)
            if getattr(self, item.name) != getattr(learner, item.name)
        ]


_HANDSHAKE_MEANING = {
    "protocol_version": "protocol_version (install the same hilserl on both hosts)",
    "run_id": "run_id (start the actor for the run that the learner is in)",
    "schema_hash": "schema_hash (start both with the same `observation` and `task` settings)",
    "architecture_hash": "architecture_hash (start both with the same `policy` and `encoder` settings)",
}


def weights_hash(tensors: Mapping[str, np.ndarray], frozen_hash: str = "") -> str:
    """Identify weights by names, dtypes, shapes and values, 32 hex digits.

    Args:
        tensors: What is hashed.
        frozen_hash: Hash of the tensors that go with them and were hashed before; empty: none.
    """
    digest = hashlib.sha256(frozen_hash.encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name], dtype=tensors[name].dtype.newbyteorder("<"))
        digest.update(f"{name}|{array.dtype.str}|{tensors[name].shape}|".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()[:32]
