"""What must hold on the robot's host before anything is connected: devices, latch, disk, priority, secrets."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from math import prod
from pathlib import Path

from hilserl.config.models import TrainConfig
from hilserl.doctor.findings import Finding
from hilserl.errors import HilserlError
from hilserl.files import home
from hilserl.robot.calibration import Calibration
from hilserl.robot.kinematics import Kinematics
from hilserl.robot.latch import require_released
from hilserl.schema import policy_schema

_SERIAL, _VIDEO, _INPUT = Path("/dev/serial/by-id"), Path("/dev/v4l/by-id"), Path("/dev/input/by-id")
_KEPT_S = 3600.0  # of a learner's absence, on the actor's disk
_SPARE_BYTES = 1 << 30
_FLOAT_BYTES = 4


def examine_host(config: TrainConfig) -> Iterator[Finding]:
    """Look at this host; nothing is connected, nothing moves."""
    if config.robot.is_real:
        yield _latch(config)
        yield _device("port", config.robot.port, _SERIAL, "`lerobot-find-port` finds it", "dialout")
        for name in config.observation.images:
            yield _device(f"camera {name}", config.robot.cameras[name].path, _VIDEO, "`lerobot-find-cameras opencv` lists them", "video")
        yield _calibration(config)
    people = config.actor.intervention
    if people.type == "leader" and not people.leader.virtual:
        yield _device("leader's port", people.leader.port, _SERIAL, "`lerobot-find-port` finds it", "dialout")
    if people.type == "gamepad":
        yield _device("gamepad", people.gamepad.device, _INPUT, "plug it in", "input")
    yield _disk(config)
    yield _priority(config)
    yield _link(config)


def _latch(config: TrainConfig) -> Finding:
    try:
        require_released(config.robot.id)
    except HilserlError as error:
        return Finding("FAIL", "emergency stop", str(error))
    return Finding("ok", "emergency stop", "not pressed, and nothing stopped the arm before")


def _device(what: str, path: str | None, by_id: Path, finder: str, group: str) -> Finding:
    """Look whether a device file is there, may be used, and is named so that it stays the same."""
    names = sorted(str(entry) for entry in by_id.iterdir()) if by_id.is_dir() else []
    there = f"This host has {', '.join(names)}." if names else f"There is nothing in {by_id}; {finder}."
    if path is None:
        return Finding("FAIL", what, "it has no path in the configuration.", there)
    if not Path(path).exists():
        return Finding("FAIL", what, f"{path} does not exist.", f"Plug it in. {there}")
    if not os.access(path, os.R_OK | os.W_OK):
        return Finding("FAIL", what, f"{path} may not be opened by this user.", f"`sudo usermod -aG {group} $USER`, then log in again.")
    same = [name for name in names if os.path.realpath(name) == os.path.realpath(path)]
    if same and path not in same:
        return Finding("note", what, f"{path} can be another device after the next start.", f"Name it {same[0]}.")
    return Finding("ok", what, path)


def _calibration(config: TrainConfig) -> Finding:
    kinematics = Kinematics()
    try:
        calibration = Calibration.load(config.robot, kinematics.lower_rad, kinematics.upper_rad)
    except HilserlError as error:
        return Finding("FAIL", "calibration", str(error))
    return Finding("ok", "calibration", f"{calibration.file}: six joints, plausible ranges")


def _disk(config: TrainConfig) -> Finding:
    parts = policy_schema(config).observation.values()
    step_bytes = sum(prod(part.shape) * (1 if part.dtype == "uint8" else _FLOAT_BYTES) for part in parts)
    needed = int(step_bytes * config.robot.control_hz * _KEPT_S) + _SPARE_BYTES
    folder = home()
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    text = f"{free / 1e9:.1f} GB free in {folder}; an hour without the learner takes {(needed - _SPARE_BYTES) / 1e9:.1f} GB"
    if free < needed:
        return Finding("FAIL", "disk", f"{text}.", "Free some, or set HILSERL_HOME to a folder on another disk.")
    return Finding("ok", "disk", text)


def _priority(config: TrainConfig) -> Finding:
    wanted = config.actor.realtime_priority if config.actor.pace == "realtime" else None
    if wanted is None:
        return Finding("ok", "priority", "real-time priority is not asked for")
    if (problem := _refusal(wanted)) is None:
        return Finding("ok", "priority", f"the control loop gets real-time priority {wanted}")
    return Finding(
        "note", "priority", f"no real-time priority {wanted} ({problem}): steps may come late while this machine is busy.",
        "Give the user `rtprio` in /etc/security/limits.conf, or the worker's systemd unit `LimitRTPRIO=`.",
    )  # fmt: skip


def _refusal(priority: int) -> str | None:
    """Try it in a thread of its own, which ends with it."""
    problems: list[str] = []

    def attempt() -> None:
        try:
            os.sched_setscheduler(threading.get_native_id(), os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
        except (OSError, AttributeError) as error:
            problems.append(getattr(error, "strerror", None) or "this system has no SCHED_FIFO")

    thread = threading.Thread(target=attempt, name="priority")
    thread.start()
    thread.join()
    return problems[0] if problems else None


def _link(config: TrainConfig) -> Finding:
    from hilserl.link.server import require_listenable

    if not config.link.tls:
        try:
            require_listenable(config.link)
        except HilserlError as error:
            return Finding("FAIL", "link", str(error))
        return Finding("ok", "link", "the learner is on this host")
    from hilserl.link.tls import load_identity

    try:
        identity = load_identity("actor")
    except HilserlError as error:
        return Finding("FAIL", "link", str(error))
    return Finding("ok", "link", f"certificate of `{identity.host}`; `hilserl check-link` looks at the way to the learner")
