"""What the tests of the whole pipeline share: one tiny task, its demonstrations and its offline buffer, made once."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pipeline_testing import make_tiny_config

from hilserl.config.models import TrainConfig


def pytest_configure() -> None:
    """Started in the background, a shell lets us ignore Ctrl-C, and every process that a test starts would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_config() -> TrainConfig:
    return make_tiny_config()


@pytest.fixture(scope="session")
def tiny_demonstrations(tiny_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three demonstrations through LeRobot's writer; never changed by a test."""
    from hilserl.demonstrations import record_demonstrations

    folder = tmp_path_factory.mktemp("demonstrations") / "reach"
    record_demonstrations(tiny_config, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_buffer(tiny_config: TrainConfig, tiny_demonstrations: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from hilserl.data.buffer_build import get_or_build
    from hilserl.joints import RobotJointConverter

    manifest, _, _ = get_or_build(tiny_config, tiny_demonstrations, tmp_path_factory.mktemp("buffers"), RobotJointConverter(tiny_config))
    return manifest.folder


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A HILSERL_HOME of the test's own."""
    monkeypatch.setenv("HILSERL_HOME", str(tmp_path / "home"))
    yield tmp_path / "home"
