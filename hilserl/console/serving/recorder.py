"""The queue between the pictures that come and the replays on disk."""

from __future__ import annotations

import asyncio
from typing import Any

from hilserl.console.serving.encoder import Encoder
from hilserl.console.serving.replays import MAX_WIDTH, Replays

_WAITING = 256


class Recorder:
    """Gathers the pictures of the episode that is on, in order, and writes it when it has ended.

    A disk or an encoder that is too slow costs pictures of replays, and nothing else.
    """

    def __init__(self, replays: Replays, encoder: Encoder) -> None:
        """Record into `replays`."""
        self._replays, self._encoder = replays, encoder
        self._queue: asyncio.Queue[tuple[str, int, int] | dict[str, Any]] = asyncio.Queue(maxsize=_WAITING)

    def saw(self, camera: str, number: int, step: int) -> None:
        """A new picture of a camera is there."""
        if self._replays.wants(camera) and not self._queue.full():
            self._queue.put_nowait((camera, number, step))

    def ended(self, episode: dict[str, Any]) -> None:
        """An episode ended; the list of episodes has none missing."""
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(episode)

    async def write_next_episode(self) -> None:
        """Take pictures until an episode has ended, and write it."""
        while not isinstance(what := await self._queue.get(), dict):
            camera, number, step = what
            if self._replays.wants(camera) and (picture := await self._encoder.newest(camera, "raw", MAX_WIDTH, number)) is not None:
                self._replays.add(camera, step, picture.jpeg)
        await asyncio.to_thread(self._replays.end, what)
