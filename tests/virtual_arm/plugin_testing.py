"""The plugin `lerobot_robot_hilserl` as if it were installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PLUGIN = "lerobot_robot_hilserl"
ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "plugins" / PLUGIN


def installed_environment(site: Path, home: Path) -> dict[str, str]:
    """Return an environment in which LeRobot's commands find the plugin: `site` gets what an installation leaves there."""
    record = site / f"{PLUGIN}-0.1.0.dist-info" / "METADATA"
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(f"Metadata-Version: 2.1\nName: {PLUGIN}\nVersion: 0.1.0\n")
    path = os.pathsep.join([str(site), str(FOLDER / "src"), str(ROOT)])
    return os.environ | {"PYTHONPATH": path, "HILSERL_HOME": str(home), "HF_HOME": str(home / "hf"), "HF_HUB_OFFLINE": "1"}


def lerobot_command(*words: str) -> list[str]:
    """Return one of LeRobot's commands, patient with a busy machine."""
    return [sys.executable, str(Path(__file__).with_name("patient_lerobot.py")), *words]
