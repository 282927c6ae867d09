"""The chapters of the page: each draws what it can, and says what it could not draw, and why."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup

from hilserl.data.convert import constant_actions
from hilserl.data.validation.findings import ValidationReport
from hilserl.data.validation.page_charts import Line, bars, histogram, legend, lines, plane
from hilserl.data.validation.page_material import Material, Scalar, spread_out
from hilserl.data.validation.page_pictures import Picture, first_frames
from hilserl.data.writer import LEROBOT_JOINT_NAMES
from hilserl.errors import DatasetError, HilserlError
from hilserl.progress import Progress, publish
from hilserl.schema import ACTION_KEY, STATE_KEY

log = logging.getLogger(__name__)

STAGE = "validate-dataset"
_PICTURES_S = 12.0
_MAX_HISTOGRAM_ROWS = 200_000
_MAX_SCALARS = 36
_GRIPPER_EPISODES = 3
_PATHS = 40


@dataclass(frozen=True)
class Figure:
    """One chart with its caption; `wide` ones stand alone, the others in a grid of small ones."""

    body: Markup
    caption: str
    note: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Chapter:
    """One part of the page.

    Attributes:
        title: Its heading.
        text: What to look for.
        figures: Charts.
        legend: Explains their colours.
        episodes: Photographs by episode.
        problem: Why (a part of) it is missing.
    """

    title: str
    text: str = ""
    figures: list[Figure] = field(default_factory=list)
    legend: Markup = field(default_factory=Markup)
    episodes: list[tuple[str, list[Picture]]] = field(default_factory=list)
    problem: str = ""


def chapters(material: Material, report: ValidationReport, max_pictures: int) -> Iterator[Chapter]:
    """Draw every chapter; what is too damaged to draw becomes a sentence in its place.

    Args:
        material: The dataset.
        report: What validation found in it.
        max_pictures: Most episodes to show photographs of.
    """
    drawn: tuple[tuple[str, Callable[[], Chapter]], ...] = (
        ("Pictures", lambda: _pictures(material, max_pictures)),
        ("Episodes", lambda: _episodes(material)),
        ("Actions as recorded", lambda: _actions(material)),
        ("Actions as the policy learns them", lambda: _policy_actions(material)),
        ("State as recorded", lambda: _state(material)),
        ("State as the policy sees it", lambda: _policy_state(material)),
        ("Where the tool went", lambda: _workspace(material)),
        ("Gripper", lambda: _gripper(material)),
        ("Do actions and motion belong together?", lambda: _alignment(report)),
    )
    for number, (title, draw) in enumerate(drawn):
        publish(Progress(STAGE, done=number, total=len(drawn), unit="pictures", message=f"drawing: {title.lower()}"))
        try:
            chapter = draw()
        except HilserlError as error:
            chapter = Chapter(title, problem=str(error))
        except Exception as error:  # whatever a damaged dataset provokes: the page shows the rest, and the findings say what is wrong
            log.debug("The chapter %r could not be drawn", title, exc_info=True)
            chapter = Chapter(title, problem=f"{type(error).__name__}: {error}")
        if chapter.figures or chapter.episodes or chapter.problem:
            yield chapter


def _pictures(material: Material, count: int) -> Chapter:
    dataset, started, shown = material.dataset, time.monotonic(), []
    if not dataset.camera_keys:
        return Chapter("Pictures", problem="the dataset has no camera")
    chosen = spread_out(material.episodes, count)
    for position, episode in enumerate(chosen):
        if time.monotonic() - started > _PICTURES_S:
            break
        publish(Progress(STAGE, done=position, total=len(chosen), unit="pictures", message="drawing: first frames"))
        shown.append((f"Episode {episode.index}", first_frames(material.config, dataset, episode)))
    text = (
        "The first frame of episodes, as the camera recorded it and as the policy sees it, cut to the dashed rectangle. "
        "Can you tell from the small picture alone what the arm has to do?"
    )
    late = "" if len(shown) == len(chosen) else f"decoding is slow here: {len(shown)} of {len(chosen)} episodes are shown"
    return Chapter("Pictures", f"{text} {len(shown)} of {len(material.episodes)} episodes.", episodes=shown, problem=late)


def _episodes(material: Material) -> Chapter:
    try:
        reward, problem = material.reward, ""
    except HilserlError as error:
        reward, problem = None, str(error)
    episodes, fps = material.episodes, material.dataset.fps
    success = [reward is not None and bool((reward[e.start : e.stop] > 0).any()) for e in episodes]
    body, together = bars([e.length / fps for e in episodes], success, "episode", "length [s]")
    note = f"each bar is the mean of {together} episodes" if together > 1 else ""
    key = legend([("good", "rewarded"), ("miss", "not rewarded" if reward is not None else "reward unknown")])
    figures = [Figure(body, "Length of each episode", note, wide=True)]
    if reward is not None:
        total = [float(reward[e.start : e.stop].sum()) for e in episodes]
        if set(total) - {0.0, 1.0}:  # else the colours above say all
            figures.append(Figure(bars(total, success, "episode", "sum of rewards")[0], "Reward of each episode", note, wide=True))
        text = f"{sum(success)} of {len(success)} episodes are rewarded; {int((reward > 0).sum())} rewarded frames in all."
    else:
        text = "Which episodes succeeded is not known."
    return Chapter("Episodes", text, figures, key, problem=problem)


def _actions(material: Material) -> Chapter:
    values, scalars = material.column(ACTION_KEY), material.scalars(ACTION_KEY)
    return Chapter("Actions as recorded", "A dimension with a single bar teaches nothing.", _histograms(values, scalars))


def _policy_actions(material: Material) -> Chapter:
    title = "Actions as the policy learns them"
    if _same(material, ACTION_KEY):
        return Chapter(title)
    steps = material.steps
    text = f"After conversion, clipped to [-1, 1]: {steps.clipped_steps} of {len(steps.action)} steps were clipped."
    if steps.residual_m is not None:
        residual = 1000 * steps.residual_m
        text += f" Replayed, they miss the recorded tool position by {residual.mean():.2f} mm (mean), {residual.max():.2f} mm (most)."
    text += _only(material)
    chapter = Chapter(title, text, _histograms(steps.action.astype(np.float64), material.policy_action_scalars()))
    constant = constant_actions(steps.action, material.config.action_names)
    return chapter if constant is None else Chapter(title, text, chapter.figures, problem=constant)


def _state(material: Material) -> Chapter:
    values, scalars = material.column(STATE_KEY), material.scalars(STATE_KEY)
    text = "The scale below each shows which part of the allowed range is used. A red one is most likely in another unit."
    return Chapter("State as recorded", text, _histograms(values, scalars))


def _policy_state(material: Material) -> Chapter:
    title = "State as the policy sees it"
    if STATE_KEY in material.dataset.features and _same(material, STATE_KEY):
        return Chapter(title)
    steps = material.steps
    text = f"Computed from the recorded joints.{_only(material)}"
    return Chapter(title, text, _histograms(steps.state.astype(np.float64), material.policy_state_scalars()))


def _workspace(material: Material) -> Chapter:
    paths, robot = material.tool_paths(), material.config.robot
    shown = paths[:: -(-len(paths) // _PATHS)]
    everything = np.concatenate(paths)
    everything = everything[np.isfinite(everything).all(axis=1)]
    if not len(everything):
        raise DatasetError("no tool position is finite")
    outside = (everything < robot.workspace_min_m).any(axis=1) | (everything > robot.workspace_max_m).any(axis=1)
    low, high = everything.min(axis=0), everything.max(axis=0)
    ranges = ", ".join(f"{axis} {a:.3f} to {b:.3f}" for axis, a, b in zip("xyz", low, high, strict=True))
    text = f"Paths of the tool in {len(shown)} episodes against the configured workspace [m]. Used: {ranges}. "
    text += f"{int(outside.sum())} of {len(everything)} positions are outside the bounds" + (
        ": the policy could not go there." if outside.any() else "."
    )
    views = (("From above", 0, 1), ("From the side", 0, 2))
    figures = []
    for caption, a, b in views:
        bounds = (
            (robot.workspace_min_m[a], robot.workspace_min_m[b]),
            (robot.workspace_max_m[a], robot.workspace_max_m[b]),
        )
        reset = (robot.reset_ee_pos_m[a], robot.reset_ee_pos_m[b])
        body = plane([path[:, [a, b]] for path in shown], bounds, reset, (f"{'xyz'[a]} [m]", f"{'xyz'[b]} [m]"))
        figures.append(Figure(body, caption, wide=True))
    key = legend([("s0", "path"), ("s1", "start"), ("s2", "end"), ("bounds", "workspace"), ("reset", "reset position")])
    return Chapter("Where the tool went", text, figures, key)


def _gripper(material: Material) -> Chapter:
    commands, measured = material.scalars(ACTION_KEY), material.scalars(STATE_KEY)
    command = next((i for i, scalar in enumerate(commands) if scalar.name in ("gripper", LEROBOT_JOINT_NAMES[-1])), None)
    position = next((i for i, scalar in enumerate(measured) if scalar.name in ("joint_pos.gripper", LEROBOT_JOINT_NAMES[-1])), None)
    if command is None:
        return Chapter("Gripper", problem=f"the actions {[scalar.name for scalar in commands]} have no gripper")
    action, state, fps = material.column(ACTION_KEY), material.column(STATE_KEY), material.dataset.fps
    figures = []
    for episode in spread_out(material.episodes, _GRIPPER_EPISODES):
        seconds = np.arange(episode.stop - episode.start) / fps
        told = Line("commanded", seconds, action[episode.start : episode.stop, command], 1, steps=True)
        if position is None:
            figures.append(Figure(lines([told], "time [s]", commands[command].unit), f"Episode {episode.index}", wide=True))
            continue
        seen = Line("measured", seconds, state[episode.start : episode.stop, position], 0)
        if commands[command].unit == measured[position].unit:  # positions both: one chart shows the lag
            body = lines([told, seen], "time [s]", measured[position].unit)
        else:
            body = lines([seen], "time [s]", f"measured [{measured[position].unit}]", height=150.0)
            body += lines([told], "time [s]", "commanded", height=130.0)
        figures.append(Figure(body, f"Episode {episode.index}", wide=True))
    key = legend([("s1", f"commanded ({commands[command].unit})"), ("s0", "measured")] if position is not None else [("s1", "commanded")])
    text = "The command is what the policy learns: it must close before the gripper closes, and open again."
    missing = "" if position is not None else "the gripper's measured position is not in the state"
    return Chapter("Gripper", text, figures, key, problem=missing)


def _alignment(report: ValidationReport) -> Chapter:
    title, alignment = "Do actions and motion belong together?", report.alignment
    if alignment is None:
        return Chapter(title, problem="this dataset holds no measured motion that could be compared with the commanded one")
    lags, correlation = np.asarray(alignment.lags, float), np.asarray(alignment.correlation, float)
    body = lines([Line("correlation", lags, correlation)], "motion behind the command [frames]", "correlation", marks=[0.0], whole=True)
    best = alignment.best_lag
    verdict = "as it must be." if best == 0 else "which the findings judge: a joint target may lead its motion by the servo's latency."
    if best < 0:
        verdict = "so the motion comes before its command: actions are paired with the wrong observations."
    text = f"How well the command explains the measured motion, shifted in time. It does so best at {best} frames, {verdict}"
    return Chapter(title, text, [Figure(body, "Replay alignment", wide=True)])


def _histograms(values: np.ndarray, scalars: list[Scalar]) -> list[Figure]:
    figures = []
    every = -(-len(values) // _MAX_HISTOGRAM_ROWS) or 1
    for index, scalar in enumerate(scalars[:_MAX_SCALARS]):
        column = values[::every, index]
        finite = column[np.isfinite(column)]
        if not len(finite):
            figures.append(Figure(Markup(), scalar.name, "no finite value"))
            continue
        lost = len(column) - len(finite)
        spread = f"{finite.min():.4g} to {finite.max():.4g}" if np.ptp(finite) else f"always {finite[0]:.4g}"
        note = spread + (f"; {lost} not finite" if lost else "")
        figures.append(Figure(histogram(finite, scalar.name, scalar.unit, scalar.limits), scalar.name, note))
    return figures


def _same(material: Material, key: str) -> bool:
    """Whether what was recorded is what the policy gets, so that one chapter says all."""
    chosen: Any = material.config.dataset
    if key == STATE_KEY:
        return material.is_policy_state and chosen.frame_rate == "same"
    return chosen.action_from == "column" and chosen.gripper == "continuous" and chosen.frame_rate == "same" and not chosen.action_scale_m


def _only(material: Material) -> str:
    count = len(material.spread)
    return "" if count == len(material.episodes) else f" Drawn from {count} of {len(material.episodes)} episodes."
