"""A page in control of a running actor: what it says happens, and nothing goes on when it has gone."""

import time

import pytest
from console_testing import make_config, moved, page, playing, until


def test_a_person_takes_over_drives_and_hands_back(game, operator) -> None:
    assert operator.last("hello")["kind"] == "simulation"
    first = len(game.link.steps)
    with operator.driving(0.5, 0.0, -0.25):
        operator.sees(lambda state: state["control"] == "human")
        game.until(lambda: sum(step.is_intervention for step in game.link.steps[first:]) > 3)
    assert operator.do("hand_back")["ok"]
    operator.sees(lambda state: state["control"] == "policy")
    driven = [step for step in game.link.steps[first:] if step.is_intervention]
    assert any(abs(step.action[0] - 0.5) < 0.1 and abs(step.action[2] + 0.25) < 0.1 for step in driven)
    reports = len(game.link.reports)
    assert operator.do("success")["ok"]
    game.until(lambda: len(game.link.reports) > reports)
    report = game.link.reports[reports]
    assert report.is_success and report.intervention_steps == len(driven)
    last = [step for step in game.link.steps if step.episode == driven[-1].episode][-1]
    assert last.terminated and last.reward == 1.0
    until(lambda: any(one["number"] <= report.episode and one["ended"] == "success" for one in operator.last("episodes")["episodes"]))


@pytest.mark.failure("R21")
def test_a_page_that_falls_silent_while_it_drives_makes_the_arm_hold(game, operator) -> None:
    with operator.driving(0.4, 0.0, 0.0):
        operator.sees(lambda state: state["control"] == "human")
    state = operator.sees(lambda state: state["control"] == "held")  # not the policy: nobody asked for that
    assert "not heard" in state["held_because"]
    before = len(game.link.steps)
    time.sleep(0.3)
    assert len(game.link.steps) == before and game.link.steps[-1].truncated and moved(game.link.steps[-1:]) < 1e-6
    assert operator.do("resume")["ok"]
    operator.sees(lambda state: state["control"] == "policy")
    game.until(lambda: len(game.link.steps) > before + 2)
    again = game.link.steps[before]
    assert again.step == 0 and again.episode == game.link.steps[before - 1].episode + 1  # no transition across the pause


@pytest.mark.failure("R21")
def test_a_page_that_disconnects_while_it_drives_makes_the_arm_hold(game, operator) -> None:
    with page(game) as watcher:
        with operator.driving(0.4, 0.0, 0.0):
            watcher.sees(lambda state: state["control"] == "human")
            operator.socket.close()
        watcher.sees(lambda state: state["control"] == "held")
        assert watcher.last("control")["controller"] is None
        watcher.control()
        assert watcher.do("resume")["ok"]
        watcher.sees(lambda state: state["control"] == "policy")


def test_hold_pause_home_and_start(own_home) -> None:
    with playing(make_config(console__wait_for_start=True)) as game, page(game) as operator:
        operator.sees(lambda state: state["phase"] == "waiting")
        assert not game.link.steps
        operator.control()
        assert operator.do("start")["ok"]
        operator.sees(lambda state: state["control"] == "policy")
        assert operator.do("hold")["ok"]
        operator.sees(lambda state: state["control"] == "held" and state["held_because"] == "Held from the page.")
        assert operator.do("take_over")["ok"]  # out of the hold, into one's own hand
        with operator.driving(0.0, 0.0, 0.0):
            operator.sees(lambda state: state["control"] == "human")
            assert operator.do("home")["ok"]
            operator.sees(lambda state: state["phase"] == "waiting" and state["paused"])
        cut = game.link.steps[-1]
        assert cut.truncated and not cut.terminated and not game.link.reports  # of an episode that was broken off, nobody knows
        assert operator.do("pause")["ok"]
        assert not operator.do("success")["ok"]  # of no episode
        assert operator.do("start")["ok"]
        operator.sees(lambda state: state["control"] == "policy")
        assert operator.do("pause")["ok"]
        assert operator.do("failure")["ok"]
        operator.sees(lambda state: state["phase"] == "waiting")
        assert game.link.reports[-1].is_success is False


def test_an_arm_that_waits_or_is_held_is_still_looked_at(own_home) -> None:
    images = {"wrist": {"resize": [64, 64]}}
    config = make_config(
        console__wait_for_start=True, observation__images=images, observation__privileged=False, encoder__type="cnn", encoder__freeze=False
    )
    with playing(config) as game, page(game) as operator:
        operator.say({"type": "watch", "cameras": None, "views": ["raw", "policy"], "max_hz": 30, "max_width": 640})

        def both_views_are_fresh() -> None:
            first = len(operator.pictures)  # one of each may be on its way
            game.until(
                lambda: all(sum(header["view"] == view for header, _ in operator.pictures[first:]) >= 2 for view in ("raw", "policy")),
                what="pictures of an arm that stands still",
            )

        operator.sees(lambda state: state["phase"] == "waiting")
        both_views_are_fresh()
        operator.control()
        assert not game.link.steps and operator.do("start")["ok"]
        operator.sees(lambda state: state["control"] == "policy")
        assert operator.do("hold")["ok"]
        operator.sees(lambda state: state["control"] == "held")
        steps = len(game.link.steps)
        both_views_are_fresh()
        assert len(game.link.steps) == steps and operator.state["control"] == "held"
        assert operator.do("resume")["ok"]
        game.until(lambda: len(game.link.steps) > steps + 2)


def test_an_episode_that_is_held_can_be_judged_and_nothing_moves_any_more(game, operator) -> None:
    reports = len(game.link.reports)
    assert operator.do("hold")["ok"]
    operator.sees(lambda state: state["control"] == "held")
    before = len(game.link.steps)
    assert operator.do("success")["ok"]
    game.until(lambda: len(game.link.reports) > reports)
    assert game.link.reports[reports].is_success
    assert moved(game.link.steps[before : before + 1]) < 1e-6 and game.link.steps[before].terminated


def test_a_key_that_is_down_when_an_episode_begins_takes_over_only_after_it_was_up(game, operator) -> None:
    reports, now = len(game.link.reports), game.link.steps[-1].episode
    with operator.driving(0.4, 0.0, 0.0):
        operator.sees(lambda state: state["control"] == "human")
        assert operator.do("failure")["ok"]
        game.until(lambda: len(game.link.reports) > reports and len([s for s in game.link.steps if s.episode > now]) > 4)
        later = [step for step in game.link.steps if step.episode > now]
        assert not any(step.is_intervention for step in later[:4])


def test_the_source_is_changed_at_run_time_and_none_means_nobody(game, operator) -> None:
    state = operator.sees(lambda state: state["source"]["type"] == "console" and state["phase"] == "episode")
    assert state["source"]["type"] == "console" and "simulated" in state["source"]["available"]
    refused = operator.do("source", value="telepathy")
    assert not refused["ok"] and "there are" in refused["error"]
    for source in ("simulated", "gamepad", "none"):
        assert operator.do("source", value=source)["ok"]
        assert operator.do("failure")["ok"]  # it changes between episodes
        if source == "gamepad":  # there is none here
            state = operator.sees(lambda state: "no gamepad" in state["source"]["error"] and state["phase"] == "episode")
            assert state["source"]["type"] == "simulated"
        else:
            operator.sees(lambda state, wanted=source: state["source"]["type"] == wanted and state["phase"] == "episode")
    assert "source is `none`" in operator.do("take_over")["error"]


@pytest.mark.slow
def test_an_unthrottled_simulation_keeps_the_period_while_somebody_drives(own_home) -> None:
    with playing(make_config(actor__pace="unthrottled"), pace=False) as game, page(game) as operator:
        operator.sees(lambda state: state["phase"] == "episode")
        operator.control()
        with operator.driving(0.1, 0.0, 0.0):
            operator.sees(lambda state: state["control"] == "human" and state["real_time"])
            game.until(lambda: sum(step.is_intervention for step in game.link.steps) > 6)
            times = [at for at, step in zip(game.link.times, game.link.steps, strict=False) if step.is_intervention]
        assert times[6] - times[1] > 4.5 / game.config.robot.control_hz


@pytest.mark.slow
def test_an_evaluation_waits_for_a_person_where_it_shall(own_home) -> None:
    config = make_config(
        console__ask_before_evaluation=True, actor__evaluate_every_steps=10, task__control_time_s=1, actor__evaluate_episodes=1
    )
    with playing(config) as game, page(game) as operator:
        ask = operator.sees(lambda state: state["asks"])["asks"][0]
        assert ask["kind"] == "evaluation"
        steps = len(game.link.steps)
        game.until(lambda: len(game.link.steps) > steps + 20)  # training goes on meanwhile
        assert not any(report.evaluation for report in game.link.reports)
        operator.control()
        assert operator.do("answer", ask=ask["ask"], value=True)["ok"] or operator.state["asks"]
        for one in operator.state["asks"]:
            operator.do("answer", ask=one["ask"], value=True)
        game.until(lambda: any(report.evaluation for report in game.link.reports))
