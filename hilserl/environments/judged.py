"""Who says success: a classifier or a person, in the place of the simulator, by one wrapper for actor and evaluation."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from hilserl.config.environment import ImageConfig
from hilserl.config.models import TrainConfig
from hilserl.environments.named_classifier import check_classifier, say_who_judges, state_names
from hilserl.errors import CheckpointError, ConfigError, SimulationError
from hilserl.files import home
from hilserl.reward.classifier import SuccessClassifier
from hilserl.reward.debounce import Debouncer
from hilserl.reward.disagreements import Disagreements
from hilserl.schema import IMAGE_PREFIX, STATE_KEY
from hilserl.sim.privileged import succeeds

logger = logging.getLogger(__name__)

Observation = dict[str, NDArray[Any]]

_NEVER = 10**9


class Judge(Protocol):
    """Says whether the task is done."""

    name: str

    def begin(self) -> None:
        """An episode begins."""

    def see(self, observation: Observation) -> tuple[bool, dict[str, Any]]:
        """Look at what is now: whether the task is done, and what belongs into `info`."""


class PersonJudge:
    """Nobody but the person knows: the actor takes success and failure from the keys that they press."""

    name = "human"

    def begin(self) -> None:
        """Leave the scene to the person."""

    def see(self, observation: Observation) -> tuple[bool, dict[str, Any]]:
        """Say nothing."""
        return False, {}


class ClassifierJudge:
    """A success classifier looks at every frame, exactly as it judged the demonstrations."""

    name = "classifier"

    def __init__(self, classifier: SuccessClassifier, config: TrainConfig) -> None:
        self.classifier = classifier
        self.version = classifier.version if classifier.folder is not None else "unsaved"
        self._state = [state_names(config).index(name) for name in classifier.state]
        self.begin()

    def begin(self) -> None:
        """Forget the last episode."""
        self._debouncer = Debouncer(self.classifier.hold_frames)
        self.probability = 0.0
        self.state: dict[str, float] = {}

    def see(self, observation: Observation) -> tuple[bool, dict[str, Any]]:
        """Judge the newest frames."""
        frames = {camera: observation[IMAGE_PREFIX + camera][None] for camera in self.classifier.cameras}
        if self._state:
            frames[STATE_KEY] = observation[STATE_KEY][None, self._state]
            self.state = dict(zip(self.classifier.state, frames[STATE_KEY][0].tolist(), strict=True))
        self.probability = float(self.classifier.probabilities(frames)[0])
        done = self._debouncer.see(self.probability >= self.classifier.threshold)
        return done, {
            "success_probability": self.probability,
            "success_threshold": self.classifier.threshold,
            "success_classifier": self.version,
        }


@dataclass
class Tally:
    """How often the judge was right about an episode, where a simulation knows.

    Attributes:
        episodes: That were judged to their end.
        rewarded: That were called a success.
        wrongly_rewarded: Of these, those that the simulation would not have called one.
        missed: That the simulation would have called a success, and the judge did not.
    """

    episodes: int = 0
    rewarded: int = 0
    wrongly_rewarded: int = 0
    missed: int = 0


class JudgedEnvironment(gymnasium.Wrapper[Observation, NDArray[np.float32], Observation, NDArray[np.float32]]):
    """An SO-101 whose successes somebody else than the simulator calls: they pay 1, once, and end the episode.

    Every step's `info` holds `is_success` and `judged_by`; with a classifier `success_probability`, `success_threshold` and
    `success_classifier` (its version); and where the simulation knows, `true_success`: it would have called this episode a success
    by now. Attributes of the environment inside are this one's too. `tally` counts, where the simulation knows.
    """

    def __init__(self, environment: Any, config: TrainConfig, judge: Judge, disagreements: Disagreements | None = None) -> None:
        """Wrap an environment that `unjudged(config)` was made into, which never ends an episode by itself but when time is up."""
        super().__init__(environment)
        self.judge, self.disagreements, self.tally = judge, disagreements, Tally()
        self._config, self._running = config, False
        self._held, self._truth, self._episode, self._step = 0, False, -1, 0
        self._seen: Observation = {}

    def __getattr__(self, name: str) -> Any:
        """Return what the environment inside has: the scripted expert and the simulated human look into it."""
        if name == "env":
            raise AttributeError(name)
        return getattr(self.env, name)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Start an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        self.judge.begin()
        self._held, self._truth, self._step = 0, False, 0
        self._episode += 1
        self._running, self._seen = True, observation
        return observation, {**info, "is_success": False, "judged_by": self.judge.name}

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Execute one action for one control period, and judge what it led to.

        Raises:
            SimulationError: The episode has ended.
        """
        if not self._running:
            raise SimulationError("step() was called after the end of the episode. Call reset() first.")
        observation, _, _, truncated, info = self.env.step(action)
        self._step += 1
        self._seen = observation
        done, said = self.judge.see(observation)
        self._running = not (done or truncated)
        info = {**info, **said, "is_success": done, "judged_by": self.judge.name}
        info.pop("true_success", None)
        if (truth := self._look_at_truth()) is not None:
            info["true_success"] = self._truth
            if isinstance(self.judge, ClassifierJudge) and truth != (self.judge.probability >= self.judge.classifier.threshold):
                self._keep(truth, self._episode, self._step, is_truth=True)
            if not self._running:
                self._count(done)
        return observation, float(done), done, bool(truncated and not done), info

    def _count(self, done: bool) -> None:
        self.tally.episodes += 1
        self.tally.rewarded += done
        self.tally.wrongly_rewarded += done and not self._truth
        self.tally.missed += self._truth and not done

    def contradicted(self, human_says: bool, episode: int, step: int) -> None:
        """Keep the newest frames, of which a person says something else than the classifier."""
        self._keep(human_says, episode, step, is_truth=False)

    def _keep(self, human_says: bool, episode: int, step: int, *, is_truth: bool) -> None:
        if self.disagreements is None or not isinstance(self.judge, ClassifierJudge):
            return
        classifier = self.judge.classifier
        images = {camera: self._seen[IMAGE_PREFIX + camera] for camera in classifier.cameras}
        self.disagreements.add(
            images, self.judge.probability, human_says, self._config.name, episode, step,
            threshold=classifier.threshold, classifier=self.judge.version, is_truth=is_truth,
            state=self.judge.state,
        )  # fmt: skip

    def close(self) -> None:
        """End the environment; safe to call twice."""
        try:
            super().close()
        finally:
            if self.disagreements is not None:
                self.disagreements.close()
            if self.tally.episodes:
                logger.info("Judged by the %s, beside the simulation's truth: %s", self.judge.name, self.tally)
                self.tally = Tally()

    def _look_at_truth(self) -> bool | None:
        """Return whether the task's condition holds now; None where nobody knows."""
        state = getattr(self.env, "privileged_state", None)
        if state is None:
            return None
        truth = succeeds(self._config.task, state)
        self._held = self._held + 1 if truth else 0
        self._truth |= self._held >= self._config.task.success_hold_steps
        return truth


def open_judge(config: TrainConfig) -> Judge:
    """Open the classifier that the configuration names, compared with what the environment shows; or take the person. Logs who judges.

    Raises:
        CheckpointError: The classifier is missing or damaged.
        ConfigError: It looks at something else than this environment shows, or does not know success.
        ServiceError: It is not in the registry, or that cannot be reached.
    """
    if config.success_by == "human":
        return PersonJudge()
    folder = check_classifier(config)
    assert folder is not None, "checked when the configuration was read"
    try:
        judge = ClassifierJudge(SuccessClassifier.load(folder), config)
    except CheckpointError as error:
        raise CheckpointError(f"task.success.classifier: {error}") from error
    say_who_judges(judge.classifier.training, judge.version)
    return judge


def seeing(config: TrainConfig, cameras: tuple[str, ...]) -> TrainConfig:
    """Return the configuration with these cameras among those of the environment, whatever the policy uses.

    Raises:
        ConfigError: A real camera has no path.
    """
    images = dict(config.observation.images)
    for name in cameras:
        camera = config.robot.cameras[name]
        if config.robot.is_real and camera.path is None:
            raise ConfigError(f"robot.cameras.{name}.path is missing: the success classifier looks at it. Name the device.")
        images.setdefault(name, ImageConfig(resize=(camera.height, camera.width)))
    return config.model_copy(update={"observation": config.observation.model_copy(update={"images": images})})


def unjudged(config: TrainConfig, judge: Judge) -> TrainConfig:
    """Return the configuration of the environment inside: it shows what the judge looks at, and never says success itself."""
    cameras = judge.classifier.cameras if isinstance(judge, ClassifierJudge) else ()
    task = config.task.model_copy(update={"success_hold_steps": _NEVER, "reward": "sparse"})
    return seeing(config, cameras).model_copy(update={"task": task})


def disagreements_of(config: TrainConfig, judge: Judge) -> Disagreements | None:
    """Open the store of frames on which classifier and person disagree; None where there is no classifier."""
    if not isinstance(judge, ClassifierJudge):
        return None
    return Disagreements(config.task.success.disagreements or home() / "disagreements" / config.task.type)
