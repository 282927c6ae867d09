"""Compare a dataset with what the run wants, before it is converted, and report everything at once.

Each finding says what it would do to learning, and what to write into the configuration. Codes are rows of
the project's list of failures. Nothing here writes into the dataset.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hilserl.config.models import Role, TrainConfig
from hilserl.data import convert, normalize, recorded
from hilserl.data import dataset as dataset_module
from hilserl.data.dataset import REWARD_KEY
from hilserl.data.interfaces import JointConverter
from hilserl.data.sources import Source
from hilserl.data.validation import (
    actions,
    alignment,
    columns,
    features,
    findings,
    frame_reader,
    metadata,
    motion,
    reading,
    remedies,
    repairs,
    sound,
    state,
    tables,
    videos,
)
from hilserl.data.validation.actions import check_action, check_conversion
from hilserl.data.validation.alignment import check_alignment
from hilserl.data.validation.columns import check_done, check_reward
from hilserl.data.validation.features import check_images, check_keys, check_rate, used_videos
from hilserl.data.validation.findings import Alignment, Finding, Severity, ValidationReport
from hilserl.data.validation.metadata import check_drift, check_metadata, find_drift
from hilserl.data.validation.motion import check_motion
from hilserl.data.validation.reading import Reading, read_dataset
from hilserl.data.validation.remedies import as_offered
from hilserl.data.validation.sound import not_checked, sound_stretches, whole_episodes
from hilserl.data.validation.state import StateLayout, check_state, state_layout
from hilserl.data.validation.tables import check_episodes, check_frames
from hilserl.data.validation.videos import CheckVideos, check_videos
from hilserl.files import source_hash
from hilserl.progress import Progress, publish
from hilserl.schema import ACTION_KEY, STATE_KEY, policy_schema

__all__ = ["Finding", "ValidationReport", "validate_dataset", "validate_sources", "validation_inputs"]

_ORDER: dict[Severity, int] = {"stops": 0, "warns": 1, "informs": 2}
_PHASES = 4


def validate_dataset(
    config: TrainConfig, root: Path, *, check_videos: CheckVideos | None = None, converter: JointConverter | None = None
) -> ValidationReport:
    """Check the dataset at `root` against `config`.

    Args:
        config: The run's configuration; `dataset` says what the columns mean.
        root: Folder of the dataset.
        check_videos: How thoroughly; None: as `dataset.check_videos` says; `none` only looks whether the files exist.
        converter: The one kinematics: with it, joint-space data are checked for what the conversion loses.

    Returns:
        Everything found; call `raise_if_stopped()` to stop on it.
    """
    report = _validate(config, root, check_videos or config.dataset.check_videos, converter)
    return _sorted(report, _capacity(config, _transitions(config, report)))


def validate_sources(
    config: TrainConfig, sources: Sequence[Source], *, check_videos: CheckVideos | None = None, converter: JointConverter | None = None
) -> tuple[ValidationReport, ...]:
    """Check every dataset of a run, and all of them together.

    Args:
        config: The run's configuration.
        sources: Its datasets, from `sources_of`.
        check_videos: As in `validate_dataset`.
        converter: As in `validate_dataset`.

    Returns:
        One report for each source, in their order; what concerns all of them is in the first.
    """
    how = check_videos or config.dataset.check_videos
    alone = len(sources) == 1
    reports = [_validate(source.config, source.root, how, converter, source.role, alone=alone) for source in sources]
    shared = _capacity(config, sum(_transitions(source.config, report) for source, report in zip(sources, reports, strict=True)))
    known = [report.positives_per_episode for report in reports if report.positives_per_episode is not None]
    by_classifier = any(source.config.dataset.reward_from == "classifier" for source in sources)
    if not alone and len(known) == len(reports) and not by_classifier and not any(sum(positives.values()) for positives in known):
        message = f"no frame of {len(sources)} datasets is rewarded: the critic would learn that nothing ever pays"
        remedy = "# reward_from: success_at_end in a source that ends in success\n# or: dataset: {reward_from: none}  # to train without"
        if any(source.config.dataset.reward_from != "none" for source in sources):
            shared.append(Finding("D02", "stops", "dataset.sources", message, remedy))
    roots = [source.root.resolve() for source in sources]
    for position, root in enumerate(roots):
        if root in roots[:position]:
            message = f"{root.name} is listed twice: its transitions count twice, with whatever both entries say of them"
            shared.append(Finding("D10", "warns", "dataset.sources", message, "# list it once, with a higher weight"))
    return tuple(_sorted(report, shared if not position else []) for position, report in enumerate(reports))


def validation_inputs(config: TrainConfig) -> dict[str, Any]:
    """Return what decides a report besides the datasets' content: the rest of the key of a cached validation."""
    modules = (
        actions,
        alignment,
        columns,
        features,
        findings,
        frame_reader,
        metadata,
        motion,
        reading,
        remedies,
        repairs,
        sound,
        state,
        tables,
        videos,
    )
    return {
        "code": source_hash(*modules, convert, dataset_module, normalize, recorded, sys.modules[__name__]),
        "offline_buffer_capacity": config.policy.offline_buffer_capacity,
        "control_hz": config.robot.control_hz,
        "action_scale_m": config.robot.action_scale_m,
        "episode_steps": config.episode_steps,
        "cameras": {name: camera.model_dump(mode="json") for name, camera in config.robot.cameras.items()},
        "dataset": config.dataset.model_dump(mode="json", exclude={"repo_id", "record"}),
    }


def _validate(
    config: TrainConfig, root: Path, how: CheckVideos, converter: JointConverter | None, role: Role = "demonstration", *, alone: bool = True
) -> ValidationReport:
    _publish(0, f"reading {root.name}")
    read = read_dataset(root, config.dataset.exclude_episodes)
    if read.dataset is None:
        return ValidationReport(str(root), tuple(as_offered(config, read.findings, ())))
    dataset, drift = read.dataset, find_drift(config, read.dataset)
    known = {episode.index for episode in read.table}
    found = [*read.findings, *check_rate(config, dataset), *check_images(config, dataset), *check_drift(config, drift)]
    found += check_keys(config, dataset, read.frames.columns)
    _publish(1, "checking every row")
    broken, _ = check_frames(read)
    found += check_episodes(read) + check_metadata(read)
    _publish(2, "comparing state, action and reward")
    told, positives, curve = _meaning(config, read, converter, role, alone=alone)
    _publish(3, "opening the videos")
    found += told + broken + check_videos(dataset, read.episodes, used_videos(config, dataset), how)
    _publish(_PHASES, "")
    count = len(read.episodes), len(read.frames)
    offered = as_offered(config, found, known)
    return ValidationReport(str(root), tuple(offered), *count, dataset.fps, positives, curve, drift)


def _meaning(
    config: TrainConfig, read: Reading, converter: JointConverter | None, role: Role, *, alone: bool
) -> tuple[list[Finding], dict[int, int] | None, Alignment | None]:
    """Interpret the columns, each check on the rows that are sound for it; say what could not be checked."""
    found, layout = _state(config, read)
    told, curve = _action(config, read, layout, converter)
    found += told
    # Rewards and ends need whole episodes: a success stands in the last row.
    episodes = whole_episodes(read, [REWARD_KEY])
    found += not_checked(read, episodes, "D02", f"`{REWARD_KEY}`", "rewards and ends of episodes")
    if episodes is None:
        return found, None, curve
    told, positives = check_reward(config, episodes, role, alone=alone)
    return [*found, *told, *check_done(config, episodes)], positives, curve


def _state(config: TrainConfig, read: Reading) -> tuple[list[Finding], StateLayout | None]:
    """Find out what the numbers of the state are, and check them."""
    if not _recorded(read, STATE_KEY) and len(read.frames):
        return [], None  # Told as D01.
    rows = sound_stretches(read, [STATE_KEY])
    found = not_checked(read, rows, "D04", f"`{STATE_KEY}`", "names, units and range of the state")
    if rows is None:
        return found, None
    layout, problems = state_layout(config, rows)
    return [*found, *problems, *(check_state(config, rows, layout) if layout else ())], layout


def _action(
    config: TrainConfig, read: Reading, layout: StateLayout | None, converter: JointConverter | None
) -> tuple[list[Finding], Alignment | None]:
    """Check the actions, and whether they belong to the motion that was measured."""
    place = f"`{ACTION_KEY}`"
    if not _recorded(read, ACTION_KEY):
        reason = "no row of data/ could be read" if not len(read.frames) else f"data/ has no `{ACTION_KEY}`"
        return [Finding("D09", "informs", place, f"actions and motion are not checked, because {reason}")], None
    keys = [ACTION_KEY] if layout is None else [STATE_KEY, ACTION_KEY]
    rows = sound_stretches(read, keys)
    found = not_checked(read, rows, "D06", place, "actions")
    if rows is None:
        return found, None
    problems, known = check_action(config, rows, layout, converter)
    found += problems
    if not known:
        message = (
            "whether actions and frames are paired, and how the arm moved, is not checked, because the actions cannot be read as they are"
        )
        return [*found, Finding("D09", "informs", place, message)], None
    problems, curve = check_alignment(config, rows, layout, converter)
    found += problems
    if config.dataset.action_from == "joints":
        in_step = all(problem.severity == "informs" for problem in problems)
        found += check_conversion(config, rows, layout, converter, in_step=in_step)
    if layout is not None:
        episodes = whole_episodes(read, keys)
        found += not_checked(read, episodes, "D19", "data/", "idle ends, jumps and gripper labels")
        found += check_motion(config, episodes, layout) if episodes is not None else []
    return found, curve


def _recorded(read: Reading, key: str) -> bool:
    return read.dataset is not None and key in read.frames.columns and key in read.dataset.features


def _transitions(config: TrainConfig, report: ValidationReport) -> int:
    """Return the transitions that the dataset becomes; fewer than its frames where a faster recording is brought to our rate."""
    if config.dataset.frame_rate == "convert" and report.fps > config.robot.control_hz:
        return int(np.ceil(report.frames * config.robot.control_hz / report.fps))
    return report.frames


def _capacity(config: TrainConfig, transitions: int) -> list[Finding]:
    """D10: the offline buffer can hold the data; known before anything is decoded."""
    capacity = config.policy.offline_buffer_capacity
    if transitions <= capacity:
        return []
    schema = policy_schema(config)
    row_bytes = sum(int(np.prod(f.shape)) * np.dtype(f.dtype).itemsize for f in (*schema.observation.values(), schema.action))
    message = (
        f"the dataset has {transitions} transitions = {transitions * row_bytes / 1e9:.2f} GB, the offline buffer holds {capacity} = "
        f"{capacity * row_bytes / 1e9:.2f} GB: demonstrations would be thrown away"
    )
    remedy = f"policy: {{offline_buffer_capacity: {2 * transitions}}}  # demonstrations, and room for as many intervention steps"
    return [Finding("D10", "stops", "policy.offline_buffer_capacity", message, remedy)]


def _sorted(report: ValidationReport, more: Sequence[Finding]) -> ValidationReport:
    return replace(report, findings=tuple(sorted((*report.findings, *more), key=lambda finding: _ORDER[finding.severity])))


def _publish(done: int, message: str) -> None:
    publish(Progress("validate-dataset", done, _PHASES, "phases", message))
