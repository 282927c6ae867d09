"""What may move without a person."""

import json
import time

import pytest
from pipeline_testing import make_tiny_config

from hilserl.config.models import TrainConfig
from hilserl.errors import RobotError
from hilserl.robot.latch import latch, robot_folder
from hilserl.robot.preflight import VALID_S, note_passed, require_ready


@pytest.fixture
def real(own_home) -> TrainConfig:
    config = make_tiny_config()
    return config.model_copy(update={"robot": config.robot.model_copy(update={"type": "so101_follower", "id": "arm", "port": "/dev/none"})})


@pytest.mark.failure("R20")
def test_a_simulated_and_a_virtual_arm_may_and_a_real_one_needs_a_person(real) -> None:
    require_ready(make_tiny_config())
    require_ready(make_tiny_config(robot={"type": "so101_follower", "virtual": {}}))
    with pytest.raises(RobotError, match=r"robot `arm` \(so101_follower\).* needs a person"):
        require_ready(real)


@pytest.mark.failure("R20")
def test_a_passed_check_lets_one_actor_move_the_arm_and_not_the_next(real) -> None:
    note_passed("arm")
    require_ready(real)
    with pytest.raises(RobotError, match="needs a person"):
        require_ready(real)


@pytest.mark.parametrize("content", [json.dumps({"passed_at_s": time.time() - VALID_S - 60}), "{", json.dumps({"passed_at_s": "soon"})])
def test_an_old_or_damaged_check_counts_for_nothing(real, content) -> None:
    note_passed("arm")
    (robot_folder("arm") / "preflight.json").write_text(content)
    with pytest.raises(RobotError, match="needs a person"):
        require_ready(real)


def test_a_stopped_arm_needs_to_be_re_armed_first(real) -> None:
    note_passed("arm")
    latch("arm", "stall", "something was in its way.")
    with pytest.raises(RobotError, match="hilserl rearm --robot arm"):
        require_ready(real)
