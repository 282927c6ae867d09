"""Many actors on one learner at once, and clocks that jump: every record once, each actor's in order."""

import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from link_testing import assert_same, free_port, make_client, make_server, make_step, wait_until

from hilserl.link import LinkServer, ReceivedRecord
from hilserl.link.limits import MAX_ACTORS


class Sink(threading.Thread):
    """The learner's loop: takes everything."""

    def __init__(self, server: LinkServer) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.by_actor: dict[str, list[ReceivedRecord]] = defaultdict(list)
        self._stop_it = threading.Event()

    def run(self) -> None:
        while not self._stop_it.is_set():
            for received in self.server.poll(0.05):
                self.by_actor[received.actor_id].append(received)

    def end(self) -> None:
        self._stop_it.set()
        self.join()


def assert_complete(by_actor: dict[str, list[ReceivedRecord]], actors: int, steps: int) -> None:
    """Each actor's steps once and in order; the learner's own numbers without a gap."""
    assert set(by_actor) == {f"actor-{number}" for number in range(actors)}
    for number in range(actors):
        records = by_actor[f"actor-{number}"]
        assert [received.seq for received in records] == list(range(1, steps + 1))
        assert {received.robot_id for received in records} == {f"arm-{number}"}
        for index, received in enumerate(records):
            assert_same(received.record, make_step(1000 * number + index))
    assert sorted(received.log_seq for records in by_actor.values() for received in records) == list(range(1, actors * steps + 1))


def act(folder: Path, address: str, number: int, steps: int) -> None:
    with make_client(folder / f"host-{number}", address, actor_id=f"actor-{number}", robot_id=f"arm-{number}") as client:
        client.connect(60)
        for index in range(steps):
            client.send_step(make_step(1000 * number + index))
        client.flush(60)


def test_as_many_actors_as_one_learner_serves(tmp_path: Path) -> None:
    with make_server(tmp_path) as server:
        address, sink = server.start(), Sink(server)
        sink.start()
        threads = [threading.Thread(target=act, args=(tmp_path, address, number, 30)) for number in range(MAX_ACTORS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        wait_until(lambda: sum(map(len, sink.by_actor.values())) >= MAX_ACTORS * 30, 30)
        sink.end()
    assert_complete(sink.by_actor, MAX_ACTORS, 30)


@pytest.mark.slow
@pytest.mark.failure("R16")
def test_processes_whose_learner_restarts_under_them(tmp_path: Path) -> None:
    """32 actors in 4 processes; the learner goes away twice and comes back at the same port."""
    processes, each, steps, port = 4, MAX_ACTORS // 4, 100, free_port()
    code = (
        "import sys, threading; from pathlib import Path; from test_link_many_actors import act\n"
        "folder, address, first, count, steps = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])\n"
        "threads = [threading.Thread(target=act, args=(folder, address, first + n, steps)) for n in range(count)]\n"
        "[thread.start() for thread in threads]; [thread.join() for thread in threads]\n"
    )
    arguments = [[str(tmp_path), f"127.0.0.1:{port}", str(index * each), str(each), str(steps)] for index in range(processes)]
    children = [subprocess.Popen([sys.executable, "-c", code, *one], cwd=Path(__file__).parent) for one in arguments]
    try:
        by_actor: dict[str, list[ReceivedRecord]] = defaultdict(list)
        for life in range(3):
            with make_server(tmp_path, port, max_queued_records=200) as server:
                server.start()
                began = time.monotonic()
                while time.monotonic() - began < 120:
                    for received in server.poll(0.05):
                        by_actor[received.actor_id].append(received)
                    got = sum(map(len, by_actor.values()))
                    if got >= (life + 1) * MAX_ACTORS * steps // 3 and (life < 2 or all(child.poll() is not None for child in children)):
                        break
        with make_server(tmp_path) as server:  # what was acknowledged and not polled is in the journal
            complete: dict[str, list[ReceivedRecord]] = defaultdict(list)
            for received in server.replay_journal():
                complete[received.actor_id].append(received)
        assert [child.wait(60) for child in children] == [0] * processes
        assert_complete(complete, MAX_ACTORS, steps)
    finally:
        for child in children:
            child.kill()
            child.wait()


class JumpingClock:
    """A wall clock that goes a day forwards or backwards at each look; gRPC's own looks go straight on to the kernel's.

    Attributes:
        looked: Modules of the link that looked at it.
    """

    def __init__(self, real: Callable[[], float]) -> None:
        self._real = real
        self._sign = 1
        self.looked: set[str] = set()

    def __call__(self) -> float:
        caller = sys._getframe(1).f_globals["__name__"]
        if caller.startswith("grpc"):
            return self._real()
        if caller.startswith("hilserl.link"):
            self.looked.add(caller)
        self._sign = -self._sign
        return self._real() + self._sign * 86_400.0


@pytest.mark.failure("R17")
def test_a_wall_clock_that_jumps_is_not_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases, time-outs, back-off and the dropping of segments go by the monotonic clock."""
    clock = JumpingClock(time.time)
    monkeypatch.setattr(time, "time", clock)
    port = free_port()
    with make_client(tmp_path, f"127.0.0.1:{port}") as client:
        for life in range(2):
            with make_server(tmp_path, port) as server:
                server.start()
                client.connect(10)
                for number in range(25):
                    client.send_step(make_step(25 * life + number))
                client.flush(10)
                assert 0 <= server.last_heard_s()["actor-1"] < 10 and server.live_actors() == ["actor-1"]
                session = client._session
                time.sleep(1.2)  # two heartbeats and a look of each watchdog
                assert client._session is session and client.is_connected
    with make_server(tmp_path) as server:
        for number, received in enumerate(server.replay_journal()):
            assert_same(received.record, make_step(number))
        assert number == 49
    assert not clock.looked
