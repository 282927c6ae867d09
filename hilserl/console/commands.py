"""What a person wants of the actor: the state behind hold, pause, home, marks, sources and questions."""

from __future__ import annotations

import threading
import time
from typing import Any

from hilserl.console.drive import STALE_S, Drive
from hilserl.teleop.events import TeleopEvent
from hilserl.teleop.operator import Wish

LATE_S = 2.0
_NOT_MOVED = "this environment is not moved by people"
_DRIVE_NEEDS = "nobody may take over: the intervention source is `none`"
_MARKS = {
    "success": TeleopEvent.SUCCESS,
    "failure": TeleopEvent.FAILURE,
    "end": TeleopEvent.TERMINATE_EPISODE,
    "discard": TeleopEvent.RERECORD_EPISODE,
    "re_record": TeleopEvent.RERECORD_EPISODE,
}
_MAKES_STILL = {"hold", "pause", "hand_back"}  # these are never too late


class Refused(Exception):
    """A command that does not count, with its reason for the person."""


class Commands:
    """Takes what the console sends; thread-safe.

    Attributes:
        lock: Held while anything here changes.
        changed: Set with every command, for who waits.
        drive: The page's wish to move.
        source: Who may take over besides the page, or `console` (the page alone) or `none`.
        sources: Those that there are.
        wanted_source: Asked for, and not in use yet.
        source_error: Why the last one that was asked for could not be used.
        in_episode: An episode is on: marks belong to it.
        held_because: Why the arm holds, in words.
        may_drive: The page may move this robot at all.
        real_time: Somebody wants an unthrottled simulation to keep the control period.
        viewers: Pages that are open.
    """

    def __init__(self, drive: Drive, *, source: str, waits_for_start: bool, may_drive: bool) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Event()
        self.drive = drive
        self.source = source
        self.sources: tuple[str, ...] = (source,)
        self.wanted_source: str | None = None
        self.source_error = ""
        self.in_episode = False
        self.held_because = ""
        self.may_drive = may_drive
        self.real_time = False
        self.viewers = 0
        self.paused, self._held, self._home = waits_for_start, False, False
        self._stays = False
        self._marks: set[TeleopEvent] = set()
        self._asks: dict[str, dict[str, Any]] = {}
        self._answers: dict[str, bool] = {}

    # The loop's side

    def wish(self) -> Wish:
        """Return what is wanted now; the dead-man counts."""
        with self.lock:
            if self.drive.is_silent(time.monotonic()):
                self.hold("The page that drove was not heard any more.")
            return Wish.HOME if self._home else Wish.HOLD if self._held else Wish.PAUSE if self.paused else Wish.GO

    def hold(self, because: str) -> None:
        """Stand still, and let nobody drive, until a person says `resume` or takes over."""
        with self.lock:
            if not self._held:
                self._held, self.held_because = True, because
            self.drive.release()
            self.changed.set()

    def wait_at_start(self) -> None:
        """The arm is where it was sent, or was connected anew: it waits for `start`."""
        with self.lock:
            self._home, self._held, self.paused = False, False, True
            self.held_because = ""
            self.drive.release()

    def take_marks(self) -> frozenset[TeleopEvent]:
        """Return what was said of the episode since the last call."""
        with self.lock:
            marks, self._marks = frozenset(self._marks), set()
            self._stays = False
            return marks

    @property
    def stays(self) -> bool:
        """Whether an episode that was held is about to end by what a person said of it: nothing moves any more."""
        return self._stays

    def ask(self, name: str, kind: str, text: str) -> bool | None:
        """Ask a person; return the answer once there is one, and forget the question."""
        with self.lock:
            if name in self._answers:
                self._asks.pop(name, None)
                return self._answers.pop(name)
            self._asks.setdefault(name, {"ask": name, "kind": kind, "text": text})
            return None

    @property
    def asks(self) -> list[dict[str, Any]]:
        """Questions without an answer."""
        with self.lock:
            return [ask for name, ask in self._asks.items() if name not in self._answers]

    # The console's side

    def take(self, message: dict[str, Any]) -> None:
        """Do what a message says.

        Raises:
            Refused: It does not count.
        """
        now = time.monotonic()
        with self.lock:
            match message["kind"]:
                case "drive":
                    self._drive(message, now)
                case "command":
                    name = message["name"]
                    if now - message["sent"] > LATE_S and name not in _MAKES_STILL:
                        raise Refused(f"`{name}` came {now - message['sent']:.1f} s late, so it was dropped. Say it again")
                    self._command(name, message.get("value"), message)
                case "pages":
                    self.viewers = message["viewers"]
                case "driver":  # another page is in control, or none
                    self.drive.new_page()
                    if self.drive.taken:
                        self.hold("The page that drove is not in control any more.")
            self.changed.set()

    def _drive(self, message: dict[str, Any], now: float) -> None:
        allowed = self.may_drive and self.source != "none"
        if not allowed and any(message["action"]):
            raise Refused(_DRIVE_NEEDS if self.may_drive else _NOT_MOVED)
        may_take = allowed and self.in_episode and not self._held
        late_s = now - message["sent"]
        if not self.drive.hear(message["seq"], message["action"], message["sent"], now, may_take=may_take) and late_s > STALE_S:
            raise Refused(f"your commands arrive {1000 * late_s:.0f} ms late; they are dropped. This machine may be overloaded")

    def _command(self, name: str, value: Any, message: dict[str, Any]) -> None:
        match name:
            case "start" | "resume":
                self.paused = self._held = self._home = False
                self.held_because = ""
            case "pause":
                self.paused = True
            case "hold":
                self.hold("Held from the page.")
            case "home":
                self.drive.release()
                self._home = True
            case "take_over":
                self._take_over(message)
            case "hand_back":
                self.drive.release()
            case "real_time":
                self.real_time = bool(value)
            case "source":
                self._choose(str(value))
            case "answer":
                self._answer(str(message.get("ask")), bool(value))
            case _ if name in _MARKS:
                if not self.may_drive:
                    raise Refused("this environment says itself what is a success")
                if not self.in_episode:
                    raise Refused(f"`{name}`: no episode is on")
                self._marks.add(_MARKS[name])
                if self._held:  # the episode ends with a step that stays where it is
                    self._held, self.held_because, self._stays = False, "", True
            case _:
                raise Refused(f"`{name}` is no command")

    def _take_over(self, message: dict[str, Any]) -> None:
        if not self.may_drive:
            raise Refused(_NOT_MOVED)
        if self.source == "none":
            raise Refused(_DRIVE_NEEDS)
        self._held = False
        self.held_because = ""
        self.drive.take(message["sent"])

    def _choose(self, source: str) -> None:
        if source not in self.sources:
            raise Refused(f"source `{source}` is not there; there are {', '.join(self.sources)}")
        self.source_error = ""
        self.wanted_source = source if source != self.source else None

    def _answer(self, ask: str, value: bool) -> None:
        if ask not in self._asks:
            raise Refused("nobody asks that any more")
        self._answers[ask] = value
