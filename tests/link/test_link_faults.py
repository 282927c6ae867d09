"""Real processes that die and freeze in the middle; compared by content at the end."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from link_testing import assert_same, free_port, make_client, make_server, make_step, process, receive, wait_until

from hilserl.link import Step
from hilserl.link import client as module


def journaled_steps(folder: Path) -> list[Step]:
    """Read what a killed learner would rebuild its replay from."""
    with make_server(folder) as server:
        return [received.record for received in server.replay_journal()]


@pytest.mark.failure("R16")
def test_exactly_once_across_two_kills_of_the_learner(tmp_path: Path) -> None:
    port, steps = free_port(), 400
    client = make_client(tmp_path, f"127.0.0.1:{port}")
    sent = 0

    def send_until(condition: Callable[[], bool]) -> None:
        nonlocal sent
        while not condition() and sent < steps:
            client.send_step(make_step(sent))
            sent += 1
            time.sleep(0.002)

    for _ in range(2):
        with process("learner", tmp_path, port) as learner:
            learner.stdout.readline()
            client.connect(20)
            send_until(lambda mark=sent, acked=client._outbox.acked_seq: client._outbox.acked_seq > acked + 40 and sent > mark + 60)
            learner.send_signal(signal.SIGKILL)  # in the middle of the stream
            learner.wait()
            send_until(lambda mark=sent: sent >= mark + 60)  # the robot does not wait
        wait_until(lambda: not client.is_connected)
    assert 200 <= sent < steps
    with process("learner", tmp_path, port) as learner:
        learner.stdout.readline()
        send_until(lambda: False)
        client.flush(20)
        client.close()
    received = journaled_steps(tmp_path)
    assert len(received) == steps
    for number, step in enumerate(received):
        assert_same(step, make_step(number))


@pytest.mark.failure("R16")
def test_a_killed_actor_loses_nothing_it_journaled(tmp_path: Path) -> None:
    """What it had not sent is sent by the next process with its journal."""
    port = free_port()
    with process("actor", tmp_path, f"127.0.0.1:{port}", 100_000) as actor:
        with make_server(tmp_path, port) as server:
            server.start()
            while int(actor.stdout.readline().split()[1]) < 100:
                pass
        while int(actor.stdout.readline().split()[1]) < 400:  # these find no learner
            pass
        actor.kill()
        announced = [line for line in actor.stdout if line.endswith("\n")]
        journaled = int(announced[-1].split()[1]) if announced else 400
    with make_server(tmp_path, port) as server:
        before = len(list(server.replay_journal()))
        assert before < journaled
        with make_client(tmp_path, server.start()) as client:
            client.connect(10)
            client.send_step(make_step(0))  # a new one, behind the old ones
            wait_until(lambda: client._outbox.is_flushed or not server.poll(0.05), 20)
            client.flush(20)
    received = journaled_steps(tmp_path)
    assert len(received) - 1 in (journaled, journaled + 1)  # the last may have been journaled and not yet announced
    for number, step in enumerate(received[:-1]):
        assert_same(step, make_step(number, ended=number % 10 == 9))
    assert_same(received[-1], make_step(0))


@pytest.mark.failure("R17")
def test_a_frozen_learner_is_left_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGSTOP: the connection stays open and nobody answers."""
    monkeypatch.setattr(module, "_PEER_TIMEOUT_S", 1.0)
    with process("learner", tmp_path, free_port()) as learner:
        client = make_client(tmp_path, learner.stdout.readline().strip())
        client.connect(20)
        learner.send_signal(signal.SIGSTOP)
        for number in range(50):
            client.send_step(make_step(number))
        wait_until(lambda: not client.is_connected, 5)
        learner.send_signal(signal.SIGCONT)
        client.flush(15)
        client.close()
    assert [step.reward for step in journaled_steps(tmp_path)] == list(map(float, range(50)))


@pytest.mark.failure("R17")
def test_the_robot_of_a_killed_actor_is_free_at_once(tmp_path: Path) -> None:
    with make_server(tmp_path) as server:
        address = server.start()
        with process("actor", tmp_path, address, 100_000) as actor:
            receive(server, 20)
            actor.kill()
        wait_until(lambda: not server.live_actors(), 2)
        with make_client(tmp_path / "other", address, actor_id="actor-2") as client:
            client.connect(5)
