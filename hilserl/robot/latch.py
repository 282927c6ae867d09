"""A stopped arm stays stopped: a file says why, and nothing moves the arm until a person takes it away (`hilserl rearm`)."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from hilserl.errors import RobotError
from hilserl.files import home, write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Latch:
    """Why an arm is stopped.

    Attributes:
        robot_id: Which arm.
        rule: What stopped it: a trip's rule, `estop`, or `guardian`.
        text: For a person.
        at: When (ISO 8601, UTC).
        port: Where its servos can be asked; None: nowhere, as with a virtual arm that ended.
        black_box: What was saved of its last seconds.
    """

    robot_id: str
    rule: str
    text: str
    at: str
    port: str | None = None
    black_box: str | None = None


def robot_folder(robot_id: str) -> Path:
    """Return where what belongs to one arm is kept on its host."""
    return home() / "robots" / robot_id


def latch(robot_id: str, rule: str, text: str, *, port: str | None = None, black_box: Path | None = None) -> None:
    """Stop an arm until a person re-arms it; the first reason stays. Never raises: what stops the arm must not fail on a full disk."""
    if (before := latched(robot_id)) is not None:
        if before.port is None and port is not None:
            _write(Latch(**{**asdict(before), "port": port}))
        return
    _write(Latch(robot_id, rule, text, datetime.now(UTC).isoformat(timespec="seconds"), port, str(black_box) if black_box else None))


def latched(robot_id: str) -> Latch | None:
    """Return why an arm is stopped; None: it is not."""
    try:
        return Latch(**json.loads(_file(robot_id).read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:  # somebody's damage does not release an arm
        return Latch(robot_id, "unknown", f"{_file(robot_id)} cannot be read ({error})", "at an unknown time")


def require_released(robot_id: str) -> None:
    """Return if the arm may be moved.

    Raises:
        RobotError: It is stopped; says why and what a person does.
    """
    if (held := latched(robot_id)) is not None:
        raise RobotError(
            f"robot `{robot_id}` was stopped ({held.rule}, {held.at}): {held.text} Look at the arm, remove the cause, then run "
            f"`hilserl rearm --robot {robot_id}`."
        )


def release(robot_id: str) -> None:
    """Let the arm be moved again; `rearm` asks the servos first."""
    _file(robot_id).unlink(missing_ok=True)


def _write(entry: Latch) -> None:
    try:
        write_json(_file(entry.robot_id), asdict(entry))
    except Exception:
        logger.exception("The stop of robot `%s` could not be written down: keep it stopped by hand.", entry.robot_id)


def _file(robot_id: str) -> Path:
    return robot_folder(robot_id) / "latch.json"
