"""What happens to the arm when something fails while it moves: every fault played on the virtual arm, with real processes killed.

    uv run python benchmarks/faults.py                            # about 15 min
    uv run python benchmarks/faults.py --repeats 1 --only sigkill jam --stiffness 1

A process drives a virtual arm in real time (1 Mbaud, 1 ms of USB) through `hilserl.robot.arm.Arm`, with its guardian, waving all
joints. Then one thing fails. For each fault, as median and worst of the repeats:

- noticed: until the driver or the guardian reacts; `jam`: until the joint is let go of;
- torque off: until no servo has torque; where only a person can help (cable, power), from his doing so, and marked;
- left on: servos with torque at the end;
- travel: the farthest that any joint moved from where it was at the fault until the torque was off, its own motion included;
- to rest: the same until two seconds later: without torque the arm sinks.

Times are of the machine's monotonic clock. The servos' state is asked for every 5 ms, which is the resolution.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from _runs import ROOT, commit

from hilserl.config.environment import RobotConfig
from hilserl.robot.estop import stop_robot
from hilserl.robot.guardian_process import read_report
from hilserl.robot.latch import release
from hilserl.virtual_arm.arm import ArmOptions
from hilserl.virtual_arm.bus import Timing
from hilserl.virtual_arm.client import VirtualArmProcess
from hilserl.virtual_arm.server import ServerOptions

PATIENCE_S, AFTER_S, REPAIR_AFTER_S = 25.0, 2.0, 1.5
STARTS = 4
Act = Callable[["Stage"], object]


@dataclass
class Stage:
    """The arm, and who drives it."""

    arm: VirtualArmProcess
    driver: subprocess.Popen[str]
    guardian: int

    def signal(self, number: int) -> None:
        self.driver.send_signal(number)

    def overload(self) -> None:
        for name, value in (("Protection_Time", 0), ("Overload_Torque", 1)):
            self.arm.ask("register", servo=2, name=name, value=value)

    def stop_from_outside(self) -> None:
        threading.Thread(target=stop_robot, args=("arm", "a benchmark")).start()


@dataclass(frozen=True)
class Fault:
    """One thing that fails.

    Attributes:
        name: For the table.
        act: Makes it fail.
        repair: What a person does then, after a while; time to torque-off counts from there.
        repaired_by: In words.
        left_on: Servos that may have torque at the end, because software cannot reach them.
    """

    name: str
    act: Act
    repair: Act | None = None
    repaired_by: str = ""
    left_on: int = 0


def ask(verb: str, **arguments: Any) -> Act:
    return lambda stage: stage.arm.ask(verb, **arguments)


FAULTS = {
    "sigkill": Fault("driver killed (SIGKILL)", lambda stage: stage.signal(signal.SIGKILL)),
    "sigterm": Fault("driver killed (SIGTERM)", lambda stage: stage.signal(signal.SIGTERM)),
    "sigsegv": Fault("driver crashes (SIGSEGV)", lambda stage: stage.signal(signal.SIGSEGV)),
    "sigstop": Fault("driver hangs (SIGSTOP)", lambda stage: stage.signal(signal.SIGSTOP)),
    "guardian": Fault("guardian killed (SIGKILL)", lambda stage: os.kill(stage.guardian, signal.SIGKILL)),
    "estop": Fault("emergency stop, SIGUSR1", lambda stage: stage.signal(signal.SIGUSR1)),
    "estop_socket": Fault("emergency stop, socket", lambda stage: stage.stop_from_outside()),
    "unplug": Fault("USB unplugged", ask("unplug"), ask("plug"), "plugged in again"),
    "unplug_kill": Fault(
        "USB unplugged, driver killed",
        lambda stage: (stage.arm.ask("unplug"), stage.signal(signal.SIGKILL)),
        ask("plug"),
        "plugged in again",
    ),
    "dead": Fault("servo 3 dead", ask("servo", servo=3, ailments={"dead": True})),
    "silent": Fault(
        "data line of servo 3 broken", ask("servo", servo=3, ailments={"silent": True}), ask("supply", on=False), "power switch"
    ),
    "overload": Fault("servo 2 overloaded", lambda stage: stage.overload()),
    "overheat": Fault("servo 2 overheated (75 °C)", ask("servo", servo=2, ailments={"temperature_c": 75.0})),
    "hot": Fault("servo 2 at 66 °C", ask("servo", servo=2, ailments={"temperature_c": 66.0})),
    "encoder": Fault("encoder of servo 2 lost", ask("servo", servo=2, ailments={"encoder_lost": True})),
    "encoder_bit": Fault("encoder bit 8 of servo 2 stuck", ask("servo", servo=2, ailments={"encoder_set": 256, "encoder_clear": 512})),
    "brown_out": Fault("supply sinks to 7 V", ask("supply", source_v=7.0)),
    "glitch": Fault(
        "supply off for 0.3 s",
        lambda stage: (stage.arm.ask("supply", on=False), time.sleep(0.3), stage.arm.ask("supply", on=True)),
    ),
    "power_off": Fault("supply off", ask("supply", on=False)),
    "reboot": Fault("servo 2 starts anew", ask("reboot", servo=2)),
    "reboot_all": Fault("all servos start anew", ask("power_cycle")),
    "jam": Fault("joint 2 jammed, policy goes on", ask("jam", servo=2)),
    "late": Fault("every answer 60 ms late", ask("wire", faults={"late": 1.0, "late_s": 0.06})),
    "drop": Fault("60 % of answers lost", ask("wire", faults={"drop": 0.6})),
}


@dataclass
class Outcome:
    """One repeat; times in seconds after the fault, or after the repair."""

    noticed_s: float | None = None
    off_s: float | None = None
    left_on: int = 6
    travel_rad: float = 0.0
    rest_rad: float = 0.0
    said: str = ""
    samples: list[tuple[float, list[bool], list[float]]] = field(default_factory=list, repr=False)


def play(arm: VirtualArmProcess, robot: RobotConfig, fault: Fault, wait_s: float) -> Outcome:
    """Let one thing fail. A driver that a stalled machine stopped before anything failed is started again, and told of."""
    for _ in range(STARTS):
        arm.ask("reset")
        release("arm")
        driver = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("_faulty_arm.py")), robot.model_dump_json()],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        try:
            assert driver.stdout is not None
            said = driver.stdout.readline().split(maxsplit=2)
            if said[:1] == ["driving"]:
                time.sleep(wait_s)
                return watch(Stage(arm, driver, int(said[1])), fault)
            print(f"not started: {said}", file=sys.stderr, flush=True)
            driver.wait()
        finally:
            driver.kill()
            driver.wait()
            assert driver.stdout is not None
            driver.stdout.close()
    raise SystemExit(f"the driver did not start {STARTS} times: is this machine too busy?")


def watch(stage: Stage, fault: Fault) -> Outcome:
    """Play the fault, look at the servos until they are off, and a little longer."""
    outcome, began = Outcome(), time.monotonic()
    before = stage.arm.ask("state")["joint_pos_rad"]
    fault.act(stage)
    count_from, repaired, off_at = began, fault.repair is None, None
    lines: list[str] = []
    while time.monotonic() < began + PATIENCE_S and (off_at is None or time.monotonic() < off_at + AFTER_S):
        if not repaired and time.monotonic() > began + REPAIR_AFTER_S:
            assert fault.repair is not None
            fault.repair(stage)
            repaired, count_from = True, time.monotonic()
        state = stage.arm.ask("state")
        now = time.monotonic()
        outcome.samples.append((now, state["torque_on"], state["joint_pos_rad"]))
        if off_at is None and not any(state["torque_on"]):
            off_at = now
        elif off_at is not None and any(state["torque_on"]):
            off_at = None
        lines += _said(stage.driver)
        time.sleep(0.005)
    lines += _said(stage.driver)
    outcome.left_on = sum(outcome.samples[-1][1])
    outcome.off_s = off_at - count_from if off_at is not None else None
    moved = [(at, float(np.abs(np.subtract(joints, before)).max())) for at, _, joints in outcome.samples]
    outcome.travel_rad = max((far for at, far in moved if off_at is None or at <= off_at), default=0.0)
    outcome.rest_rad = max(far for _, far in moved)
    _end_guardian(stage.guardian)
    noticed = [float(line.split()[1]) for line in lines if line.startswith(("stopped", "held"))]
    if (report := read_report("arm")) is not None:
        noticed.append(report.noticed_s)
    outcome.noticed_s = min(noticed) - began if noticed else None
    outcome.said = "; ".join(lines)[:200]
    return outcome


def _said(driver: subprocess.Popen[str]) -> list[str]:
    assert driver.stdout is not None
    lines = []
    while select.select([driver.stdout], [], [], 0)[0] and (line := driver.stdout.readline()):
        lines.append(line.strip())
    return lines


def _end_guardian(pid: int) -> None:
    deadline = time.monotonic() + 15.0
    while Path(f"/proc/{pid}/status").exists() and "Z (zombie)" not in Path(f"/proc/{pid}/status").read_text():
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def row(fault: Fault, outcomes: list[Outcome]) -> str:
    def two(values: list[float | None], digits: int) -> str:
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return f"never in {len(values) - len(known)} of {len(values)}" if known else "–"
        return f"{statistics.median(known):.{digits}f} / {max(known):.{digits}f}"

    off = two([outcome.off_s for outcome in outcomes], 2) + (f" after {fault.repaired_by}" if fault.repair else "")
    left = max(outcome.left_on for outcome in outcomes)
    cells = [
        fault.name, two([outcome.noticed_s for outcome in outcomes], 2), off, str(left),
        two([outcome.travel_rad for outcome in outcomes], 2), two([outcome.rest_rad for outcome in outcomes], 2),
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=list(FAULTS))
    parser.add_argument("--stiffness", nargs="*", type=float, default=[1.0, 0.02], help="Of the servos' position loops: 1 as MuJoCo has it")
    parser.add_argument("--json", type=Path, help="Append every repeat as a line")
    arguments = parser.parse_args()
    chosen = {name: FAULTS[name] for name in arguments.only or FAULTS}
    print(f"commit {commit()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
    failed = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["HILSERL_HOME"] = f"{scratch}/home"
        for stiffness in arguments.stiffness:
            options = ServerOptions(
                folder=Path(scratch) / f"arm-{stiffness:g}", name="arm", until_stdin_ends=True,
                arm=ArmOptions(stiffness=stiffness, timing=Timing(usb_latency_s=0.001)),
            )  # fmt: skip
            with VirtualArmProcess(options) as arm:
                robot = RobotConfig(type="so101_follower", id="arm", port=str(arm.port), calibration_dir=arm.calibration.parent)
                print(f"\nstiffness {stiffness:g}; median / worst of {arguments.repeats}\n")
                print(
                    "| fault | noticed [s] | torque off [s] | left on | travel [rad] | to rest [rad] |\n|---|---|---|---|---|---|",
                    flush=True,
                )
                for name, fault in chosen.items():
                    outcomes = [play(arm, robot, fault, wait_s=0.5 + 0.37 * repeat) for repeat in range(arguments.repeats)]
                    print(row(fault, outcomes), flush=True)
                    if any(outcome.left_on > fault.left_on for outcome in outcomes):
                        failed.append(f"{name}, stiffness {stiffness:g}: servos were left on")
                    if arguments.json:
                        with arguments.json.open("a") as file:
                            for outcome in outcomes:
                                kept = {key: value for key, value in vars(outcome).items() if key != "samples"}
                                file.write(json.dumps({"fault": name, "stiffness": stiffness} | kept) + "\n")
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")
    for line in failed:
        print(f"MISSED: {line}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
