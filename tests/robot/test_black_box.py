"""The last seconds of an arm, kept past the death of whoever noted them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
from safety_testing import ZERO, healthy

from hilserl.robot.black_box import BlackBox, save_left_behind


def test_it_keeps_the_last_ticks_in_order(own_home: Path) -> None:
    box = BlackBox("arm", seconds=1.0, hz=50.0)
    for tick in range(120):
        box.record(healthy(at=tick * 0.02), ZERO + tick, ZERO + tick + 0.5, ZERO, clips=1)
    file = box.save({"rule": "stall", "text": "servo 3"})
    about, arrays = json.loads(file.read_text()), np.load(file.with_suffix(".npz"))
    assert file.parent == own_home / "black-box" and about["rule"] == "stall" and about["ticks"] == 50
    np.testing.assert_allclose(arrays["at_s"], np.arange(70, 120) * 0.02)
    np.testing.assert_allclose(arrays["target_rad"][:, 2], np.arange(70, 120))
    np.testing.assert_allclose(arrays["command_rad"][-1], 119.5)
    assert arrays["answered"].all() and about["last_tick"]["voltage_v"] == [12.0] * 6 and about["clips"] == 50


def test_a_short_run_saves_what_there_is(own_home: Path) -> None:
    box = BlackBox("arm", seconds=10.0, hz=50.0)
    assert json.loads(box.save({}).read_text())["ticks"] == 0
    box.record(healthy(), ZERO, ZERO, ZERO)
    assert json.loads(box.save({}).read_text())["ticks"] == 1


def test_what_a_killed_process_noted_is_saved_by_another(own_home: Path) -> None:
    assert save_left_behind("arm", {}) is None
    code = (
        "import os, signal\nfrom safety_testing import ZERO, healthy\nfrom hilserl.robot.black_box import BlackBox\n"
        "box = BlackBox('arm', seconds=1.0, hz=50.0)\n"
        "for tick in range(60):\n    box.record(healthy(at=float(tick)), ZERO, ZERO, ZERO)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)}, check=False)
    assert ended.returncode == -signal.SIGKILL
    file = save_left_behind("arm", {"rule": "guardian"})
    assert file is not None
    np.testing.assert_allclose(np.load(file.with_suffix(".npz"))["at_s"], np.arange(10, 60))


def test_a_new_run_does_not_save_the_last_one(own_home: Path) -> None:
    old = BlackBox("arm", seconds=1.0, hz=50.0)
    old.record(healthy(), ZERO, ZERO, ZERO)
    BlackBox("arm", seconds=1.0, hz=50.0)
    assert save_left_behind("arm", {}) is None
    old.record(healthy(), ZERO, ZERO, ZERO)  # its file is gone, its memory is not
