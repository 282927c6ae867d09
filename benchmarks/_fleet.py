"""Many simulated actors: cheap processes that send recorded steps over the real link."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil
from _recorded_steps import Recorded

from hilserl.config.models import LinkConfig
from hilserl.link import Handshake, LinkClient

_WINDOW = 256  # records that an actor at full speed may have unacknowledged: it measures the link, not its disk
SENT_AT = "sent_at"  # beside the observation: when it was sent [s, monotonic]


@dataclass(frozen=True)
class Job:
    """What every actor of a fleet does.

    Attributes:
        address: Of the learner.
        token: That it expects.
        handshake: That it expects.
        steps_file: Of `_recorded_steps`.
        folder: For the actors' journals.
        hz: Control rate; None: as fast as the learner acknowledges.
        stamped: Send the time with every step; a real learner's schema has no place for it.
    """

    address: str
    token: str
    handshake: Handshake
    steps_file: Path
    folder: Path
    hz: float | None
    stamped: bool


@dataclass(frozen=True)
class Sent:
    """What one actor did between two moments.

    Attributes:
        steps: Steps sent.
        cpu_s: Processor time of all its threads [s].
        resident_mb: Resident memory at the end [10^6 bytes], shared pages included.
    """

    steps: int
    cpu_s: float
    resident_mb: float


class Fleet:
    """Connected actors, which begin to send when told.

    Args:
        job: What they do.
        size: How many.
    """

    def __init__(self, job: Job, size: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["_fleet"])
        self._pipes: list[Connection] = []
        self._processes = []
        for number in range(size):
            pipe, its_pipe = context.Pipe()
            process = context.Process(target=_act, args=(its_pipe, job, number), daemon=True, name=f"actor-{number}")
            process.start()
            self._pipes.append(pipe)
            self._processes.append(process)
        for pipe in self._pipes:
            _receive(pipe, 180.0)

    def send_between(self, begin: float, end: float) -> None:
        """Let all of them send from `begin` to `end` [s, monotonic]; returns at once."""
        for pipe in self._pipes:
            pipe.send((begin, end))

    def results(self) -> Sequence[Sent]:
        """Wait until all have sent."""
        return [_receive(pipe, 300.0) for pipe in self._pipes]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self._processes:
            process.kill()  # their journals are the benchmark's own
        for process in self._processes:
            process.join()


def _receive(pipe: Connection, timeout_s: float) -> Any:
    if not pipe.poll(timeout_s):
        raise RuntimeError(f"an actor did not answer within {timeout_s:.0f} s")
    return pipe.recv()


def _act(pipe: Connection, job: Job, number: int) -> None:
    logging.getLogger("hilserl").setLevel(logging.ERROR)  # the learner ends first, which the link tells
    recorded = Recorded(job.steps_file)
    name = f"actor-{number}"
    options = {"max_message_mb": LinkConfig().max_message_mb}
    with LinkClient(
        job.address, token=job.token, actor_id=name, robot_id=name, handshake=job.handshake, journal_folder=job.folder / name, **options
    ) as client:
        client.connect(timeout_s=120.0)
        pipe.send("connected")
        begin, end = pipe.recv()
        time.sleep(max(0.0, begin - time.monotonic()))
        cpu, sent = time.process_time(), 0
        while (now := time.monotonic()) < end:
            extra = {SENT_AT: np.array([now])} if job.stamped else None
            client.send_step(recorded.step(sent, extra))
            sent += 1
            if job.hz is not None:
                # Actors of different robots are not in step.
                time.sleep(max(0.0, begin + (sent + number / 32) / job.hz - time.monotonic()))
            while job.hz is None and sent - _acknowledged(client) > _WINDOW and time.monotonic() < end:
                time.sleep(0.001)
        pipe.send(Sent(sent, time.process_time() - cpu, psutil.Process(os.getpid()).memory_info().rss / 1e6))
        pipe.recv()  # stay connected until killed


def _acknowledged(client: LinkClient) -> int:
    return client._outbox.acked_seq
