"""What the tests of the safety layer share: states of a bus that is well, and an arm in a process of its own that can be killed."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from hilserl.robot.feetech import BusState
from hilserl.robot.guardian_process import Report, read_report
from hilserl.robot.trips import RUNNING_ACCELERATION
from hilserl.virtual_arm.client import VirtualArmProcess

PATIENCE_S = 60.0
FAST: dict[str, Any] = {"landing_s": 0.06, "guardian_silence_s": 2.0, "reconnect_s": 60.0, "answer_s": 0.5}
OWNER = Path(__file__).with_name("guarded_owner.py")

Owner = subprocess.Popen[str]
Drive = Callable[..., tuple[Owner, int]]

ZERO = np.zeros(6)


def healthy(at: float = 0.0, **changes: Any) -> BusState:
    """Return what six servos say that hold still; `changes` are fields, or `{servo index: value}` of a field."""
    state = BusState(
        position_ticks=np.full(6, 2047.0),
        velocity_ticks_s=ZERO.copy(),
        load=np.full(6, 0.1),
        voltage_v=np.full(6, 12.0),
        temperature_c=np.full(6, 30.0),
        current_a=np.full(6, 0.2),
        error=np.zeros(6, dtype=np.uint8),
        answered=np.ones(6, dtype=np.bool_),
        torque_on=np.ones(6, dtype=np.bool_),
        goal_ticks=np.full(6, 2047.0),
        acceleration=np.full(6, float(RUNNING_ACCELERATION)),
        torque_limit=np.full(6, 0.9),
        lock=np.ones(6),
        at=at,
    )
    fields: dict[str, Any] = {}
    for name, change in changes.items():
        column = getattr(state, name).copy()
        for index, value in change.items():
            column[index] = value
        fields[name] = column
    return replace(state, **fields)


def silent(*servos: int, at: float = 0.0) -> BusState:
    """Return a state in which servos (ids) do not answer, as `ServoBus` decodes it."""
    indices = [servo - 1 for servo in servos]
    names = (
        "position_ticks",
        "velocity_ticks_s",
        "load",
        "voltage_v",
        "temperature_c",
        "current_a",
        "acceleration",
        "torque_limit",
        "lock",
    )
    gone: dict[str, Any] = {name: dict.fromkeys(indices, np.nan) for name in names}
    return healthy(at, **gone, answered=dict.fromkeys(indices, False), torque_on=dict.fromkeys(indices, False))


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until(so: Callable[[], bool], seconds: float = PATIENCE_S) -> bool:
    deadline = time.monotonic() + seconds
    while not so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def torque(arm: VirtualArmProcess) -> list[bool]:
    on: list[bool] = arm.ask("state")["torque_on"]
    return on


def report_of(guardian: int) -> Report:
    assert until(lambda: not alive(guardian)), "the guardian did not end"
    report = read_report("arm")
    assert report is not None, "the guardian says nothing"
    return report


def tell(owner: Owner, line: str) -> None:
    assert owner.stdin is not None
    owner.stdin.write(line + "\n")
    owner.stdin.flush()
