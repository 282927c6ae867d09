"""What the loops ask of the console, and the thread that looks after it in the actor's process."""

from __future__ import annotations

import logging
import select
import threading
import time
from collections.abc import Callable
from typing import Any

from hilserl.config.models import TrainConfig
from hilserl.console.commands import Commands, Refused
from hilserl.console.drive import Drive
from hilserl.console.facts import facts_of, kind_of
from hilserl.console.person import Make, PagePerson, sources_of
from hilserl.console.process import ConsoleProcess
from hilserl.console.show import Show
from hilserl.console.simulated_stop import SimulatedStop
from hilserl.console.tally import Tally
from hilserl.console.telemetry import Telemetry
from hilserl.errors import RobotError
from hilserl.robot.latch import Latch, latched
from hilserl.teleop.intervention import Control
from hilserl.teleop.operator import Moment, Wish
from hilserl.threads import background_thread

logger = logging.getLogger(__name__)

_STATE_S = 0.04  # at least so long between two state messages
_IDLE_S = 0.1
_LATCH_S = 0.5
_CONFIRM_S = 0.02
_AFTER_DEFECT_S = 1.0
_REARM_POLL_S = 0.1
_END_S = 3.0


class ConsoleOperator:
    """The console as an `Operator`. Its methods are the loop's; a thread of its own answers and publishes meanwhile.

    Attributes:
        url: Where the page is; None: not yet known.
    """

    def __init__(self, config: TrainConfig, *, mode: str, run: str = "") -> None:
        """Start the console's process; `close` ends it.

        Args:
            config: The run's configuration.
            mode: `train`, `record` or `run`.
            run: What the page calls this run.

        Raises:
            ServiceError: It may not listen where the configuration says.
        """
        self._config, self._settings, self._kind = config, config.console, kind_of(config)
        source: str = config.actor.intervention.type
        self._at_work = mode == "run"
        if self._at_work and config.actor.intervention.is_simulated:
            source = "none"  # it is for training
        moves = config.env is None
        self._commands = Commands(
            Drive(len(config.action_names), config.robot.control_hz),
            source=("console" if source == "none" and moves else source),
            waits_for_start=self._settings.wait_for_start,
            may_drive=moves,
        )
        self._tally = Tally(config.episode_steps / config.robot.control_hz, config.robot.control_hz)
        self._telemetry = Telemetry(config)
        self._show = Show(config, lambda message: self._process.wire.send(message))
        self._person: PagePerson | None = None
        self._simulated_stop: SimulatedStop | None = None
        self._latch: Latch | None = None
        self._phase, self._text = "starting", "The actor starts."
        self._is_human = False
        self._told: dict[str, Any] = {}
        self._number = 0
        self._last_state_s = 0.0
        self._latch_s = 0.0
        self._publishing = threading.Lock()
        self._receiving = threading.Lock()
        self._ending = threading.Event()
        facts = facts_of(config, mode=mode, run=run, folder=self._show.folder)
        try:
            self._process = ConsoleProcess(config, facts)
            self._process.start()
        except BaseException:
            self._show.close()
            raise
        self._thread = background_thread(self._work, "console")
        self._thread.start()

    @property
    def url(self) -> str | None:
        """Where the page is."""
        return self._process.url

    @property
    def real_time(self) -> bool:
        """Whether an unthrottled simulation keeps the control period now: somebody drives, or wants to watch."""
        return self._commands.real_time or self._commands.drive.taken

    # The actor's composition root

    def human(self, config: TrainConfig, environment: Any, make: Make) -> Any:
        """Return the page's person, in front of whom `make` connects."""
        if config.env is not None:
            return make(config, environment)
        self._telemetry.environment = environment
        if getattr(environment, "arm", None) is None:  # a simulation has no emergency stop of its own
            self._simulated_stop = SimulatedStop(config.robot.id)
        try:
            self._commands.sources = tuple(
                source for source in sources_of(config, environment) if not (self._at_work and source == "simulated")
            )
            person = PagePerson(config, environment, make, self._commands, self._receive)
        except BaseException:
            self._let_go()
            raise
        self._person = person
        return _Closing(person, self._let_go)

    def linked(self, client: Any) -> None:
        """Show the state of this end of a link."""
        self._telemetry.client = client

    def stands_by(self, error: RobotError) -> bool:
        """Tell whether the robot was stopped while a page is open."""
        self._tally.end("cut", self._commands.source)
        self._latch = latched(self._config.robot.id)
        return self._latch is not None and self._commands.viewers > 0

    def wait_for_rearming(self, should_stop: Callable[[], str | None]) -> str | None:
        """Wait until a person has re-armed the robot, on the page or with `hilserl rearm`."""
        self._telemetry.environment = None
        self._set("stopped", "The robot is stopped. It waits for a person who re-arms it.")
        while (held := latched(self._config.robot.id)) is not None:
            self._latch = held
            if reason := should_stop():
                return reason
            self._ending.wait(_REARM_POLL_S)
            if self._ending.is_set():
                return "the console was closed"
        logger.info("Robot `%s` was re-armed; it waits for Start.", self._config.robot.id)
        self._latch = None
        self._commands.wait_at_start()
        self._set("starting", "The robot was re-armed and is connected anew.")
        return None

    # The loop

    def wish(self) -> Wish:
        """Return what is wanted now.

        Raises:
            RobotError: The robot was stopped.
        """
        self._receive()
        if self._simulated_stop is not None:
            self._simulated_stop.check()
        arm = getattr(self._telemetry.environment, "arm", None)
        if arm is not None:
            arm.require_running()  # nothing else asks while the loop waits
        return self._commands.wish()

    def wait(self, seconds: float) -> None:
        """Wait for another wish, at most so long [s]; an intervention source may be exchanged meanwhile."""
        if self._person is not None:
            self._person.paused()
        self.rests()
        if self._phase not in ("episode", "evaluation"):
            self._phase, self._text = "waiting", "The arm waits for Start."
        self._commands.changed.clear()
        if self._commands.wish() is not Wish.GO:
            self._commands.changed.wait(seconds)

    def rests(self) -> None:
        """Nothing moves and no step is under way: look again now and then, so that pages see what somebody does to the scene."""
        if self._commands.viewers:
            episode = self._tally.episode or {"number": 0, "step": 0}
            self._show.still(self._telemetry.environment, episode["number"], episode["step"])

    def may_evaluate(self, at_steps: int) -> bool | None:
        """Ask a person whether the evaluation may begin, where the configuration says so."""
        if not (self._settings.ask_before_evaluation or self._config.asks_before_evaluation):
            return True
        episodes = self._config.actor.evaluate_episodes
        text = f"Evaluate after {at_steps} steps: {episodes} episodes in which nobody takes over?"
        return self._commands.ask(f"evaluation-{at_steps}", "evaluation", text)

    def resetting(self, episode: int, *, evaluation: bool = False) -> None:
        """The arm goes to its start."""
        self._is_human = False
        self._set("resetting", f"The arm goes to its start, for {'evaluation ' if evaluation else ''}episode {episode}.")

    def arrived(self, moment: Moment) -> None:
        """The arm is at its start, where it was sent, and waits."""
        self._commands.wait_at_start()
        self._show.step(self._telemetry.environment, moment)
        self._set("waiting", "The arm is at its start and waits for Start.")

    def began(self, moment: Moment) -> None:
        """An episode begins, or goes on after a hold."""
        self._tally.begin(moment)
        self._commands.in_episode = True
        self._show.step(self._telemetry.environment, moment, always=True)
        kind = "Evaluation episode" if moment.evaluation else "Episode"
        self._set("evaluation" if moment.evaluation else "episode", f"{kind} {moment.episode}")

    def saw(self, moment: Moment) -> None:
        """A step was done."""
        self._is_human = moment.is_intervention
        self._tally.step(moment, self._telemetry.tool_m(moment.info.get("joint_pos_rad")) if self._is_time() else None)
        self._show.step(self._telemetry.environment, moment)
        if self._is_time():
            self._publish()

    def ended(self, how: str, success: bool, return_: float) -> None:
        """The episode ended."""
        self._commands.in_episode = False
        self._commands.drive.release()
        self._is_human = False
        self._phase, self._text = "resetting", "The episode has ended."
        if (episode := self._tally.end(how, self._commands.source)) is not None:
            self._process.wire.send({"kind": "episode", "episode": episode})

    def told(self, **facts: Any) -> None:
        """Something else that is shown: `weights_version`, `timing`, `text`, or what was recorded so far."""
        if (version := facts.pop("weights_version", None)) is not None:
            self._telemetry.new_weights(version)
        if (text := facts.pop("text", None)) is not None:
            self._text = text
        ended = facts.pop("ended", None)
        self._told |= facts
        if ended is not None:
            self._set("ended", f"This run has ended: {str(ended).rstrip('.')}. Nothing moves.")

    def close(self) -> None:
        """End the console's process; safe to call twice."""
        if self._ending.is_set():
            return
        text = self._text if self._phase == "ended" else "This run has ended. Nothing moves."
        self._ending.set()
        self._commands.changed.set()
        self._thread.join(_END_S)
        self._set("ended", text)  # the last word, with the last figures: no other thread publishes now
        self._let_go()
        self._process.stop()
        self._show.close()

    # In between

    def _set(self, phase: str, text: str) -> None:
        self._phase, self._text = phase, text
        self._publish()

    def _let_go(self) -> None:
        self._person, self._telemetry.environment = None, None
        if self._simulated_stop is not None:
            self._simulated_stop.close()
            self._simulated_stop = None

    def _is_time(self) -> bool:
        return time.monotonic() - self._last_state_s >= _STATE_S

    def _receive(self) -> None:
        """Take what has arrived; the loop does so itself, so that no command waits for another thread."""
        with self._receiving:
            while (message := self._process.wire.receive()) is not None:
                try:
                    if message["kind"] == "listening":
                        self._process.listening(message)
                    else:
                        self._commands.take(message)
                    error = ""
                except Refused as refused:
                    error = str(refused)
                if "ref" in message and (error or message["kind"] != "drive"):
                    self._process.wire.send({"kind": "reply", "ref": message["ref"], "ok": not error, "error": error})

    def _publish(self) -> None:
        """Send the state, unless another thread does so at this moment."""
        if not self._publishing.acquire(blocking=False):
            return
        try:
            self._last_state_s = time.monotonic()
            self._number += 1
            self._process.wire.send({"kind": "state", "state": self._state(), "at": self._last_state_s})
        finally:
            self._publishing.release()

    def _state(self) -> dict[str, Any]:
        commands, told = self._commands, self._told
        session = self._tally.session()
        timing: Any = told.get("timing")
        state: dict[str, Any] = {
            "number": self._number,
            "phase": self._phase,
            "text": self._text,
            "control": self._control(),
            "held_because": commands.held_because,
            "paused": commands.paused,
            "real_time": self.real_time,
            "source": {
                "type": commands.source,
                "available": list(commands.sources),
                "changing_to": commands.wanted_source,
                "error": commands.source_error,
            },
            "episode": self._tally.episode,
            "judge": self._tally.judge,
            "session": session | {key: told[key] for key in ("wanted", "saved", "failed", "discarded") if key in told},
            "learner": self._telemetry.learner(),
            "link": self._telemetry.link(),
            "arm": self._telemetry.arm(),
            "timing": None if timing is None else {name: round(value, 4) for name, value in vars(timing).items()},
            "asks": commands.asks,
            "stopped": _stopped(self._latch, may_rearm=self._phase == "stopped"),
        }
        state["alarms"] = [] if self._phase == "ended" else self._telemetry.alarms(state)
        return state

    def _control(self) -> str:
        if self._latch is not None or self._phase == "stopped":
            return "stopped"
        if self._phase not in ("episode", "evaluation"):
            return "nobody"
        if self._commands.held_because:
            return "held"
        if self._person is not None and self._person.control is Control.HANDING_BACK:
            return "handing_back"
        return "human" if self._is_human or self._commands.drive.taken else "policy"

    def _work(self) -> None:
        """Answer and publish while the loop is busy or waits."""
        while not self._ending.is_set():
            try:
                self._work_once()
            except Exception:  # such as cameras that are closed at this moment: pages must not go blind for good
                logger.exception("The console's part in the actor had a defect, and goes on.")
                self._ending.wait(_AFTER_DEFECT_S)

    def _work_once(self) -> None:
        self._process.look_after()
        wire = self._process.wire
        ready: list[Any] = []
        try:
            ready, _, _ = select.select([wire], [], [], _CONFIRM_S)
        except (OSError, ValueError):  # it was exchanged for that of a new process
            self._ending.wait(_CONFIRM_S)
        if ready:
            self._receive()
            if wire.is_closed:
                self._commands.take({"kind": "driver"})
                self._ending.wait(_CONFIRM_S)
        now = time.monotonic()
        if (stop := self._simulated_stop) is not None:
            stop.confirm()
        if now - self._latch_s > _LATCH_S:
            self._latch_s, self._latch = now, latched(self._config.robot.id)
        self._show.live(self._telemetry.environment, (self._tally.episode or {}).get("step", 0))
        if now - self._last_state_s > _IDLE_S:
            self._publish()


class _Closing:
    """A `Human` that also ends what belongs to its environment."""

    def __init__(self, person: PagePerson, let_go: Callable[[], None]) -> None:
        self._person, self._let_go = person, let_go

    def __getattr__(self, name: str) -> Any:
        return getattr(self._person, name)

    def close(self) -> None:
        self._person.close()
        self._let_go()


def _stopped(held: Latch | None, *, may_rearm: bool) -> dict[str, Any] | None:
    if held is None:
        return None
    return {"rule": held.rule, "text": held.text, "at": held.at, "may_rearm": may_rearm, "problem": ""}
