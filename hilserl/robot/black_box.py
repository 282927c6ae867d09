"""The last seconds of an arm: what was wanted, commanded and measured in every tick; saved when the arm is stopped.

The ring is a mapped file, so it outlives the process that fills it: after a SIGKILL the guardian saves it.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilserl.files import home, write_atomically, write_json

if TYPE_CHECKING:
    from hilserl.robot.feetech import BusState

_SIX = ("target_rad", "command_rad", "measured_rad", "velocity_ticks_s", "load", "voltage_v", "temperature_c", "current_a", "torque_limit")
_ROW = np.dtype(
    [("tick", "i8"), ("at_s", "f8"), ("clips", "i4")]
    + [(name, "f8", (6,)) for name in _SIX]
    + [("error", "u1", (6,)), ("answered", "?", (6,)), ("torque_on", "?", (6,))]
)


class BlackBox:
    """A ring of ticks. One process writes it, one thread at a time.

    Attributes:
        robot_id: Whose.
    """

    def __init__(self, robot_id: str, *, seconds: float, hz: float) -> None:
        """Begin with an empty ring.

        Args:
            robot_id: Of the arm.
            seconds: What it holds [s].
            hz: Ticks per second.
        """
        self.robot_id = robot_id
        self._tick = 0
        path = _ring_path(robot_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # who still maps the old one keeps it
        self._rows = np.memmap(path, dtype=_ROW, mode="w+", shape=(max(1, round(seconds * hz)),))

    def record(self, state: BusState, target_rad: ArrayLike, command_rad: ArrayLike, measured_rad: ArrayLike, clips: int = 0) -> None:
        """Note one tick.

        Args:
            state: What the servos said.
            target_rad: What was wanted [rad], shape (6,).
            command_rad: What the servos were told [rad], shape (6,).
            measured_rad: Where the joints are [rad], shape (6,).
            clips: How many limits changed the command.
        """
        row = self._rows[self._tick % len(self._rows)]
        row["tick"] = 0  # not whole
        row["at_s"], row["clips"] = state.at, clips
        row["target_rad"], row["command_rad"], row["measured_rad"] = target_rad, command_rad, measured_rad
        for name in (*_SIX[3:], "error", "answered", "torque_on"):
            row[name] = getattr(state, name)
        self._tick += 1
        row["tick"] = self._tick

    def save(self, why: Mapping[str, Any]) -> Path:
        """Write the ring to `HILSERL_HOME/black-box`; return the JSON file, which has the same name as the arrays' `.npz`."""
        return _save(self.robot_id, self._rows, why)


def save_left_behind(robot_id: str, why: Mapping[str, Any]) -> Path | None:
    """Save the ring of a process that has died; None: there is none, or it holds nothing."""
    path = _ring_path(robot_id)
    if not path.exists() or path.stat().st_size < _ROW.itemsize:
        return None
    rows = np.fromfile(path, dtype=_ROW)
    return _save(robot_id, rows, why) if rows["tick"].any() else None


def _save(robot_id: str, rows: NDArray[Any], why: Mapping[str, Any]) -> Path:
    kept = np.sort(rows[rows["tick"] > 0], order="tick")
    now = datetime.now(UTC)
    file = home() / "black-box" / f"{robot_id}-{now:%Y%m%d-%H%M%S-%f}.json"
    arrays = io.BytesIO()
    columns: dict[str, Any] = {name: np.asarray(kept[name]) for name in _ROW.names or ()}
    np.savez_compressed(arrays, **columns)
    write_atomically(file.with_suffix(".npz"), arrays.getvalue())
    last = {name: column[-1].tolist() for name, column in columns.items()} if len(kept) else None
    seconds = float(kept["at_s"][-1] - kept["at_s"][0]) if len(kept) else 0.0
    about = {"robot": robot_id, "saved_at": now.isoformat(), "saved_at_monotonic_s": time.monotonic()}
    write_json(file, {**about, **why, "ticks": len(kept), "seconds": seconds, "clips": int(kept["clips"].sum()), "last_tick": last})
    return file


def _ring_path(robot_id: str) -> Path:
    return home() / "robots" / robot_id / "black-box.ring"
