"""The two ends of the link, as the loops see them; `server` and `client` are theirs over gRPC."""

from __future__ import annotations

from typing import Protocol

from hilserl.link.ingest import LinkLoad, ReceivedRecord
from hilserl.link.messages import EpisodeReport, LearnerStatus, Step, Weights


class LearnerEnd(Protocol):
    """What the learner needs of the link."""

    def poll(self, timeout_s: float) -> list[ReceivedRecord]:
        """Return what arrived and is durable, in order; waits for something at most `timeout_s` [s]."""

    def publish_weights(self, weights: Weights) -> None:
        """Offer new weights to the actors."""

    def set_status(self, status: LearnerStatus) -> None:
        """Say how the training stands."""

    def last_heard_s(self) -> dict[str, float]:
        """Return, by actor, how long ago it was heard [s]."""

    def live_actors(self) -> list[str]:
        """Return the actors that are connected."""

    def load(self) -> LinkLoad:
        """Return how much waits for `poll`."""

    def sync_journal(self) -> None:
        """Make everything acknowledged survive a power cut; may be called from another thread."""

    def trim_journal(self, through: int) -> None:
        """Drop what no checkpoint needs any more, up to that place in the journal; may be called from another thread."""


class ActorEnd(Protocol):
    """What the actor needs of the link."""

    @property
    def status(self) -> LearnerStatus:
        """What the learner last said."""

    @property
    def is_connected(self) -> bool:
        """Whether the learner can be reached."""

    def send_step(self, step: Step) -> None:
        """Journal one step and stream it."""

    def send_episode(self, report: EpisodeReport) -> None:
        """Journal the report of one episode and stream it."""

    def latest_weights(self) -> Weights | None:
        """Return weights newer than those returned before; None when there are none."""
