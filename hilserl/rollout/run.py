"""Drive an arm with a finished policy: its lease, its clock, who may take over, and what becomes of every episode."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hilserl.actor.lease import robot_lease
from hilserl.actor.pace import Pace
from hilserl.actor.priority import RealtimePriority
from hilserl.config.models import TrainConfig
from hilserl.environments.make import make_environment
from hilserl.errors import RobotError
from hilserl.evaluation.film import Film
from hilserl.evaluation.play import BrokenOff, play_episode
from hilserl.evaluation.result import Episode, EvaluationResult
from hilserl.evaluation.run import can_render, evaluate_policy, load_fitting
from hilserl.evaluation.starts import Start
from hilserl.rollout.attended import Attended
from hilserl.rollout.keys import KeysOnly
from hilserl.teleop.make import make_human
from hilserl.teleop.operator import NoOperator, Operator

logger = logging.getLogger(__name__)

_FIRST_SEED = 2_000_000  # of starts when it works; no evaluation's and no training's


@dataclass(frozen=True)
class Worked:
    """What a policy did at work.

    Attributes:
        episodes: In order.
        help_steps: Steps in which a person acted.
        video: File; None: none was made.
    """

    episodes: tuple[Episode, ...]
    help_steps: int
    video: Path | None = None


def run_policy(
    config: TrainConfig,
    policy_folder: Path,
    *,
    episodes: int | None = None,
    operator: Operator | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    show: Callable[[Episode], None] = lambda episode: None,
    say: Callable[[str], None] = logger.info,
    video: Path | None = None,
) -> Worked:
    """Let a policy do its task, again and again, until it is stopped. A person may take over at any time.

    Args:
        config: Of the arm; its schema must be the policy's.
        policy_folder: Written by `Policy.save`.
        episodes: How many; None: until `should_stop`.
        operator: Watches and commands; None: nobody.
        should_stop: Asked every step; the arm then ends its motion.
        show: Called with every episode that came to its end.
        say: Tells a person what comes.
        video: File for a video, side by side.

    Raises:
        CheckpointError: The policy is unreadable, or does not fit.
        RobotError: The arm is driven by somebody else, or may not be used.
    """
    torch.set_num_threads(1)
    policy = load_fitting(config, policy_folder)
    operator = operator or NoOperator()
    played: list[Episode] = []
    film: Film | None = None
    helped = 0
    reason: str | None = None

    def is_done() -> bool:
        return should_stop() or reason is not None or (episodes is not None and len(played) >= episodes)

    with _leased(config):
        while not is_done():
            drawing = video is not None and can_render(config)
            with _driven(config, operator, helps=True, should_stop=should_stop, say=say, draws=drawing) as (environment, attendant):
                if film is None and video is not None:
                    film = Film(video, float(environment.metadata.get("render_fps") or 30), episodes or 4)
                try:
                    while not is_done():
                        reel = film.reel() if film is not None and len(film.reels) < (episodes or 4) else None
                        try:
                            episode = play_episode(environment, policy, Start(_FIRST_SEED + len(played)), reel, attendant)
                        except BrokenOff:
                            continue  # sent home, or the end
                        played.append(episode)
                        show(episode)
                    attendant.finished(played)
                except RobotError as error:
                    if not operator.stands_by(error):
                        raise
                    say(f"{error} It waits for a person who re-arms it, on the page or with `hilserl rearm`.")
                finally:
                    helped += attendant.help_steps
            if not is_done():
                reason = operator.wait_for_rearming(lambda: "it was ended" if should_stop() else None)
        written = film.write() if film is not None else None
    return Worked(tuple(played), helped, written)


def evaluate_on_arm(
    config: TrainConfig,
    policy_folder: Path,
    *,
    video: Path | None = None,
    operator: Operator | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = logger.info,
) -> EvaluationResult:
    """Evaluate on an arm with a servo bus, real or virtual: no help, in its time, success also by a person's key.

    Args:
        config: Of the arm.
        policy_folder: Written by `Policy.save`.
        video: File for a video.
        operator: Watches and commands; None: nobody.
        should_stop: Asked every step; ends early with what was played.
        say: Tells a person what comes.

    Raises:
        CheckpointError: The policy is unreadable, or does not fit; or nothing was played.
        RobotError: The arm is driven by somebody else, or may not be used.
    """
    drawing = video is not None and can_render(config)
    with (
        _leased(config),
        _driven(config, operator or NoOperator(), helps=False, should_stop=should_stop, say=say, draws=drawing) as (environment, attendant),
    ):
        result = evaluate_policy(config, policy_folder, video=video, should_stop=should_stop, environment=environment, attendant=attendant)
        attendant.finished(result.played)
        return result


def _leased(config: TrainConfig) -> AbstractContextManager[None]:
    """Hold the robot, also while it waits for a person who re-arms it."""
    return robot_lease(config.robot.id) if config.env is None else nullcontext()


@contextmanager
def _driven(
    config: TrainConfig,
    operator: Operator,
    *,
    helps: bool,
    should_stop: Callable[[], bool],
    say: Callable[[str], None],
    draws: bool,
) -> Iterator[tuple[Any, Attended]]:
    """Connect the arm for as long as the block lasts, and whoever may take over; as the actor does in a training."""
    has_clock = config.actor.pace == "realtime"
    is_paced = has_clock or not isinstance(operator, NoOperator)  # a simulation that somebody watches, too
    with ExitStack() as stack:
        environment: Any = make_environment(config, render_mode="rgb_array" if draws else None)
        stack.callback(environment.close)
        human = operator.human(config, environment, _helper if helps else _judge)
        if human is not None:
            stack.callback(human.close)
        priority = stack.enter_context(RealtimePriority(config.actor.realtime_priority if has_clock else None))
        pace = Pace(config.robot.control_hz, on_hopeless=priority.give_back) if is_paced else None
        pause_s = config.evaluation.pause_s if config.env is None and config.robot.is_real else 0.0
        yield environment, Attended(environment, human, operator, pace, helps=helps, pause_s=pause_s, should_stop=should_stop, say=say)


def _helper(config: TrainConfig, environment: Any) -> Any:
    """Return who may take over; the simulated human is for training."""
    return None if config.actor.intervention.is_simulated else make_human(config, environment)


def _judge(config: TrainConfig, environment: Any) -> Any:
    """Return who says how an episode went; nobody helps."""
    return KeysOnly(config.robot.id) if config.env is None and config.robot.is_real else None
