"""EEPROM of six servos as a file, so that an arm remembers its calibration from run to run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from hilserl.errors import RobotError
from hilserl.files import write_json
from hilserl.robot.registers import EEPROM_END


def read_eeproms(path: Path) -> list[bytes] | None:
    """Return what six servos remember; None where there is no file yet.

    Raises:
        RobotError: The file is not one of ours.
    """
    if not path.exists():
        return None
    try:
        eeproms = [bytes.fromhex(text) for text in json.loads(path.read_text())["eeprom"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RobotError(f"{path}: no EEPROM of a virtual arm ({error!r}). Delete it: the arm is then as new.") from None
    if len(eeproms) != 6 or any(len(eeprom) != EEPROM_END for eeprom in eeproms):
        raise RobotError(f"{path}: not the EEPROM of six servos. Delete it: the arm is then as new.")
    return eeproms


def write_eeproms(path: Path, eeproms: Sequence[bytes]) -> None:
    """Keep what six servos remember."""
    write_json(path, {"eeprom": [eeprom.hex() for eeprom in eeproms]})
