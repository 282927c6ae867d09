"""The one state machine (FAILURES R21): debounced, never always on, never stuck, visible."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilserl.config.models import InterventionConfig
from hilserl.teleop.events import TeleopEvent, judge
from hilserl.teleop.intervention import Control, Intervention, Steps

POLICY, HUMAN, BACK = Control.POLICY, Control.HUMAN, Control.HANDING_BACK


def play(machine: Intervention, wants: str) -> list[Control]:
    """One step for each character; `x` wants control."""
    return [machine.update(wish == "x") for wish in wants]


@pytest.mark.failure("R21")
def test_control_changes_hands_only_after_the_delays():
    machine = Intervention(Steps(take_over=2, hand_back=3))
    assert play(machine, ".x.") == [POLICY] * 3  # a glitch
    assert play(machine, "xx") == [POLICY, HUMAN]
    assert play(machine, "x..x") == [HUMAN, BACK, BACK, HUMAN]  # a pause is no end
    assert play(machine, "....") == [BACK, BACK, BACK, POLICY]
    assert machine.bouts == 1


@pytest.mark.failure("R21")
def test_an_intervention_begins_with_a_change_and_never_with_a_state():
    machine = Intervention(Steps(take_over=1, hand_back=1))
    assert play(machine, "xxxx") == [POLICY] * 4  # held since before the episode
    assert play(machine, ".x") == [POLICY, HUMAN]
    machine.reset()
    assert play(machine, "xx") == [POLICY] * 2


@pytest.mark.failure("R21")
def test_a_stuck_device_is_ended_and_has_to_be_let_go_once(caplog):
    machine = Intervention(Steps(take_over=1, hand_back=1, longest=5))
    with caplog.at_level(logging.WARNING):
        assert play(machine, "." + "x" * 9) == [POLICY] + [HUMAN] * 5 + [POLICY] * 4
    assert "taken for a stuck device" in caplog.text
    assert play(machine, ".x") == [POLICY, HUMAN]


def test_every_change_is_told():
    seen: list[Control] = []
    machine = Intervention(Steps(take_over=1, hand_back=1), seen.append)
    play(machine, ".xx.x..")
    assert seen == [HUMAN, BACK, HUMAN, BACK, POLICY]


@given(st.lists(st.booleans(), max_size=200), st.integers(1, 4), st.integers(1, 6), st.integers(1, 40))
def test_whatever_a_device_does_the_policy_gets_the_arm_back(wants, take_over, hand_back, longest):
    machine = Intervention(Steps(take_over, hand_back, longest))
    bout = released = 0
    for wish in wants:
        released += not wish
        control = machine.update(wish)
        bout = bout + 1 if control is not POLICY else 0
        assert bout <= longest
        assert control is POLICY or released
    for _ in range(hand_back + 1):
        control = machine.update(False)
    assert control is POLICY


def test_seconds_become_steps():
    config = InterventionConfig(take_over_s=0.25, longest_s=3.0)
    assert Steps.of(config, 10.0, hand_back_s=0.6) == Steps(3, 6, 30)
    assert Steps.of(config.model_copy(update={"hand_back_s": 0.0}), 10.0, hand_back_s=0.6).hand_back == 1


def test_the_events_are_lerobots():
    from lerobot.teleoperators.utils import TeleopEvents

    theirs = {event.name: event.value for event in TeleopEvents}
    answers = (TeleopEvent.YES, TeleopEvent.NO)  # to a question of ours
    ours = {event.name: event.value for event in TeleopEvent if event not in answers}
    assert ours.items() <= theirs.items()
    assert set(theirs) - set(ours) == {"IS_INTERVENTION"}  # the state machine says that


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ({TeleopEvent.SUCCESS}, (1.0, True, False, True, False)),
        ({TeleopEvent.SUCCESS, TeleopEvent.RERECORD_EPISODE}, (1.0, True, False, True, False)),
        ({TeleopEvent.FAILURE}, (0.0, True, False, False, False)),
        ({TeleopEvent.TERMINATE_EPISODE}, (0.0, True, False, False, False)),
        ({TeleopEvent.RERECORD_EPISODE}, (0.0, False, True, False, True)),
        (set(), (0.0, False, False, False, False)),
    ],
)
def test_a_persons_verdict_wins(events, expected):
    outcome = judge(events, 0.0, False, False, False)
    assert (outcome.reward, outcome.terminated, outcome.truncated, outcome.success, outcome.discarded) == expected


def test_success_is_rewarded_once_and_failure_takes_it_back():
    assert judge({TeleopEvent.SUCCESS}, 1.0, True, False, True).reward == 1.0
    assert judge({TeleopEvent.FAILURE}, 1.0, True, False, True).reward == 0.0
    assert judge({TeleopEvent.SUCCESS}, 0.0, False, True, False).truncated is False  # in the last step as well
