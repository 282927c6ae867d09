"""The rules that stop the arm, each on the states that a bus reports."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safety_testing import ZERO, healthy, silent

from hilserl.config.safety import SafetyConfig
from hilserl.robot.trips import Action, Trip, TripRules

TICK_S = 0.02


def rules(**settings: Any) -> TripRules:
    return TripRules(SafetyConfig(**settings))


def run(
    watched: TripRules, state: Any, ticks: int, command: np.ndarray = ZERO, measured: np.ndarray = ZERO, start_s: float = 0.0
) -> list[Trip]:
    """Show one state for some ticks; return what trips."""
    found = [watched.check(state, command, measured, start_s + tick * TICK_S) for tick in range(ticks)]
    return [trip for trip in found if trip is not None]


def jammed(joint: int, behind_rad: float = 0.15) -> dict[str, Any]:
    command = ZERO.copy()
    command[joint] = behind_rad
    return {"state": healthy(load={joint: 0.9}, current_a={joint: 2.4}), "command": command}


def test_a_healthy_arm_trips_nothing() -> None:
    assert run(rules(), healthy(), 500) == []


@pytest.mark.failure("R10")
@pytest.mark.parametrize(("bit", "word"), [(2, "encoder"), (4, "overheated"), (8, "over-current"), (32, "overload")])
def test_an_error_bit_takes_the_arm_down_in_the_tick_that_shows_it(bit: int, word: str) -> None:
    trip = rules().check(healthy(error={2: bit}), ZERO, ZERO, 0.0)
    assert trip is not None and trip.action is Action.SOFT_LAND and trip.servo == 3 and trip.stops
    assert word in trip.text and "elbow_flex" in trip.text


@pytest.mark.failure("R10")
def test_a_voltage_error_counts_when_it_lasts() -> None:
    watched = rules(voltage_s=0.1)
    assert run(watched, healthy(error={1: 1}), 5) == []
    assert run(watched, healthy(), 1, start_s=0.1) == []
    assert run(watched, healthy(error={1: 1}), 5, start_s=0.12) == []
    assert [trip.rule for trip in run(watched, healthy(error={1: 1}), 1, start_s=0.22)] == ["error"]


@pytest.mark.failure("R12")
@pytest.mark.parametrize("sign", [{"acceleration": {1: 0}}, {"lock": {1: 0}}, {"torque_on": {1: False}}])
def test_a_servo_that_started_anew_is_noticed_at_once(sign: dict[str, Any]) -> None:
    trip = rules().check(healthy(**sign), ZERO, ZERO, 0.0)
    assert trip is not None and trip.rule == "reboot" and trip.servo == 2 and trip.action is Action.SOFT_LAND


@pytest.mark.failure("R13")
@pytest.mark.parametrize("joint", range(5))
def test_a_jammed_joint_is_let_go_of_after_0_3_s(joint: int) -> None:
    found = run(rules(), **jammed(joint), ticks=16)
    assert [trip.rule for trip in found] == ["stall"]
    assert found[0].action is Action.HOLD and found[0].servo == joint + 1 and not found[0].stops
    assert run(rules(), **jammed(joint), ticks=15) == []  # 0.28 s


@pytest.mark.failure("R13")
def test_stalls_without_end_take_the_arm_down() -> None:
    watched = rules(stalls_before_landing=3)
    found = run(watched, **jammed(1), ticks=60)
    assert [trip.rule for trip in found] == ["stall", "stall", "stalls"]
    assert found[-1].stops


def test_stalls_far_apart_do_not_add_up() -> None:
    watched = rules(stalls_before_landing=2, stall_window_s=5.0)
    assert len(run(watched, **jammed(1), ticks=16)) == 1
    watched.begin()
    assert [trip.rule for trip in run(watched, **jammed(1), ticks=16, start_s=10.0)] == ["stall"]


def test_a_joint_that_lags_while_it_moves_or_only_holds_a_weight_does_not_stall() -> None:
    command = np.full(6, 0.15)
    moving = healthy(
        load=dict.fromkeys(range(6), 0.9), current_a=dict.fromkeys(range(6), 2.4), velocity_ticks_s=dict.fromkeys(range(6), 600.0)
    )
    assert run(rules(), moving, 100, command) == []
    assert run(rules(), healthy(load={1: 0.9}, current_a={1: 2.4}), 100, np.full(6, 0.05)) == []  # no error to speak of
    assert run(rules(), healthy(load={1: 0.35}, current_a={1: 0.9}), 100, command) == []  # gravity at full reach, and a soft servo


def test_a_grip_weakens_the_jaw_once_and_stops_nothing() -> None:
    found = run(rules(), **jammed(5, 0.3), ticks=100)
    assert [(trip.rule, trip.action) for trip in found] == [("grip", Action.WEAKEN)]


def test_a_silent_servo_takes_the_arm_down_after_three_ticks() -> None:
    watched = rules(silent_ticks=3)
    assert run(watched, silent(3), 2) == []
    trip = watched.check(silent(3), ZERO, ZERO, 0.04)
    assert trip is not None and trip.rule == "silent" and trip.servo == 3 and trip.action is Action.SOFT_LAND
    assert run(rules(), silent(3), 2) + run(rules(), healthy(), 1) == []


def test_a_bus_without_any_answer_is_switched_off_blindly() -> None:
    nan = np.full(6, np.nan)
    found = run(rules(), silent(1, 2, 3, 4, 5, 6), 3, measured=nan)
    assert [trip.action for trip in found] == [Action.OFF]
    assert "power" in found[0].text


def test_heat_is_told_of_and_then_stops(caplog: pytest.LogCaptureFixture) -> None:
    watched = rules()
    with caplog.at_level(logging.WARNING):
        assert run(watched, healthy(temperature_c={4: 58}), 100) == []
    assert len(caplog.records) == 1 and "58" in caplog.text
    trip = watched.check(healthy(temperature_c={4: 65}), ZERO, ZERO, 3.0)
    assert trip is not None and trip.rule == "hot" and trip.servo == 5


@pytest.mark.parametrize("at_start_v", [12.0, 7.4, 5.0])
def test_a_supply_that_sags_below_its_share_trips_whatever_the_servos_voltage(at_start_v: float) -> None:
    def state(volts: float) -> Any:
        return healthy(voltage_v=dict.fromkeys(range(6), volts))

    watched = rules()
    assert run(watched, state(at_start_v), 10) == []
    assert run(watched, state(0.75 * at_start_v), 50, start_s=1.0) == []
    assert {trip.rule for trip in run(watched, state(0.6 * at_start_v), 10, start_s=3.0)} == {"voltage"}


def test_a_position_that_jumps_takes_the_arm_down_and_a_gap_does_not() -> None:
    watched = rules()
    moved = ZERO.copy()
    moved[0] = 0.39  # encoder bit 8
    assert run(watched, healthy(), 2) == []
    trip = watched.check(healthy(), moved, moved, 0.04)
    assert trip is not None and trip.rule == "jump" and trip.servo == 1
    watched = rules()
    assert run(watched, healthy(), 2) == []
    gap = np.array([np.nan, 0, 0, 0, 0, 0])
    assert watched.check(silent(1), ZERO, gap, 0.04) is None
    assert watched.check(silent(1), ZERO, gap, 0.06) is None
    moved[0] = 0.3
    assert watched.check(healthy(), moved, moved, 0.08) is None  # 0.3 rad in 60 ms


def test_a_joint_far_from_its_command_takes_the_arm_down() -> None:
    command = ZERO.copy()
    command[3] = 0.7
    found = run(rules(), healthy(), 17, command)
    assert found and found[-1].rule == "lost" and found[-1].servo == 4


def test_the_hardest_reaction_wins() -> None:
    watched = rules()
    state = healthy(load={1: 0.9}, current_a={1: 2.4}, error={2: 32})
    command = ZERO.copy()
    command[1] = 0.15
    found = run(watched, state, 20, command)
    assert all(trip.action is Action.SOFT_LAND for trip in found) and len(found) == 20


def test_begin_forgets_what_lasted() -> None:
    watched = rules()
    assert run(watched, **jammed(0), ticks=15) == []
    watched.begin()
    assert run(watched, **jammed(0), ticks=15, start_s=0.3) == []


@given(st.lists(st.booleans(), min_size=1, max_size=80))
def test_it_is_the_time_without_interruption_that_counts(pattern: list[bool]) -> None:
    """A stall trips exactly where the last 0.3 s were all stalled, by the plain definition."""
    watched = rules(stalls_before_landing=10**6)
    stalled, well = jammed(0), healthy()
    ticks_needed, run_length = 16, 0
    for tick, bad in enumerate(pattern):
        state, command = (stalled["state"], stalled["command"]) if bad else (well, ZERO)
        trip = watched.check(state, command, ZERO, tick * TICK_S)
        run_length = run_length + 1 if bad else 0
        assert (trip is not None) == (run_length == ticks_needed)
        if trip is not None:
            run_length = 0
