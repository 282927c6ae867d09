"""One page: it is sent the newest state and pictures, never old ones, and may say so much and no more."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import struct
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from starlette.websockets import WebSocket

from hilserl.console.serving.encoder import Encoder
from hilserl.console.serving.rates import Bucket, Lateness

LONGEST_MESSAGE = 4096
PER_S, BURST = 120.0, 240.0
MOST_SENSELESS = 20
TOO_MUCH, SENSELESS = 4429, 4400
_UNSEEN = 2
_UNSEEN_S = 1.0
_MOST_UNSEEN = 100
_ENCODE_S = 0.25  # longer, and other messages go first
_MOST_WAITING = 64
_SLACK = 0.9


class HangUp(Exception):
    """The connection ends now, with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


@dataclass
class _Stream:
    """One camera and view, as this page gets it; `unseen` are the numbers of pictures that it has not acknowledged."""

    newest: int = 0
    sent: int = 0
    sent_s: float = 0.0
    unseen: deque[int] = field(default_factory=lambda: deque(maxlen=_MOST_UNSEEN))
    step: int = 0


class Viewer:
    """One connection.

    Attributes:
        name: Its name among the pages, such as `v3`.
        where: Address of the browser.
        hinted_s: When it was last told why its drive commands do not count, by the reason's first words.
    """

    def __init__(self, name: str, socket: WebSocket, encoder: Encoder) -> None:
        self.name = name
        self.hinted_s: dict[str, float] = {}
        self.where = socket.client.host if socket.client else "?"
        self._socket, self._encoder = socket, encoder
        self._wake = asyncio.Event()
        self._texts: deque[str] = deque()
        self._state: str | None = None
        self._streams: dict[tuple[str, str], _Stream] = {}
        self._there: dict[tuple[str, str], tuple[int, int]] = {}
        self._cameras: frozenset[str] | None = None
        self._views: frozenset[str] = frozenset()
        self._period_s, self._max_width = 1.0 / 15.0, 640
        self._bucket = Bucket(PER_S, BURST)
        self._lateness = Lateness()
        self._senseless = 0
        self._overflowed = False

    # What it is sent

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message; all of these arrive, in order."""
        if len(self._texts) >= _MOST_WAITING:  # it reads nothing: it is cut off, and may come again
            self._overflowed = True
        else:
            self._texts.append(json.dumps(message))
        self._wake.set()

    def show_state(self, text: str) -> None:
        """Send the state; one that was not sent yet is replaced."""
        self._state = text
        self._wake.set()

    def has_picture(self, camera: str, view: str, number: int, step: int) -> None:
        """There is a newer picture."""
        before, _ = self._there.get((camera, view), (0, 0))
        self._there[camera, view] = number, step
        if view in self._views and (self._cameras is None or camera in self._cameras):
            stream = self._streams.setdefault((camera, view), _Stream())
            if number < before:  # the actor began anew; a picture that is newer than what was announced is no such sign
                stream.sent = 0
                stream.unseen.clear()
            stream.newest, stream.step = number, step
            self._wake.set()

    async def send_on(self) -> None:
        """Send what there is, until the connection ends."""
        while True:
            timeout = self._next_picture_s()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), timeout)
            self._wake.clear()
            if self._overflowed:
                raise HangUp(TOO_MUCH, "this page takes nothing any more")
            while self._texts:
                await self._socket.send_text(self._texts.popleft())
            if self._state is not None:
                state, self._state = self._state, None
                await self._socket.send_text(state)
            for (camera, view), stream in list(self._streams.items()):
                if self._texts:
                    break
                if self._due_in_s(stream) <= 0:
                    await self._send_picture(camera, view, stream)

    async def _send_picture(self, camera: str, view: str, stream: _Stream) -> None:
        try:
            picture = await asyncio.wait_for(self._encoder.newest(camera, view, self._max_width, stream.newest), _ENCODE_S)
        except TimeoutError:  # it goes on, and is asked again behind the messages that wait
            return
        if picture is None:
            stream.newest = stream.sent
            return
        now = time.monotonic()
        stream.sent, stream.sent_s = max(picture.number, stream.newest), now
        stream.unseen.append(picture.number)
        header = {
            "camera": camera,
            "view": view,
            "number": picture.number,
            "at_s": round(picture.at_s, 6),
            "age_ms": round(1000.0 * (now - picture.at_s), 1),
            "width": picture.width,
            "height": picture.height,
            "step": stream.step,
        }
        text = json.dumps(header).encode()
        await self._socket.send_bytes(struct.pack("<I", len(text)) + text + picture.jpeg)

    def _due_in_s(self, stream: _Stream) -> float:
        """Return when the next picture of a stream is due [s]; infinite: not before there is a newer one."""
        if stream.newest <= stream.sent:
            return math.inf
        since_s = time.monotonic() - stream.sent_s
        wait_s = _SLACK * self._period_s - since_s
        return max(wait_s, _UNSEEN_S - since_s) if len(stream.unseen) >= _UNSEEN else wait_s

    def _next_picture_s(self) -> float | None:
        soonest = min((self._due_in_s(stream) for stream in self._streams.values()), default=math.inf)
        return None if soonest == math.inf else max(0.0, soonest)

    # What it says

    def read(self, text: str) -> dict[str, Any] | None:
        """Return what the page says; None: it made no sense, or was for this class.

        Raises:
            HangUp: It says too much, or too much that makes no sense.
        """
        if not self._bucket.take():
            raise HangUp(TOO_MUCH, f"more than {PER_S:.0f} messages a second")
        try:
            message = json.loads(text)
            kind = message["type"]
            if not isinstance(kind, str):
                raise TypeError
            if kind == "watch":
                self._watch(message)
            elif kind == "seen":
                self._seen(message)
            elif kind == "ping":
                self.late_s(message)
                self.tell({"type": "pong", "at": message["at"]})
            else:
                return dict(message)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self.senseless()
        return None

    def senseless(self) -> None:
        """Count a message that made no sense.

        Raises:
            HangUp: It was one too many.
        """
        self._senseless += 1
        if self._senseless >= MOST_SENSELESS:
            raise HangUp(SENSELESS, f"{MOST_SENSELESS} messages made no sense")
        self.tell({"type": "reply", "id": None, "ok": False, "error": "that message makes no sense"})

    def late_s(self, message: dict[str, Any]) -> float:
        """Return how late a message is [s].

        Raises:
            TypeError: Its time is no number.
        """
        at = message["at"]
        if isinstance(at, bool) or not isinstance(at, int | float) or not math.isfinite(at):
            raise TypeError("at")
        return self._lateness.of(float(at))

    def _watch(self, message: dict[str, Any]) -> None:
        cameras, views = message.get("cameras"), message.get("views", ["raw"])
        if cameras is not None and not all(isinstance(camera, str) for camera in cameras):
            raise TypeError("cameras")
        self._cameras = None if cameras is None else frozenset(cameras[:16])
        self._views = frozenset(view for view in views if view in ("raw", "policy"))
        self._period_s = 1.0 / min(30.0, max(1.0, float(message.get("max_hz", 15))))
        widths = (160, 320, 480, 640, 960, 1280)  # a few, so that pages share pictures
        wanted = float(message.get("max_width", 640))
        self._max_width = next((width for width in widths if width >= wanted), widths[-1])
        self._streams = {key: stream for key, stream in self._streams.items() if key[1] in self._views}
        for (camera, view), (number, step) in list(self._there.items()):  # an arm that stands still makes no newer ones
            self.has_picture(camera, view, number, step)

    def _seen(self, message: dict[str, Any]) -> None:
        """Take an acknowledgement; it stands for those before it, which may have been lost, and costs the page nothing."""
        stream = self._streams.get((message["camera"], message["view"]))
        number = message["number"]
        if stream is None or not isinstance(number, int) or number not in stream.unseen:
            return
        while stream.unseen and stream.unseen[0] <= number:
            stream.unseen.popleft()
        self._bucket.give_back()
        self._wake.set()
