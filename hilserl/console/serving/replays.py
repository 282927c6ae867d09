"""The last episodes, to be looked at again: a bounded number of small pictures on disk."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from hilserl.files import write_json

MAX_WIDTH = 320
_MOST_FRAMES = 900
_LEAST_S = 0.03
_MOST_EVALUATIONS = 5  # where there are others


class Replays:
    """Gathers the pictures of the episode that is on, and keeps the last episodes.

    Each is a folder: `episode.json`, and `<camera>.jpegs`, whose pictures lie one behind the other.

    Attributes:
        episodes: Those that are kept, as the `episodes` message has them, the newest last.
    """

    def __init__(self, folder: Path, keep: int, run: str = "") -> None:
        """Find what an earlier actor of this run left; what is of another run goes.

        Args:
            folder: Of this robot's replays.
            keep: Number of episodes; 0: none are kept.
            run: What is going on.
        """
        self._folder, self._keep, self._run = folder, keep, run
        self._frames: dict[str, list[tuple[int, bytes]]] = {}
        self._last_s: dict[str, float] = {}
        self.episodes: list[dict[str, Any]] = []
        self._places: dict[str, dict[str, list[int]]] = {}
        for file in sorted(folder.glob("*/episode.json")):
            try:
                entry = json.loads(file.read_text())
                if entry.pop("run") != run:
                    shutil.rmtree(file.parent, ignore_errors=True)
                    continue
                self._places[entry["id"]] = entry.pop("places")
                self.episodes.append(entry)
            except (OSError, ValueError, KeyError):
                shutil.rmtree(file.parent, ignore_errors=True)  # a power cut in the middle: it is only for looking
        self._next = 1 + max((int(entry["id"]) for entry in self.episodes), default=-1)
        self._forget_old()

    def wants(self, camera: str) -> bool:
        """Tell whether another picture of a camera is kept now."""
        there = self._frames.setdefault(camera, [])
        return self._keep > 0 and len(there) < _MOST_FRAMES and time.monotonic() - self._last_s.get(camera, 0.0) >= _LEAST_S

    def add(self, camera: str, step: int, jpeg: bytes) -> None:
        """Keep a picture of the episode that is on; a step that is lower than the last begins another episode.

        Of what was before the first step, the newest is kept: a person who records may think for minutes before moving.
        """
        there = self._frames.setdefault(camera, [])
        if there and (step < there[-1][0] or step == 0):
            there.clear()
        self._last_s[camera] = time.monotonic()
        there.append((step, jpeg))

    def end(self, episode: dict[str, Any]) -> None:
        """The episode ended: write it."""
        if self._keep == 0:
            return
        name = f"{self._next:06d}"
        self._next += 1
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        places: dict[str, list[int]] = {}
        steps: list[int] = []
        gathered, self._frames = self._frames, {}  # `wants` is asked meanwhile, by another thread
        for camera, frames in gathered.items():
            ends, size = [0], 0
            with (folder / f"{camera}.jpegs").open("wb") as file:
                for _, jpeg in frames:
                    size += file.write(jpeg)
                    ends.append(size)
            places[camera] = ends
            steps = max(steps, [step for step, _ in frames], key=len)
        entry = {"id": name, **episode, "frames": {camera: len(ends) - 1 for camera, ends in places.items()}, "steps_of_frames": steps}
        write_json(folder / "episode.json", entry | {"places": places, "run": self._run})
        self.episodes.append(entry)
        self._places[name] = places
        self._forget_old()

    def picture(self, episode: str, camera: str, index: int) -> bytes | None:
        """Return one picture; None: there is none. Names that nobody wrote lead nowhere."""
        ends = self._places.get(episode, {}).get(camera)
        if ends is None or not 0 <= index < len(ends) - 1:
            return None
        try:
            with (self._folder / episode / f"{camera}.jpegs").open("rb") as file:
                file.seek(ends[index])
                return file.read(ends[index + 1] - ends[index])
        except OSError:  # forgotten a moment ago
            return None

    def message(self) -> dict[str, Any]:
        """Return the `episodes` message."""
        return {"type": "episodes", "episodes": self.episodes}

    def _forget_old(self) -> None:
        """Keep the newest; an evaluation's many episodes do not push out those in which somebody taught."""
        while len(self.episodes) > self._keep:
            evaluated = [index for index, episode in enumerate(self.episodes) if episode.get("evaluation")]
            old = self.episodes.pop(evaluated[0] if len(evaluated) > _MOST_EVALUATIONS else 0)["id"]
            self._places.pop(old, None)
            shutil.rmtree(self._folder / old, ignore_errors=True)
