"""Work of the console's one thread that goes on beside the pages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

_AFTER_DEFECT_S = 0.5


class Background:
    """Tasks whose defects are written down, whoever waits for them."""

    def __init__(self, log: Callable[[str], None]) -> None:
        """Begin with none; defects go to `log`."""
        self._log = log
        self._tasks: set[asyncio.Task[Any]] = set()

    def begin(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do it beside everything else."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def keep_doing(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do what has no end; a round that fails is written down, and is the only one that is lost."""
        self.begin(self._again_and_again(work))

    async def finish(self, timeout_s: float) -> bool:
        """Wait for all that has an end, at most so long [s]; tell whether there was anything."""
        if not self._tasks:
            return False
        await asyncio.wait(self._tasks, timeout=timeout_s)
        return True

    def cancel(self) -> None:
        """End everything."""
        for task in self._tasks:
            task.cancel()

    async def _again_and_again(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except Exception as error:
                self._log(f"a defect of the console, which goes on: {error!r}")
                await asyncio.sleep(_AFTER_DEFECT_S)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log(f"a defect of the console: {error!r}")
