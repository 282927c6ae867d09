"""Training that goes on past its best: told from noise, said loudly, stopped or rolled back (L16)."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace

import pytest
import torch
from pipeline_testing import make_tiny_config
from scripted_run import Script, afresh, make_script, play

from hilserl.learner.regression import find_regression
from hilserl.learner.statistics import EpisodeStatistics, EvaluationPoint
from hilserl.link.messages import EpisodeReport
from hilserl.policy import Policy
from hilserl.runs import RunFolder

STEPS = 170


def config(on_regression: str):
    return make_tiny_config(
        policy__online_steps=STEPS,
        policy__online_step_before_learning=20,
        policy__hidden_dims=[8, 8],
        learner__save_freq=30,
        learner__on_regression=on_regression,
        actor__evaluate_episodes=10,
    )


def script(settings, buffer) -> Script:
    """Every evaluation before step 80 succeeds in all episodes, every one after it in none."""
    made = make_script(settings, buffer, steps=STEPS, seed=0)

    def known(record):
        return (
            replace(record, is_success=record.environment_steps < 80) if isinstance(record, EpisodeReport) and record.evaluation else record
        )

    return replace(made, records=[(actor, known(record)) for actor, record in made.records])


@pytest.fixture(autouse=True)
def one_thread(own_home):
    torch.set_num_threads(1)


def point(successes: int, step: int, episodes: int = 20) -> EvaluationPoint:
    return EvaluationPoint(step, step, successes, episodes)


@pytest.mark.failure("L16")
@pytest.mark.parametrize(
    ("successes", "is_one"),
    [
        ([20, 12], True),  # 84 % is the best's lower bound, 78 % the last's upper one
        ([20, 15], False),  # 89 %: may be noise
        ([11, 20, 12], True),
        ([20, 12, 20], False),  # it recovered
        ([20], False),
        ([], False),
    ],
)
def test_a_regression_is_an_interval_below_the_bests(successes, is_one) -> None:
    found = find_regression([point(count, 100 * number) for number, count in enumerate(successes)])
    assert (found is not None) == is_one
    if found:
        assert found.gap == pytest.approx(0.8389 - 0.7812, abs=2e-4)
        assert "from 100% at step" in str(found) and "to 60% at step" in str(found)


def test_returns_have_no_interval_to_compare() -> None:
    assert find_regression([replace(point(0, n), by_return=True, mean_return=-n) for n in range(3)]) is None


@pytest.mark.failure("L16")
def test_an_alarm_goes_on_and_the_best_is_used(tiny_buffer, caplog) -> None:
    settings = config("alarm")
    with caplog.at_level(logging.ERROR):
        ended = play(settings, RunFolder.open(settings, fresh=True)[0], tiny_buffer, script(settings, tiny_buffer))
    assert "Training went on past its best: success fell from 100% at step" in caplog.text
    assert ended.result.reason == f"all {STEPS} environment steps are done" and ended.result.best.success_rate == 1.0
    assert "regressed" in {alarm.name for alarm in ended.result.alarms}


@pytest.mark.failure("L16")
def test_stop_ends_the_training_with_the_best(tiny_buffer) -> None:
    settings, told = config("stop"), []

    def listen(learner):
        tell = learner.parts.server.set_status
        learner.parts.server.set_status = lambda status: (told.append(status), tell(status))

    made = script(settings, tiny_buffer)
    ended = play(settings, RunFolder.open(settings, fresh=True)[0], tiny_buffer, made, before_start=listen)
    assert ended.result.reason.startswith("training went on past its best: success fell from 100%")
    assert ended.result.policy.name == "best"
    first = next(status for status in told if status.phase == "finished")
    assert first.environment_steps < 120 and "past its best" in first.message, "the actors are told at once"


@pytest.mark.failure("L16")
def test_roll_back_goes_on_from_the_best_and_a_resumed_run_does_the_same(tiny_buffer) -> None:
    settings = config("roll_back")
    made = script(settings, tiny_buffer)
    run = RunFolder.open(settings, fresh=True)[0]
    seen = []

    def watch(learner):
        answer = learner._answer_regression

        def answered(found):
            answer(found)
            best = Policy.load(run.best_policy).tensors()
            acting = learner.parts.agent.policy_tensors()
            seen.append((learner.parts.governor.updates, all(torch.equal(best[name], tensor) for name, tensor in acting.items())))

        learner._answer_regression = answered

    whole = play(settings, run, tiny_buffer, made, before_start=watch)
    back = whole.learner.parts.statistics.roll_backs
    assert seen and len(back) >= 1 and seen[0][1], "acts as the best did"
    online = whole.learner.parts.experience.online
    assert online.evicted == 0 and len(online) > back[0], "nothing is forgotten"

    # Which update the best checkpoint is of depends on when the disk was free; from a kill after the roll-back on, all is determined.
    script_of_killed, killed = afresh(made), RunFolder.open(settings, fresh=True)[0]
    play(settings, killed, tiny_buffer, script_of_killed, kill_at=seen[0][0] + 3)
    ends = []
    for name in ("first", "second"):
        copy = RunFolder(killed.path.with_name(name))
        shutil.copytree(killed.path, copy.path, symlinks=True)
        again = replace(script_of_killed, records=list(script_of_killed.records))
        ends.append(play(settings, copy, tiny_buffer, again).learner.parts)
    assert ends[0].statistics.roll_backs == ends[1].statistics.roll_backs == back, "the roll-back is not repeated"
    for name, tensor in ends[0].agent.state_dict().items():
        assert torch.equal(ends[1].agent.state_dict()[name], tensor), name


def test_the_trend_of_interventions_compares_twenty_episodes_with_the_twenty_before() -> None:
    statistics = EpisodeStatistics(10)
    for episode in range(60):
        helped = 1 if episode < 40 else 4
        statistics.add(EpisodeReport(episode, 0.0, 10, False, helped, 1.0, False, 1, 10 * episode))
        assert ("intervention/trend" in statistics.metrics()) == (episode >= 39)
    assert statistics.metrics()["intervention/trend"] == pytest.approx(0.3)
    assert statistics.metrics()["intervention/rate"] == pytest.approx(0.4)
    again = EpisodeStatistics(10)
    again.load_state(statistics.state())
    assert again.metrics() == statistics.metrics()
