"""The actor of `hilserl demo`: a killed one may be replaced, one with an error of its own needs a person."""

from __future__ import annotations

import psutil
import pytest
from pipeline_testing import make_tiny_config, open_run, wait_until

from tasks.local_actor import LocalActor

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


@pytest.mark.failure("R20")
def test_a_killed_process_is_gone_and_one_that_failed_says_why(own_home) -> None:
    config = make_tiny_config()
    run = open_run(config)
    actor = LocalActor(config, run)
    try:
        assert not actor.adopt("127.0.0.1:9") and actor.state().phase == "running"
        wait_until(lambda: bool(psutil.Process(actor._process.pid).children()), 30)
        psutil.Process(actor._process.pid).children()[0].kill()
        wait_until(lambda: actor.state().phase == "gone", 30)
        assert "ended with code 137" in actor.state().message
        run.token_file.unlink()
        actor.launch("127.0.0.1:9")
        assert actor.state().phase == "running"
        wait_until(lambda: actor.state().phase != "running", 120)
        assert actor.state().phase == "failed"
        assert "there is no link token" in actor.state().message
    finally:
        actor.stop(0.0)
