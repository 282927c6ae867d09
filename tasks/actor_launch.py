"""What it takes to run an actor somewhere: as a deployment's flow run, or as a process of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from hilserl.config import TrainConfig
from hilserl.runs import RunFolder


@dataclass(frozen=True)
class ActorState:
    """How the actor is.

    Attributes:
        phase: `waiting`: asked for, and taken by no worker yet. `starting`: a worker took it. `gone`: it ended, and may
            be replaced by a new one. `failed`: it ended with an error that needs a person.
        message: Why, for a person.
    """

    phase: Literal["waiting", "starting", "running", "completed", "gone", "cancelled", "failed"]
    message: str = ""


class NotReady(Exception):
    """Nobody would start an actor now; the text says who is missing, and the command that helps."""


class ActorLauncher(Protocol):
    """Runs one actor at a time. Every call may raise what says that the Prefect server is away."""

    def adopt(self, address: str) -> bool:
        """Take over the actor that an earlier process of this training started, if it lives and has `address`; end others."""

    def launch(self, address: str) -> None:
        """Ask for a new actor for the learner at `address`.

        Raises:
            NotReady: Nobody would start it now.
            ServiceError: There is nobody who ever would.
        """

    def state(self) -> ActorState:
        """Return how the actor is; there is one."""

    def withdraw(self, reason: str) -> None:
        """Take back the request for an actor that has not started."""

    def give_up(self, reason: str) -> None:
        """Write down that the actor is lost; one that lives all the same stops when it reads that."""

    def stop(self, own_end_s: float) -> None:
        """Let it end by itself for so long [s], then make it end; harmless without an actor and when repeated."""


def parameters(config: TrainConfig, run: RunFolder, address: str) -> dict[str, object]:
    """Return the parameters of the flow `actor`; no secret is among them."""
    return {"config": config.model_dump(mode="json"), "address": address, "run_id": run.run_id}
