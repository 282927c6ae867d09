"""An actor that plays in a thread with a real console beside it, and pages that talk to it over real WebSockets."""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import json
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from pipeline_testing import make_tiny_config
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from hilserl.actor import run as actor_run
from hilserl.actor.loop import Actor
from hilserl.actor.pace import Pace
from hilserl.config.models import TrainConfig
from hilserl.console.operator import ConsoleOperator
from hilserl.data.preprocess import Preprocessor
from hilserl.environments.make import make_environment
from hilserl.errors import RobotError
from hilserl.link.messages import EpisodeReport, LearnerStatus, Step
from hilserl.policy import Policy, PolicyArchitecture

WAIT_S = 90.0  # on a machine that is busy with other things


def make_config(**overrides: Any) -> TrainConfig:
    settings = {
        "console__enable": True,
        "console__port": 0,
        "actor__intervention__type": "none",
        "actor__evaluate_every_steps": 0,
        "task__control_time_s": 60,
        "task__success_hold_steps": 50,  # so that a policy that knows nothing ends no episode under a test's hands
        "robot__control_hz": 20,
        "learner__max_owed_updates": 100_000,
    }
    return make_tiny_config(**(settings | overrides))


class FakeLink:
    """Keeps what the actor sends, and when."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.times: list[float] = []
        self.reports: list[EpisodeReport] = []
        self.status = self.last_status = LearnerStatus(phase="training", weights_version=1)
        self.is_connected = True
        self.waiting = (0, 0)

    def send_step(self, step: Step) -> None:
        self.times.append(time.monotonic())
        self.steps.append(step)

    def send_episode(self, report: EpisodeReport) -> None:
        self.reports.append(report)

    def latest_weights(self) -> None:
        return None


class Playing:
    """An actor in a thread."""

    def __init__(self, config: TrainConfig, *, pace: bool = True) -> None:
        self.config, self.link, self.paced = config, FakeLink(), pace
        self.operator = ConsoleOperator(config, mode="train", run="a-run")
        self.operator.linked(self.link)
        self.error: BaseException | None = None
        self.stop = threading.Event()
        self.stuck = threading.Event()  # makes the loop hang
        self.thread = threading.Thread(target=self._run, name="loop", daemon=True)

    def _run(self) -> None:
        try:
            config, operator = self.config, self.operator
            policy = Policy(PolicyArchitecture.from_config(config), Preprocessor.from_config(config))
            policy.load_tensors(dict(policy.tensors()), 1)

            def should_stop() -> str | None:
                while self.stuck.is_set() and not self.stop.is_set():
                    time.sleep(0.01)
                return "the test is over" if self.stop.is_set() else None

            environment: Any = make_environment(config)
            actor = Actor(config, environment, None, policy, self.link, should_stop, operator=operator)
            while True:
                with actor_run.human_of(config, environment, operator) as human:
                    actor.go_on_with(environment, human, Pace(config.robot.control_hz) if self.paced else None)
                    try:
                        actor.run()
                        break
                    except RobotError as error:
                        if not operator.stands_by(error):
                            raise
                environment.close()
                if operator.wait_for_rearming(actor.stop_reason):
                    break
                environment = make_environment(config)
            environment.close()
        except BaseException as error:
            self.error = error

    @property
    def url(self) -> str:
        until(lambda: self.operator.url is not None, what="the console to listen")
        assert self.operator.url is not None
        return self.operator.url

    def until(self, condition: Callable[[], Any], *, what: str = "") -> Any:
        def checked() -> Any:
            if self.error is not None:
                raise self.error
            return condition()

        return until(checked, what=what)


@contextlib.contextmanager
def playing(config: TrainConfig | None = None, *, pace: bool = True) -> Iterator[Playing]:
    game = Playing(config or make_config(), pace=pace)
    game.thread.start()
    try:
        yield game
    finally:
        game.stop.set()
        game.thread.join(WAIT_S)
        game.operator.close()
    assert not game.thread.is_alive()
    if game.error is not None:
        raise game.error


def until(condition: Callable[[], Any], *, what: str = "", seconds: float = WAIT_S) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            faulthandler.dump_traceback()
            raise AssertionError(f"waited {seconds} s for {what or condition}")
        time.sleep(0.01)
    return found


class Page:
    """What a browser does, without one."""

    def __init__(self, url: str, *, origin: str | None = "", **options: Any) -> None:
        address = url.replace("http", "ws", 1) + "/ws"
        self.socket: ClientConnection = connect(address, origin=url if origin == "" else origin, compression=None, **options)  # type: ignore[arg-type]
        self.messages: list[dict[str, Any]] = []
        self.pictures: list[tuple[dict[str, Any], bytes]] = []
        self.times: list[float] = []
        self.closed: tuple[int, str] | None = None
        self._numbers, self._sequence = itertools.count(1), itertools.count(1)
        self._pings = threading.Event()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        try:
            for message in self.socket:
                if isinstance(message, bytes):
                    (size,) = struct.unpack_from("<I", message)
                    header = json.loads(message[4 : 4 + size])
                    self.pictures.append((header, message[4 + size :]))
                    self.times.append(time.monotonic())
                    self.say({"type": "seen", **{key: header[key] for key in ("camera", "view", "number")}})
                else:
                    self.messages.append(json.loads(message))
        except (ConnectionClosed, OSError):
            pass
        if self.socket.close_code is not None:
            self.closed = (self.socket.close_code, self.socket.close_reason or "")

    def say(self, message: Mapping[str, Any] | str) -> None:
        with contextlib.suppress(ConnectionClosed):
            self.socket.send(message if isinstance(message, str) else json.dumps(message))

    def last(self, kind: str) -> dict[str, Any]:
        return until(lambda: next((one for one in reversed(self.messages) if one["type"] == kind), None), what=f"a message `{kind}`")

    @property
    def state(self) -> dict[str, Any]:
        return self.last("state")

    def sees(self, condition: Callable[[dict[str, Any]], Any], what: str = "") -> dict[str, Any]:
        """Wait for a state that fulfils a condition."""

        def found() -> dict[str, Any] | None:
            state = self.state
            return state if condition(state) else None

        try:
            return until(found, what=what)
        except AssertionError:
            raise AssertionError(f"never: {what}; last seen {self.state}") from None

    def ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Say something that has an answer; return that."""
        number = next(self._numbers)
        self.say({"id": number, "at": now_ms(), **message})
        return until(
            lambda: next((one for one in list(self.messages) if one["type"] == "reply" and one["id"] == number), None),
            what=f"an answer to {message}",
        )

    def do(self, name: str, **fields: Any) -> dict[str, Any]:
        return self.ask({"type": "command", "name": name, **fields})

    def control(self) -> None:
        assert self.ask({"type": "request_control"})["ok"]
        until(lambda: self.last("control")["you"])

    def drive(self, *action: float, sequence: int | None = None, at: float | None = None) -> None:
        number = next(self._sequence) if sequence is None else sequence
        self.say({"type": "drive", "seq": number, "at": now_ms() if at is None else at, "action": list(action)})

    @contextlib.contextmanager
    def driving(self, *action: float) -> Iterator[None]:
        """Send a wish as a page does, until the block ends or the connection does."""
        over = threading.Event()

        def send() -> None:
            while not over.wait(0.04):
                self.drive(*action)

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def drop(self) -> None:
        """Vanish without a word, as a page whose machine is switched off does not even... the socket is closed under it."""
        self.socket.socket.close()

    def close(self) -> None:
        self.socket.close()
        self.reader.join(5)


@contextlib.contextmanager
def page(game: Playing | str, **options: Any) -> Iterator[Page]:
    one = Page(game if isinstance(game, str) else game.url, **options)
    try:
        yield one
    finally:
        one.close()


def now_ms() -> float:
    return 1000.0 * time.monotonic()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def moved(steps: list[Step]) -> float:
    """How far the actions of steps go, at most."""
    return max((float(np.abs(step.action).max()) for step in steps), default=0.0)
