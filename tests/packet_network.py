"""Two hosts as network namespaces of this machine, and a wire between them that loses, delays, doubles and reorders packets.

The wire is a process that carries IP packets between two TUN devices (`Wire.packets`), or a veth pair
(`Wire.veth`), which carries all of them at once or, cut, none. Needs Linux with user namespaces or root, and
/dev/net/tun; `require_namespaces` skips a test where that is missing.

python packet_network.py tun|veth     makes both hosts and reads a JSON object of faults a line
"""

import contextlib
import fcntl
import functools
import heapq
import json
import os
import random
import selectors
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

LEARNER_HOST, ROBOT_HOST = "10.77.0.1", "10.77.0.2"
_ADDRESSES = (LEARNER_HOST, ROBOT_HOST)
_MTU = 1500
_MOST_QUEUED = 20_000  # packets; more are lost, as in a router
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


class Wire:
    """Both hosts and what joins them; ends with the block. Use `wire(...)`."""

    def __init__(self, process: "subprocess.Popen[str]", facts: dict[str, Any]) -> None:
        self._process = process
        self._namespaces: list[str] = facts["namespaces"]
        self._user: str | None = facts["user"]

    def on(self, host: str, command: Sequence[str | Path]) -> list[str]:
        """Return the command that runs `command` on the host of this address."""
        user = [f"--user={self._user}", "--preserve-credentials"] if self._user else []
        return ["nsenter", *user, f"--net={self._namespaces[_ADDRESSES.index(host)]}", "--", *map(str, command)]

    def set(self, **faults: float) -> dict[str, int]:
        """Replace the faults: `cut` (0, 1), `delay_s`, `jitter_s`, `loss`, `duplicate`, `reorder` (shares of packets).

        Returns:
            How many packets were `carried`, `lost`, `duplicated` and `reordered` since the last call.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(faults), file=self._process.stdin, flush=True)
        return dict(json.loads(self._process.stdout.readline()))


@contextlib.contextmanager
def wire(kind: str = "tun") -> Iterator[Wire]:
    """Make both hosts, joined by `tun` (single packets can fail) or `veth` (fast; can be cut)."""
    process = subprocess.Popen(
        [sys.executable, __file__, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, "the namespaces could not be made"
        yield Wire(process, json.loads(line))
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


@functools.cache
def why_not() -> str | None:
    """Return why this machine cannot make the two hosts; None where it can."""
    if missing := [tool for tool in ("ip", "nsenter") if shutil.which(tool) is None]:
        return f"no network namespaces here: `{missing[0]}` (iproute2, util-linux) is not installed"
    made = subprocess.run([sys.executable, __file__, "tun"], input="", capture_output=True, text=True, timeout=30)
    return None if made.returncode == 0 else f"no network namespaces here: {made.stderr.strip().splitlines()[-1]}"


# ------------------------------------------------------------------ in the process of the wire


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, stdout=subprocess.DEVNULL)


def _become_root_of_a_user_namespace() -> None:
    user, group = os.getuid(), os.getgid()
    os.unshare(os.CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def _new_host() -> int:
    """Move into a new network namespace; return a descriptor that keeps it."""
    os.unshare(os.CLONE_NEWNET)
    _ip("link", "set", "lo", "up")
    return os.open("/proc/self/ns/net", os.O_RDONLY)


def _tun(address: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"wire", _IFF_TUN | _IFF_NO_PI))
    _ip("address", "add", f"{address}/24", "dev", "wire")
    _ip("link", "set", "wire", "mtu", str(_MTU), "up")
    return device


def main(kind: str) -> None:
    """Make the hosts, tell how to enter them, and carry packets until stdin is closed."""
    needs_user_namespace = os.geteuid() != 0
    if needs_user_namespace:
        _become_root_of_a_user_namespace()
    hosts: list[int] = []
    devices: list[int] = []
    for address in _ADDRESSES:
        hosts.append(_new_host())
        if kind == "tun":
            devices.append(_tun(address))
    if kind == "veth":  # made in the second host; one end moves to the first
        _ip("link", "add", "wire", "type", "veth", "peer", "name", "other")
        _ip("link", "set", "other", "netns", f"/proc/{os.getpid()}/fd/{hosts[0]}")
        _ip("address", "add", f"{ROBOT_HOST}/24", "dev", "wire")
        _ip("link", "set", "wire", "up")
        os.setns(hosts[0], os.CLONE_NEWNET)
        _ip("address", "add", f"{LEARNER_HOST}/24", "dev", "other")
        _ip("link", "set", "other", "up")
    facts = {
        "namespaces": [f"/proc/{os.getpid()}/fd/{host}" for host in hosts],
        "user": f"/proc/{os.getpid()}/ns/user" if needs_user_namespace else None,
    }
    print(json.dumps(facts), flush=True)
    if kind == "tun":
        _Carrier(devices).run()
    else:
        for line in sys.stdin:
            # The process is on the first host here; the second one sees a cable without a carrier.
            _ip("link", "set", "other", "down" if json.loads(line).get("cut") else "up")
            print(json.dumps({}), flush=True)


class _Carrier:
    """Reads packets from either device and writes them to the other one, each when it is due."""

    def __init__(self, devices: list[int]) -> None:
        self._devices = devices
        self._faults: dict[str, float] = {}
        self._random = random.Random(0)
        self._queue: list[tuple[float, int, int, bytes]] = []  # (due, number, device, packet)
        self._number = 0
        self._counts = self._zero()

    @staticmethod
    def _zero() -> dict[str, int]:
        return dict.fromkeys(("carried", "lost", "duplicated", "reordered"), 0)

    def run(self) -> None:
        selector = selectors.DefaultSelector()
        selector.register(0, selectors.EVENT_READ)
        for device in self._devices:
            selector.register(device, selectors.EVENT_READ)
        while True:
            timeout_s = max(0.0, self._queue[0][0] - time.monotonic()) if self._queue else None
            for key, _ in selector.select(timeout_s):
                if key.fd == 0:
                    line = sys.stdin.readline()
                    if not line:
                        return
                    self._faults = json.loads(line)
                    print(json.dumps(self._counts), flush=True)
                    self._counts = self._zero()
                else:
                    self._take(key.fd)
            self._give()

    def _take(self, device: int) -> None:
        sink = self._devices[1 - self._devices.index(device)]
        for _ in range(64):
            try:
                packet = os.read(device, _MTU + 64)
            except BlockingIOError:
                return
            if self._happens("cut") or self._happens("loss") or len(self._queue) >= _MOST_QUEUED:
                self._counts["lost"] += 1
                continue
            copies = 2 if self._happens("duplicate") else 1
            self._counts["duplicated"] += copies - 1
            for _ in range(copies):
                due = time.monotonic() + self._faults.get("delay_s", 0.0) + self._random.uniform(0, self._faults.get("jitter_s", 0.0))
                if self._happens("reorder"):
                    due += 0.02  # those behind it overtake it
                    self._counts["reordered"] += 1
                self._number += 1
                heapq.heappush(self._queue, (due, self._number, sink, packet))

    def _give(self) -> None:
        now = time.monotonic()
        while self._queue and self._queue[0][0] <= now:
            _, _, sink, packet = heapq.heappop(self._queue)
            try:
                os.write(sink, packet)
                self._counts["carried"] += 1
            except BlockingIOError:
                self._counts["lost"] += 1

    def _happens(self, fault: str) -> bool:
        return self._random.random() < self._faults.get(fault, 0.0)


if __name__ == "__main__":
    main(sys.argv[1])
