"""A network that is cut, slow or silent between the two ends, on the level of TCP; `test_link_packets` does it to packets."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_proxy import FaultProxy
from link_testing import make_client, wait_until
from robot_and_learner import RobotAndLearner

from hilserl.link import client as client_module

Start = Callable[..., tuple[RobotAndLearner, FaultProxy]]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notice a silent learner within a second, not fifteen."""
    monkeypatch.setattr(client_module, "_PEER_TIMEOUT_S", 0.5)
    monkeypatch.setattr(client_module, "_HEARTBEAT_S", 0.1)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start both loops with a proxy between them, and send something."""
    proxies: list[FaultProxy] = []
    talks: list[RobotAndLearner] = []

    def start(**options: object) -> tuple[RobotAndLearner, FaultProxy]:
        def between(address: str) -> str:
            proxies.append(FaultProxy(address))
            return proxies[0].address

        talk = RobotAndLearner(tmp_path, between, **options)
        talks.append(talk)
        talk.__enter__()
        talk.push_weights()
        talk.act(50)
        talk.wait_until_delivered()
        return talk, proxies[0]

    yield start
    for proxy in proxies:
        proxy.mend()
    for talk in talks:
        talk.__exit__()
    for proxy in proxies:
        proxy.close()


def fail_and_recover(talk: RobotAndLearner, proxy: FaultProxy, fault: Callable[[], None], *, during: Callable[[], None]) -> None:
    """Act during the fault and after it; everything arrives once, and weights come again."""
    fault()
    talk.act(100)
    during()
    talk.require_bounded_memory()
    proxy.mend()
    talk.wait_until_delivered()
    talk.push_weights()
    talk.act(20)
    talk.finish()


@pytest.mark.failure("R16")
@pytest.mark.parametrize("times", [1, 3])
def test_a_reset_connection_loses_and_repeats_nothing(start: Start, times: int) -> None:
    talk, proxy = start()
    for _ in range(times - 1):
        proxy.cut()
        talk.act(30)
        proxy.mend()
        talk.wait_until_delivered()
    fail_and_recover(talk, proxy, proxy.cut, during=lambda: talk.wait(lambda: not talk.client.is_connected))


@pytest.mark.failure("R17")
@pytest.mark.parametrize("direction", [{"up": True, "down": False}, {"up": False, "down": True}, {"up": True, "down": True}])
def test_a_silence_shorter_than_the_timeouts_keeps_the_stream(start: Start, direction: dict[str, bool]) -> None:
    talk, proxy = start()
    fail_and_recover(talk, proxy, lambda: proxy.freeze(**direction), during=lambda: None)
    assert proxy.connections == 1


@pytest.mark.failure("R17")
@pytest.mark.parametrize("direction", [{"up": True, "down": False}, {"up": False, "down": True}, {"up": True, "down": True}])
def test_a_half_open_connection_is_left_and_found_again(start: Start, quick: None, direction: dict[str, bool]) -> None:
    """Each side believes for a while that the other is there, and the old stream's bytes arrive late."""
    talk, proxy = start()
    fail_and_recover(talk, proxy, lambda: proxy.freeze(**direction), during=lambda: talk.wait(lambda: not talk.client.is_connected))
    assert talk.server.live_actors() == ["actor-1"]


@pytest.mark.slow
@pytest.mark.failure("R17")
@pytest.mark.parametrize("direction", [{"up": True, "down": False}, {"up": False, "down": True}, {"up": True, "down": True}])
def test_both_sides_notice_a_silence_by_keep_alive(start: Start, direction: dict[str, bool]) -> None:
    """With the timeouts that ship: the learner frees the robot, the actor goes on acting, and they find each other again."""
    talk, proxy = start()

    def both_noticed() -> None:
        began = time.monotonic()
        talk.wait(lambda: not talk.client.is_connected, 40)
        actor_s = time.monotonic() - began
        talk.wait(lambda: not talk.server.live_actors(), 40)
        print(f"\nactor noticed after {actor_s:.1f} s, both after {time.monotonic() - began:.1f} s")

    fail_and_recover(talk, proxy, lambda: proxy.freeze(**direction), during=both_noticed)


@pytest.mark.failure("R17")
def test_an_actor_behind_a_half_open_connection_gives_way_to_another(start: Start, tmp_path: Path) -> None:
    """The learner thinks that the first one is there; its robot is free when it was silent for the lease's time."""
    talk, proxy = start(lease_timeout_s=0.5)
    proxy.freeze()
    wait_until(lambda: talk.server.last_heard_s()["actor-1"] > 0.6)
    assert talk.server.live_actors() == ["actor-1"]
    with make_client(tmp_path / "other", f"127.0.0.1:{proxy._upstream[1]}", actor_id="actor-2") as other:
        other.connect(10)
        assert talk.server.live_actors() == ["actor-2"]
    proxy.mend()
    talk.wait(lambda: talk.server.live_actors() == ["actor-1"])  # it comes back when the robot is free again
    talk.finish()


@pytest.mark.failure("R16")
def test_a_long_way_with_jitter_delays_and_loses_nothing(start: Start) -> None:
    talk, proxy = start()
    proxy.delay_s, proxy.jitter_s = 0.2, 0.1
    talk.act(100)
    talk.push_weights()
    talk.finish()


@pytest.mark.failure("R16")
def test_a_line_slower_than_the_robot_costs_disk_and_not_memory(start: Start) -> None:
    """10 MB of steps over 1 MB/s: the robot does not wait, and what is not on its way is on the disk only."""
    talk, proxy = start(image_px=128)
    proxy.bytes_per_s = 1e6
    talk.act(200)
    talk.require_bounded_memory()
    assert not talk.client._outbox.is_flushed
    proxy.bytes_per_s = None
    talk.push_weights()
    talk.finish()
