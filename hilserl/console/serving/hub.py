"""What goes between the actor and all pages."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from hilserl.config.safety import SafetyConfig
from hilserl.console.coaching import advise
from hilserl.console.serving import asks
from hilserl.console.serving.encoder import Encoder
from hilserl.console.serving.handover import Handover
from hilserl.console.serving.replays import MAX_WIDTH, Replays
from hilserl.console.serving.viewer import Viewer
from hilserl.console.wire import Wire
from hilserl.errors import HilserlError
from hilserl.robot.estop import ALL_OFF, stop_robot
from hilserl.robot.latch import latched, robot_folder
from hilserl.robot.rearm import rearm

_ANSWER_S = 2.5
_SILENT_S = 2.0
_TICK_S = 0.5
_LATE_DRIVE_S = 0.3
_LATE_COMMAND_S = 2.0
_NEVER_LATE = {"hold", "pause", "hand_back"}
_COMMANDS = {
    "start", "resume", "pause", "hold", "home", "take_over", "hand_back", "success", "failure", "end", "discard", "re_record",
    "source", "real_time", "answer",
}  # fmt: skip
_LINGER_S = 1.0
_HINT_S, _SAME = 3.0, 20
_NEARER = "Drive from nearer, or over a faster network"


class Hub:
    """The console's middle: one thread, nothing waits in it."""

    def __init__(self, facts: dict[str, Any], wire: Wire, log: Callable[[str], None]) -> None:
        """Begin.

        Args:
            facts: What the actor said at the start.
            wire: To the actor.
            log: Writes a line down.
        """
        self.hello: dict[str, Any] = facts["hello"]
        self.robot: str = self.hello["robot"]
        self.viewers: dict[str, Viewer] = {}
        self.encoder = Encoder(Path(facts["frames"]), log)
        self.replays = Replays(robot_folder(self.robot) / "replays", facts["console"]["replays"], self.hello["run"])
        self.handover = Handover(self.hello["take_after_s"])
        self.state: dict[str, Any] = {}
        self._safety = SafetyConfig.model_validate(facts["safety"])
        self._wire, self._log = wire, log
        self._asks_folder = asks.asks_folder()
        self._newest: dict[tuple[str, str], tuple[int, int]] = {}
        self._state_s = 0.0
        self._driving = False
        self._other_asks: list[dict[str, Any]] = []
        self._advice: list[dict[str, Any]] = []
        self._problem = ""
        self._refs = itertools.count(1)
        self._names = itertools.count(1)
        self._waiting: dict[int, tuple[Viewer, Any, float]] = {}
        self._background: set[asyncio.Task[Any]] = set()
        self._stopping: set[asyncio.Task[Any]] = set()
        self._recorded: asyncio.Queue[tuple[str, int, int] | dict[str, Any]] = asyncio.Queue(maxsize=256)
        self.ended = asyncio.Event()

    def start(self) -> None:
        """Listen to the actor."""
        asyncio.get_running_loop().add_reader(self._wire.fileno(), self._read)
        self._spawn(self._again_and_again(self._tick))
        self._spawn(self._again_and_again(self._record))
        self._read()

    async def finish(self) -> None:
        """The actor has gone: tell the pages, and let a stop that is under way come to its end."""
        self._log("the actor has ended")
        if self.state.get("phase") != "ended":  # it was killed: it said no last word
            self.state |= {"phase": "ended", "text": "The actor has gone without a word: its log says more.", "control": "nobody"}
        self.state["alarms"] = []
        self._broadcast_state()
        await asyncio.sleep(_LINGER_S)
        if self._stopping:
            await asyncio.wait(self._stopping, timeout=10.0)
            await asyncio.sleep(_LINGER_S)
        for task in self._background:
            task.cancel()
        self.encoder.close()

    # Pages

    def new_name(self) -> str:
        """Return a name for a new page."""
        return f"v{next(self._names)}"

    def join(self, viewer: Viewer) -> None:
        """A page has come."""
        self.viewers[viewer.name] = viewer
        self._log(f"{viewer.name} ({viewer.where}) has come")
        viewer.tell(self.hello | {"you": viewer.name})
        viewer.tell(self.handover.message(viewer.name, driving=self._driving))
        viewer.tell(self.replays.message())
        viewer.show_state(json.dumps(self._whole_state()))
        for (camera, view), (number, step) in self._newest.items():
            viewer.has_picture(camera, view, number, step)
        self._pages_changed()

    def leave(self, viewer: Viewer) -> None:
        """A page has gone; one that was in control lets go of the arm."""
        if self.viewers.pop(viewer.name, None) is None:
            return
        self._log(f"{viewer.name} ({viewer.where}) has gone")
        controller = self.handover.controller
        self.handover.leave(viewer.name)
        self._control_changed(controller)
        self._pages_changed()

    def hear(self, viewer: Viewer, message: dict[str, Any]) -> None:
        """A page says something that `Viewer.read` let through.

        Raises:
            HangUp: It was one senseless message too many.
        """
        kind, number = message["type"], message.get("id")
        if not (number is None or isinstance(number, int) or (isinstance(number, str) and len(number) <= 64)):
            viewer.senseless()
            return
        try:
            if kind == "drive":
                self._drive(viewer, message)
            elif kind == "command":
                self._command(viewer, message, number)
            elif kind == "estop":
                self._spawn(self._stop(viewer, number), self._stopping)
            elif kind == "rearm":
                self._spawn(self._rearm(viewer, number, message.get("robot")))
            elif kind in _HANDOVER:
                controller = self.handover.controller
                error = _HANDOVER[kind](self.handover, viewer.name)
                self._reply(viewer, number, error)
                self._control_changed(controller)
            else:
                viewer.senseless()
        except (KeyError, TypeError, ValueError, OverflowError):
            viewer.senseless()

    def _drive(self, viewer: Viewer, message: dict[str, Any]) -> None:
        sequence, action, late_s = message["seq"], message["action"], viewer.late_s(message)
        if not isinstance(sequence, int) or not isinstance(action, list) or len(action) > 16 or abs(sequence) > 1 << 53:
            raise TypeError("drive")
        wanted = [float(value) for value in action]
        if not all(map(math.isfinite, wanted)):
            raise ValueError("drive")
        if viewer.name != self.handover.controller:
            self._hint(viewer, "this page is not in control")
        elif late_s <= _LATE_DRIVE_S:
            ref = self._ref(viewer, None, forget=True)
            self._wire.send({"kind": "drive", "seq": sequence, "action": wanted, "sent": time.monotonic() - late_s, "ref": ref})
        else:
            self._hint(viewer, f"your commands arrive {1000 * late_s:.0f} ms late; they are dropped. {_NEARER}")

    def _command(self, viewer: Viewer, message: dict[str, Any], number: Any) -> None:
        name, late_s = message["name"], viewer.late_s(message)
        if name not in _COMMANDS:
            self._reply(viewer, number, f"`{str(name)[:40]}` is no command; there are {', '.join(sorted(_COMMANDS))}")
        elif viewer.name != self.handover.controller:
            self._reply(viewer, number, "this page is not in control: ask for it first")
        elif late_s > _LATE_COMMAND_S and name not in _NEVER_LATE:
            self._reply(viewer, number, f"`{name}` was {late_s:.1f} s on the way, so it was dropped. Say it again")
        else:
            self._log(f"{viewer.name} ({viewer.where}): {name} {message.get('value', '')}")
            if name == "answer" and any(ask["ask"] == message.get("ask") for ask in self._other_asks):
                done = asks.answer(self._asks_folder, str(message["ask"]), bool(message.get("value")), f"{viewer.name} at {viewer.where}")
                self._reply(viewer, number, "" if done else "nobody asks that any more")
                return
            value = message.get("value")
            wire_message = {"kind": "command", "name": name, "sent": time.monotonic() - late_s, "ref": self._ref(viewer, number)}
            wire_message |= {"value": value if isinstance(value, bool | str | None) else None, "ask": str(message.get("ask"))[:200]}
            if not self._wire.send(wire_message):
                self._waiting.pop(wire_message["ref"], None)
                self._reply(viewer, number, "the actor takes no commands: it hangs. The emergency stop works all the same")

    async def _stop(self, viewer: Viewer, number: Any) -> None:
        """Stop the arm, without the actor's help."""
        source = f"console, page {viewer.name} at {viewer.where}"
        self._log(f"EMERGENCY STOP: {source}")
        if self.hello["kind"] == "gymnasium":
            self._reply(viewer, number, "this environment is no arm: `hold` it, or end the run")
            return
        done = await asyncio.to_thread(stop_robot, self.robot, source)
        if self.hello["kind"] == "simulation" and done == ALL_OFF:
            done = "the simulated arm stands still"
        self._log(f"emergency stop: {done}")
        viewer.tell({"type": "reply", "id": number, "ok": True, "error": "", "text": done})

    async def _rearm(self, viewer: Viewer, number: Any, robot: Any) -> None:
        """Release the arm, where a person says so and its servos do not object."""
        if viewer.name != self.handover.controller:
            error = "this page is not in control: ask for it first"
        elif robot != self.robot:
            error = f"robot `{self.robot}` stays stopped: that was not its name"
        elif self.state.get("phase") != "stopped":
            error = "the actor has not let go of the arm yet" if latched(self.robot) else f"robot `{self.robot}` is not stopped"
        else:
            self._log(f"{viewer.name} ({viewer.where}): re-arm")
            try:
                await asyncio.to_thread(rearm, self.robot, self._safety)
                error = ""
            except HilserlError as reason:
                error = str(reason)
        self._problem = error if latched(self.robot) else ""
        self._reply(viewer, number, error)

    def _reply(self, viewer: Viewer, number: Any, error: str) -> None:
        viewer.tell({"type": "reply", "id": number, "ok": not error, "error": error})

    def _hint(self, viewer: Viewer, error: str) -> None:
        """Say why drive commands do not count: they come 25 times a second, so the same is said once in a while."""
        now, kind = time.monotonic(), error[:_SAME]
        if now - viewer.hinted_s.get(kind, -math.inf) > _HINT_S:
            viewer.hinted_s[kind] = now
            self._reply(viewer, None, error)

    def _ref(self, viewer: Viewer, number: Any, *, forget: bool = False) -> int:
        ref = next(self._refs)
        self._waiting[ref] = (viewer, number, math.inf if forget else time.monotonic() + _ANSWER_S)
        if forget:  # a drive command is answered only where it is refused
            self._waiting.pop(ref - 200, None)
        return ref

    def _pages_changed(self) -> None:
        self._wire.send({"kind": "pages", "viewers": len(self.viewers)})

    def _control_changed(self, before: str | None) -> None:
        if before != self.handover.controller:
            self._log(f"in control: {self.handover.controller or 'nobody'}")
            self._wire.send({"kind": "driver"})
        for viewer in self.viewers.values():
            viewer.tell(self.handover.message(viewer.name, driving=self._driving))

    # The actor

    def _read(self) -> None:
        while (message := self._wire.receive()) is not None:
            match message["kind"]:
                case "state":
                    self._state_s = message["at"]
                    self.state = message["state"]
                    driving = self.state["control"] in ("human", "handing_back") and self.state["source"]["type"] != "none"
                    if driving != self._driving:
                        self._driving = driving
                        self._control_changed(self.handover.controller)
                    self._broadcast_state()
                case "pictures":
                    self._pictures(message)
                case "episode":
                    self._keep(message["episode"])
                case "reply":
                    viewer, number, _ = self._waiting.pop(message["ref"], (None, None, 0.0))
                    if viewer is not None and number is None:
                        self._hint(viewer, message["error"])
                    elif viewer is not None:
                        self._reply(viewer, number, message["error"])
        if self._wire.is_closed and not self.ended.is_set():
            asyncio.get_running_loop().remove_reader(self._wire.fileno())
            self.ended.set()

    def _pictures(self, message: dict[str, Any]) -> None:
        for camera, view, number in message["new"]:
            self._newest[camera, view] = number, message["step"]
            for viewer in self.viewers.values():
                viewer.has_picture(camera, view, number, message["step"])
            moves = self.state.get("phase") in ("episode", "evaluation") and self.state.get("control") != "held"
            if view == "raw" and moves and self.replays.wants(camera):
                self._keep((camera, number, message["step"]))

    def _keep(self, what: tuple[str, int, int] | dict[str, Any]) -> None:
        """Queue it; a disk or an encoder that is too slow costs pictures of replays, and nothing else."""
        if self._recorded.full():
            if not isinstance(what, dict):
                return
            self._recorded.get_nowait()  # the list of episodes has none missing
        self._recorded.put_nowait(what)

    async def _again_and_again(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do what has no end; a round that fails is written down, and is the only one that is lost."""
        while True:
            try:
                await work()
            except Exception as error:
                self._log(f"a defect of the console, which goes on: {error!r}")
                await asyncio.sleep(_TICK_S)

    async def _record(self) -> None:
        """Keep the pictures of the episode that is on, in order, and write it when it has ended."""
        while True:
            what = await self._recorded.get()
            if isinstance(what, dict):
                await asyncio.to_thread(self.replays.end, what)
                for viewer in self.viewers.values():
                    viewer.tell(self.replays.message())
                continue
            camera, number, step = what
            if self.replays.wants(camera) and (picture := await self.encoder.newest(camera, "raw", MAX_WIDTH, number)) is not None:
                self.replays.add(camera, step, picture.jpeg)

    async def _tick(self) -> None:
        """Do what nobody asks for: tell that the actor is silent, give up waiting, look for questions, advise."""
        while True:
            await asyncio.sleep(_TICK_S)
            now = time.monotonic()
            for ref, (viewer, number, until_s) in list(self._waiting.items()):
                if until_s < now:
                    del self._waiting[ref]
                    self._reply(viewer, number, "the actor did not answer: it hangs, or is busy. The emergency stop works all the same")
            self._other_asks = asks.waiting(self._asks_folder)
            self._advice = advise(self.state, self.replays.episodes) if self.state else []
            if self.handover.asking is not None:
                self._control_changed(self.handover.controller)
            if now - self._state_s > _TICK_S:
                self._broadcast_state()

    def _broadcast_state(self) -> None:
        if self.viewers:
            text = json.dumps(self._whole_state())
            for viewer in self.viewers.values():
                viewer.show_state(text)

    def _whole_state(self) -> dict[str, Any]:
        age_s = time.monotonic() - self._state_s if self.state else 0.0
        whole = {"type": "state", "phase": "starting", "text": "The actor starts.", "control": "nobody"} | self.state
        whole |= {
            "age_s": round(age_s, 3),
            "alive": bool(self.state) and age_s < _SILENT_S and not self.ended.is_set(),
            "viewers": len(self.viewers),
        }
        whole["asks"] = [*self.state.get("asks", []), *self._other_asks]
        whole["advice"] = self._advice
        if whole.get("stopped"):
            whole["stopped"] = whole["stopped"] | {"problem": self._problem}
        return whole

    def _spawn(self, work: Any, also: set[asyncio.Task[Any]] | None = None) -> None:
        task = asyncio.create_task(work)
        for group in (self._background, also):
            if group is not None:
                group.add(task)
                task.add_done_callback(group.discard)
        task.add_done_callback(self._look_at)

    def _look_at(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log(f"a defect of the console: {error!r}")


_HANDOVER: dict[str, Callable[[Handover, str], str]] = {
    "request_control": Handover.request,
    "grant_control": Handover.grant,
    "deny_control": Handover.deny,
    "take_control": Handover.take,
    "release_control": Handover.release,
}
