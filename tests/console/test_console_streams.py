"""Pictures go on: whatever is lost, late or broken on their way, the next ones come."""

import asyncio
import json
import struct
import threading
from typing import Any

import numpy as np
import pytest
from console_testing import page

from hilserl.console.pictures import Pictures
from hilserl.console.serving.encoder import Encoder, Picture
from hilserl.console.serving.hub import Hub
from hilserl.console.serving.rates import Bucket
from hilserl.console.serving.viewer import Viewer
from hilserl.console.wire import Wire


class Socket:
    """A browser's end; keeps what is sent."""

    client = None

    def __init__(self) -> None:
        self.texts: list[dict[str, Any]] = []
        self.numbers: list[int] = []

    async def send_text(self, text: str) -> None:
        self.texts.append(json.loads(text))

    async def send_bytes(self, data: bytes) -> None:
        (size,) = struct.unpack_from("<I", data)
        self.numbers.append(json.loads(data[4 : 4 + size])["number"])


class Memory:
    """An encoder whose newest picture is `number`, and that takes its time while `hangs`."""

    def __init__(self) -> None:
        self.number, self.hangs = 0, False

    async def newest(self, camera: str, view: str, max_width: int, number: int) -> Picture:
        while self.hangs:
            await asyncio.sleep(0.01)
        return Picture(max(self.number, number), 0.0, 8, 8, b"jpeg")


def watching(socket: Socket, encoder: Any) -> Viewer:
    viewer = Viewer("v1", socket, encoder)  # type: ignore[arg-type]
    assert viewer.read(json.dumps({"type": "watch", "views": ["raw"], "max_hz": 30})) is None
    return viewer


def seen(viewer: Viewer, number: int) -> None:
    viewer.read(json.dumps({"type": "seen", "camera": "wrist", "view": "raw", "number": number}))


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


def run(work: Any) -> None:
    async def whole() -> None:
        socket, encoder = Socket(), Memory()
        viewer = watching(socket, encoder)
        task = asyncio.create_task(viewer.send_on())
        await work(viewer, socket, encoder)
        assert not task.done()
        task.cancel()

    asyncio.run(whole())


def test_an_encoder_that_hangs_holds_up_no_answer_and_goes_on_where_it_was() -> None:
    async def work(viewer: Viewer, socket: Socket, encoder: Memory) -> None:
        encoder.hangs = True
        viewer.has_picture("wrist", "raw", 1, 0)
        await asyncio.sleep(0.05)
        viewer.tell({"type": "pong"})
        viewer.show_state('{"type": "state"}')
        await until(lambda: [one["type"] for one in socket.texts] == ["pong", "state"])
        assert not socket.numbers
        encoder.hangs = False
        await until(lambda: socket.numbers == [1])

    run(work)


def test_acknowledgements_that_were_lost_slow_a_page_down_and_no_more() -> None:
    async def work(viewer: Viewer, socket: Socket, encoder: Memory) -> None:
        for number in (1, 2, 3):
            viewer.has_picture("wrist", "raw", number, 0)
            await until(lambda number=number: socket.numbers[-1:] == [number])  # the third after a second
        seen(viewer, 3)  # and not those before it
        assert not viewer._streams["wrist", "raw"].unseen
        for number in (2, 3, 99):  # again, and one that was never sent
            seen(viewer, number)
        viewer.has_picture("wrist", "raw", 4, 0)
        await until(lambda: socket.numbers == [1, 2, 3, 4])
        assert list(viewer._streams["wrist", "raw"].unseen) == [4]

    run(work)


def test_a_picture_newer_than_what_was_announced_is_sent_once_and_is_no_new_beginning() -> None:
    async def work(viewer: Viewer, socket: Socket, encoder: Memory) -> None:
        encoder.number = 5  # the actor is ahead of its messages
        for number in (3, 4, 5):
            viewer.has_picture("wrist", "raw", number, 0)
            await asyncio.sleep(0.06)
        assert socket.numbers == [5] and list(viewer._streams["wrist", "raw"].unseen) == [5]
        encoder.number = 0
        viewer.has_picture("wrist", "raw", 1, 0)  # that is one
        await until(lambda: socket.numbers == [5, 1])

    run(work)


def test_acknowledging_costs_a_page_nothing_of_what_it_may_say() -> None:
    async def work(viewer: Viewer, socket: Socket, encoder: Memory) -> None:
        viewer._bucket = Bucket(0.0, 3.0)
        for number in range(1, 9):
            viewer.has_picture("wrist", "raw", number, 0)
            await until(lambda number=number: socket.numbers[-1:] == [number])
            seen(viewer, number)

    run(work)


def test_who_asks_for_a_picture_while_an_older_one_is_encoded_gets_the_newer_one(monkeypatch) -> None:
    pictures = Pictures()
    encoder = Encoder(pictures.folder, print)
    frame = {"observation.images.wrist": np.zeros((48, 64, 3), np.uint8)}
    try:
        pictures.show("raw", frame, always=True)
        started, may_go_on = threading.Event(), threading.Event()
        make = encoder._make

        def slow(*key: Any) -> Picture | None:
            picture = make(*key)
            started.set()
            assert may_go_on.wait(30)
            return picture

        monkeypatch.setattr(encoder, "_make", slow)

        async def work() -> None:
            first = asyncio.create_task(encoder.newest("wrist", "raw", 64, 1))
            await until(started.is_set)
            pictures.show("raw", frame, always=True)
            second = asyncio.create_task(encoder.newest("wrist", "raw", 64, 2))
            await asyncio.sleep(0.02)
            may_go_on.set()
            one, two = await first, await second
            assert one is not None and two is not None and (one.number, two.number) == (1, 2)

        asyncio.run(work())
    finally:
        encoder.close()
        pictures.close()


def test_a_disk_that_fails_once_costs_one_replay_and_a_full_queue_no_episode(own_home, tmp_path) -> None:
    ours, theirs = Wire.pair()
    said: list[str] = []
    facts = {
        "hello": {"robot": "arm", "run": "r", "take_after_s": 10.0, "kind": "simulation"},
        "frames": str(tmp_path), "console": {"replays": 3}, "safety": {},
    }  # fmt: skip

    async def work() -> None:
        its = Wire(theirs)
        hub = Hub(facts, its, said.append)
        end, fails = hub.replays.end, [OSError("no space left on device")]

        def end_or_fail(episode: dict[str, Any]) -> None:
            if fails:
                raise fails.pop()
            end(episode)

        hub.replays.end = end_or_fail  # type: ignore[method-assign]
        hub.start()
        for number in range(2):
            ours.send({"kind": "episode", "episode": {"number": number}})
        await until(lambda: [one["number"] for one in hub.replays.episodes] == [1])
        assert any("no space left" in line for line in said)
        for step in range(300):
            hub.recorder.saw("wrist", step, step)
        hub.recorder.ended({"number": 2})
        await until(lambda: [one["number"] for one in hub.replays.episodes] == [1, 2])
        ours.close()
        await hub.finish()
        its.close()

    asyncio.run(work())


def test_a_defect_in_the_actors_part_leaves_no_page_blind(game, operator, monkeypatch) -> None:
    assert operator.do("hold")["ok"]
    show, defects = game.operator._show.live, [ValueError("mmap closed or invalid")]

    def show_or_fail(environment: Any, step: int) -> None:
        if defects:
            raise defects.pop()
        show(environment, step)

    monkeypatch.setattr(game.operator._show, "live", show_or_fail)
    game.until(lambda: not defects)
    number = operator.state["number"]
    operator.sees(lambda state: state["number"] > number + 3, what="new states of an actor that is held")
    with page(game) as another:
        another.sees(lambda state: state["control"] == "held" and state["alive"])
    assert operator.do("resume")["ok"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch) -> None:
    monkeypatch.setattr("hilserl.console.operator._AFTER_DEFECT_S", 0.1)
