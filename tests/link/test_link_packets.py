"""Single packets that are lost, late, doubled or overtaken, and none at all, between two hosts as network namespaces.

Run with `-s` it prints how long it took until the link went on.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from link_testing import assert_same, make_server, make_step, wait_until
from packet_network import LEARNER_HOST, ROBOT_HOST, Wire, why_not, wire

from hilserl.link.certificates import create_certificates

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PORT = 50051
PEERS = Path(__file__).with_name("network_peers.py")
MEMORY_MB = 40  # what an actor or learner may grow by while nothing gets through


class Peer:
    """One of `network_peers` on its host."""

    def __init__(self, network: Wire, host: str, certificates: Path, *arguments: object) -> None:
        environment = os.environ | {"HILSERL_CERTIFICATES": str(certificates)}
        self.process = subprocess.Popen(
            network.on(host, [sys.executable, PEERS, *map(str, arguments)]),
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline().strip()

    def ask(self, request: str = "state") -> dict[str, Any]:
        print(request, file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        assert answer.pop("failures") == []
        return dict(answer)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class TwoHosts:
    """Learner and actor, each on its host, and the wire between them."""

    def __init__(self, network: Wire, folder: Path) -> None:
        self.network, self.folder = network, folder
        create_certificates(folder / "certificates", [LEARNER_HOST], ["bench-1"])
        self.learner = Peer(network, LEARNER_HOST, folder / "certificates", "learner", folder, LEARNER_HOST, PORT)
        self.actor = Peer(network, ROBOT_HOST, folder / "certificates" / "bench-1", "actor", folder, f"{LEARNER_HOST}:{PORT}")

    def until_it_goes_on(self) -> tuple[float, float]:
        """Return how long it took until a step made from now on was received, and until newer weights were applied [s]."""
        began = time.monotonic()
        sent, published = self.actor.ask()["sent"], self.learner.ask()["published"]
        wait_until(lambda: self.learner.ask()["received"] > sent, 60)
        received_s = time.monotonic() - began
        wait_until(lambda: self.actor.ask()["weights"] > published, 60)
        return received_s, time.monotonic() - began

    def act(self, steps: int, timeout_s: float = 60) -> None:
        """Return when the robot loop has made that many more steps; no network is needed for that."""
        goal = self.actor.ask()["sent"] + steps
        wait_until(lambda: self.actor.ask()["sent"] >= goal, timeout_s)

    def finish(self) -> dict[str, Any]:
        """Deliver everything; compare what the learner has with what was sent."""
        actor = self.actor.ask("finish")
        self.learner.ask("finish")
        with make_server(self.folder) as server:
            received = [record.record for record in server.replay_journal()]
        assert len(received) == actor["sent"]
        for number, step in enumerate(received):
            assert_same(step, make_step(number))
        return actor


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[TwoHosts]:
    if reason := why_not():
        pytest.skip(reason)
    with wire("tun") as network:
        hosts = TwoHosts(network, tmp_path)
        try:
            assert hosts.actor.first_line == "connected"
            hosts.act(50)
            yield hosts
        finally:
            hosts.actor.end()
            hosts.learner.end()


def report(what: str, hosts: TwoHosts, went_on: tuple[float, float], actor: dict[str, Any]) -> None:
    print(
        f"\n{what}: steps again after {went_on[0]:.1f} s, weights after {went_on[1]:.1f} s; "
        f"slowest send_step {1e3 * actor['slowest_s']:.1f} ms; {actor['sent']} steps"
    )


@pytest.mark.failure("R16")
@pytest.mark.parametrize(
    "faults",
    [
        {"delay_s": 0.2, "jitter_s": 0.05},
        {"loss": 0.05},
        {"duplicate": 0.1, "reorder": 0.1},
        {"delay_s": 0.02, "jitter_s": 0.02, "loss": 0.05, "duplicate": 0.05, "reorder": 0.05},
    ],
    ids=["delay", "loss", "duplicate-reorder", "all"],
)
def test_bad_packets_lose_repeat_and_swap_nothing(hosts: TwoHosts, faults: dict[str, float], request: pytest.FixtureRequest) -> None:
    hosts.network.set(**faults)
    hosts.act(500)
    went_on = hosts.until_it_goes_on()
    counts = hosts.network.set()
    for fault, counted in (("loss", "lost"), ("duplicate", "duplicated"), ("reorder", "reordered")):
        assert counts[counted] > 0 or fault not in faults, counts
    report(request.node.name, hosts, went_on, hosts.finish())


@pytest.mark.failure("R17")
@pytest.mark.parametrize("seconds", [3, 30])
def test_a_cut_wire_costs_nothing_and_both_ends_go_on(hosts: TwoHosts, seconds: int, request: pytest.FixtureRequest) -> None:
    """Also longer than all timeouts: both ends give the connection up although no packet tells them to."""
    before = hosts.actor.ask(), hosts.learner.ask()
    hosts.network.set(cut=1)
    began, noticed = time.monotonic(), {}
    while time.monotonic() < began + seconds:
        if not hosts.actor.ask()["connected"]:
            noticed.setdefault("actor", round(time.monotonic() - began, 1))
        if hosts.learner.ask()["live"] == []:  # the robot is free
            noticed.setdefault("learner", round(time.monotonic() - began, 1))
        time.sleep(0.1)
    hosts.act(20)  # the robot loop does not wait for the network
    if seconds > 20:
        assert noticed.keys() == {"actor", "learner"}
        print("\nnoticed after [s]", noticed)
    during = hosts.actor.ask(), hosts.learner.ask()
    assert during[1]["received"] < during[0]["sent"]
    for earlier, later in zip(before, during, strict=True):
        assert later["rss_mb"] - earlier["rss_mb"] < MEMORY_MB
    assert hosts.network.set()["lost"] > 0
    went_on = hosts.until_it_goes_on()
    assert hosts.learner.ask()["live"] == ["actor-1"]
    report(request.node.name, hosts, went_on, hosts.finish())


@pytest.mark.failure("R17")
@pytest.mark.parametrize("times", [6])
def test_a_wire_that_comes_and_goes(hosts: TwoHosts, times: int, request: pytest.FixtureRequest) -> None:
    for number in range(times):
        hosts.network.set(cut=number % 2, loss=0.05)
        hosts.act(40 * (2 + number))
    hosts.network.set()
    went_on = hosts.until_it_goes_on()
    report(request.node.name, hosts, went_on, hosts.finish())
