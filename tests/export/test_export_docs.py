"""The programs in docs/export.md do what it says."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from export_helpers import RESIZED, SMALL, TRAINED

from hilserl.config.loader import load_config
from hilserl.export.lerobot_folder import export_lerobot
from hilserl.export.onnx_model import export_onnx
from hilserl.export.probe import probe_observations
from hilserl.robot.codec import ActionCodec
from hilserl.robot.kinematics import HOME_RAD, Kinematics, euler
from hilserl.robot.units import joints_from_lerobot, joints_to_lerobot
from hilserl.schema import JOINT_NAMES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "export.md"
CAMERA = {"encoder.type": "cnn", **TRAINED, **RESIZED}


def program(containing: str) -> str:
    (found,) = [block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if containing in block]
    return found


class PerfectArm:
    """LeRobot's robot interface over joints that are at once where they are sent; notes what it was sent."""

    def __init__(self, joints_rad: np.ndarray, frame: np.ndarray) -> None:
        self.joints_rad, self.frame = joints_rad, frame
        self.sent: list[np.ndarray] = []

    def get_observation(self) -> dict:
        values = joints_to_lerobot(self.joints_rad)
        return {**{f"{name}.pos": value for name, value in zip(JOINT_NAMES, values, strict=True)}, "wrist": self.frame}

    def send_action(self, action: dict) -> None:
        assert list(action) == [f"{name}.pos" for name in JOINT_NAMES]
        self.sent.append(joints_from_lerobot([action[f"{name}.pos"] for name in JOINT_NAMES]))
        self.joints_rad = self.sent[-1]


def test_the_loop_moves_the_tool_as_the_policy_says(make_source, tmp_path, monkeypatch) -> None:
    source = make_source("lift", **CAMERA)
    export_lerobot(source, tmp_path / "out")
    config = load_config("lift", {**SMALL, **CAMERA})
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    (seen,) = probe_observations(source.policy, 1)
    start, _ = Kinematics().inverse_with_residual(np.array(HOME_RAD), np.array(config.robot.reset_ee_pos_m))
    arm = PerfectArm(start, seen["observation.images.wrist"])
    names: dict = {}
    exec(program("def run_policy"), names)
    monkeypatch.setattr(names["time"], "sleep", lambda _: None)
    names["run_policy"](arm, str(tmp_path / "out"), str(resolved), 3)

    kinematics, joints, before = Kinematics(), start, None
    for sent in arm.sent:
        tool, rotation = kinematics.forward(joints)
        velocity = np.zeros(6) if before is None else (joints - before) * config.robot.control_hz
        state = np.concatenate([joints, velocity, tool, euler(rotation)])
        action = source.policy.act({"observation.state": state.astype(np.float32), "observation.images.wrist": arm.frame})
        wanted = ActionCodec(config, kinematics).decode(action, joints).joint_target_rad
        assert np.abs(sent - wanted).max() < 1e-4
        joints, before = sent, joints
    assert len(arm.sent) == 3 and np.abs(arm.sent[-1] - start).max() > 0.01


def test_the_onnx_program_acts_as_the_policy_does(make_source, tmp_path, monkeypatch) -> None:
    pytest.importorskip("onnxscript")
    source = make_source("lift", **CAMERA)
    monkeypatch.chdir(tmp_path)
    export_onnx(source, Path("exports/lift_onnx"))
    names: dict = {}
    exec(program("InferenceSession"), names)
    view = json.loads(Path("exports/lift_onnx/interface.json").read_text())["preprocessor"]["views"]["wrist"]
    for seen in probe_observations(source.policy, 3, seed=2):
        got = names["act"](seen["observation.state"], seen["observation.images.wrist"], view)
        assert np.abs(got - source.policy.act(seen)).max() < 1e-5
