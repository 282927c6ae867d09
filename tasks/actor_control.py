"""Keep one actor alive for a training: adopt or start it, replace one that died, stop it at the end."""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from prefect import runtime

from hilserl.attempts import note_updates
from hilserl.config import TrainConfig
from hilserl.errors import RobotError, ServiceError
from hilserl.learner.parts import LearnerView
from hilserl.runs import RunFolder
from hilserl.threads import background_thread
from tasks.actor_launch import ActorLauncher, ActorState, NotReady
from tasks.deployed_actor import DeployedActor
from tasks.local_actor import LocalActor
from tasks.run_watch import RunStopped, RunWatch
from tasks.server import is_away as is_server_away

logger = logging.getLogger(__name__)

_POLL_S = 2.0
_OWN_END_S = 20.0  # an actor ends by itself when the learner has finished
_SILENT_S = 20.0  # an actor speaks twice a second
_ADOPTED_S = 25.0  # a living actor finds the learner that came back within a few
_TOLD_S = 15.0
_WITHDRAW_S = 45.0  # an actor refuses a start older than 60 s
_PATIENCE = 0.9  # share of learner.actor_timeout_s: this message is better than that one's
_NOTED_S = 5.0


@contextmanager
def actor_of(config: TrainConfig, run: RunFolder, watch: RunWatch) -> Iterator[ActorKeeper]:
    """Provide the run's actor, not acting yet, and stop it afterwards, whatever happened.

    An actor of this machine is a process that already imports what it needs; it knows no learner and
    touches no robot before `start`.
    """
    launcher: ActorLauncher = DeployedActor(config, run) if runtime.deployment.id else LocalActor(config, run)
    keeper = ActorKeeper(launcher, config, run, watch)
    try:
        yield keeper
    finally:
        keeper.stop()


class ActorKeeper:
    """Looks after the actor from a thread of its own: nothing that it waits for, the server least of all, holds training up.

    Args:
        launcher: Where the actor runs.
        config: The run's configuration.
        run: Its folder.
        watch: Whether this flow run was cancelled.
    """

    def __init__(self, launcher: ActorLauncher, config: TrainConfig, run: RunFolder, watch: RunWatch) -> None:
        self._launcher, self._config, self._run, self._watch = launcher, config, run, watch
        self._patience_s = _PATIENCE * config.learner.actor_timeout_s
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._view: LearnerView | None = None
        self._address = ""
        self._is_tried = self._has_actor = self._is_adopted = False
        self._suspect_since: float | None = None
        self._began = time.monotonic()  # of the present actor
        self._without = time.monotonic()  # since when nobody has acted though a learner listens
        self._told = -math.inf
        self._noted = time.monotonic()
        self._waits_for = ""
        self._deaths = 0
        self._steps_at_death = -1

    def start(self, address: str) -> None:
        """Have an actor for the learner at `address` from now on."""
        self._address, self._without = address, time.monotonic()  # what came before, a long conversion of data too, was no waiting
        # The copied context makes the actor's flow run a child of this one on the page.
        self._thread = background_thread(self._keep, "actor-keeper")
        self._thread.start()

    def check(self, view: LearnerView) -> str:
        """Take in how the training stands, and say what it waits for, if anything; returns at once.

        Raises:
            RunStopped: This flow run, or the actor's, was cancelled.
            RobotError: The actor failed, or died too often.
            ServiceError: Nobody starts the actor.
        """
        self._view = view
        self._watch.raise_if_stopped()
        if self._error is not None:
            raise self._error
        return self._waits_for

    def stop(self) -> None:
        """Let the actor end, then make it end; harmless before `start` and when repeated."""
        own_end_s = _OWN_END_S if sys.exc_info()[0] is None else 0.0
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=3.0)
        self._launcher.stop(own_end_s)

    def _keep(self) -> None:
        is_away = False
        while not self._stopping.is_set():
            try:
                self._turn()
                is_away = False
            except BaseException as error:
                if not is_server_away(error):
                    self._error = error  # raised where the training is, by `check`
                    return
                if not is_away:
                    logger.warning("The Prefect server does not answer (%r); the training goes on without it.", error)
                is_away = True
            self._stopping.wait(_POLL_S)

    def _turn(self) -> None:
        if self._view and time.monotonic() - self._noted > _NOTED_S:
            self._noted = time.monotonic()
            note_updates(self._run, self._view.updates)
        if not self._is_tried:
            self._has_actor = self._is_adopted = self._launcher.adopt(self._address)
            self._is_tried, self._began = True, time.monotonic()
        if not self._has_actor:
            self._launch()
            return
        state = self._launcher.state()
        match state.phase:
            case "waiting":
                self._wait(state)
            case "starting":
                self._waits_for = "the actor's flow run was taken by a worker, and does not run yet; that worker's log says why"
                self._lose_patience()
            case "running":
                self._without, self._waits_for, self._told = time.monotonic(), "", -math.inf
                self._require_heard()
            case "gone":
                self._replace(state.message)
            case "cancelled":
                raise RunStopped(f"{state.message}. The training stops with it.")
            case "failed":
                raise RobotError(
                    f"{state.message}\nThis needs a person: nothing moves the robot again by itself. What was learned is saved. "
                    "Look at the robot and at the actor's log, then start this run again; it continues."
                )

    def _launch(self) -> None:
        try:
            self._launcher.launch(self._address)
        except NotReady as problem:
            self._tell(f"no actor can be started: {problem}")
            self._lose_patience()
            return
        self._has_actor, self._is_adopted, self._began = True, False, time.monotonic()

    def _wait(self, state: ActorState) -> None:
        """Say what an actor waits for that nobody starts; take the request back before it is so old that the actor refuses it."""
        waited_s = time.monotonic() - self._began
        if waited_s > _TOLD_S:
            host = self._config.robot.host
            self._tell(
                f"no worker of the robot host `{host}` has started the actor; its flow run is {state.message}. Look at that worker's "
                f"log, or start it there: `prefect worker start --pool robot --work-queue {host}`, or `hilserl up`"
            )
        self._lose_patience()
        if waited_s > _WITHDRAW_S:
            self._launcher.withdraw("nobody started it in time; another one is asked for")
            self._has_actor = False

    def _lose_patience(self) -> None:
        waited_s = time.monotonic() - self._without
        if waited_s > self._patience_s:
            raise ServiceError(f"for {waited_s:.0f} s {self._waits_for or 'no actor was started'}. What was learned is saved.")

    def _require_heard(self) -> None:
        """Give up an actor whose flow run is said to run, but which the learner does not hear any more."""
        view = self._view
        if view is None:
            return
        age_s = view.heard_s.get(self._config.robot.id, math.inf)
        was_heard = view.at - age_s > self._began
        silent_s = age_s if was_heard else view.at - self._began
        limit_s = _SILENT_S if was_heard else _ADOPTED_S if self._is_adopted else math.inf
        if silent_s <= limit_s:
            self._suspect_since = None
        elif self._suspect_since is None:
            self._suspect_since = view.at  # it may have come back since the learner looked: it is asked once more
        elif view.at > self._suspect_since:
            reason = f"The learner has not heard this actor for {silent_s:.0f} s: its host, its network or its process is gone."
            self._launcher.give_up(reason)
            self._replace(reason)

    def _replace(self, reason: str) -> None:
        """Count a death, and ask for a new actor at the next turn."""
        steps = self._view.environment_steps if self._view else 0
        self._deaths = 1 if steps > self._steps_at_death else self._deaths + 1
        self._steps_at_death = steps
        if self._deaths > self._config.actor.restarts:
            raise RobotError(
                f"the actor died {self._deaths} times without one new environment step (actor.restarts is {self._config.actor.restarts}). "
                f"The last time: {reason}\nWhat was learned is saved. Look at the robot's host, then start this run again; it continues."
            )
        logger.warning("The actor is lost (%s) A new one is started.", reason)
        self._has_actor, self._is_adopted, self._suspect_since = False, False, None

    def _tell(self, text: str) -> None:
        """Show on the run's page what the training waits for, and log it every 15 s."""
        self._waits_for = text
        if time.monotonic() - self._told >= _TOLD_S:
            self._told = time.monotonic()
            logger.warning("Waiting: %s", text)
