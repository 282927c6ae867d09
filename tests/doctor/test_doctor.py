"""What the doctor finds: an arm in order, and each thing that is wrong with one that is not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipeline_testing import make_tiny_config

from hilserl.config import load_config
from hilserl.data.normalize import StateNormalizer
from hilserl.doctor import host
from hilserl.doctor.demonstrations import Demonstrations, examine_start
from hilserl.doctor.examine import examine, examine_connected
from hilserl.doctor.findings import Diagnosis, Finding
from hilserl.doctor.sight import examine_sight
from hilserl.environments.make import make_environment
from hilserl.environments.virtual_arm import VirtualSo101Arm
from hilserl.errors import ConfigError
from hilserl.robot.latch import latch
from hilserl.schema import IMAGE_PREFIX, STATE_KEY, state_components

STATE_ONLY: dict[str, Any] = {"observation.images": {}, "observation.privileged": True}
SIGHT = load_config("reach", {})
CONFIG = load_config("so101_virtual_lift", STATE_ONLY)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("HILSERL_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def environment(home: Path) -> Iterator[VirtualSo101Arm]:
    made = make_environment(CONFIG)
    assert isinstance(made, VirtualSo101Arm)
    yield made
    made.close()


@pytest.fixture
def arm(environment: VirtualSo101Arm) -> Iterator[VirtualSo101Arm]:
    yield environment
    for servo in range(1, 7):
        environment.process.ask("servo", servo=servo, ailments={})


def connected(arm: VirtualSo101Arm, tmp_path: Path, **options: Any) -> dict[str, Finding]:
    return {finding.what: finding for finding in examine_connected(CONFIG, arm, None, tmp_path / "seen.png", **options)}


def no_judge(folder: Path) -> Any:
    raise AssertionError(f"nobody judges {folder}")


def test_an_arm_in_order_passes_and_its_jogs_arrive(arm: VirtualSo101Arm, tmp_path: Path) -> None:
    found = connected(arm, tmp_path)
    assert set(found) == {"temperature", "voltage", "servos", "reset", "state", "jog x", "jog y", "jog z", "jog gripper"}
    assert {name: finding.text for name, finding in found.items() if finding.verdict != "ok"} == {"state": found["state"].text}


def test_still_moves_nothing(arm: VirtualSo101Arm, tmp_path: Path) -> None:
    before = arm.process.ask("state")["joint_pos_rad"]
    found = connected(arm, tmp_path, motion=False)
    np.testing.assert_allclose(arm.process.ask("state")["joint_pos_rad"], before, atol=1e-3)
    assert found["motion"].verdict == "note" and "jog x" not in found


@pytest.mark.failure("R10")
def test_a_warm_servo_is_named(arm: VirtualSo101Arm, tmp_path: Path) -> None:
    arm.process.ask("servo", servo=2, ailments={"temperature_c": 58})
    arm.arm.follow(arm.arm.state.command_rad, 3)
    finding = connected(arm, tmp_path, motion=False)["temperature"]
    assert finding.verdict == "note" and "`shoulder_lift` is the hottest" in finding.text


@pytest.mark.failure("R03")
def test_an_arm_that_does_not_go_where_it_is_sent_fails(arm: VirtualSo101Arm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = arm.codec.decode

    def weak(action: Any, joints: Any, *rest: Any) -> Any:
        wanted = decode(action, joints, *rest)
        target = joints + 0.3 * (wanted.joint_target_rad - joints)
        return type(wanted)(target, wanted.executed_action, wanted.tool_target_m, wanted.residual_m)

    monkeypatch.setattr(arm.codec, "decode", weak)
    monkeypatch.setattr(arm, "_executed", lambda wanted, measured, target: wanted.executed_action)
    found = connected(arm, tmp_path)
    assert {found[f"jog {axis}"].verdict for axis in "xyz"} == {"FAIL"}
    assert "of the commanded motion arrived" in found["jog x"].text and "Calibrate" in found["jog x"].remedy


def demonstrations(config: Any, **changes: Any) -> Demonstrations:
    """Twenty demonstrations whose states are those of an arm at its start, give or take a tenth of each component's limit."""
    limits = np.array([component.limit for component in state_components(config) for _ in component.labels])
    names = tuple(scalar for component in state_components(config) for scalar in component.scalars)
    normalizer = StateNormalizer(names, np.zeros(len(names), np.float32), (0.1 * limits).astype(np.float32))
    generator = np.random.default_rng(0)
    starts = np.array(config.robot.reset_ee_pos_m) + generator.uniform(-0.01, 0.01, (20, 3))
    image = generator.integers(0, 256, (84, 84, 3), dtype=np.uint8)
    values = {"normalizer": normalizer, "starts_m": starts, "images": {IMAGE_PREFIX + "wrist": image}, "episodes": 20}
    return Demonstrations(**(values | changes))


def sight(tmp_path: Path, state: np.ndarray, image: np.ndarray) -> dict[str, Finding]:
    observation = {STATE_KEY: state.astype(np.float32), IMAGE_PREFIX + "wrist": image}
    return {finding.what: finding for finding in examine_sight(SIGHT, observation, demonstrations(SIGHT), tmp_path / "seen.png")}


def live() -> tuple[np.ndarray, np.ndarray]:
    size = sum(len(component.labels) for component in state_components(SIGHT))
    return np.zeros(size), np.random.default_rng(1).integers(0, 256, (84, 84, 3), dtype=np.uint8)


def test_every_number_of_the_state_is_shown_as_scaled(tmp_path: Path) -> None:
    found = sight(tmp_path, *live())
    assert found["state"].verdict == found["sight wrist"].verdict == "ok"
    for name in demonstrations(SIGHT).normalizer.names:
        assert f"{name} +0.00" in found["state"].text
    assert (tmp_path / "seen.png").stat().st_size > 10_000


@pytest.mark.failure("R01")
def test_degrees_for_radians_are_named(tmp_path: Path) -> None:
    state, image = live()
    state[1] = -58.0
    finding = sight(tmp_path, state, image)["state"]
    assert finding.verdict == "FAIL" and "joint_pos.shoulder_lift" in finding.text and "degrees" in finding.remedy


def test_a_dark_room_and_a_cap_on_the_lens(tmp_path: Path) -> None:
    state, image = live()
    assert sight(tmp_path, state, image // 4)["sight wrist"].text.endswith("darker than demonstrated.")
    assert sight(tmp_path, state, np.full_like(image, 7))["sight wrist"].verdict == "FAIL"
    assert "uint8 (40, 84, 3)" in sight(tmp_path, state, image[:40])["preprocessor"].text


@pytest.mark.parametrize(
    ("reset_m", "verdict", "says"),
    [((0.22, 0.0, 0.12), "ok", "20 demonstrations"), ((0.22, 0.04, 0.12), "note", "mm outside"), ((0.22, 0.1, 0.12), "FAIL", "mm outside")],
)
def test_episodes_start_where_demonstrations_start(reset_m: tuple[float, float, float], verdict: str, says: str) -> None:
    recorded = demonstrations(CONFIG)
    config = CONFIG.model_copy(update={"robot": CONFIG.robot.model_copy(update={"reset_ee_pos_m": reset_m})})
    finding = examine_start(config, recorded)
    assert (finding.verdict, says in finding.text) == (verdict, True)


def real(tmp_path: Path) -> Any:
    port = tmp_path / "ttyACM0"
    port.touch()
    robot = {"type": "so101_follower", "id": "mine", "port": str(port), "calibration_dir": str(tmp_path)}
    return make_tiny_config(robot=robot, observation={"privileged": False, "images": {}}, actor={"intervention": {"type": "none"}})


@pytest.mark.failure("R14")
def test_a_device_is_named_so_that_it_stays_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, by_id = real(tmp_path), tmp_path / "by-id"
    monkeypatch.setattr(host, "_SERIAL", by_id)
    by_id.mkdir()
    lasting = by_id / "usb-1a86_USB_Single_Serial_58FA-if00"
    lasting.symlink_to(config.robot.port)
    found = {finding.what: finding for finding in host.examine_host(config)}
    assert found["port"].verdict == "note" and found["port"].remedy == f"Name it {lasting}."
    assert found["calibration"].verdict == "FAIL" and "lerobot-calibrate" in found["calibration"].text
    Path(config.robot.port).unlink()
    gone = {finding.what: finding for finding in host.examine_host(config)}["port"]
    assert gone.verdict == "FAIL" and "Plug it in" in gone.remedy


def test_the_leader_and_the_gamepad_are_looked_for(tmp_path: Path) -> None:
    for kind, what in (("leader", "leader's port"), ("gamepad", "gamepad")):
        device = tmp_path / kind
        settings = {"type": kind, "leader": {"port": str(device)}, "gamepad": {"device": str(device)}}
        found = {finding.what: finding for finding in host.examine_host(make_tiny_config(actor={"intervention": settings}))}
        assert found[what].verdict == "FAIL" and "does not exist" in found[what].text
        device.touch()
        found = {finding.what: finding for finding in host.examine_host(make_tiny_config(actor={"intervention": settings}))}
        assert found[what].verdict == "ok"


def test_a_stopped_arm_is_not_connected(home: Path, tmp_path: Path) -> None:
    latch("mine", "estop", "The button was pressed.")
    shown: list[Finding] = []
    diagnosis = examine(real(tmp_path), no_judge, show=shown.append)
    assert diagnosis.failures and tuple(shown) == diagnosis.findings
    assert "hilserl rearm --robot mine" in diagnosis.findings[0].text
    assert diagnosis.findings[-1].text == "not connected: first what is above"
    assert "not ready" in diagnosis.summary and "❌" in diagnosis.markdown()


def test_a_full_disk_and_a_refused_priority(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_tiny_config(actor={"pace": "realtime"})

    def refuse(*arguments: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    usage = type("Usage", (), {"free": 10**8})
    monkeypatch.setattr(host.shutil, "disk_usage", lambda folder: usage)
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    found = {finding.what: finding for finding in host.examine_host(config)}
    assert found["disk"].verdict == "FAIL" and "HILSERL_HOME" in found["disk"].remedy
    assert found["priority"].verdict == "note" and "limits.conf" in found["priority"].remedy


def test_a_report_keeps_its_table_whole() -> None:
    diagnosis = Diagnosis("arm", (Finding("ok", "a", "x | y\nz"), Finding("note", "b", "c", "d")))
    assert "x \\| y z" in diagnosis.markdown() and diagnosis.summary == "Robot `arm` is ready: 2 checks, 1 with a note."


def test_the_command_says_yes_or_no(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from commands.doctor import run_doctor

    far = {"robot.reset_ee_pos_m": [0.55, 0.0, 0.2], "robot.workspace_max_m": [0.6, 0.15, 0.25]}
    lines: list[str] = []
    assert run_doctor("reach_state", {}, motion=True, show=lines.append)
    assert "is ready" in lines[-1] and any(line.startswith("ok    jog x") for line in lines)
    assert not run_doctor("reach_state", far, motion=True, show=lines.append)
    with pytest.raises(ConfigError, match="nothing for the doctor"):
        run_doctor("pendulum", {}, motion=True)


@pytest.mark.slow
def test_the_real_arms_configuration_has_nothing_that_a_virtual_arm_has_not(home: Path) -> None:
    """All of it but device names, the person at the leader, and the encoder that is fetched."""
    from commands.doctor import run_doctor

    camera = "robot.cameras.gripper_cam"
    swapped = {
        "robot.port": None,
        "robot.virtual": {},
        f"{camera}.path": None,
        f"{camera}.simulated_as": "wrist",
        "actor.intervention.type": "simulated",
        "encoder.type": "cnn",
        "encoder.model": None,
        "encoder.freeze": False,
    }
    lines: list[str] = []
    assert run_doctor("so101_real_grasp", swapped, motion=True, show=lines.append), lines
    assert any("gripper_cam" in line for line in lines) and any(line.startswith("ok    jog gripper") for line in lines)
