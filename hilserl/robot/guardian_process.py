"""The process that takes an arm down when the one that drives it cannot: `python -m hilserl.robot.guardian_process SETTINGS`.

STS3215 servos hold their last goal for ever when nobody speaks to them any more. So a second process has the port open, reads
nothing and writes nothing, and waits for the owner's heartbeat on its standard input, one line each:

- `.`                   a heartbeat, which it echoes on its standard output; silence counts from the first one on
- `good-bye`            the torque is off: it ends
- `take over: REASON`   the owner could not stop the arm itself, and has let go of the port

The end of its input (the owner died, however) or silence (it hangs, is stopped, or starves) makes it kill the owner, let the torque
fall to zero, switch it off, and ask every servo. It goes on trying while the arm is unplugged or does not answer; it says what it
saw in `HILSERL_HOME/robots/<id>/guardian.json`, saves the black box, and latches the arm where a servo did not say that it is off.
Signals that end a terminal's or a service's processes do not end it. It holds `guardian.lock`, so that nobody drives the arm meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from hilserl.errors import BusError
from hilserl.files import file_lock, write_json
from hilserl.robot.black_box import save_left_behind
from hilserl.robot.feetech import SERVOS, ServoBus
from hilserl.robot.landing import soft_land
from hilserl.robot.latch import latch, robot_folder
from hilserl.robot.urgent import run_first

READY, ECHO = b"ready\n", b"."
BEAT, GOOD_BYE, TAKE_OVER = b".\n", b"good-bye\n", b"take over: "
_LOCK_S = 20.0  # the guardian of an owner that just died needs a second or two
_RETRY_S = 0.2
_OVERSLEPT_S = 0.1
_PRIORITY = 20  # SCHED_FIFO, above the control loop's


@dataclass(frozen=True)
class Settings:
    """What a guardian is told.

    Attributes:
        port: Of the arm.
        robot_id: Of the arm.
        owner: Process that drives it.
        silence_s: Longest time between heartbeats [s]; None: only the end of the owner counts.
        landing_s: Time for the torque to fall [s].
        reconnect_s: So long it waits for a port that is gone [s].
        answer_s: So long it asks servos that do not say that they are off [s].
    """

    port: str
    robot_id: str
    owner: int
    silence_s: float | None
    landing_s: float
    reconnect_s: float
    answer_s: float

    def to_json(self) -> str:
        """Write them as one line."""
        return json.dumps(dataclasses.asdict(self))


@dataclass
class Report:
    """What a guardian did. Times are of the machine's monotonic clock [s].

    Attributes:
        reason: Why it took the arm down.
        noticed_s: When it knew.
        owner_gone_s: When the owner was dead.
        off_s: When the last servo said that its torque is off; None: not all did.
        off: What each servo said, by id.
        note: For a person.
    """

    reason: str
    noticed_s: float
    owner_gone_s: float | None = None
    off_s: float | None = None
    off: dict[int, bool] = dataclasses.field(default_factory=lambda: dict.fromkeys(SERVOS, False))
    note: str = ""


def report_path(robot_id: str) -> Path:
    """Return where a guardian writes what it did."""
    return robot_folder(robot_id) / "guardian.json"


def read_report(robot_id: str) -> Report | None:
    """Return what the last guardian did; None: it had nothing to do."""
    path = report_path(robot_id)
    if not path.exists():
        return None
    raw = json.loads(path.read_text())
    return Report(**{**raw, "off": {int(servo): off for servo, off in raw["off"].items()}})


class _Owner:
    """The process that drives the arm; it is our parent, so its number cannot become another's while it counts."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._descriptor: int | None = None
        if os.getppid() == pid:
            with contextlib.suppress(OSError, AttributeError):  # Linux has these; elsewhere the parent's number does
                self._descriptor = os.pidfd_open(pid)

    def kill(self) -> None:
        with contextlib.suppress(OSError):  # it is dead
            if self._descriptor is not None:
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
                select.select([self._descriptor], [], [], 1.0)
            elif os.getppid() == self._pid:
                os.kill(self._pid, signal.SIGKILL)


def main() -> int:
    """Guard one arm; return the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    settings = Settings(**json.loads(sys.argv[1]))
    owner = _Owner(settings.owner)
    _stay_alive()
    try:
        with file_lock(robot_folder(settings.robot_id) / "guardian.lock", timeout_s=_LOCK_S):
            report_path(settings.robot_id).unlink(missing_ok=True)
            bus = ServoBus(settings.port)
            os.write(1, READY)
            if (reason := wait_for_reason(settings.silence_s)) is not None:
                _finish(settings, take_down(settings, owner, bus, reason))
    except TimeoutError:
        _say(
            f"another process drives robot `{settings.robot_id}`, or its guardian still takes it down, and waits where it is unplugged. "
            "End that process, or plug the arm in."
        )
        return 1
    except BusError as error:
        _say(str(error))
        return 1
    return 0


def wait_for_reason(silence_s: float | None) -> str | None:
    """Listen to heartbeats until there is a reason to take the arm down; None: the owner said good-bye."""
    buffer, second_chance, patience_s = b"", True, None
    while True:
        began_s = time.monotonic()
        if not select.select([0], [], [], patience_s)[0]:
            assert silence_s is not None
            overslept = time.monotonic() - began_s - silence_s > _OVERSLEPT_S
            if overslept and second_chance:  # the whole machine stood still; the owner needs a moment, too
                second_chance = False
                continue
            return f"the process that drives the arm was silent for {time.monotonic() - began_s:.2f} s"
        data = os.read(0, 65536)
        if not data:
            return "the process that drives the arm ended without switching its torque off"
        second_chance, patience_s = True, silence_s
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            if line + b"\n" == GOOD_BYE:
                return None
            if line.startswith(TAKE_OVER):
                return line.removeprefix(TAKE_OVER).decode(errors="replace")
        with contextlib.suppress(OSError):  # nobody reads: the end of the input says more
            os.write(1, ECHO)


def take_down(settings: Settings, owner: _Owner, bus: ServoBus | None, reason: str) -> Report:
    """Kill the owner, take the arm down, and ask every servo."""
    report = Report(reason, time.monotonic())
    if not reason.startswith("asked: "):
        owner.kill()
        report.owner_gone_s = time.monotonic()
    landing_s, deadline_s, port_deadline_s = settings.landing_s, None, report.noticed_s + settings.reconnect_s
    while True:
        if bus is None:
            with contextlib.suppress(BusError):  # not plugged in yet
                bus = ServoBus(settings.port)
        if bus is not None:
            if _is_there(bus):
                off = soft_land(bus, landing_s)
                landing_s = 0.0
                report.off = {servo: report.off[servo] or off[servo] for servo in SERVOS}
                deadline_s = deadline_s or time.monotonic() + settings.answer_s
                if all(report.off.values()):
                    report.off_s = time.monotonic()
                    report.note = "the torque of all servos is off"
                    break
            else:
                bus.close()
                bus = deadline_s = None
        now = time.monotonic()
        if (deadline_s is not None and bus is not None and now > deadline_s) or now > port_deadline_s:
            report.note = _what_is_on(report, gone=bus is None)
            break
        time.sleep(_RETRY_S)
    if bus is not None:
        bus.close()
    return report


def _is_there(bus: ServoBus) -> bool:
    try:
        bus.read_state()
    except BusError:
        return False
    return True


def _what_is_on(report: Report, *, gone: bool) -> str:
    if gone:
        return f"the port is gone, so the servos hold on to where they are. {_SWITCH}"
    silent = [servo for servo, off in report.off.items() if not off]
    if len(silent) == len(SERVOS):
        return f"no servo answers: without power their torque is off, and stays off when it comes back. If they hold: {_SWITCH}"
    return f"servo {', '.join(map(str, silent))} did not say that its torque is off. {_SWITCH}"


_SWITCH = "Switch the arm's power supply off."


def _finish(settings: Settings, report: Report) -> None:
    """Say what was done. Nothing here may undo it, so nothing here is trusted to work."""
    _say(f"robot `{settings.robot_id}` was taken down: {report.reason}; {report.note}")
    about = {"rule": "guardian", "text": f"{report.reason}; {report.note}", "saved_by": "guardian"}
    box = None
    try:
        box = save_left_behind(settings.robot_id, about)
    except Exception as error:  # a full disk, a torn ring; the report comes next and says what counts
        report.note += f" The black box could not be saved: {error!r}."
        _say(f"the black box of robot `{settings.robot_id}` could not be saved: {error!r}")
    if not all(report.off.values()):
        latch(settings.robot_id, "guardian", f"{report.reason}; {report.note}", port=settings.port, black_box=box)
    write_json(report_path(settings.robot_id), dataclasses.asdict(report))


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody reads it any more
        os.write(2, f"hilserl guardian: {text}\n".encode())


def _stay_alive(adjustment: str = "-900") -> None:
    """Ask to run before others and to be killed last; most systems allow neither, and it works without."""
    run_first(_PRIORITY)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(adjustment)


if __name__ == "__main__":
    sys.exit(main())
