"""A finished policy at work, with a page: it is no evaluation, and whoever watches may take over, stop it and let it go on."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from console_testing import make_config, page, until

from hilserl.config.models import TrainConfig
from hilserl.console.operator import ConsoleOperator
from hilserl.data.preprocess import Preprocessor
from hilserl.policy import Policy, PolicyArchitecture
from hilserl.rollout.run import Worked, run_policy


def policy_of(config: TrainConfig, folder: Path) -> Path:
    policy = Policy(PolicyArchitecture.from_config(config), Preprocessor.from_config(config))
    policy.load_tensors({name: torch.zeros_like(tensor) + name.endswith("half_range") for name, tensor in policy.tensors().items()}, 1)
    policy.save(folder, {"weights_version": 1})
    return folder


@pytest.mark.failure("L21")
def test_a_person_takes_over_stops_it_and_lets_it_go_on(own_home: Path, tmp_path: Path) -> None:
    config = make_config(actor__intervention__type="simulated", actor__pace="unthrottled")
    operator = ConsoleOperator(config, mode="run", run="models:/hilserl-reach@champion")
    stop, result, said = threading.Event(), list[Any](), list[str]()

    def work() -> None:
        try:
            result.append(
                run_policy(config, policy_of(config, tmp_path / "policy"), operator=operator, should_stop=stop.is_set, say=said.append)
            )
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        until(lambda: operator.url is not None)
        assert operator.url is not None
        with page(operator.url) as person:
            person.control()
            state = person.sees(lambda state: state["phase"] == "episode" and state["control"] == "policy")
            assert "simulated" not in state["source"]["available"] and state["source"]["type"] == "console"
            with person.driving(0.3, 0.0, 0.0):
                person.sees(lambda state: state["control"] == "human" and state["session"]["steps"] > 0)
            assert person.ask({"type": "estop"})["ok"]
            person.sees(lambda state: state["phase"] == "stopped" and state["stopped"] and state["stopped"]["may_rearm"])
            assert person.ask({"type": "rearm", "robot": config.robot.id})["ok"]
            person.sees(lambda state: state["phase"] == "waiting" and state["stopped"] is None)
            assert not result and "waits for a person" in said[-1]
            assert person.do("start")["ok"]
            person.sees(lambda state: state["phase"] == "episode" and state["control"] == "policy")
            stop.set()
            thread.join(30)
            (worked,) = result
            assert isinstance(worked, Worked), worked
            assert worked.help_steps > 0
            person.sees(lambda state: state["phase"] == "ended" and "episode" in state["text"])
    finally:
        stop.set()
        thread.join(30)
        operator.close()
