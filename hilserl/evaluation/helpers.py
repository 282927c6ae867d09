"""More processes for an evaluation in simulation. They help when they are ready; nothing waits for their start."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from hilserl.config.models import TrainConfig
from hilserl.evaluation.result import Episode
from hilserl.evaluation.starts import Start

logger = logging.getLogger(__name__)

_WORTH_IT = 20  # episodes; a process needs seconds to start
_MOST = 4


class Queue:
    """Starts that are still to be played: this process takes them from the front, helpers from the back.

    Args:
        starts: All of them, in order.
        own: How many at the front are this process's, such as those that are filmed.
    """

    def __init__(self, starts: Sequence[Start], own: int) -> None:
        self.played: dict[int, Episode] = {}
        self._starts = list(starts)
        self._front, self._back = 0, len(starts)
        self._own = own
        self._given_back: list[int] = []
        self._at_work = 0
        self._changed = threading.Condition()

    def first(self) -> tuple[int, Start] | None:
        """Take the next start for this process; waits for helpers' last episodes. None: everything is played."""
        with self._changed:
            while True:
                if self._given_back:
                    number = self._given_back.pop()
                    return number, self._starts[number]
                if self._front < self._back:
                    self._front += 1
                    return self._front - 1, self._starts[self._front - 1]
                if not self._at_work:
                    return None
                self._changed.wait()

    def last(self) -> tuple[int, Start] | None:
        """Take a start for a helper; None: there is none left for it."""
        with self._changed:
            if self._back <= max(self._front, self._own):
                return None
            self._back -= 1
            self._at_work += 1
            return self._back, self._starts[self._back]

    def done(self, number: int, episode: Episode | None) -> None:
        """Take a helper's episode; None: it failed, and this process plays it."""
        with self._changed:
            self._at_work -= 1
            if episode is None:
                self._given_back.append(number)
            else:
                self.played[number] = episode
            self._changed.notify_all()


class Helpers:
    """Processes that play episodes of a queue, for as long as the block lasts."""

    def __init__(self, config: TrainConfig, policy_folder: Path, queue: Queue, count: int) -> None:
        self._queue = queue
        self._text = config.model_dump_json() + "\n"
        self._argv = [sys.executable, "-m", "hilserl.evaluation.helper", str(policy_folder)]
        self._count = count
        self._processes: list[subprocess.Popen[str]] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        """Start them; they are ready some seconds later."""
        for number in range(self._count):
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            process = subprocess.Popen(
                self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
            )
            self._processes.append(process)
            thread = threading.Thread(target=self._serve, args=(process,), name=f"evaluation-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End them, also those that were never ready."""
        for process in self._processes:
            process.kill()
        for thread in self._threads:
            thread.join()
        for process in self._processes:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _serve(self, process: subprocess.Popen[str]) -> None:
        """Give one helper starts until there are none."""
        assert process.stdin is not None and process.stdout is not None
        number: int | None = None
        try:
            process.stdin.write(self._text)
            process.stdin.flush()
            if process.stdout.readline() != "ready\n":
                return  # ended before it was needed, or cannot: this process does the work
            while (taken := self._queue.last()) is not None:
                number, start = taken
                process.stdin.write(json.dumps([start.seed, start.cube_m]) + "\n")
                process.stdin.flush()
                episode = Episode.from_dict(json.loads(process.stdout.readline()))
                self._queue.done(number, episode)
                number = None
        except (OSError, ValueError) as error:
            if number is not None:
                logger.warning("A process that helped with the evaluation ended (%s); its episode is played again here", error)
        finally:
            if number is not None:
                self._queue.done(number, None)


def helper_count(config: TrainConfig, episodes: int) -> int:
    """Say how many more processes to start: one a further core, at most three, where it is worth it and nothing real moves."""
    wanted = config.evaluation.workers
    if config.env is None and not config.robot.is_simulated:
        return 0
    if wanted is not None:
        return min(wanted - 1, episodes - 1)
    return min(_MOST, len(os.sched_getaffinity(0))) - 1 if episodes >= _WORTH_IT else 0
