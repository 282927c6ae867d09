import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilserl.config import load_config
from hilserl.evaluation import wilson_interval
from hilserl.learner.alarms import Alarms
from hilserl.learner.governor import UtdGovernor
from hilserl.learner.statistics import EpisodeStatistics
from hilserl.link.messages import EpisodeReport


@pytest.mark.failure("L08")
@given(st.integers(1, 20), st.integers(0, 50), st.lists(st.integers(0, 9), max_size=60))
def test_updates_owed_are_exact(utd_ratio: int, warm_up: int, arrivals: list[int]) -> None:
    governor = UtdGovernor(utd_ratio, warm_up)
    actor_updates = 0
    for steps in arrivals:
        governor.environment_steps += steps
        while governor.owed > 0:
            actor_updates += governor.updates_actor
            governor.updates += 1
    learned_from = max(0, sum(arrivals) - warm_up)
    assert governor.updates == utd_ratio * learned_from
    assert actor_updates == learned_from


def report(**values) -> EpisodeReport:
    defaults = {"episode": 0, "return_": 0.0, "length": 10, "is_success": False, "intervention_steps": 0, "seconds": 1.0}
    return EpisodeReport(**{**defaults, "evaluation": False, "weights_version": 1, "environment_steps": 0, **values})


def test_evaluation_is_complete_after_its_episodes_only() -> None:
    statistics = EpisodeStatistics(evaluate_episodes=3)
    facts = {"evaluation": True, "environment_steps": 500, "weights_version": 7}
    assert statistics.add(report(episode=0, is_success=True, **facts)) is None
    statistics.add(report(is_success=True))  # a training episode in between does not count
    assert statistics.add(report(episode=1, **facts)) is None
    point = statistics.add(report(episode=2, is_success=True, **facts))
    assert point is not None
    assert (point.successes, point.episodes, point.environment_steps, point.weights_version) == (2, 3, 500, 7)
    assert statistics.training_episodes == 1


def test_interventions_weigh_by_steps_and_autonomous_success_leaves_them_out() -> None:
    statistics = EpisodeStatistics(evaluate_episodes=1)
    statistics.add(report(length=10, intervention_steps=10, is_success=True))
    statistics.add(report(length=30))
    metrics = statistics.metrics()
    assert metrics["intervention/rate"] == pytest.approx(0.25)
    assert metrics["episode/success"] == pytest.approx(0.5)
    assert metrics["episode/success_autonomous"] == pytest.approx(0.0)


def test_the_control_loops_timing_counts_only_episodes_that_were_paced() -> None:
    statistics = EpisodeStatistics(evaluate_episodes=1)
    statistics.add(report(length=90))
    assert not any(name.startswith("control/") for name in statistics.metrics())
    statistics.add(report(length=10, late_steps=1, longest_period_s=0.15, observation_age_s=0.02))
    statistics.add(report(length=30, late_steps=3, longest_period_s=0.12, observation_age_s=0.03))
    metrics = statistics.metrics()
    assert metrics["control/late_share"] == pytest.approx(0.1)
    assert metrics["control/longest_period_ms"] == pytest.approx(150.0)
    assert metrics["control/observation_age_ms"] == pytest.approx(30.0)


def test_wilson_interval_against_published_values() -> None:
    # Newcombe 1998, table I: 81 of 263 gives [0.2553, 0.3662]; 0 of 20 gives [0, 0.1611].
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(100, 100)[1] == 1.0


def test_wrongly_rewarded_episodes_are_counted_where_the_simulation_knows_and_outlive_a_restart() -> None:
    statistics = EpisodeStatistics(evaluate_episodes=2)
    statistics.add(report(is_success=True))  # nobody knows
    assert "judge/wrongly_rewarded" not in statistics.metrics()
    for number in range(30):
        statistics.add(report(is_success=True, true_success=number < 25))
    statistics.add(report(is_success=False, true_success=True))
    again = EpisodeStatistics(evaluate_episodes=2)
    again.load_state(json.loads(json.dumps(statistics.state())))
    for each in (statistics, again):
        values = each.metrics()
        assert values["judge/wrongly_rewarded"] == 0.25
        assert (values["judge/wrongly_rewarded_total"], values["judge/rewarded_total"]) == (5, 30)
    config = load_config("reach_state")
    _, raised = Alarms(config, -2.0).check(values, 100)
    assert [alarm.name for alarm in raised] == ["wrongly_rewarded"] and "25% of the last 20" in raised[0].message
    assert Alarms(config, -2.0).check(values | {"judge/rewarded_total": 19.0}, 100) == ({}, [])
