"""A learner and an actor as processes for two hosts, with mutual TLS; answer a line of JSON to every line of stdin.

python network_peers.py learner FOLDER HOST PORT     publishes weights twice a second
python network_peers.py actor FOLDER ADDRESS         acts at 50 Hz until it reads "finish"

HILSERL_CERTIFICATES names the certificates of each.
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from link_testing import HANDSHAKE, make_step
from robot_and_learner import make_weights

from hilserl.config.models import LinkConfig
from hilserl.link import LinkClient, LinkServer

PERIOD_S = 0.02


def converse(work: Callable[[], None], state: Callable[[], dict[str, Any]], finish: Callable[[], None]) -> None:
    """Do `work` again and again in a thread; tell the state at every line, and end at "finish" or the end of stdin."""
    is_over, failures = threading.Event(), []

    def loop() -> None:
        try:
            while not is_over.is_set():
                work()
        except BaseException as error:
            failures.append(repr(error))

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    for line in sys.stdin:
        if line.strip() == "finish":
            is_over.set()
            thread.join()
            finish()
        print(json.dumps(state() | {"failures": failures, "rss_mb": psutil.Process().memory_info().rss / 2**20}), flush=True)


def run_learner(folder: Path, host: str, port: int) -> None:
    config = LinkConfig(host=host, port=port, tls=True, keep_journals=True)
    server = LinkServer(config, token=None, handshake=HANDSHAKE, journal_folder=folder / "learner")
    print(server.start(), flush=True)
    counts = {"received": 0, "published": 0}
    next_push = time.monotonic()

    def work() -> None:
        nonlocal next_push
        counts["received"] += len(server.poll(0.05))
        if time.monotonic() >= next_push:
            next_push += 0.5
            counts["published"] += 1
            server.publish_weights(make_weights(counts["published"]))

    converse(work, lambda: counts | {"live": server.live_actors()}, server.stop)


def run_actor(folder: Path, address: str) -> None:
    client = LinkClient(
        address, tls=True, token=None, actor_id="actor-1", robot_id="arm-1", handshake=HANDSHAKE, journal_folder=folder / "actor"
    )
    client.connect(60)
    print("connected", flush=True)
    sent, version, slowest_s = 0, 0, 0.0

    def work() -> None:
        nonlocal sent, version, slowest_s
        weights = client.latest_weights()
        if weights is not None:
            assert weights.content_hash == make_weights(weights.version).content_hash
            version = weights.version
        before = time.monotonic()
        client.send_step(make_step(sent))
        slowest_s = max(slowest_s, time.monotonic() - before)
        sent += 1
        time.sleep(PERIOD_S)

    def finish() -> None:
        client.flush(120)
        client.close()

    def state() -> dict[str, Any]:
        return {
            "sent": sent,
            "weights": version,
            "slowest_s": slowest_s,
            "acked": client._outbox.acked_seq,
            "connected": client.is_connected,
        }

    converse(work, state, finish)


if __name__ == "__main__":
    if sys.argv[1] == "learner":
        run_learner(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    else:
        run_actor(Path(sys.argv[2]), sys.argv[3])
