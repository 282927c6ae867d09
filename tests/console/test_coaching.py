"""The coach's rules, each from numbers that a person would judge the same way."""

from typing import Any

import pytest

from hilserl.console.coaching import LONGEST_BOUT, SHORTEST_BOUT, advise


def state(
    control: str = "policy", phase: str = "episode", *, clock_s: float = 1.0, probability: float | None = None, **episode: Any
) -> dict:
    facts = {"number": 9, "step": int(10 * clock_s), "clock_s": clock_s, "limit_s": 6.0, "success": False, "bout_steps": 0, **episode}
    judge = {"probability": probability, "threshold": 0.8, "judged_by": "classifier", "true_success": None}
    return {"control": control, "phase": phase, "episode": facts, "judge": judge, "session": {"wanted": None}}


def an_episode(success: bool, *, steps: int = 20, helped: int = 0, at: tuple[float, float] = (0.2, 0.0), **more: Any) -> dict:
    bouts = [[0, helped]] if helped else []
    ended = "success" if success else "time"
    facts = {"ended": ended, "success": success, "length": steps, "hz": 10.0, "intervention_steps": helped, "bouts": bouts}
    return {**facts, "evaluation": False, "cube_m": [*at, 0.01], **more}


def kinds(state: dict, episodes: list[dict]) -> list[str]:
    return [advice["kind"] for advice in advise(state, episodes)]


def test_a_policy_that_is_slower_than_its_successes_is_stuck():
    wins = [an_episode(True, steps=20)] * 4 + [an_episode(True, steps=30)] * 4
    assert kinds(state(clock_s=2.5), wins) == []
    assert kinds(state(clock_s=3.5), wins) == ["intervene"]
    assert f"{SHORTEST_BOUT} to {LONGEST_BOUT} steps" in advise(state(clock_s=3.5), wins)[0]["text"]


def test_without_successes_most_of_the_time_must_have_passed():
    assert kinds(state(clock_s=3.4), []) == []
    assert kinds(state(clock_s=4.0), []) == ["intervene"]


def test_a_policy_that_is_good_alone_is_left_to_fail():
    alone = [an_episode(True)] * 20
    assert kinds(state(clock_s=5.0), alone) == []
    assert kinds(state(clock_s=5.0), alone[:10]) == ["intervene"]  # not yet sure


@pytest.mark.parametrize(("bout_steps", "expected"), [(LONGEST_BOUT, []), (LONGEST_BOUT + 1, ["release"])])
def test_a_bout_has_a_length(bout_steps, expected):
    assert kinds(state("human", bout_steps=bout_steps), []) == expected


def test_let_go_before_success():
    assert kinds(state("human", probability=0.5, bout_steps=12), []) == ["release"]
    assert kinds(state("human", probability=0.5, bout_steps=SHORTEST_BOUT - 1), []) == []
    assert kinds(state("human", probability=0.3, bout_steps=12), []) == []
    driven_home = an_episode(True, steps=20, helped=20)
    assert kinds(state(phase="resetting"), [driven_home]) == ["release"]
    assert kinds(state(phase="resetting"), [an_episode(True, steps=20, helped=8)]) == []


def test_help_tapers_as_success_rises():
    helped_wins = [an_episode(True, helped=8)] * 10
    assert kinds(state(), helped_wins) == ["taper"]
    assert "100 %" in advise(state(), helped_wins)[0]["text"]
    assert kinds(state(), [an_episode(True, helped=2)] * 10) == []
    assert kinds(state(), [an_episode(False)] * 10) == ["intervene"]
    assert kinds(state(), [an_episode(False, helped=8)] * 10) == []


def test_it_names_the_corner_where_success_is_low():
    places = [(x, y) for x in (0.18, 0.23, 0.28) for y in (-0.08, 0.0, 0.08)]
    episodes = [an_episode((x, y) != (0.28, 0.08), at=(x, y), helped=1) for x, y in places for _ in range(2)]
    assert kinds(state(), episodes) == []  # two episodes at a place say nothing
    episodes = episodes[:12] + [an_episode(False, at=(0.28, 0.08), helped=1)] * 4
    (advice,) = advise(state(), episodes)
    assert advice["kind"] == "place" and "far left (x 280, y +80 mm): 0 of 4" in advice["text"]
    assert kinds(state(), [an_episode(True, at=place, helped=1) for place in places for _ in range(2)]) == []


def test_evaluations_and_discarded_episodes_say_nothing():
    hidden = [an_episode(False, evaluation=True)] * 10 + [an_episode(False, ended="discarded")] * 10
    assert kinds(state(), hidden) == []
    assert kinds(state(phase="evaluation", clock_s=5.5), []) == []


def test_demonstrations_need_no_coach():
    assert advise(state(clock_s=5.0) | {"session": {"wanted": 20}}, [an_episode(False)] * 10) == []


def test_it_says_two_things_at_most_and_the_urgent_one_first():
    places = [(x, y) for x in (0.18, 0.23, 0.28) for y in (-0.08, 0.0, 0.08)]
    episodes = [an_episode((x, y) != (0.28, 0.08), at=(x, y), helped=8) for x, y in places for _ in range(2)]
    assert kinds(state("human", bout_steps=40), episodes) == ["release", "taper"]


@pytest.mark.parametrize("message", [{}, {"phase": "episode"}, {"phase": "episode", "control": "policy", "episode": {}}, {"judge": None}])
def test_parts_that_are_missing_are_no_reason_to_speak(message):
    assert advise(message, []) == []
