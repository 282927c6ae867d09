"""A TCP proxy that does what bad networks do; needs no rights, so these faults run everywhere.

`packet_network` does the same to single packets, where it may.
"""

import contextlib
import queue
import random
import socket
import struct
import threading
import time

_CHUNK = 1 << 16
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: close() sends RST


class _Way:
    """One direction: to the learner, or to the actor."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.is_open.set()
        self.bytes = 0


class FaultProxy:
    """Stands between an actor and `address`; faults may be set at any time, for open connections too.

    Attributes:
        address: Where the actor connects.
        delay_s: Every byte arrives this much later [s] ...
        jitter_s: ... and up to this much more [s]; TCP keeps the order.
        bytes_per_s: Speed limit of each direction of each connection; None: none.
        connections: How many were accepted so far.
    """

    def __init__(self, address: str) -> None:
        self._upstream = ("127.0.0.1", int(address.rpartition(":")[2]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._up, self._down = _Way(), _Way()
        self._is_refusing = False
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.delay_s = self.jitter_s = 0.0
        self.bytes_per_s: float | None = None
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def bytes_down(self) -> int:
        """Bytes that went to the actor."""
        return self._down.bytes

    @property
    def bytes_up(self) -> int:
        """Bytes that went to the learner."""
        return self._up.bytes

    def cut(self) -> None:
        """Reset every connection, and refuse new ones."""
        self._is_refusing = True
        for each in self._sockets:
            _reset(each)
        self._sockets.clear()

    def freeze(self, *, up: bool = True, down: bool = True) -> None:
        """Forward nothing and close nothing: half-open. Connections can still be made, and say nothing."""
        for way, is_frozen in ((self._up, up), (self._down, down)):
            if is_frozen:
                way.is_open.clear()

    def mend(self) -> None:
        """End `cut` and `freeze`; what was on its way in frozen connections goes on."""
        self._is_refusing = False
        self._up.is_open.set()
        self._down.is_open.set()

    def close(self) -> None:
        """Close everything."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits on it
        self._listener.close()
        self.cut()
        self.mend()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                down, _ = self._listener.accept()
                self.connections += 1
                if self._is_refusing:
                    _reset(down)
                    continue
                try:
                    up = socket.create_connection(self._upstream)
                except OSError:  # the learner is away
                    _reset(down)
                    continue
                self._sockets += [down, up]
                self._carry(down, up, self._up)
                self._carry(up, down, self._down)

    def _carry(self, source: socket.socket, sink: socket.socket, way: _Way) -> None:
        on_the_way: queue.Queue[tuple[float, bytes]] = queue.Queue(maxsize=64)
        threading.Thread(target=self._take, args=(source, way, on_the_way), daemon=True).start()
        threading.Thread(target=self._give, args=(sink, way, on_the_way), daemon=True).start()

    def _take(self, source: socket.socket, way: _Way, on_the_way: "queue.Queue[tuple[float, bytes]]") -> None:
        data = b"-"
        while data:
            try:
                data = source.recv(_CHUNK)
            except OSError:
                data = b""
            on_the_way.put((time.monotonic() + self.delay_s + random.uniform(0, self.jitter_s), data))
            way.is_open.wait()

    def _give(self, sink: socket.socket, way: _Way, on_the_way: "queue.Queue[tuple[float, bytes]]") -> None:
        while True:
            due, data = on_the_way.get()
            time.sleep(max(0.0, due - time.monotonic()))
            way.is_open.wait()
            try:
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(data)
            except OSError:
                _drain(on_the_way)
                return
            way.bytes += len(data)
            if self.bytes_per_s:
                time.sleep(len(data) / self.bytes_per_s)


def _drain(on_the_way: "queue.Queue[tuple[float, bytes]]") -> None:
    """Let the thread that fills the queue come to its end."""
    while on_the_way.get()[1]:
        pass


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.shutdown(socket.SHUT_RDWR)  # wakes the threads that wait on it
    connection.close()
