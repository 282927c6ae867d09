"""Learning on Gymnasium environments: from Python, judged by return, with images, and what is reported."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from hilserl.config.gymnasium_spaces import resolve_environment
from hilserl.config.models import TrainConfig
from hilserl.environments.make import make_environment
from hilserl.evaluation import IN_TRAINING_SEED, evaluate_policy, mean_interval, play_episode
from hilserl.policy import Policy
from hilserl.report.curve import draw_learning_curve
from hilserl.training import train_in_process

sys.path.insert(0, str(Path(__file__).parent / "environments"))
import environment_testing  # noqa: F401  (registers)

DOCS = Path(__file__).resolve().parents[1] / "docs" / "gymnasium.md"
TINY = {
    "policy": {
        "online_steps": 60,
        "online_step_before_learning": 20,
        "utd_ratio": 1,
        "batch_size": 8,
        "hidden_dims": [16],
        "latent_dim": 8,
        "online_buffer_capacity": 500,
        "offline_buffer_capacity": 100,
    },
    "learner": {"execution": "eager"},
    "actor": {"evaluate_every_steps": 24, "evaluate_episodes": 2},
    "evaluation": {"episodes": 3},
    "tracking": {"enable": False},
}


def tiny(env_id: str, **env) -> TrainConfig:
    return resolve_environment(TrainConfig.model_validate({**TINY, "env": {"id": env_id, **env}}))


def test_the_snippet_of_the_documentation_runs(own_home, capsys) -> None:
    """Ten lines of Python train, load and play; the test only makes the training short."""
    (snippet,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.S)
    assert len([line for line in snippet.splitlines() if line.strip()]) <= 10
    short = snippet.replace('{"online_steps": 10_000}', repr(TINY["policy"])).replace('{"id": "Pendulum-v1"}', '{"id": "Point-v0"}')
    assert short != snippet
    exec(compile(short, str(DOCS), "exec"), {})
    assert float(capsys.readouterr().out) < 0


def test_the_best_policy_has_the_highest_return(own_home) -> None:
    config = tiny("Point-v0")
    result = train_in_process(config)
    points = result.learned.evaluations
    assert len(points) >= 2 and all(point.by_return for point in points)
    best = max(point.mean_return for point in points)
    assert result.learned.best is not None and result.learned.best.mean_return == best
    assert f"mean return {best:.4g}" in result.learned.choice
    policy, environment = Policy.load(result.learned.policy), make_environment(config)
    played = [play_episode(environment, policy, IN_TRAINING_SEED + index).return_ for index in range(2)]
    environment.close()
    assert np.mean(played) == pytest.approx(best)


@pytest.mark.parametrize("env_id", ["Pictured-v0", "OnlyPicture-v0"])
def test_images_are_learned_from_end_to_end(own_home, env_id: str) -> None:
    """The encoder is the environment's own, trained with the critic: its weights move."""
    config = tiny(env_id)
    assert (config.encoder.type, config.encoder.freeze) == ("cnn", False)
    seen: list[dict] = []
    train_in_process(
        config,
        after_step=lambda steps, policy: seen.append({k: v.clone() for k, v in policy.tensors().items()}) if steps in (0, 60) else None,
    )
    before, after = seen
    for camera in config.observation.images:
        moved = [name for name in before if name.startswith(f"vision.encoders.{camera}.") and not before[name].equal(after[name])]
        assert moved, f"no weight of the encoder of {camera} moved"


def test_the_evaluation_of_an_environment_without_success_states_the_return(own_home, tmp_path) -> None:
    config = tiny("Point-v0")
    result = train_in_process(config)
    evaluated = evaluate_policy(config, result.learned.policy, video=tmp_path / "episodes.mp4")
    policy, environment = Policy.load(result.learned.policy), make_environment(config)
    returns = [play_episode(environment, policy, config.evaluation.seed + index).return_ for index in range(3)]
    environment.close()
    assert evaluated.mean_return == pytest.approx(np.mean(returns))
    assert evaluated.return_low <= evaluated.mean_return <= evaluated.return_high
    assert (evaluated.success_rate, evaluated.successes, evaluated.interval_low, evaluated.failed_seeds) == (None, None, None, ())
    assert evaluated.judged_by == "return" and evaluated.shown.startswith(f"mean return {evaluated.mean_return:.4g} (95 %")
    assert evaluated.video is None, "Point cannot draw"
    assert json.loads(json.dumps(evaluated.to_dict()))["success_rate"] is None
    curve = draw_learning_curve(tmp_path / "curve.png", "a run", result.learned.evaluations, result.learned.history, evaluated)
    assert curve.stat().st_size > 5000


def test_with_a_success_key_success_is_judged(own_home) -> None:
    config = tiny("Point-v0", success_key="is_success")
    result = train_in_process(config)
    assert not any(point.by_return for point in result.learned.evaluations)
    evaluated = evaluate_policy(config, result.learned.policy)
    assert evaluated.judged_by == "environment" and evaluated.success_rate == evaluated.successes / 3
    assert len(evaluated.failed_seeds) == 3 - evaluated.successes


def test_the_interval_of_a_mean_return_against_all_resamples() -> None:
    """Of two values the means of the four equally likely resamples are 0, 5, 5 and 10: the outer quarters exceed 2.5 %."""
    assert mean_interval([0.0, 10.0]) == (0.0, 10.0)
    assert mean_interval([4.0]) == (4.0, 4.0)
    values = np.random.default_rng(0).normal(-100, 30, 500)
    half = 1.96 * values.std() / np.sqrt(500)
    assert mean_interval(list(values)) == (pytest.approx(values.mean() - half, abs=0.3), pytest.approx(values.mean() + half, abs=0.3))
