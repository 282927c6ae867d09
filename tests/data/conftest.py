import shutil
from pathlib import Path

import pytest
from data_helpers import make_config, record_policy, record_teleop

from hilserl.config.models import TrainConfig
from hilserl.data.writer import policy_features, teleop_features


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both flavours, recorded once through LeRobot's own writer; never changed by a test."""
    folder, config = tmp_path_factory.mktemp("recorded"), make_config()
    record_policy(folder / "policy", config, policy_features(config))
    record_teleop(folder / "teleop", teleop_features(config))
    return {"policy": folder / "policy", "teleop": folder / "teleop"}


@pytest.fixture
def demos(recorded: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the policy flavour that a test may damage."""
    return shutil.copytree(recorded["policy"], tmp_path / "demos")


@pytest.fixture
def teleop(recorded: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the teleoperated flavour that a test may damage."""
    return shutil.copytree(recorded["teleop"], tmp_path / "teleop")


@pytest.fixture
def config(demos: Path) -> TrainConfig:
    return make_config(demos)


@pytest.fixture
def teleop_config(teleop: Path) -> TrainConfig:
    return make_config(teleop, reward_from="success_at_end", action_from="joints")
