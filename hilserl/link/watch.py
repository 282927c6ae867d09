"""Who is connected to the learner's port, and who has been silent for too long.

gRPC says nothing about a connection that never made a call: random bytes, a port scan, a certificate of somebody else.
The kernel's table of connections does, until a minute after their end; it is compared with the peers that made a call.
"""

from __future__ import annotations

import ipaddress
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import grpc

from hilserl.link.limits import HELLO_TIMEOUT_S, SILENCE_S
from hilserl.threads import background_thread

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
_FORGET_AFTER_S = 120.0  # the kernel's table forgets a closed connection after 60
_GRACE_S = 5.0  # in which an open connection may not have made its first call yet
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_ESTABLISHED, _OPENING, _TIME_WAIT, _LISTEN = "01", "03", "06", "0A"
_LINES, _PER_S = 20, 10.0
_SHOWN = 5


class Refusals:
    """Logs refusals, at most `_LINES` in `_PER_S` seconds: who is refused often must not fill the disk with it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._window_began = 0.0
        self._said = self._unsaid = 0

    def log(self, message: str, *arguments: object) -> None:
        """Log one, or count it."""
        with self._lock:
            now = time.monotonic()
            if now - self._window_began > _PER_S:
                if self._unsaid:
                    logger.warning("%d more refusals like these.", self._unsaid)
                self._window_began, self._said, self._unsaid = now, 0, 0
            if self._said >= _LINES:
                self._unsaid += 1
                return
            self._said += 1
        logger.warning(message, *arguments)


class WatchedStream:
    """One call that must not be silent for long.

    Attributes:
        peer: Whose it is, in gRPC's notation.
        end_call: Ends it.
        last_heard: `time.monotonic()` of the last message [s].
    """

    def __init__(self, peer: str, end_call: Callable[[], object], complaint: str, allowed_s: float) -> None:
        self.peer, self.end_call = peer, end_call
        self.last_heard = time.monotonic()
        self.complaint, self.allowed_s = complaint, allowed_s

    def introduce(self, actor_id: str) -> None:
        """Note that the peer said who it is."""
        self.complaint, self.allowed_s = f"actor `{actor_id}` has said nothing", SILENCE_S

    def heard(self) -> None:
        """Note that the peer spoke just now."""
        self.last_heard = time.monotonic()


class ConnectionWatch:
    """A thread that ends silent streams, and names connections that proved nothing.

    Args:
        refusals: Where to say so.
    """

    def __init__(self, refusals: Refusals) -> None:
        self._port = 0
        self._refusals = refusals
        self._lock = threading.Lock()
        self._streams: set[WatchedStream] = set()
        self._known: dict[str, float] = {}  # peers that made a call, or were named: when last in the kernel's table
        self._waiting: dict[str, float] = {}  # open connections without a call so far: since when
        self._stop = threading.Event()
        self._thread = background_thread(self._run, "link-watch")

    def start(self, port: int) -> None:
        """Begin to look at `port`; what an earlier process with this port left in the table is no news."""
        self._port = port
        now = time.monotonic()
        self._known |= {peer: now for peer, _ in _connections(self._port)}
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join()

    def saw_call(self, peer: str) -> None:
        """Note that a peer, in gRPC's notation, made a call: whatever came of that was said."""
        with self._lock:
            self._known[_plain(peer)] = time.monotonic()

    def refused_token(self, peer: str) -> None:
        """Say that a call came without the token."""
        self.saw_call(peer)
        self._refusals.log("Refused a call of %s: wrong or missing link token.", peer)

    @contextmanager
    def watched(self, context: grpc.ServicerContext, *, weights: bool = False) -> Iterator[WatchedStream]:
        """Watch an actor's stream, or the sending of weights, for as long as the block lasts."""
        complaint, allowed_s = ("it did not take the weights", SILENCE_S) if weights else ("there was no complete Hello", HELLO_TIMEOUT_S)
        stream = WatchedStream(context.peer(), context.cancel, complaint, allowed_s)
        with self._lock:
            self._streams.add(stream)
        try:
            yield stream
        finally:
            with self._lock:
                self._streams.discard(stream)

    def _run(self) -> None:
        woke = time.monotonic()
        while not self._stop.wait(_LOOK_EVERY_S):
            now = time.monotonic()
            try:
                # After a pause of this whole process nobody could be heard: give the actors a moment to speak.
                if now - woke < 2 * _LOOK_EVERY_S:
                    self._end_silent(now)
                self._name_strangers(now)
            except Exception:
                logger.exception("The look at the connections failed; the link goes on, and this is tried again")
            woke = now

    def _end_silent(self, now: float) -> None:
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            silent_s = now - stream.last_heard
            if silent_s > stream.allowed_s:
                self._refusals.log("Ended a call of %s: %s for %.0f s.", stream.peer, stream.complaint, silent_s)
                stream.heard()  # said once; the call is ending
                stream.end_call()

    def _name_strangers(self, now: float) -> None:
        table = dict(_connections(self._port))
        strangers: Counter[str] = Counter()
        with self._lock:
            self._waiting = {peer: self._waiting.get(peer, now) for peer in table if peer not in self._known}
            for peer, since in self._waiting.items():
                if not table[peer] or now - since > _GRACE_S:
                    strangers[peer.rpartition(":")[0]] += 1
                    self._known[peer] = now
            for peer in table.keys() & self._known.keys():
                self._known[peer] = now
            self._known = {peer: at for peer, at in self._known.items() if now - at < _FORGET_AFTER_S}
        if strangers:
            shown = ", ".join(f"{host} ({count})" for host, count in strangers.most_common(_SHOWN))
            self._refusals.log(
                "%d connections proved nothing: no call, not this protocol, or no certificate that is accepted. From %s%s.",
                strangers.total(), shown, ", ..." if len(strangers) > _SHOWN else "",
            )  # fmt: skip


def _connections(port: int) -> Iterator[tuple[str, bool]]:
    """Yield the peers of `port` as `address:port`, and whether the connection is open, from the kernel's table."""
    for table in _TABLES:
        if not table.exists():
            continue
        for line in table.read_text().splitlines()[1:]:
            _, local, remote, state = line.split(maxsplit=4)[:4]
            if state in (_LISTEN, _OPENING):
                continue
            if _port(local) == port:
                yield _address(remote), state == _ESTABLISHED
            elif state == _TIME_WAIT and _port(remote) == port:
                yield _address(local), False  # of a client on this machine that hung up first


def _port(end: str) -> int:
    return int(end.rpartition(":")[2], 16)


def _address(end: str) -> str:
    """Turn `0100007F:1F90` into `127.0.0.1:8080`; the kernel prints 32-bit words in the machine's byte order."""
    host, _, port = end.partition(":")
    words = [int(host[at : at + 8], 16).to_bytes(4, "little") for at in range(0, len(host), 8)]
    return _joined(ipaddress.ip_address(b"".join(words)), int(port, 16))


def _plain(peer: str) -> str:
    """Turn gRPC's `ipv4:127.0.0.1:8080` or `ipv6:%5B::1%5D:8080` into what `_address` returns."""
    host, _, port = unquote(peer).partition(":")[2].rpartition(":")
    try:
        return _joined(ipaddress.ip_address(host.strip("[]").partition("%")[0]), int(port))
    except ValueError:
        return peer


def _joined(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> str:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return f"{mapped or address}:{port}"
