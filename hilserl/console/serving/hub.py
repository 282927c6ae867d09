"""What goes between the actor and all pages."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hilserl.config.safety import SafetyConfig
from hilserl.console.coaching import advise
from hilserl.console.serving import asks
from hilserl.console.serving.background import Background
from hilserl.console.serving.encoder import Encoder
from hilserl.console.serving.handover import Handover
from hilserl.console.serving.recorder import Recorder
from hilserl.console.serving.replays import Replays
from hilserl.console.serving.safety import Safety
from hilserl.console.serving.viewer import Viewer
from hilserl.console.wire import Wire
from hilserl.robot.latch import robot_folder

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
_STOPPING_S = 10.0
_HINT_S, _SAME = 3.0, 20
_NOT_IN_CONTROL = "this page is not in control: ask for it first"
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
        self.recorder = Recorder(self.replays, self.encoder)
        self.handover = Handover(self.hello["take_after_s"])
        self.state: dict[str, Any] = {}
        self._safety = Safety(self.robot, self.hello["kind"], SafetyConfig.model_validate(facts["safety"]), log)
        self._wire, self._log = wire, log
        self._asks_folder = asks.asks_folder()
        self._newest: dict[tuple[str, str], tuple[int, int]] = {}
        self._state_s = 0.0
        self._driving = False
        self._other_asks: list[dict[str, Any]] = []
        self._advice: list[dict[str, Any]] = []
        self._refs = itertools.count(1)
        self._names = itertools.count(1)
        self._waiting: dict[int, tuple[Viewer, Any, float]] = {}
        self._background, self._stopping = Background(log), Background(log)
        self.ended = asyncio.Event()

    def start(self) -> None:
        """Listen to the actor."""
        asyncio.get_running_loop().add_reader(self._wire.fileno(), self._read)
        self._background.keep_doing(self._tick)
        self._background.keep_doing(self._record)
        self._read()

    async def finish(self) -> None:
        """The actor has gone: tell the pages, and let a stop that is under way come to its end."""
        self._log("the actor has ended")
        if self.state.get("phase") != "ended":  # it was killed: it said no last word
            self.state |= {"phase": "ended", "text": "The actor has gone without a word: its log says more.", "control": "nobody"}
        self.state["alarms"] = []
        self._broadcast_state()
        await asyncio.sleep(_LINGER_S)
        if await self._stopping.finish(_STOPPING_S):
            await asyncio.sleep(_LINGER_S)
        self._background.cancel()
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
                self._stopping.begin(self._stop(viewer, number))
            elif kind == "rearm":
                self._background.begin(self._rearm(viewer, number, message.get("robot")))
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
            self._reply(viewer, number, _NOT_IN_CONTROL)
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
        error, done = await self._safety.stop(f"console, page {viewer.name} at {viewer.where}")
        self._reply(viewer, number, error, done)

    async def _rearm(self, viewer: Viewer, number: Any, named: Any) -> None:
        if viewer.name != self.handover.controller:
            error = _NOT_IN_CONTROL
        else:
            who = f"{viewer.name} ({viewer.where})"
            error = await self._safety.release(who, named, actor_waits=self.state.get("phase") == "stopped")
        self._reply(viewer, number, error)

    def _reply(self, viewer: Viewer, number: Any, error: str, text: str = "") -> None:
        viewer.tell({"type": "reply", "id": number, "ok": not error, "error": error} | ({"text": text} if text else {}))

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
                    self.recorder.ended(message["episode"])
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
            if view == "raw" and moves:
                self.recorder.saw(camera, number, message["step"])

    async def _record(self) -> None:
        await self.recorder.write_next_episode()
        for viewer in self.viewers.values():
            viewer.tell(self.replays.message())

    async def _tick(self) -> None:
        """Do what nobody asks for: tell that the actor is silent, give up waiting, look for questions, advise."""
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
            whole["stopped"] = whole["stopped"] | {"problem": self._safety.problem}
        return whole


_HANDOVER: dict[str, Callable[[Handover, str], str]] = {
    "request_control": Handover.request,
    "grant_control": Handover.grant,
    "deny_control": Handover.deny,
    "take_control": Handover.take,
    "release_control": Handover.release,
}
