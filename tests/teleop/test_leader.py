"""The leader arm: a virtual one in somebody's hand, over its serial port."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from hilserl.errors import RobotError
from hilserl.files import file_lock
from hilserl.robot.latch import robot_folder
from hilserl.schema import JOINT_NAMES
from hilserl.sim.env import So101Env
from hilserl.teleop.intervention import Control
from hilserl.teleop.make import make_human
from hilserl.virtual_arm.arm import ArmOptions
from hilserl.virtual_arm.client import VirtualArmProcess
from hilserl.virtual_arm.server import ServerOptions

TO_THE_LEFT = np.array([0.5, 0.0, 0.0, 0.0, 0.0, 0.0])
ALL_OFF, ALL_ON = [False] * 6, [True] * 6


def pose(joints_rad) -> dict[str, float]:
    return dict(zip(JOINT_NAMES, map(float, joints_rad), strict=True))


def step(person, environment: So101Env, policy_action) -> tuple[bool, dict]:
    """One step of the actor's loop; return whether the person acted, and the environment's info."""
    human = person.intervene()
    *_, info = environment.step(np.asarray(policy_action if human is None else human, np.float32))
    return human is not None, info


@pytest.mark.failure("R07")
def test_its_angles_are_the_followers_whatever_its_servos_count(bench):
    arm = bench.arm()
    true = bench.process.ask("state")["joint_pos_rad"]
    np.testing.assert_allclose(arm.look(), true, atol=0.004)
    bench.process.ask("hand", move="to", joints_rad=pose([0.4, -0.6, 0.5, 0.9, 0.3, 1.0]))
    for _ in range(60):
        bench.pass_time(0.1)
    np.testing.assert_allclose(arm.look(), bench.process.ask("state")["joint_pos_rad"], atol=0.004)


@pytest.mark.failure("R07")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"homing_offset": 7}, r"servo 3 \(`elbow_flex`\) has `Homing_Offset`"),
        ({"range_max": 4000, "range_min": 1000}, "a stop was missed or passed"),  # other units: every angle would be scaled
        ({"drive_mode": 1}, "drive mode 1"),  # mirrored
    ],
)
def test_a_leader_in_other_units_is_refused_at_connect(bench, change, says):
    file = bench.process.calibration
    written = json.loads(file.read_text())
    written["elbow_flex"] |= change
    file.write_text(json.dumps(written))
    with pytest.raises(RobotError, match=rf"leader arm `leader`: .*{says}.*--teleop\.type=so101_leader|leader arm `leader`: {says}"):
        bench.arm()
    assert bench.torque_on() == ALL_OFF


def test_it_mirrors_the_follower_softly_while_the_policy_acts(bench):
    environment = bench.environment()
    environment.reset(seed=1)
    person = bench.person(environment)
    person.reset()
    assert bench.torque_on() == ALL_ON
    np.testing.assert_allclose(bench.process.ask("state")["joint_pos_rad"], environment.joint_pos_rad, atol=0.06)
    limits = [bench.process.ask("register", servo=servo, name="Torque_Limit")["value"] for servo in range(1, 7)]
    assert limits == [800] * 6
    for count in range(25):  # the policy at full speed to and fro: following it must never look like a hand (FAILURES R21)
        acted, _ = step(person, environment, [0.8, 1.0 if count % 10 < 5 else -1.0, 0.5, 1.0 if count % 6 < 3 else -1.0])
        assert not acted
    np.testing.assert_allclose(bench.process.ask("state")["joint_pos_rad"], environment.joint_pos_rad, atol=0.35)


@pytest.mark.failure("R06")
@pytest.mark.failure("R21")
def test_moved_it_takes_over_held_still_it_hands_back_and_what_is_stored_replays(bench):
    environment = bench.environment()
    environment.reset(seed=3)
    start = environment.joint_pos_rad
    person = bench.person(environment)
    person.reset()
    for _ in range(3):
        assert not step(person, environment, np.zeros(4))[0]
    goal, residual_m = environment.kinematics.inverse_with_residual(start, environment.kinematics.forward(start)[0] + [0.03, 0.05, 0.03])
    assert residual_m < 0.002
    goal[5] = start[5] - 0.5
    bench.process.ask("hand", move="to", joints_rad=pose(goal), speed_rad_s=1.0)
    stored, acted, steps = [], False, 0
    while (steps := steps + 1) < 40:
        acted, info = step(person, environment, np.zeros(4))
        stored.append(info["executed_action"])
        if acted:
            assert bench.torque_on() == ALL_OFF  # free in the hand
        elif any(np.abs(action).max() > 0 for action in stored):
            break
    assert 3 < steps < 39  # it ended by itself: the hand holds still at its goal
    assert person.intervention.bouts == 1
    assert person.intervention.control is Control.POLICY
    tool, _ = environment.kinematics.forward(environment.joint_pos_rad)
    assert np.linalg.norm(tool - environment.kinematics.forward(goal)[0]) < 0.01
    assert environment.joint_pos_rad[5] == pytest.approx(goal[5], abs=0.08)
    assert max(np.abs(action).max() for action in stored) <= 1.0

    again = bench.environment()
    again.reset(seed=3)
    for _ in range(3):
        again.step(np.zeros(4, np.float32))
    for action in stored:
        again.step(action)
    np.testing.assert_array_equal(again.joint_pos_rad, environment.joint_pos_rad)

    bench.process.ask("hand", move="release")  # torque comes on before the hand goes
    for _ in range(3):
        step(person, environment, np.zeros(4))
    assert bench.torque_on() == ALL_ON
    assert person.intervention.control is Control.POLICY


@pytest.mark.failure("R21")
def test_a_hand_that_is_on_it_when_the_episode_begins_gets_nothing_until_it_lets_go(bench):
    environment = bench.environment()
    environment.reset(seed=2)
    person = bench.person(environment)
    bench.process.ask("hand", move="to", joints_rad=pose(environment.joint_pos_rad + TO_THE_LEFT))
    person.reset()
    assert not any(step(person, environment, np.zeros(4))[0] for _ in range(5))
    bench.process.ask("hand", move="release")
    assert not any(step(person, environment, np.zeros(4))[0] for _ in range(10))
    bench.process.ask("hand", move="to", joints_rad=pose(environment.joint_pos_rad + TO_THE_LEFT))
    assert any(step(person, environment, np.zeros(4))[0] for _ in range(6))


def test_closing_switches_its_torque_off(bench):
    environment = bench.environment()
    environment.reset(seed=2)
    person = bench.person(environment)
    person.reset()
    assert bench.torque_on() == ALL_ON
    person.close()
    person.close()
    assert bench.torque_on() == ALL_OFF


def test_a_leader_that_falls_silent_is_an_error(bench):
    environment = bench.environment()
    environment.reset(seed=2)
    bench.config = bench.config.model_copy(deep=True)
    arm = bench.arm()
    bench.process.ask("servo", servo=4, ailments={"silent": True})
    arm._bus.timeout_s = 0.05
    with pytest.raises(RobotError, match=r"servos \[4\] of the leader arm do not answer"):
        for _ in range(5):
            arm.look()


@pytest.mark.failure("R09")
def test_a_killed_actor_leaves_no_torque_on_the_leader(bench, own_home):
    """Its guardian switches it off."""
    program = f"""
import sys, time
from hilserl.config.intervention import LeaderConfig
from hilserl.robot.kinematics import Kinematics
from hilserl.teleop.leader_arm import LeaderArm
limits = Kinematics()
settings = LeaderConfig.model_validate_json({bench.config.actor.intervention.leader.model_dump_json()!r})
arm = LeaderArm(settings, {str(bench.process.port)!r}, limits.lower_rad, limits.upper_rad)
arm.mirror(arm.look(), 0.1)
print("ready", flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        assert bench.torque_on() == ALL_ON
        process.send_signal(signal.SIGKILL)
    deadline_s = time.monotonic() + 60.0
    while bench.torque_on() != ALL_OFF:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    with file_lock(robot_folder("leader-leader") / "guardian.lock", timeout_s=60.0):  # it ends while there is still an arm
        assert bench.torque_on() == ALL_OFF


@pytest.mark.slow  # on the wall clock
def test_on_the_wall_clock_a_hand_takes_over_and_hands_back(bench, tmp_path):
    options = ServerOptions(tmp_path / "real-time", name="leader", arm=ArmOptions(motor="7.4V", seed=6), until_stdin_ends=True)
    with VirtualArmProcess(options) as process:
        leader = {"port": str(process.port), "calibration_dir": str(process.calibration.parent), "timeout_s": 2.0}
        intervention = {"type": "leader", "hand_back_s": 0.5, "leader": leader}
        config = bench.config.model_copy(update={"actor": bench.config.actor.model_validate({"intervention": intervention})})
        environment = bench.environment()
        environment.reset(seed=3)
        person = make_human(config, environment)
        assert person is not None
        try:
            person.reset()

            def paced(steps: int) -> list[bool]:
                acted = []
                for _ in range(steps):
                    time.sleep(0.1)
                    acted.append(step(person, environment, np.zeros(4))[0])
                return acted

            assert not any(paced(10))
            process.ask("hand", move="to", joints_rad=pose(environment.joint_pos_rad + TO_THE_LEFT), speed_rad_s=2.0)
            seen: list[bool] = []
            while True not in seen or seen[-1]:
                seen += paced(1)
                assert len(seen) < 200
            assert environment.joint_pos_rad[0] > 0.2
            process.ask("hand", move="release")
            assert not any(paced(10))
            assert process.ask("state")["torque_on"] == ALL_ON
        finally:
            person.close()
        assert process.ask("state")["torque_on"] == ALL_OFF
