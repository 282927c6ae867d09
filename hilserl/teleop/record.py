"""Record demonstrations by hand: a person moves the arm, and what was executed goes straight into a dataset, in the policy's space."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hilserl.config.models import TrainConfig
from hilserl.data.preprocess import Preprocessor
from hilserl.data.writer import EpisodeWriter, policy_features
from hilserl.teleop.events import Outcome, TeleopEvent, how_it_ended, judge
from hilserl.teleop.operator import Moment, NoOperator, Operator, Wish
from hilserl.teleop.recording_folder import RecordingFolder

Observation = dict[str, NDArray[Any]]

_WAIT_S = 0.05


class Environment(Protocol):
    """What recording needs of an environment."""

    def reset(self, *, seed: int | None = None) -> tuple[Observation, dict[str, Any]]:
        """Start an episode."""

    def observe(self) -> Observation:
        """Look again, without moving."""

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Do one control step."""


class Demonstrator(Protocol):
    """Who moves the arm."""

    def reset(self) -> None:
        """An episode starts."""

    def intervene(self) -> NDArray[np.float32] | None:
        """Return the action, None while hands are off."""

    def events(self) -> frozenset[TeleopEvent]:
        """Return what was said since the last call."""

    def observe_outcome(self, success: bool) -> None:
        """An episode ended."""


@dataclass(frozen=True)
class Recorded:
    """What a session brought.

    Attributes:
        saved: Episodes that are kept.
        failed: Episodes without success, not kept unless asked for.
        discarded: Episodes that the person did not want.
    """

    saved: int = 0
    failed: int = 0
    discarded: int = 0


class Recorder:
    """Records episodes one after another.

    An episode begins with the person's first motion, so that nobody has to trim what came before (FAILURES D19), and ends with
    success, failure or the time limit. Only successes are kept, unless asked for otherwise.

    Attributes:
        recorded: What the session brought so far, also where it was broken off by an error.
    """

    def __init__(
        self,
        config: TrainConfig,
        environment: Environment,
        demonstrator: Demonstrator,
        folder: RecordingFolder,
        *,
        keep_failures: bool = False,
        paced: bool = True,
        say: Callable[[str], None] = lambda text: None,
        should_stop: Callable[[], bool] = lambda: False,
        operator: Operator | None = None,
        recorded: Recorded | None = None,
    ) -> None:
        """Prepare.

        Args:
            config: The run's configuration.
            environment: The arm.
            demonstrator: The person.
            folder: Where episodes gather.
            keep_failures: Episodes without success are kept as well.
            paced: Keep the control period; False: as fast as it can, where nobody waits.
            say: Tells the person what comes next.
            should_stop: Asked every step.
            operator: Whoever watches and commands from outside; None: nobody.
            recorded: What the session brought before, with an arm that was stopped meanwhile.
        """
        self._config, self._environment, self._person, self._folder = config, environment, demonstrator, folder
        self._keep_failures, self._say, self._should_stop = keep_failures, say, should_stop
        self._period_s = 1.0 / config.robot.control_hz if paced else 0.0
        self._features = policy_features(config)
        self._hold = np.zeros(len(config.action_names), np.float32)
        self._attempts = 0
        self._operator: Operator = operator or NoOperator()
        self._preprocessor = None if operator is None or config.env is not None else Preprocessor.from_config(config)
        self.recorded = recorded or Recorded()

    def record(self, episodes: int) -> Recorded:
        """Record until so many more episodes are kept, or `should_stop` says so."""
        while self.recorded.saved < episodes and not self._should_stop():
            done = self.recorded
            self._operator.told(wanted=episodes, **vars(done))
            if (wish := self._operator.wish()) in (Wish.HOLD, Wish.PAUSE):
                self._operator.wait(_WAIT_S)
                continue
            self._tell("The arm goes to its start.")
            if wish is Wish.HOME:
                self._go_home()
                continue
            outcome = self._play(f"Episode {done.saved + 1} of {episodes}: go. It is recorded from your first motion on.")
            if outcome is None:
                continue
            self._person.observe_outcome(outcome.success)
            if outcome.discarded:
                self.recorded = replace(done, discarded=done.discarded + 1)
                self._tell("Forgotten.")
            elif outcome.success or self._keep_failures:
                self.recorded = replace(done, saved=done.saved + 1)
                self._tell(f"Kept ({'success' if outcome.success else 'no success'}); {self._folder.episodes} episodes are safe.")
            else:
                self.recorded = replace(done, failed=done.failed + 1)
                limit_s = self._config.task.control_time_s
                self._tell(f"Not kept: called a failure, or no success within {limit_s:g} s (`task.control_time_s`).")
        done = self.recorded
        self._operator.told(wanted=episodes, **vars(done), ended=f"{done.saved} of {episodes} demonstrations are saved")
        return done

    def _play(self, begin: str) -> Outcome | None:
        """Record one episode, which begins with these words; None: stopped, or broken off by the operator."""
        number = self._attempts
        self._operator.resetting(number)
        observation, info = self._environment.reset(seed=_seed(self._config.seed, self._folder.episodes, self._attempts))
        self._attempts += 1
        self._person.reset()
        path = self._folder.next_episode()
        writer = EpisodeWriter(path, self._config.dataset.repo_id, self._features, self._config.robot.control_hz)
        how, steps, total, outcome = "cut", 0, 0.0, None
        try:
            self._operator.began(Moment(number, 0, observation, info))
            self._tell(begin)
            action = self._first_motion()
            observation = self._environment.observe()
            next_s = time.monotonic()
            while outcome is None or not (outcome.terminated or outcome.truncated):
                if action is None or self._should_stop() or not self._may_go_on():
                    writer.discard()
                    return None
                following, reward, terminated, truncated, info = self._environment.step(action)
                outcome = judge(self._person.events(), float(reward), terminated, truncated, bool(info["is_success"]))
                writer.add_frame(observation, info["executed_action"], outcome.reward, task=self._config.task.sentence)
                steps, total = steps + 1, total + outcome.reward
                if self._preprocessor is not None:
                    seen = self._preprocessor(observation)
                    place = (number, steps)
                    self._operator.saw(Moment.after(place, following, info, outcome, total, seen=seen, is_intervention=True))
                observation = following
                next_s = self._wait(next_s)
                wanted = self._person.intervene()
                action = self._hold if wanted is None else wanted
            if outcome.discarded or not (outcome.success or self._keep_failures):
                writer.discard()
            else:
                writer.save_episode()
                writer.finalize()
            how = how_it_ended(outcome)
        except BaseException:
            writer.discard()
            raise
        finally:
            self._operator.ended(how, outcome is not None and outcome.success, total)
        return outcome

    def _first_motion(self) -> NDArray[np.float32] | None:
        """Wait until the person moves the arm; None: stopped meanwhile, or sent home."""
        next_s = time.monotonic()
        while not self._should_stop() and self._may_go_on():
            if (action := self._person.intervene()) is not None:
                self._person.events()  # what was said before belongs to no episode
                return action
            self._operator.rests()
            next_s = self._wait(next_s)
        return None

    def _may_go_on(self) -> bool:
        """Stand still while the operator wants that; False: the episode is broken off."""
        while (wish := self._operator.wish()) is Wish.HOLD:
            if self._should_stop():
                return False
            self._operator.wait(_WAIT_S)
        return wish is not Wish.HOME

    def _go_home(self) -> None:
        self._operator.resetting(self._attempts)
        observation, info = self._environment.reset(seed=_seed(self._config.seed, self._folder.episodes, self._attempts))
        self._operator.arrived(Moment(self._attempts, 0, observation, info))

    def _tell(self, text: str) -> None:
        self._say(text)
        self._operator.told(text=text)

    def _wait(self, next_s: float) -> float:
        """Wait for the next step; return when the one after it is due."""
        if not self._period_s:
            return 0.0
        time.sleep(max(next_s + self._period_s - time.monotonic(), 0.0))
        return time.monotonic()


def _seed(seed: int, episodes: int, attempt: int) -> int:
    """Give every episode its own start."""
    return int(np.random.SeedSequence([seed, 7, episodes, attempt]).generate_state(1)[0])
