"""Arm, learner and link in numbers, and what is wrong with them in words."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import numpy as np

from hilserl.config.models import TrainConfig
from hilserl.link.messages import LearnerAlarm
from hilserl.robot.feetech import SERVOS
from hilserl.schema import JOINT_NAMES

_RATE_OVER_S = 5.0
_LATE_SHARE = 0.1
_MANY_WAITING = 500
_OLD_WEIGHTS_S = 30.0
_MANY_DIFFER = 2
_STANDS = ("starting", "waiting", "stopped", "evaluation", "ended")


class Telemetry:
    """Looks at what the actor holds, from another thread: it only reads snapshots.

    Attributes:
        environment: The robot; None: none is connected now.
        client: The actor's end of the link; None: there is no learner.
        weights_version: That the policy has.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.environment: Any = None
        self.client: Any = None
        self.weights_version = 0
        self._config = config
        self._weights_at = time.monotonic()
        self._stood_at = time.monotonic()
        self._updates: deque[tuple[float, int]] = deque(maxlen=200)
        self._since: dict[str, float] = {}
        self._kinematics: Any = None
        if config.env is None:
            from hilserl.robot.kinematics import Kinematics

            self._kinematics = Kinematics()  # its own: they are not thread-safe

    def new_weights(self, version: int) -> None:
        """The policy has other weights now."""
        self.weights_version, self._weights_at = version, time.monotonic()

    def tool_m(self, joint_pos_rad: Any) -> list[float] | None:
        """Return where the tool is [m], from joint angles [rad], shape (6,); None where there is no arm."""
        if self._kinematics is None or joint_pos_rad is None:
            return None
        return [round(float(value), 4) for value in self._kinematics.forward(joint_pos_rad)[0]]

    def arm(self) -> dict[str, Any] | None:
        """Return the arm's part of the state message."""
        environment = self.environment
        if self._kinematics is None or environment is None:
            return None
        state = getattr(getattr(environment, "arm", None), "state", None)
        joints = environment.joint_pos_rad if state is None else state.joint_pos_rad
        found: dict[str, Any] = {"tool_m": self.tool_m(joints), "joint_pos_rad": [round(float(value), 4) for value in joints]}
        found["servos"] = None if state is None else [_servo(state.bus, index) for index in range(len(SERVOS))]
        return found

    def learner(self) -> dict[str, Any] | None:
        """Return the learner's part of the state message."""
        if self.client is None:
            return None
        status = self.client.last_status
        now = time.monotonic()
        self._updates.append((now, status.updates))
        while now - self._updates[0][0] > _RATE_OVER_S:
            self._updates.popleft()
        (then, before), (_, last) = self._updates[0], self._updates[-1]
        return {
            "connected": bool(self.client.is_connected),
            "phase": status.phase,
            "message": status.message,
            "updates": status.updates,
            "updates_per_s": round((last - before) / (now - then), 1) if now - then > 1.0 else None,
            "environment_steps": status.environment_steps,
            "owed_updates": status.owed_updates,
            "max_owed_updates": status.max_owed_updates,
            "weights_version": self.weights_version,
            "weights_age_s": round(now - self._weights_at, 1),
        }

    def link(self) -> dict[str, Any] | None:
        """Return the link's part of the state message."""
        if self.client is None:
            return None
        records, size = self.client.waiting
        return {"connected": bool(self.client.is_connected), "waiting_records": records, "journal_bytes": size}

    def alarms(self, state: dict[str, Any]) -> list[dict[str, Any]]:
        """Say what is wrong, each with how long it has been so; `state` is the state message so far."""
        found = [
            alarm
            for alarm in (*self._arm_alarms(state), *self._learner_alarms(state), *_timing_alarms(state), *_judge_alarms(state))
            if alarm is not None
        ]
        now = time.monotonic()
        self._since = {text: self._since.get(text, now) for _, text, _ in found}
        return [
            {"level": level, "text": text, "remedy": remedy, "since_s": round(now - self._since[text], 1)} for level, text, remedy in found
        ]

    def _arm_alarms(self, state: dict[str, Any]) -> list[tuple[str, str, str]]:
        found = []
        safety = self._config.robot.safety
        for index, servo in enumerate((state["arm"] or {}).get("servos") or []):
            name = f"Servo {SERVOS[index]} ({servo['joint']})"
            if servo["temperature_c"] is None:
                found.append(("error", f"{name} does not answer.", "Check its power and its cables."))
            elif servo["temperature_c"] >= safety.warm_c:
                warm = f"{name} is at {servo['temperature_c']:.0f} deg C."
                found.append(
                    ("warning", warm, f"Pause and let the arm rest until it is below {safety.warm_c:.0f}; it is taken down if it gets hot.")
                )
            if servo["error"]:
                found.append(
                    ("error", f"{name} reports error {servo['error']}.", "Hold the arm, look at what blocks it, check the supply.")
                )
        return found

    def _learner_alarms(self, state: dict[str, Any]) -> list[tuple[str, str, str]]:
        learner, link, found = state["learner"], state["link"], []
        now = time.monotonic()
        if state.get("phase") in _STANDS or state.get("control") in ("held", "stopped"):
            self._stood_at = now  # nothing is learned from an arm that stands
        if learner is not None and not learner["connected"] and learner["phase"] != "finished":
            found.append(
                (
                    "error",
                    "The learner is away.",
                    "Steps wait on disk; the arm stops by itself after 2 minutes. Look at the learner's host.",
                )
            )
        elif (
            learner is not None and learner["phase"] == "training" and min(learner["weights_age_s"], now - self._stood_at) > _OLD_WEIGHTS_S
        ):
            text = "The policy has had no new weights for more than 30 s."
            found.append(("warning", text, "The learner is busy saving or evaluating, or hangs: look at its page."))
        found += [] if learner is None else [_of_learner(alarm) for alarm in self.client.last_status.alarms]
        if link is not None and link["waiting_records"] > _MANY_WAITING:
            found.append(("warning", f"More than {_MANY_WAITING} steps wait for the learner.", "Check the network between the two hosts."))
        return found


def _of_learner(alarm: LearnerAlarm) -> tuple[str, str, str]:
    """Return an alarm of learning as the page shows it; its first sentence says what is wrong, the others what to do."""
    text, _, remedy = alarm.text.partition(". ")
    return "warning", f"Learning, `{alarm.name}`: {text.removesuffix('.')}.", remedy


def _timing_alarms(state: dict[str, Any]) -> list[tuple[str, str, str]]:
    timing, episode = state["timing"], state["episode"]
    if timing is None or episode is None or episode["step"] < 20 or timing["late_steps"] <= _LATE_SHARE * episode["step"]:
        return []
    return [("warning", "More than a tenth of the control steps began late.", "Free this machine of other work (docs/reliability.md).")]


def _judge_alarms(state: dict[str, Any]) -> list[tuple[str, str, str]]:
    differ = (state.get("session") or {}).get("differ_of_last_10", 0)
    if differ <= _MANY_DIFFER:
        return []
    text = f"The classifier and the simulator differ about success in {differ} of the last 10 episodes."
    return [("warning", text, "It rewards what is wrong: gather examples of it, and train the classifier anew (docs/classifier.md).")]


def _servo(bus: Any, index: int) -> dict[str, Any]:
    def number(values: Any, digits: int) -> float | None:
        value = float(np.asarray(values)[index])
        return round(value, digits) if np.isfinite(value) else None

    return {
        "joint": JOINT_NAMES[index],
        "temperature_c": number(bus.temperature_c, 0),
        "load": number(bus.load, 2),
        "voltage_v": number(bus.voltage_v, 1),
        "current_a": number(bus.current_a, 2),
        "error": int(np.asarray(bus.error)[index]),
    }
