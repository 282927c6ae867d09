"""What must be converted for a run, decided by content before anything is decoded."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hilserl.schema
from hilserl.config.models import TrainConfig
from hilserl.data import convert, dataset, decode, frame_view, preprocess, recorded, shards
from hilserl.data.convert import needs_kinematics
from hilserl.data.dataset import Dataset
from hilserl.data.fingerprint import Fingerprint, fingerprint, memo_file
from hilserl.data.interfaces import JointConverter, SuccessJudge
from hilserl.data.preprocess import Preprocessor
from hilserl.data.shards import ShardJob, group_episodes
from hilserl.data.sources import Source, sources_of
from hilserl.errors import ConfigError
from hilserl.files import canonical_json, content_hash, source_hash
from hilserl.hash_memo import HashMemo
from hilserl.schema import ACTION_KEY, IMAGE_PREFIX, STATE_KEY

FORMAT_VERSION = 2
LoadJudge = Callable[[Path], SuccessJudge]
"""Open the success classifier in a folder."""
FINGERPRINTS = ".fingerprints"
# Settings of `dataset` that decide what a step becomes; the others decide which steps there are, or nothing.
_MEANING = ("reward_from", "done_from", "action_from", "action_scale_m", "gripper", "state", "joint_unit", "frame_rate")


@dataclass(frozen=True)
class ConversionPlan:
    """The shards of one buffer.

    Attributes:
        config: The run's configuration.
        sources: Its datasets.
        episodes: Indices of the episodes taken from each of them.
        jobs: One a shard, in the buffer's order.
        inputs: Everything that decides the buffer's content, as plain JSON values.
        key: Hash of `inputs`.
    """

    config: TrainConfig
    sources: tuple[Source, ...]
    episodes: tuple[tuple[int, ...], ...]
    jobs: tuple[ShardJob, ...]
    inputs: dict[str, Any]
    key: str


def plan_conversion(
    config: TrainConfig,
    root: Path | None,
    cache_folder: Path | None,
    converter: JointConverter | None = None,
    load_judge: LoadJudge | None = None,
) -> ConversionPlan:
    """Decide which shards a run needs. Reads each dataset once; an unchanged one is known by its files' times.

    Args:
        config: The run's configuration.
        root: Folder of the dataset made for `dataset.record`; otherwise the configuration names the datasets.
        cache_folder: Where fingerprints are remembered; None: nowhere.
        converter: Kinematics; needed for datasets recorded in joint space.
        load_judge: Opens success classifiers; needed for `reward_from: classifier`.

    Raises:
        DatasetError: A dataset's tables cannot be read.
        ConfigError: `dataset.exclude_episodes` names an episode that does not exist.
    """
    sources = sources_of(config, root)
    code = source_hash(convert, dataset, decode, frame_view, preprocess, recorded, shards, hilserl.schema)
    preprocessor = Preprocessor.from_config(config).to_dict()
    jobs: list[ShardJob] = []
    episodes, contents, conversions, kinematics = [], [], [], None
    for number, source in enumerate(sources):
        data = Dataset.open(source.root)
        print_ = fingerprint(data, HashMemo(memo_file(cache_folder / FINGERPRINTS, source.root) if cache_folder else None))
        taken = _taken(source, data)
        meaning = {name: getattr(source.config.dataset, name) for name in _MEANING} | {"role": source.role}
        judge = _judge(source, load_judge)
        uses = converter if converter and needs_kinematics(source.config, data) else None
        kinematics = uses.version if uses else kinematics
        shared = {
            "format_version": FORMAT_VERSION,
            "code": code,
            "preprocessor": preprocessor,
            "conversion": meaning,
            "kinematics": uses.version if uses else None,
            "judge": judge.version if judge else None,
            "steps": [config.robot.control_hz, config.robot.action_scale_m, data.fps],
            "features": _features(data, preprocessor["views"]),
        }
        jobs += _jobs(source, number, data, print_, taken, shared, uses, judge)
        episodes.append(tuple(data.episodes[position].index for position in taken))
        contents.append({"content": print_.content, "episodes": content_hash([print_.episodes[position] for position in taken])})
        conversions.append(meaning | {"weight": source.weight, "judge": judge.version if judge else None})
    inputs = {
        "format_version": FORMAT_VERSION,
        "code": code,
        "datasets": contents,
        "preprocessor": preprocessor,
        "conversion": conversions[0] if len(conversions) == 1 else {str(number): value for number, value in enumerate(conversions)},
        "robot": {"control_hz": config.robot.control_hz, "action_scale_m": config.robot.action_scale_m},
        "allow_constant": list(config.observation.allow_constant),
        "kinematics": kinematics,
    }
    inputs = json.loads(canonical_json(inputs))  # lists for tuples, as a manifest on disk has them
    return ConversionPlan(config, sources, tuple(episodes), tuple(jobs), inputs, content_hash(inputs))


def _judge(source: Source, load: LoadJudge | None) -> SuccessJudge | None:
    if source.config.dataset.reward_from != "classifier":
        return None
    folder = source.config.dataset.classifier
    if folder is None or load is None:
        raise ConfigError("dataset.reward_from is `classifier`: set `dataset.classifier` to the folder of a success classifier")
    return load(folder)


def _taken(source: Source, data: Dataset) -> list[int]:
    """Return the places of the episodes that are not excluded."""
    excluded = set(source.config.dataset.exclude_episodes)
    unknown = sorted(excluded - {episode.index for episode in data.episodes})
    if unknown:
        raise ConfigError(
            f"dataset.exclude_episodes: {source.root} has no episode {unknown[0]}; "
            f"it has {len(data.episodes)}, 0 to {len(data.episodes) - 1}"
        )
    return [position for position, episode in enumerate(data.episodes) if episode.index not in excluded]


def _features(data: Dataset, views: dict[str, Any]) -> dict[str, Any]:
    keys = [STATE_KEY, ACTION_KEY, *(IMAGE_PREFIX + camera for camera in views)]
    return {key: {name: data.features[key].get(name) for name in ("dtype", "shape", "names")} for key in keys if key in data.features}


def _jobs(
    source: Source,
    number: int,
    data: Dataset,
    print_: Fingerprint,
    taken: Sequence[int],
    shared: dict[str, Any],
    converter: JointConverter | None,
    judge: SuccessJudge | None,
) -> list[ShardJob]:
    lengths, hashes = [data.episodes[position].length for position in taken], [print_.episodes[position] for position in taken]
    jobs = []
    for group in group_episodes(lengths, hashes):
        key = content_hash([shared, [hashes[place] for place in group]])
        positions = tuple(taken[place] for place in group)
        frames = sum(lengths[place] for place in group)
        jobs.append(ShardJob(key, source.config, source.root, positions, frames, source.role, number, converter, judge))
    return jobs
