"""`hilserl eval` and `hilserl run`: a finished policy, measured or at work."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from commands.progress_bar import shown_progress
from hilserl.config import load_config
from hilserl.config.models import TrackingConfig, TrainConfig
from hilserl.errors import ConfigError


def run_eval(
    policy: str,
    config: str | None,
    overrides: dict[str, Any],
    *,
    against: str | None,
    video: Path | None,
    into: Path | None,
) -> None:
    """Evaluate a policy, and compare it with another one on the same starts.

    Raises:
        HilserlError: Any of the tree, for the user to fix.
    """
    from hilserl.evaluation.paired import paired_test
    from hilserl.evaluation.source import find_policy
    from hilserl.files import write_json

    source = find_policy(policy, tracking=_tracking(config, overrides))
    settings = source.config(config, overrides)
    other = None if against is None else find_policy(against, tracking=settings.tracking)
    if into is not None:
        into.mkdir(parents=True, exist_ok=True)
        video = video or into / "episodes.mp4"
    result = _evaluate(settings, source.folder, video)
    print(f"policy: {source.shown}")
    print(
        f"{result.shown}; {result.episodes} episodes, mean {result.mean_seconds:.1f} s an episode, "
        f"mean change of the action {result.smoothness:.3f}; seeds {result.seed} to {result.seed + result.episodes - 1}, "
        f"{result.seconds:.1f} s in all"
    )
    if result.failed_seeds:
        print("failed seeds:", ", ".join(map(str, result.failed_seeds)))
    compared = None
    if other is not None:
        second = _evaluate(settings, other.folder, None)
        compared = paired_test(second.outcomes, result.outcomes)
        print(f"against: {other.shown}\n{second.shown}")
        print(f"{policy} against {against}: " + _sentence(compared))
    if result.video:
        print("video:", result.video)
    if into is not None:
        from hilserl.report.evaluation_page import write_evaluation_page

        write_json(into / "evaluation.json", result.to_dict())
        others = [] if other is None else [(other.shown, second)]
        print("page:", write_evaluation_page([(source.shown, result), *others], into / "evaluation.html"))


def run_policy_command(policy: str, config: str | None, overrides: dict[str, Any], *, episodes: int | None, video: Path | None) -> None:
    """Drive the arm with a policy until Ctrl-C, or for so many episodes.

    Raises:
        HilserlError: Any of the tree, for the user to fix.
    """
    from commands.console import console_announced
    from hilserl.console.open import console_of
    from hilserl.evaluation.source import find_policy
    from hilserl.rollout.run import run_policy

    source = find_policy(policy, tracking=_tracking(config, overrides))
    settings = source.config(config, overrides)
    print(f"policy: {source.shown}", flush=True)
    _look_at_the_arm(settings)
    say = lambda text: print(text, flush=True)  # noqa: E731
    with interrupted() as stop, console_announced(settings, say), console_of(settings, mode="run", run=policy) as operator:
        worked = run_policy(
            settings,
            source.folder,
            episodes=episodes,
            operator=operator,
            should_stop=stop.is_set,
            show=lambda episode: print(
                f"episode {episode.seed - 2_000_000 + 1}: {'success' if episode.success else 'failure'} after "
                f"{episode.steps / settings.robot.control_hz:.1f} s",
                flush=True,
            ),
            say=say,
            video=video,
        )
    done = sum(episode.success for episode in worked.episodes)
    helped = f"; a person acted in {worked.help_steps} steps" if worked.help_steps else ""
    print(f"{done} of {len(worked.episodes)} episodes succeeded{helped}. This is work, not an evaluation: `hilserl eval` measures.")
    if worked.video:
        print("video:", worked.video)


def _tracking(config: str | None, overrides: dict[str, Any]) -> TrackingConfig:
    """Say whose registry is asked: the given configuration's, else `tracking.uri` of the command line, else this folder's own."""
    if config is not None:
        return load_config(config, overrides).tracking
    return TrackingConfig(uri=overrides.get("tracking.uri"))


def _evaluate(settings: TrainConfig, folder: Path, video: Path | None) -> Any:
    if settings.env is None and not settings.robot.is_simulated:
        from hilserl.console.open import console_of
        from hilserl.rollout.run import evaluate_on_arm

        _look_at_the_arm(settings)
        with interrupted() as stop, console_of(settings, mode="run", run="evaluation") as operator:
            return evaluate_on_arm(
                settings, folder, video=video, operator=operator, should_stop=stop.is_set, say=lambda text: print(text, flush=True)
            )
    from hilserl.evaluation import evaluate_policy

    with shown_progress():
        return evaluate_policy(settings, folder, video=video)


def _look_at_the_arm(settings: TrainConfig) -> None:
    """Do the preflight of a training, with its findings on the screen."""
    if settings.env is not None or settings.robot.is_simulated:
        return
    from commands.doctor import examine_now

    examine_now(settings)


def _sentence(test: Any) -> str:
    if test is None:
        return "nothing to compare: no start is shared, or nobody knows success"
    better = "the first" if test.only_second > test.only_first else "the second"
    said = "no difference can be told" if test.p >= 0.05 else f"{better} is better"
    return (
        f"{said}: {test.pairs} same starts, {test.only_second} succeeded only by the first, {test.only_first} only by the second, "
        f"p = {test.p:.2g} (exact McNemar test)"
    )


@contextmanager
def interrupted() -> Iterator[threading.Event]:
    """Yield what is set by Ctrl-C or SIGTERM, so that the arm ends its motion in good order; a second one ends at once.

    Raises:
        ConfigError: Not in the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise ConfigError("an arm is driven from a process's main thread, which gets Ctrl-C")
    stop = threading.Event()

    def ask(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
