"""Frames on which a person and the classifier disagreed: what the next version has to learn from.

One folder a frame: `entry.json` and a lossless picture a camera. `hilserl label --disagreements FOLDER` shows them; what is said
there lies beside, in `<folder>.labels.json`, and `hilserl classifier train --disagreements FOLDER` learns from both.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import shutil
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hilserl.errors import CacheError, DatasetError
from hilserl.files import atomic_directory, write_json
from hilserl.threads import background_thread

logger = logging.getLogger(__name__)

ENTRY = "entry.json"
MOST = 2000
_WAITING = 32
_END_S = 10.0


@dataclass(frozen=True)
class Disagreement:
    """One frame.

    Attributes:
        id: Its folder's name.
        folder: Where its pictures are.
        cameras: Names of its pictures.
        probability: What the classifier said.
        threshold: From which it would have been a success.
        human_says: What the person said; in a simulation, what is true.
        run: Which run it is of.
        episode: Its episode.
        step: Its step in the episode.
        classifier: Version of the classifier.
        is_truth: What is said comes from a simulator, and needs no labelling.
        state: Numbers of `observation.state` that the classifier read, by name.
    """

    id: str
    folder: Path
    cameras: tuple[str, ...]
    probability: float
    threshold: float
    human_says: bool
    run: str
    episode: int
    step: int
    classifier: str
    is_truth: bool = False
    state: Mapping[str, float] = field(default_factory=dict)

    def image(self, camera: str) -> np.ndarray:
        """Read one camera's native frame, uint8 RGB, shape (H, W, 3).

        Raises:
            DatasetError: It is missing or damaged.
        """
        picture = cv2.imread(str(self.picture(camera)), cv2.IMREAD_COLOR)
        if picture is None:
            raise DatasetError(f"{self.picture(camera)}: missing or damaged. Remove the folder {self.folder}.")
        rgb: np.ndarray = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        return rgb

    def picture(self, camera: str) -> Path:
        """Return the PNG file of one camera."""
        return self.folder / f"{camera}.png"


class Disagreements:
    """A folder of such frames, bounded: the oldest give way.

    `add` never waits for the disk: a thread writes, and what comes faster than it can is left out and counted.

    Args:
        folder: Made with the first frame.
        most: How many frames are kept.
    """

    def __init__(self, folder: Path, most: int = MOST) -> None:
        self.folder, self._most = folder, most
        self.left_out = 0
        self._queue: queue.Queue[tuple[dict[str, np.ndarray], dict[str, Any]] | None] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None
        self._failed = False

    def add(
        self,
        images: Mapping[str, np.ndarray],
        probability: float,
        human_says: bool,
        run: str,
        episode: int,
        step: int,
        *,
        threshold: float = 0.5,
        classifier: str = "",
        is_truth: bool = False,
        state: Mapping[str, float] | None = None,
    ) -> None:
        """Keep one frame.

        Args:
            images: Native frames by camera, uint8 RGB, shape (H, W, 3); copied.
            probability: What the classifier said.
            human_says: What the person said.
            run: Which run it is of.
            episode: Its episode.
            step: Its step in the episode.
            threshold: From which it would have been a success.
            classifier: Version of the classifier.
            is_truth: What is said comes from a simulator.
            state: Numbers of `observation.state` that the classifier read, by name.
        """
        if self._thread is None:
            self._thread = background_thread(self._write, "disagreements")
            self._thread.start()
        facts = {
            "probability": float(probability), "threshold": float(threshold), "human_says": bool(human_says), "run": run,
            "episode": int(episode), "step": int(step), "classifier": classifier, "is_truth": is_truth,
            "state": {name: float(value) for name, value in (state or {}).items()},
        }  # fmt: skip
        try:
            self._queue.put_nowait(({camera: image.copy() for camera, image in images.items()}, facts))
        except queue.Full:
            self.left_out += 1

    def entries(self) -> list[Disagreement]:
        """Return what is there, the oldest first; a damaged entry is left out, and said so."""
        found = []
        for file in sorted(self.folder.glob(f"*/{ENTRY}")):
            try:
                value = json.loads(file.read_text())
                found.append(Disagreement(id=file.parent.name, folder=file.parent, **value | {"cameras": tuple(value["cameras"])}))
            except (OSError, ValueError, TypeError, KeyError) as error:
                logger.warning("%s cannot be read and is left out: %s", file, error)
        return found

    def labels(self) -> dict[str, bool]:
        """Return what a person said of each frame when labelling, by id.

        Raises:
            DatasetError: The file is damaged.
        """
        file = labels_file(self.folder)
        if not file.is_file():
            return {}
        try:
            frames = json.loads(file.read_text())["frames"]
            return {str(id_): bool(frame["success"]) for id_, frame in frames.items() if frame["success"] is not None}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DatasetError(f"{file}: no readable labels ({error!r}). It is written by `hilserl label --disagreements`.") from None

    def close(self) -> None:
        """Write what waits."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(_END_S)
            self._thread = None
        if self.left_out:
            logger.warning("%d frames on which person and classifier disagreed came too fast to be kept", self.left_out)

    def _write(self) -> None:
        number = max((int(path.name.partition("-")[0]) for path in self.folder.glob("*-*/") if path.name[:1].isdigit()), default=-1)
        while (item := self._queue.get()) is not None:
            number += 1
            images, facts = item
            try:
                with atomic_directory(self.folder / f"{number:08d}-{uuid.uuid4().hex[:6]}", durable=False) as folder:
                    for camera, image in images.items():
                        cv2.imwrite(str(folder / f"{camera}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
                    write_json(folder / ENTRY, facts | {"cameras": sorted(images)})
                self._make_room()
            except (OSError, CacheError) as error:
                if not self._failed:
                    logger.warning("Frames on which person and classifier disagreed are not kept: %s", error)
                self._failed = True

    def _make_room(self) -> None:
        names = sorted(entry.name for entry in os.scandir(self.folder) if entry.is_dir() and not entry.name.startswith("."))
        for name in names[: max(0, len(names) - self._most)]:
            shutil.rmtree(self.folder / name, ignore_errors=True)


def labels_file(folder: Path) -> Path:
    """Return where the labels of a folder of disagreements lie: beside it."""
    folder = folder.resolve()
    return folder.with_name(f"{folder.name}.labels.json")
