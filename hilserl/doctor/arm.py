"""What a connected arm says, and whether it goes where it is sent: small jogs along each axis, measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hilserl.config.models import TrainConfig
from hilserl.doctor.findings import Finding
from hilserl.errors import HilserlError
from hilserl.robot.arm import Arm
from hilserl.robot.cameras import Cameras
from hilserl.robot.kinematics import Kinematics
from hilserl.robot.units import GRIPPER, GRIPPER_SPAN_RAD
from hilserl.schema import JOINT_NAMES

Array = NDArray[np.floating[Any]]
Observation = dict[str, NDArray[Any]]

_JOG_STEPS = 2  # each way
_GOOD, _POOR = (0.8, 1.3), (0.5, 1.6)  # delivered motion as a share of the commanded one
_SIDEWAYS = 0.5  # of the commanded motion
_GRIPPER_SIZE = 0.5
_ENOUGH_FRAMES_S = 1.0


class Movable(Protocol):
    """An environment of an SO-101, real, virtual or simulated."""

    def reset(self, *, seed: int | None = None) -> tuple[Observation, dict[str, Any]]:
        """Move to where an episode begins."""

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Execute one action."""


def examine_servos(arm: Arm, config: TrainConfig) -> Iterator[Finding]:
    """Look at temperatures, voltages and error bytes of the servos."""
    bus, safety = arm.state.bus, config.robot.safety
    celsius = {name: float(value) for name, value in zip(JOINT_NAMES, bus.temperature_c, strict=True)}
    hottest = max(celsius, key=lambda name: celsius[name])
    text = f"{min(celsius.values()):.0f} to {max(celsius.values()):.0f} deg C"
    if celsius[hottest] >= safety.warm_c:
        remedy = "Let it cool down, and look for what it works against."
        verdict = "FAIL" if celsius[hottest] >= safety.hot_c - 5 else "note"
        yield Finding(verdict, "temperature", f"{text}; `{hottest}` is the hottest.", remedy)  # type: ignore[arg-type]
    else:
        yield Finding("ok", "temperature", text)
    low, high = float(bus.voltage_v.min()), float(bus.voltage_v.max())
    text = f"{low:.1f} to {high:.1f} V"
    if high - low > 0.15 * high:
        yield Finding("note", "voltage", f"{text}: the servos differ.", "Look for a loose plug between them.")
    else:
        yield Finding("ok", "voltage", text)
    wrong = [f"{name} ({int(error):#04x})" for name, error in zip(JOINT_NAMES, bus.error, strict=True) if error]
    if wrong:
        yield Finding(
            "FAIL", "servos", f"report an error: {', '.join(wrong)}.", "Switch the arm off and on; if it stays, look at that servo."
        )
    else:
        yield Finding("ok", "servos", "six answer, none reports an error")


def examine_cameras(cameras: Cameras, config: TrainConfig) -> Iterator[Finding]:
    """Count frames for a second."""
    for name, rate_hz in cameras.rates_hz(_ENOUGH_FRAMES_S).items():
        asked = config.robot.cameras[name].fps
        text = f"{rate_hz:.0f} frames/s, {asked:g} asked for"
        if rate_hz < config.robot.control_hz:
            yield Finding(
                "FAIL", f"camera {name}", f"{text}: fewer than control steps.", "Light the scene (exposure), or lower its resolution."
            )
        elif rate_hz < 0.7 * asked:
            yield Finding("note", f"camera {name}", f"{text}.", "Light the scene (a long exposure slows a camera), or lower `fps`.")
        else:
            yield Finding("ok", f"camera {name}", text)


def examine_start_pose(environment: Movable, seed: int) -> tuple[Finding, Observation | None]:
    """Move to where an episode begins; return also what is seen there."""
    try:
        observation, info = environment.reset(seed=seed)
    except HilserlError as error:
        return Finding("FAIL", "reset", str(error)), None
    error_m = info.get("reset_error_m")
    text = "the arm went to where an episode begins"
    return Finding("ok", "reset", text if error_m is None else f"{text}, {1000 * float(error_m):.1f} mm off"), observation


def examine_jogs(environment: Movable, config: TrainConfig, seed: int) -> Iterator[Finding]:
    """Jog along x, y and z and open and close the gripper; compare what was commanded with what was measured."""
    kinematics = Kinematics()
    oldest_frame_s: list[float] = []
    for axis, name in enumerate("xyz"):
        yield _checked_jog(environment, config, kinematics, axis, name, seed, oldest_frame_s)
    if "gripper" in config.action_names:
        yield _checked_gripper(environment, config, seed, oldest_frame_s)
    if oldest_frame_s and config.observation.images:
        limits = [config.robot.cameras[name].max_age_s for name in config.observation.images]
        text = f"the oldest frame acted on was {1000 * max(oldest_frame_s):.0f} ms old (limit {1000 * min(limits):.0f} ms)"
        if max(oldest_frame_s) > 0.5 * min(limits):
            yield Finding("note", "camera age", f"{text}.", "Lower the camera's resolution, or give it a USB port of its own.")
        else:
            yield Finding("ok", "camera age", text)


def _checked_jog(
    environment: Movable, config: TrainConfig, kinematics: Kinematics, axis: int, name: str, seed: int, ages: list[float]
) -> Finding:
    """Jog there and back along one axis of the base frame."""
    shares, sideways = [], []
    try:
        for sign in (1.0, -1.0):
            _, info = environment.reset(seed=seed)
            start = kinematics.forward(info["joint_pos_rad"])[0]
            commanded, joints = _play(environment, config, axis, sign, ages)
            moved = (kinematics.forward(joints)[0] - start) / config.robot.action_scale_m
            wanted = float(commanded[:, axis].sum())
            if abs(wanted) < 0.5:
                continue  # the workspace ends here
            shares.append(float(moved[axis]) / wanted)
            sideways.append(float(np.linalg.norm(np.delete(moved, axis))) / abs(wanted))
    except HilserlError as error:
        return Finding("FAIL", f"jog {name}", str(error))
    if not shares:
        return Finding("note", f"jog {name}", "the workspace leaves no room for it.", "Widen `robot.workspace_*`, or start elsewhere.")
    shown = " and ".join(f"{100 * share:.0f} %" for share in shares)
    text = f"{shown} of the commanded motion arrived, {100 * max(sideways):.0f} % of it sideways"
    if min(shares) < _POOR[0] or max(shares) > _POOR[1] or max(sideways) > _SIDEWAYS:
        return Finding(
            "FAIL", f"jog {name}", f"{text}.", "Calibrate the arm again, look for what holds it, or raise `robot.torque_limit_pct`."
        )
    if min(shares) < _GOOD[0] or max(shares) > _GOOD[1]:
        return Finding("note", f"jog {name}", f"{text}.", "A weak or worn arm; the policy learns with it, more slowly.")
    return Finding("ok", f"jog {name}", text)


def _checked_gripper(environment: Movable, config: TrainConfig, seed: int, ages: list[float]) -> Finding:
    step_rad = config.robot.max_gripper_step_pct / 100.0 * GRIPPER_SPAN_RAD
    shares = []
    try:
        for sign in (1.0, -1.0):
            _, info = environment.reset(seed=seed)
            start = float(info["joint_pos_rad"][GRIPPER])
            commanded, joints = _play(environment, config, 3, sign * (1.0 if config.policy.gripper == "discrete" else _GRIPPER_SIZE), ages)
            if abs(wanted := float(commanded[:, 3].sum()) * step_rad) > 0.1 * step_rad:
                shares.append((float(joints[GRIPPER]) - start) / wanted)
    except HilserlError as error:
        return Finding("FAIL", "jog gripper", str(error))
    if not shares:
        return Finding("note", "jog gripper", "it is at an end of its range.", "Set `robot.reset_gripper_pct` to something between.")
    text = " and ".join(f"{100 * share:.0f} %" for share in shares) + " of the commanded motion arrived"
    if min(shares) < 0.3:
        return Finding("FAIL", "jog gripper", f"{text}.", "Look for what holds the jaw; calibrate the arm again.")
    return Finding("ok", "jog gripper", text)


def _play(environment: Movable, config: TrainConfig, index: int, size: float, ages: list[float]) -> tuple[Array, Array]:
    """Repeat one action; return what was executed, shape (steps, A), and the joints afterwards [rad]."""
    action = np.zeros(len(config.action_names), np.float32)
    executed = []
    for step in range(_JOG_STEPS + 1):
        action[index] = size if step < _JOG_STEPS else 0.0  # a last step of rest, in which the arm arrives
        _, _, terminated, truncated, info = environment.step(action)
        executed.append(info["executed_action"])
        if "frame_age_s" in info:
            ages.append(float(info["frame_age_s"]))
        if terminated or truncated:
            break
    return np.array(executed, dtype=np.float64), info["joint_pos_rad"]
