"""Bring a LeRobotDataset v2.1 to v3.0 with LeRobot's own converter, on links to the source: it is never written.

The converter wants a folder that it may rename, and prints a traceback when anything is odd. Here it gets a
hidden folder of links, works offline, and its result is looked through before it gets its name.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hilserl.data.dataset import CODEBASE_VERSION
from hilserl.data.editing.check import check_result
from hilserl.data.editing.compose import STAGE, new_dataset, require_new
from hilserl.data.editing.record import Edit, write_record
from hilserl.errors import DatasetError
from hilserl.files import content_hash, file_hash
from hilserl.progress import Progress, publish

OLD_VERSION = "v2.1"
_REQUIRED = ("meta/episodes.jsonl", "meta/tasks.jsonl", "meta/episodes_stats.jsonl", "data")


def upgrade_dataset(root: Path, target: Path) -> tuple[int, int]:
    """Write the dataset at `root` (v2.1) as v3.0; return its episodes and frames. Video packets are copied.

    Raises:
        DatasetError: `target` exists, `root` is of another version, incomplete or damaged.
    """
    require_new(target)
    info = _read_info(root)
    version = info.get("codebase_version")
    if version == CODEBASE_VERSION:
        raise DatasetError(f"{root}: is {CODEBASE_VERSION} already; nothing to upgrade.")
    if version != OLD_VERSION:
        raise DatasetError(
            f"{root}: codebase_version is {version!r}; LeRobot 0.6.1 converts only {OLD_VERSION}. Bring it to {OLD_VERSION} first, with "
            "LeRobot 0.3.3 (lerobot.datasets.v21.convert_dataset_v20_to_v21, for v2.0; older ones with its v2 converter)."
        )
    videos = [key for key, feature in info.get("features", {}).items() if feature.get("dtype") == "video"]
    missing = [name for name in (*_REQUIRED, *(["videos"] if videos else [])) if not (root / name).exists()]
    if missing:
        raise DatasetError(f"{root}: lacks {', '.join(missing)}, which {OLD_VERSION} has. Copy the dataset again, completely.")
    _require_every_episode(root, info, videos)
    with new_dataset(target) as folder:
        staging = folder / "source"
        staging.mkdir()
        for name in ("data", "videos"):
            if (root / name).exists():
                (staging / name).symlink_to((root / name).resolve(), target_is_directory=True)
        # The converter indexes keys that some recorders leave out.
        shutil.copytree(root / "meta", staging / "meta")
        complete = {"total_chunks": 1, "total_videos": 0, "video_path": None} | info
        (staging / "meta" / "info.json").write_text(json.dumps(complete))
        publish(Progress(STAGE, message="LeRobot's converter"))
        _convert(staging, root)
        for path in list((folder / "source").iterdir()):
            path.rename(folder / path.name)
        (folder / "source").rmdir()
        shutil.rmtree(folder / "source_old")  # links and the copied meta/
        found = check_result(folder)
        digest = content_hash({path.relative_to(root).as_posix(): file_hash(path) for path in sorted(root.rglob("*")) if path.is_file()})
        episodes = [{"source": str(root.resolve()), "episode": number} for number in range(found[0])]
        write_record(folder, Edit("upgrade", {"from": OLD_VERSION, "to": CODEBASE_VERSION}), {root.resolve(): digest}, episodes)
    return found


def _read_info(root: Path) -> dict[str, Any]:
    path = root / "meta" / "info.json"
    if not path.is_file():
        raise DatasetError(f"{root}: meta/info.json is missing; this is no LeRobotDataset.")
    try:
        info = json.loads(path.read_text())
    except ValueError as error:
        raise DatasetError(f"{path}: not readable ({error}).") from None
    if not isinstance(info, dict):
        raise DatasetError(f"{path}: must hold a JSON object.")
    return info


def _require_every_episode(root: Path, info: dict[str, Any], videos: list[str]) -> None:
    """The converter counts files and trusts their order: a missing one would shift every later episode."""
    numbers = []
    for line, text in enumerate((root / "meta" / "episodes.jsonl").read_text().splitlines(), start=1):
        if text.strip():
            try:
                numbers.append(int(json.loads(text)["episode_index"]))
            except (ValueError, KeyError, TypeError) as error:
                raise DatasetError(f"{root}/meta/episodes.jsonl: line {line} cannot be read ({error}).") from None
    if sorted(numbers) != list(range(len(numbers))):
        raise DatasetError(f"{root}/meta/episodes.jsonl: episodes are {sorted(numbers)}, not 0 to {len(numbers) - 1}; some are missing.")
    absent = []
    for pattern, keys in (("data/chunk-*/episode_{:06d}.parquet", [None]), ("videos/chunk-*/{key}/episode_{:06d}.mp4", videos)):
        for key in keys:
            have = {path.name for path in root.glob(pattern.replace("{key}", str(key)).replace("{:06d}", "*"))}
            suffix = pattern.rpartition(".")[2]
            absent += [f"{key or 'data'} of episode {n}" for n in range(len(numbers)) if f"episode_{n:06d}.{suffix}" not in have]
            if len(have) > len(numbers):
                absent.append(f"{len(have) - len(numbers)} files of {key or 'data'} more than there are episodes")
    if absent:
        raise DatasetError(f"{root}: does not fit its own episode list: {'; '.join(absent[:10])}. Copy the dataset again, completely.")


def _convert(staging: Path, root: Path) -> None:
    import datasets
    from lerobot.scripts import convert_dataset_v21_to_v30 as converter

    with _quiet_progress(converter):
        datasets.disable_progress_bars()
        try:
            converter.convert_dataset(repo_id="local/upgrade", root=staging, push_to_hub=False)
        except Exception as error:  # whatever it stumbles over is in the dataset, and its traceback helps nobody
            raise DatasetError(f"{root}: LeRobot's converter failed with {type(error).__name__}: {error}") from error


@contextmanager
def _quiet_progress(converter: Any) -> Iterator[None]:
    """Replace the converter's progress bars by our reports."""

    class Reports:
        @staticmethod
        def tqdm(iterable: Any, *_: object, desc: str = "", **__: object) -> Iterator[Any]:
            items = list(iterable)
            for done, item in enumerate(items, start=1):
                yield item
                publish(Progress(STAGE, done, len(items), "episodes", message=desc))

    original, converter.tqdm = converter.tqdm, Reports
    try:
        yield
    finally:
        converter.tqdm = original
