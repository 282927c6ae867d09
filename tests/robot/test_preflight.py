"""What may move without a person."""

import pytest
from pipeline_testing import make_tiny_config

from hilserl.errors import RobotError
from hilserl.robot.preflight import require_ready


@pytest.mark.failure("R20")
def test_a_simulated_arm_may_and_any_other_needs_a_person() -> None:
    config = make_tiny_config()
    require_ready(config)
    real = config.model_copy(update={"robot": config.robot.model_copy(update={"type": "so101"})})
    with pytest.raises(RobotError, match=r"robot `so101-sim` \(so101\).* needs a person"):
        require_ready(real)
