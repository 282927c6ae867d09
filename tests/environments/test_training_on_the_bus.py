"""The whole of it in one process: demonstrations, training with a human, and an evaluation, all through the virtual servo bus."""

import numpy as np
import pytest
from pipeline_testing import TINY

from hilserl.config import load_config
from hilserl.data.dataset import Dataset
from hilserl.demonstrations import get_or_record
from hilserl.environments.make import make_environment
from hilserl.evaluation import evaluate_policy
from hilserl.robot.latch import latched
from hilserl.schema import ACTION_KEY, STATE_KEY
from hilserl.training import train_in_process

STATE_ONLY = {"observation.images": {}, "observation.privileged": True}


@pytest.fixture
def config(own_home):
    return load_config("so101_virtual_reach", {**TINY, **STATE_ONLY, "evaluation.episodes": 3})


@pytest.mark.slow
def test_a_training_runs_through_the_bus_to_its_end(config, tmp_path) -> None:
    result = train_in_process(config)
    assert result.learned.environment_steps == config.policy.online_steps == result.acted.environment_steps
    assert latched(config.robot.id) is None  # nothing stopped the arm
    evaluated = evaluate_policy(config, result.learned.policy, video=tmp_path / "film.mp4")
    assert evaluated.episodes == 3 and evaluated.judged_by == "simulator"
    assert evaluated.video is not None and evaluated.video.stat().st_size > 1000


@pytest.mark.failure("R06")
def test_demonstrations_recorded_through_the_bus_replay(config) -> None:
    """What is stored are executed actions: played again, they bring the tool to the same place."""
    folder = get_or_record(config)
    assert folder is not None
    dataset = Dataset.open(folder)
    episode = dataset.episodes[0]
    actions, seen = dataset.column(ACTION_KEY)[: episode.length], dataset.column(STATE_KEY)[: episode.length]
    env = make_environment(config)
    try:
        env.reset(seed=config.dataset.record.seed)
        states = [env.step(action)[0]["observation.state"] for action in actions[:-1]]
    finally:
        env.close()
    np.testing.assert_allclose([state[12:15] for state in states], seen[1:, 12:15], atol=0.004)  # the tool's position [m]
