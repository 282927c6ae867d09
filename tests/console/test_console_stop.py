"""The emergency stop from the page, and what happens when one of the two processes dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from console_testing import Page, is_alive, make_config, page, playing, until

from hilserl.console.process import running_consoles
from hilserl.robot.latch import latched


@pytest.mark.parametrize("hangs", [False, True])
def test_everybody_may_stop_and_only_who_is_in_control_re_arms_deliberately(game, operator, hangs) -> None:
    robot = game.config.robot.id
    with page(game) as onlooker:
        with operator.driving(0.3, 0.0, 0.0):
            operator.sees(lambda state: state["control"] == "human")
            if hangs:
                game.stuck.set()
            answer = onlooker.ask({"type": "estop"})
            assert answer["ok"] and ("torque" in answer["text"] or answer["text"] == "the simulated arm stands still")
        held = latched(robot)
        assert held is not None and held.rule == "estop" and "console" in held.text
        game.stuck.clear()
        state = operator.sees(lambda state: state["phase"] == "stopped" and state["stopped"] and state["stopped"]["may_rearm"])
        assert state["control"] == "stopped" and "console" in state["stopped"]["text"]
        steps = len(game.link.steps)
        assert operator.do("start")["ok"]  # starts nothing
        assert not onlooker.ask({"type": "rearm", "robot": robot})["ok"]
        assert "not its name" in operator.ask({"type": "rearm", "robot": "yes"})["error"]
        time.sleep(0.2)
        assert len(game.link.steps) == steps and latched(robot) is not None
        assert operator.ask({"type": "rearm", "robot": robot})["ok"]
        operator.sees(lambda state: state["phase"] == "waiting" and state["stopped"] is None)  # nothing moves before `start`
        assert len(game.link.steps) == steps
        assert operator.do("start")["ok"]
        game.until(lambda: len(game.link.steps) > steps + 3)
        assert game.link.steps[steps].step == 0


@pytest.mark.failure("R21")
def test_a_console_that_dies_while_somebody_drives_makes_the_arm_hold_and_comes_back(game, operator) -> None:
    before, url = game.operator._process.pid, game.url
    with operator.driving(0.3, 0.0, 0.0):
        operator.sees(lambda state: state["control"] == "human")
        os.kill(before, signal.SIGKILL)
        game.until(lambda: game.operator._commands.held_because)
    steps = len(game.link.steps)
    again = until(lambda: game.operator._process.pid != before and next(iter(running_consoles()), None))
    assert len(game.link.steps) <= steps + 1
    assert again["url"] == url, "`console.port` is 0, and pages find it again all the same"
    fresh = until(lambda: try_to_open(again["url"]))
    fresh.control()
    fresh.sees(lambda state: state["control"] == "held")
    assert fresh.do("resume")["ok"]
    fresh.sees(lambda state: state["control"] == "policy")
    fresh.close()


@pytest.mark.slow
def test_a_console_cannot_outlive_an_actor_that_is_killed(own_home) -> None:
    script = (
        "import time; from console_testing import *\n"
        "game = Playing(make_config()); game.thread.start(); operator = game.operator\n"
        "print(game.url, operator._process.pid, operator._show.folder, flush=True); time.sleep(600)"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    actor = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": paths})
    try:
        assert actor.stdout is not None
        url, pid, frames = actor.stdout.readline().split()
        with page(url) as watcher:
            watcher.sees(lambda state: state["alive"])
            actor.kill()
            actor.wait()
            watcher.sees(lambda state: not state["alive"] and state["phase"] == "ended")
            until(lambda: not is_alive(int(pid)))
            assert until(lambda: watcher.closed)[0] in (1001, 1012, 1006)
        assert not running_consoles() and not Path(frames).exists()
    finally:
        actor.kill()
        actor.wait()
        actor.stdout.close()


@pytest.mark.slow
@pytest.mark.failure("R20")
def test_a_virtual_arm_is_held_stopped_and_re_armed_from_the_page(own_home) -> None:
    robot = {"robot__type": "so101_follower", "robot__id": "virtual", "robot__virtual": {"lock_step": False}, "robot__control_hz": 10}
    images = {"observation__images": {"wrist": {"resize": [64, 64]}}, "encoder__type": "cnn", "encoder__freeze": False}
    config = make_config(**images, **robot)
    with playing(config) as game, page(game) as operator:
        assert operator.last("hello")["kind"] == "virtual"
        operator.control()
        state = operator.sees(lambda state: state["phase"] == "episode" and state["arm"] and state["arm"]["servos"])
        assert 15 < state["arm"]["servos"][2]["temperature_c"] < 60 and state["arm"]["servos"][0]["voltage_v"] > 5
        with operator.driving(0.2, 0.0, 0.1):
            operator.sees(lambda state: state["control"] == "human")
        operator.sees(lambda state: state["control"] == "held")
        operator.say({"type": "watch", "cameras": None, "views": ["raw"], "max_hz": 30, "max_width": 640})
        until(lambda: len({header["number"] for header, _ in operator.pictures}) > 5)  # the cameras go on while nothing moves
        assert operator.state["control"] == "held"
        assert operator.ask({"type": "estop"})["ok"]
        assert latched("virtual") is not None
        operator.sees(lambda state: state["phase"] == "stopped" and state["stopped"])
        until(lambda: operator.ask({"type": "rearm", "robot": "virtual"})["ok"])
        operator.sees(lambda state: state["phase"] == "waiting")
        steps = len(game.link.steps)
        assert operator.do("start")["ok"]
        game.until(lambda: len(game.link.steps) > steps + 3)


def try_to_open(url: str) -> Page | None:
    try:
        return Page(url)
    except OSError:
        return None
