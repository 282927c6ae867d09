"""What the operator's console costs, and how quick it is: picture to page, key to arm, processor time, and the control loop's jitter.

    uv run python benchmarks/console.py                    # about 7 min, on a machine with nothing else to do
    uv run python benchmarks/console.py --seconds 5 --rates 10

The real loop of the actor at 10 Hz in one process, on the state-only simulation with two cameras of 640x480 beside it that deliver at
10, 20 and 30 Hz; the console's own process; and the pages in a third one, over loopback, each acknowledging and decoding every picture.
All times are this machine's monotonic clock. Pages: none without a console, none with one, one, ten (one of them in control, driving).

- `picture_ms`: from a frame's capture to its decoded pixels in a page (a browser adds its compositor, at most one frame of the screen).
- `key_ms`: from a page's key to `environment.step` with that action.
- `cpu_percent`: of one core, the console's process; `actor_percent`: the actor's.
- `jitter_ms`: how far control steps are from their period, p99 and greatest.

Limits (exit code 1): picture p95 <= 100 ms; key p99 <= one period + 30 ms; console <= 15 % of a core with one page.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import random
import struct
import sys
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from _runs import ROOT, commit

HZ = 10.0
CAMERAS = ("front", "wrist")
SIZE = (480, 640)
LIMITS = {"picture_ms": 100.0, "key_ms": 1000.0 / HZ + 30.0, "cpu_percent": 15.0}


class Film:
    """Two cameras with a picture of everyday contents, a part of which moves; in a thread, as a driver's."""

    def __init__(self, fps: float) -> None:
        from hilserl.robot.frame_memory import Frame

        generator = np.random.default_rng(0)
        rows, columns = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
        base = np.stack([rows / 3, columns / 4, (rows + columns) / 5], -1) + generator.normal(0, 6, (*SIZE, 3))
        self._base = np.clip(base, 0, 255).astype(np.uint8)
        self._frame, self._fps = Frame, fps
        self._newest: dict[str, Any] = {}
        self._over = threading.Event()
        self._shoot(1)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def newest(self) -> dict[str, Any]:
        return self._newest

    def images(self) -> dict[str, np.ndarray]:
        return {name: frame.image for name, frame in self._newest.items()}

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        number = 2
        while not self._over.wait(1.0 / self._fps):
            self._shoot(number)
            number += 1

    def _shoot(self, number: int) -> None:
        found = {}
        for name in CAMERAS:
            image = self._base.copy()
            image[100:200, (7 * number) % 500 : (7 * number) % 500 + 100] = (200, 30, 30)
            found[name] = self._frame(image, number, time.monotonic())
        self._newest = found


class Filmed:
    """The simulation with those cameras beside it, which notes when it was told what."""

    def __init__(self, environment: Any, film: Film) -> None:
        self.inner, self.cameras = environment, film
        self.steps: list[tuple[float, float]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def reset(self, **options: Any) -> Any:
        observation, info = self.inner.reset(**options)
        return self._with_pictures(observation), info

    def observe(self) -> Any:
        return self._with_pictures(self.inner.observe())

    def step(self, action: np.ndarray) -> Any:
        self.steps.append((time.monotonic(), float(action[0])))
        observation, *rest = self.inner.step(action)
        return (self._with_pictures(observation), *rest)

    def _with_pictures(self, observation: dict[str, Any]) -> dict[str, Any]:
        return observation | {f"observation.images.{name}": image for name, image in self.cameras.images().items()}


def act(pipe: Connection, home: str, fps: float, console: bool) -> None:
    """Be the actor's process until the pipe says so."""
    os.environ["HILSERL_HOME"] = home
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "console")]
    import torch
    from console_testing import FakeLink, make_config

    from hilserl.actor.loop import Actor
    from hilserl.actor.pace import Pace
    from hilserl.actor.priority import RealtimePriority
    from hilserl.actor.run import human_of
    from hilserl.console.open import console_of
    from hilserl.data.preprocess import Preprocessor
    from hilserl.environments.make import make_environment
    from hilserl.policy import Policy, PolicyArchitecture

    torch.set_num_threads(1)
    config = make_config(console__enable=console, robot__control_hz=HZ, actor__pace="realtime", task__control_time_s=120)
    policy = Policy(PolicyArchitecture.from_config(config), Preprocessor.from_config(config))
    policy.load_tensors(dict(policy.tensors()), 1)
    over = threading.Event()
    film = Film(fps)
    environment = Filmed(make_environment(config), film)
    with console_of(config, mode="train") as operator:
        link = FakeLink()
        operator.linked(link)

        def play() -> None:
            with RealtimePriority(config.actor.realtime_priority), human_of(config, environment, operator) as human:
                stop = lambda: "over" if over.is_set() else None  # noqa: E731
                Actor(config, environment, human, policy, link, stop, Pace(HZ), operator).run()  # type: ignore[arg-type]

        thread = threading.Thread(target=play)
        thread.start()
        while console and operator.url is None:  # type: ignore[attr-defined]
            time.sleep(0.05)
        pipe.send((getattr(operator, "url", None), operator._process.pid if console else None))  # type: ignore[attr-defined]
        while (request := pipe.recv()) != "end":
            if request == "begin":
                environment.steps.clear()
            else:
                pipe.send(list(environment.steps))
        over.set()
        thread.join()
    film.close()


def look(pipe: Connection, url: str, pages: int, drives: bool, seconds: float) -> None:
    """Be a process with some pages: look, and drive with the first one; send what was measured."""
    pipe.send(asyncio.run(_look(url, pages, drives, seconds)))


async def _look(url: str, pages: int, drives: bool, seconds: float) -> dict[str, Any]:
    import cv2
    from websockets.asyncio.client import connect

    picture_ms: list[float] = []
    keys: list[tuple[float, float]] = []

    async def page(index: int) -> int:
        until, count, size = time.monotonic() + seconds, 0, 0
        async with connect(url.replace("http", "ws") + "/ws", origin=url, compression=None, max_size=1 << 22) as socket:
            await socket.send(json.dumps({"type": "watch", "cameras": None, "views": ["raw"], "max_hz": 30, "max_width": 640}))
            driving = asyncio.create_task(drive(socket)) if drives and index == 0 else None
            while (left := until - time.monotonic()) > 0:
                try:
                    message = await asyncio.wait_for(socket.recv(), left)
                except TimeoutError:
                    break
                if not isinstance(message, bytes):
                    continue
                (length,) = struct.unpack_from("<I", message)
                header = json.loads(message[4 : 4 + length])
                cv2.imdecode(np.frombuffer(message, np.uint8, offset=4 + length), cv2.IMREAD_COLOR)
                if drives:
                    picture_ms.append(1000.0 * (time.monotonic() - header["at_s"]))
                await socket.send(json.dumps({"type": "seen", **{key: header[key] for key in ("camera", "view", "number")}}))
                count, size = count + 1, size + len(message)
            if driving is not None:
                driving.cancel()
        return count

    async def drive(socket: Any) -> None:
        await socket.send(json.dumps({"type": "request_control", "id": 1}))
        await socket.send(json.dumps({"type": "command", "name": "take_over", "id": 2, "at": 1000.0 * time.monotonic()}))
        number, value, next_key = 0, 0.1, time.monotonic() + 2.5
        while True:
            pressed = time.monotonic() >= next_key
            if pressed:  # another key, at a random moment
                value = round(random.uniform(-0.9, 0.9), 4) or 0.1
                next_key = time.monotonic() + random.uniform(0.25, 0.55)
                keys.append((time.monotonic(), value))
            number += 1
            await socket.send(json.dumps({"type": "drive", "seq": number, "at": 1000.0 * time.monotonic(), "action": [value, 0.0, 0.0]}))
            await asyncio.sleep(min(0.04, max(0.0, next_key - time.monotonic())))

    counts = await asyncio.gather(*(page(index) for index in range(pages)))
    return {"picture_ms": picture_ms, "keys": keys, "pictures_per_s": sum(counts) / seconds}


def measure(fps: float, pages: int | None, seconds: float) -> dict[str, Any]:
    """Run one case; `pages` is None without a console."""
    import psutil

    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as home:
        mine, theirs = context.Pipe()
        actor = context.Process(target=act, args=(theirs, home, fps, pages is not None))
        actor.start()
        url, pid = mine.recv()
        time.sleep(3.0)
        watched = {"actor_percent": psutil.Process(actor.pid)} | ({"cpu_percent": psutil.Process(pid)} if pid else {})
        seen: dict[str, Any] = {"picture_ms": [], "keys": [], "pictures_per_s": 0.0}
        looking = []
        for number, drives in ((1, True), (pages - 1, False)) if pages else ():
            if number:
                answer, child = context.Pipe()
                process = context.Process(target=look, args=(child, url, number, drives, seconds))
                process.start()
                looking.append((process, answer))
        time.sleep(2.0 if looking else 0.0)
        mine.send("begin")
        before, began = {name: sum(process.cpu_times()[:2]) for name, process in watched.items()}, time.monotonic()
        time.sleep(max(1.0, seconds - 3.0))
        took = time.monotonic() - began
        found = {name: round(100.0 * (sum(process.cpu_times()[:2]) - before[name]) / took, 1) for name, process in watched.items()}
        mine.send("steps")
        steps = mine.recv()
        for process, answer in looking:
            found_there = answer.recv()
            seen = {key: seen[key] + found_there[key] for key in seen}
            process.join()
        mine.send("end")
        actor.join()
    jitter = [abs(1000.0 * (b - a) - 1000.0 / HZ) for (a, _), (b, _) in itertools.pairwise(steps)]
    found |= {
        "jitter_ms": {"p99": _quantile(jitter, 0.99), "max": _quantile(jitter, 1.0)},
        "pictures_per_s": round(seen["pictures_per_s"] / max(1, pages or 0), 1),
    }
    delays = [delay for at, value in seen["keys"] if (delay := _executed_after(steps, at, value)) is not None]
    for name, values, share in (("picture_ms", seen["picture_ms"], 0.95), ("key_ms", delays, 0.99)):
        if values:
            found[name] = {"median": _quantile(values, 0.5), f"p{100 * share:.0f}": _quantile(values, share), "n": len(values)}
    return {"fps": fps, "pages": pages, "console": pages is not None, **found}


def _executed_after(steps: list[tuple[float, float]], at: float, value: float) -> float | None:
    """Return how long after a key its action was executed [ms]; None: it was replaced by the next before a step began."""
    return next((1000.0 * (began - at) for began, action in steps if began >= at and abs(action - value) < 1e-4), None)


def _quantile(values: list[float], share: float) -> float:
    return round(float(np.quantile(values, share)), 1) if values else float("nan")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rates", type=float, nargs="+", default=[10.0, 20.0, 30.0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "console.jsonl")
    arguments = parser.parse_args()
    failed = []
    for fps in arguments.rates:
        for pages in (None, 0, 1, 10):
            load = os.getloadavg()[0]
            found = measure(fps, pages, arguments.seconds) | {"load_before": round(load, 1), "cores": os.cpu_count(), "commit": commit()}
            print(json.dumps(found), flush=True)
            with arguments.out.open("a") as file:
                file.write(json.dumps(found) + "\n")
            if pages:
                measured = {"picture_ms": found["picture_ms"]["p95"], "key_ms": found.get("key_ms", {}).get("p99", float("inf"))}
                measured |= {"cpu_percent": found["cpu_percent"]} if pages == 1 else {}
                failed += [
                    f"{name} {value} > {LIMITS[name]} ({fps:g} Hz, {pages} pages)"
                    for name, value in measured.items()
                    if value > LIMITS[name]
                ]
    print("\n".join(failed) or "all within their limits")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
