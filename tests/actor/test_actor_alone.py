"""What the actor refuses to do, and when it stops."""

import threading
import time

import numpy as np
import pytest
from pipeline_testing import make_tiny_config

from hilserl.actor import learner_watch, run
from hilserl.actor.lease import robot_lease
from hilserl.actor.loop import Actor, _seed
from hilserl.data.preprocess import Preprocessor
from hilserl.errors import CheckpointError, RobotError, TransportError
from hilserl.evaluation import IN_TRAINING_SEED
from hilserl.link import Handshake, LinkServer
from hilserl.link.messages import EpisodeReport, LearnerStatus, Weights
from hilserl.policy import Policy, PolicyArchitecture
from hilserl.sim import env as sim_env

TOKEN = "a-token-for-tests-only"


@pytest.fixture
def counted_steps(monkeypatch) -> list[int]:
    """Counts every motion of the arm."""
    moves: list[int] = []
    step = sim_env.So101Env.step

    def counting(self, action):
        moves.append(1)
        return step(self, action)

    monkeypatch.setattr(sim_env.So101Env, "step", counting)
    return moves


@pytest.fixture
def server(tiny_config, tmp_path):
    policy = Policy(PolicyArchitecture.from_config(tiny_config), Preprocessor.from_config(tiny_config))
    handshake = Handshake("run-1", policy.schema_hash, policy.architecture_hash)
    with LinkServer(tiny_config.link, token=TOKEN, handshake=handshake, journal_folder=tmp_path / "learner") as server:
        yield server


def act(config, server: LinkServer, tmp_path, **options):
    return run.run_actor(config, address=server.start(), token=TOKEN, run_id="run-1", journal_folder=tmp_path / "actor", **options)


@pytest.mark.failure("L18")
def test_the_arm_does_not_move_before_weights_arrive(own_home, tiny_config, server, tmp_path, counted_steps, monkeypatch) -> None:
    monkeypatch.setattr(run, "_FIRST_WEIGHTS_TIMEOUT_S", 0.7)
    with pytest.raises(TransportError, match="published no new weights"):
        act(tiny_config, server, tmp_path)
    assert not counted_steps


@pytest.mark.failure("L18")
def test_weights_of_another_network_do_not_move_the_arm(own_home, tiny_config, server, tmp_path, counted_steps) -> None:
    server.publish_weights(Weights.create(1, {"actor.mean.weight": np.zeros((3, 16), np.float32)}))
    with pytest.raises(CheckpointError, match="of architecture"):
        act(tiny_config, server, tmp_path)
    assert not counted_steps


@pytest.mark.failure("R17")
def test_one_actor_per_robot_and_the_error_names_the_other(own_home, tiny_config, server, tmp_path, counted_steps) -> None:
    with robot_lease(tiny_config.robot.id), pytest.raises(RobotError, match=r"already driven by process \d+"):
        act(tiny_config, server, tmp_path)
    assert not counted_steps
    with robot_lease(tiny_config.robot.id):
        pass  # given back


def test_a_timeout_inside_the_lease_is_not_taken_for_the_lease(own_home) -> None:
    with pytest.raises(TimeoutError, match="a camera"), robot_lease("arm"):
        raise TimeoutError("a camera")


def ready(config, server: LinkServer) -> None:
    policy = Policy(PolicyArchitecture.from_config(config), Preprocessor.from_config(config))
    server.publish_weights(Weights.create(1, {name: tensor.numpy() for name, tensor in policy.tensors().items()}))


def test_a_finished_learner_ends_the_actor_in_good_order(own_home, tiny_config, server, tmp_path, counted_steps) -> None:
    ready(tiny_config, server)
    server.set_status(LearnerStatus(phase="finished", environment_steps=1234, message="it is done"))
    result = act(tiny_config, server, tmp_path)
    assert result.reason == "the learner finished: it is done"
    assert (result.environment_steps, len(counted_steps)) == (0, 0)


@pytest.mark.failure("R16")
def test_an_actor_whose_learner_stays_away_stops(own_home, server, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(learner_watch, "_LEARNER_SILENCE_S", 0.5)
    config = make_tiny_config(actor__pace="realtime", actor__evaluate_every_steps=0)
    ready(config, server)
    stop = threading.Timer(1.5, lambda: server.stop(0.1))
    stop.start()
    with pytest.raises(TransportError, match="the learner was away"):
        act(config, server, tmp_path)
    stop.join()


@pytest.fixture
def asked_priorities(monkeypatch) -> list[int | None]:
    """Which real-time priorities were asked for."""
    asked: list[int | None] = []
    original = run.RealtimePriority.__init__

    def note(self, priority):
        asked.append(priority)
        original(self, priority)

    monkeypatch.setattr(run.RealtimePriority, "__init__", note)
    return asked


@pytest.mark.failure("R15")
def test_an_actor_on_the_wall_clock_reports_how_it_kept_it(
    own_home, server, tmp_path, counted_steps, asked_priorities: list[int | None]
) -> None:
    config = make_tiny_config(actor__pace="realtime", robot__control_hz=50, task__control_time_s=0.2, actor__evaluate_every_steps=0)
    ready(config, server)
    act(config, server, tmp_path, should_stop=lambda: "enough" if len(counted_steps) >= 40 else None)
    reports = [received.record for received in server.poll(5.0) if isinstance(received.record, EpisodeReport)]
    assert sum(report.length for report in reports) >= 30
    assert all(report.longest_period_s >= 0.01 and report.observation_age_s > 0 for report in reports if report.length > 2)
    assert asked_priorities == [config.actor.realtime_priority] and asked_priorities[0] is not None


def test_a_simulation_that_runs_as_fast_as_it_can_asks_for_no_priority(
    own_home, tiny_config, server, tmp_path, asked_priorities: list[int | None]
) -> None:
    """It never sleeps, so it would take the machine."""
    ready(tiny_config, server)
    act(tiny_config, server, tmp_path, should_stop=lambda: "at once")
    assert asked_priorities == [None]


def test_a_restarted_actor_goes_on_counting_and_repeats_no_start(own_home, tiny_config, server, tmp_path, monkeypatch) -> None:
    """Seeds of training, of evaluations during training and of the final evaluation are disjoint."""
    seeds: list[int] = []
    reset = sim_env.So101Env.reset

    def noting(self, *, seed=None, options=None):
        seeds.append(seed)
        return reset(self, seed=seed, options=options)

    monkeypatch.setattr(sim_env.So101Env, "reset", noting)
    # This learner only listens, so it never says that it has seen the new steps: let the actor run ahead.
    config = tiny_config.model_copy(update={"learner": tiny_config.learner.model_copy(update={"max_owed_updates": 10_000})})
    ready(config, server)
    server.set_status(LearnerStatus(phase="training", environment_steps=30))
    actors: list[Actor] = []
    original = Actor.__init__

    def keep(self, *args, **kwargs):
        original(self, *args, **kwargs)
        actors.append(self)

    monkeypatch.setattr(Actor, "__init__", keep)
    result = act(config, server, tmp_path, should_stop=lambda: "enough" if actors and actors[0].environment_steps >= 130 else None)
    assert result.environment_steps == 100 and result.reason == "enough"
    training, evaluating = [s for s in seeds if s >= 1 << 31], [s for s in seeds if s < 1 << 31]
    assert training[0] == _seed(tiny_config.seed, 30)
    assert len(set(training)) == len(training)
    assert set(evaluating) <= set(range(IN_TRAINING_SEED, IN_TRAINING_SEED + tiny_config.actor.evaluate_episodes)) and evaluating


@pytest.mark.failure("R16")
def test_a_simulated_actor_waits_for_a_learner_that_falls_behind(own_home, tiny_config, server, tmp_path) -> None:
    """The learner's word is old; what the actor sent since counts as owed, so the debt is bounded."""
    policy, learner = tiny_config.policy, tiny_config.learner.model_copy(update={"max_owed_updates": 20})
    config = tiny_config.model_copy(update={"learner": learner})
    ready(config, server)
    server.set_status(LearnerStatus(phase="training"))
    deadline = time.monotonic() + 2.0
    result = act(config, server, tmp_path, should_stop=lambda: "enough" if time.monotonic() > deadline else None)
    assert result.environment_steps == policy.online_step_before_learning + 20 // policy.utd_ratio + 1
