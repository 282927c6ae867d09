"""Several actors at once: each has its own account, their evaluations do not mix, and who is slow is told."""

import numpy as np
import pytest

from hilserl.learner.actors import ActorStatistics
from hilserl.learner.best import BestPolicy
from hilserl.learner.governor import UtdGovernor
from hilserl.learner.reporting import _Flow
from hilserl.learner.statistics import EpisodeStatistics
from hilserl.link.ingest import LinkLoad
from hilserl.link.messages import EpisodeReport


def report(**values) -> EpisodeReport:
    defaults = {"episode": 0, "return_": 0.0, "length": 10, "is_success": False, "intervention_steps": 0, "seconds": 1.0}
    return EpisodeReport(**{**defaults, "evaluation": False, "weights_version": 1, "environment_steps": 0, **values})


def test_one_actor_keeps_the_names_and_several_get_their_own() -> None:
    now = [0.0]
    statistics = ActorStatistics(clock=lambda: now[0])
    statistics.publish(11)
    now[0] = 3.0
    statistics.publish(21)
    statistics.add_step("a")
    statistics.metrics({})
    now[0] = 5.0
    for _ in range(8):
        statistics.add_step("a")
    statistics.add_episode("a", report(weights_version=11, return_=2.0, is_success=True, intervention_steps=5))
    alone = statistics.metrics({"a": 0.25})
    assert alone == {
        "actor/episodes": 1.0, "actor/steps": 9.0, "actor/steps_per_s": 4.0, "actor/last_heard_s": 0.25,
        "actor/version_lag": 10.0, "actor/weights_age_s": 5.0,
    }  # fmt: skip
    statistics.add_step("b")
    statistics.add_episode("b", report(weights_version=21, return_=-1.0))
    both = statistics.metrics({"a": 0.25, "b": 7.0})
    assert (both["actor/a/success"], both["actor/b/success"], both["actor/a/intervention_rate"]) == (1.0, 0.0, 0.5)
    assert (both["actor/a/return"], both["actor/b/return"], both["actor/b/last_heard_s"]) == (2.0, -1.0, 7.0)
    assert (both["actor/a/version_lag"], both["actor/b/version_lag"], both["actor/b/weights_age_s"]) == (10.0, 0.0, 2.0)
    assert not any(name.count("/") == 1 for name in both)
    restored = ActorStatistics()
    restored.load_state(statistics.state())
    assert restored.metrics({})["actor/a/steps"] == 9.0


@pytest.mark.parametrize("seed", range(5))
def test_evaluations_of_several_actors_never_mix(seed) -> None:
    """Random interleavings, each actor's evaluation by other weights, some interrupted by the actor's death."""
    choose = np.random.default_rng(seed)
    statistics = EpisodeStatistics(evaluate_episodes=3)
    queues: dict[str, list[EpisodeReport]] = {}
    expected = {}
    for number, actor in enumerate("abcd"):
        queues[actor] = []
        for evaluation in range(4):
            version, success = 100 * number + evaluation, bool((number + evaluation) % 2)
            dies = choose.random() < 0.3
            for episode in range(int(choose.integers(1, 3)) if dies else 3):
                facts = {"episode": episode, "environment_steps": 50, "weights_version": version, "is_success": success}
                queues[actor].append(report(evaluation=True, **facts))
            if not dies:
                expected[version] = 3 * success
    points = []
    while any(queues.values()):
        actor = choose.choice([actor for actor, queue in queues.items() if queue])
        if point := statistics.add(queues[actor].pop(0), actor, 500):
            points.append(point)
    assert {point.weights_version: point.successes for point in points} == expected
    assert all(point.episodes == 3 and point.environment_steps in (50, 500) for point in points)
    assert len(statistics.pending_versions) <= 4


def test_an_evaluation_begun_anew_by_a_restarted_actor_counts_once() -> None:
    statistics = EpisodeStatistics(evaluate_episodes=3)
    facts = {"evaluation": True, "environment_steps": 50, "weights_version": 5}
    for episode in (0, 1):
        statistics.add(report(episode=episode, is_success=True, **facts), "a")
    for episode in (0, 1):
        assert statistics.add(report(episode=episode, **facts), "a") is None
    point = statistics.add(report(episode=2, **facts), "a")
    assert point is not None and point.successes == 0 and not statistics.pending_versions


def test_the_weights_of_an_evaluation_under_way_survive_the_end_of_a_newer_one() -> None:
    best, statistics = BestPolicy(), EpisodeStatistics(evaluate_episodes=2)
    for version in (1, 2):
        best.publish(version, {"weights": version})
    order = [("slow", 1, 0), ("fast", 2, 0), ("fast", 2, 1), ("slow", 1, 1)]
    taken = []
    for actor, version, episode in order:
        best.hold(version)
        if (actor, episode) == ("fast", 1):
            for newer in range(3, 100):  # so many that the first ones are kept for their evaluation alone
                best.publish(newer, {"weights": newer})
        facts = {"weights_version": version, "episode": episode, "is_success": actor == "slow"}
        if point := statistics.add(report(evaluation=True, **facts), actor, 100):
            taken.append(best.take(point, statistics.pending_versions))
    assert taken == [True, True] and best.tensors == {"weights": 1}


@pytest.mark.failure("L08")
@pytest.mark.parametrize(
    ("steps", "updates", "idle", "load", "said"),
    [
        (5, 0, 1.0, LinkLoad(), ""),
        (500, 100, 0.0, LinkLoad(), "the learner is slower than the actors: it owes 690 updates"),
        (500, 790, 0.0, LinkLoad(40, 10, 3.0), "the learner takes in more slowly than the actors send, and 40 records wait to be taken in"),
        (500, 790, 0.0, LinkLoad(is_disk_full=True), "the learner's disk is full: nothing is taken in until there is room"),
        (500, 790, 0.0, LinkLoad(), "actors and learner keep pace"),
        (500, 790, 1.0, LinkLoad(), "the actors are slower than the learner, which is idle 100% of the time"),
    ],
)
def test_who_waits_for_whom_is_said(steps, updates, idle, load, said) -> None:
    flow = _Flow()
    governor = UtdGovernor(2, 105, environment_steps=steps, updates=updates)
    values = flow.read(governor, 128, idle * 1e9, load)
    assert flow.sentence == said
    assert values["learner/idle_share"] == idle and values["link/queued_records"] == load.queued_records
