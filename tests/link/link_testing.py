"""What the tests of the link share; also the learner and actor processes that they kill.

python link_testing.py learner FOLDER PORT      receives until killed; prints its address
python link_testing.py actor FOLDER ADDRESS N   sends episodes of 10 steps, N steps in all; prints "sent K"
"""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from hilserl.config.models import LinkConfig
from hilserl.link import EpisodeReport, Handshake, LinkClient, LinkServer, Record, Step

TOKEN = "a-token-for-tests-only"
HANDSHAKE = Handshake(run_id="run-1", schema_hash="schema", architecture_hash="architecture")


def make_step(number: int, *, ended: bool = False, image_px: int = 8) -> Step:
    """Return a step whose every value follows from its number."""
    random = np.random.default_rng(number)

    def observe() -> dict[str, np.ndarray]:
        return {
            "observation.state": random.standard_normal(18).astype(np.float32),
            "observation.images.wrist": random.integers(0, 256, (image_px, image_px, 3), np.uint8),
        }

    return Step(
        episode=number // 10,
        step=number % 10,
        observation=observe(),
        action=random.uniform(-1, 1, 3).astype(np.float32),
        reward=float(number),
        terminated=ended,
        truncated=False,
        is_intervention=number % 3 == 0,
        final_observation=observe() if ended else None,
    )


def make_report(episode: int) -> EpisodeReport:
    return EpisodeReport(episode, 1.5, 10, True, 4, 1.25, False, 7, 10 * episode, 3, 0.125, 0.25, (None, True, False)[episode % 3])


def assert_same(received: Record, sent: Record) -> None:
    """Compare two records value by value, dtypes included."""
    if isinstance(sent, EpisodeReport) or isinstance(received, EpisodeReport):
        assert received == sent
        return
    for name in ("episode", "step", "reward", "terminated", "truncated", "is_intervention"):
        assert getattr(received, name) == getattr(sent, name), name
    for mine, theirs in (
        (received.observation, sent.observation),
        (received.final_observation or {}, sent.final_observation or {}),
        ({"action": received.action}, {"action": sent.action}),
    ):
        assert list(mine) == list(theirs)
        for name in mine:
            assert mine[name].dtype == theirs[name].dtype
            np.testing.assert_array_equal(mine[name], theirs[name])


def make_server(folder: Path, port: int = 0, **options: object) -> LinkServer:
    names = [name for name in LinkConfig.model_fields if name in options]
    config = LinkConfig(**{"port": port, "max_message_mb": 4, **{name: options.pop(name) for name in names}})
    return LinkServer(config, **{"token": TOKEN, "handshake": HANDSHAKE, "journal_folder": folder / "learner", **options})


def make_client(folder: Path, address: str, **options: object) -> LinkClient:
    defaults = {"token": TOKEN, "actor_id": "actor-1", "robot_id": "arm-1", "handshake": HANDSHAKE, "journal_folder": folder / "actor"}
    return LinkClient(address, **{**defaults, **options})


def receive(server: LinkServer, count: int, timeout_s: float = 10.0) -> list[Record]:
    """Poll until `count` records came, then a little longer for one too many."""
    records: list[Record] = []
    deadline = time.monotonic() + timeout_s
    while len(records) < count and time.monotonic() < deadline:
        records += [received.record for received in server.poll(0.05)]
    return records + [received.record for received in server.poll(0.1)]


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def process(*arguments: object) -> Iterator[subprocess.Popen]:
    """Run this file as a process of its own; killed at the end."""
    child = subprocess.Popen([sys.executable, __file__, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def run_learner(folder: Path, port: int) -> None:
    server = make_server(folder, port)
    print(server.start(), flush=True)
    while True:
        server.poll(0.1)


def run_actor(folder: Path, address: str, steps: int) -> None:
    client = make_client(folder, address)
    client.connect(20)
    for number in range(steps):
        client.send_step(make_step(number, ended=number % 10 == 9))
        print(f"sent {number + 1}", flush=True)
    client.flush(20)
    client.close()


if __name__ == "__main__":
    role, folder = sys.argv[1], Path(sys.argv[2])
    if role == "learner":
        run_learner(folder, int(sys.argv[3]))
    else:
        run_actor(folder, sys.argv[3], int(sys.argv[4]))
