"""The two loops over the real link: what one did, the other learned from, whoever dies."""

import logging
import socket
import time
from contextlib import ExitStack
from subprocess import Popen

import numpy as np
import pytest
from pipeline_testing import ActorThread, Session, make_tiny_config, open_run, process, train, transitions_of, wait_until, write_config

from hilserl.data.replay import ReplayBuffer
from hilserl.errors import RobotError, TrainingError, TransportError
from hilserl.learner import run as learner_run
from hilserl.link.messages import LearnerStatus
from hilserl.policy import Policy, read_policy_manifest
from hilserl.schema import STATE_KEY


def contents(buffer: ReplayBuffer) -> set[bytes]:
    """All transitions of a buffer, each as the bytes of everything that is learned from."""
    batch = buffer.sample(30 * len(buffer), np.random.default_rng(0))
    rows = zip(batch.observation[STATE_KEY], batch.next_observation[STATE_KEY], batch.action, batch.reward, batch.terminated, strict=True)
    return {key(*row) for row in rows}


def key(state, next_state, action, reward, terminated) -> bytes:
    return b"|".join(np.asarray(part, np.float32).tobytes() for part in (state, next_state, action, reward, terminated))


def keys_of(steps) -> list[bytes]:
    return [key(s.observation[STATE_KEY], after, s.action, s.reward, s.terminated) for s, after in transitions_of(steps)]


def newest_checkpoint(run) -> int:
    """Environment steps of the newest checkpoint; 0 before the first."""
    return max((int(path.name.split("-")[0]) for path in run.checkpoints.glob("0*")), default=0)


@pytest.fixture(scope="module")
def trained(tiny_config, tiny_buffer, tmp_path_factory):
    """One run from its start to its end: about 150 environment steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HILSERL_HOME", str(tmp_path_factory.mktemp("home")))
        run = open_run(tiny_config)
        actor = ActorThread(tiny_config, run.run_id)
        session = train(tiny_config, run, tiny_buffer, on_listening=actor.start)
        actor.join()
        assert actor.error is None
        yield run, actor, session


@pytest.mark.failure("L08")
def test_updates_are_exactly_what_the_steps_owe(trained, tiny_config) -> None:
    _, actor, session = trained
    governor = session.learner.parts.governor
    assert session.result.environment_steps == governor.environment_steps == actor.result.environment_steps >= 150
    assert governor.updates == 2 * (governor.environment_steps - 20)
    assert session.result.reason == "all 150 environment steps are done"
    assert session.metrics.values[-1]["utd/effective"] == tiny_config.policy.utd_ratio


def test_every_step_of_the_actor_is_in_the_replay_with_its_own_next_state(trained) -> None:
    _, actor, session = trained
    experience = session.learner.parts.experience
    expected = keys_of(actor.steps)
    assert len(experience.online) == len(expected)
    assert contents(experience.online) == set(expected)
    assert len(actor.steps) - len(expected) <= 1  # the step in which the training ended


@pytest.mark.failure("L02")
def test_interventions_join_the_demonstrations_and_replace_none(trained, tiny_buffer) -> None:
    from hilserl.data.offline_buffer import OfflineBuffer

    _, actor, session = trained
    offline = session.learner.parts.experience.offline
    demos = OfflineBuffer.open(tiny_buffer)
    taught = keys_of(actor.steps)
    taught = [k for k, (step, _) in zip(taught, transitions_of(actor.steps), strict=True) if step.is_intervention]
    shown = set()
    for shard in demos.shards():
        columns = shard.columns
        for row, following in zip(columns[shard.transition_rows], columns[shard.next_rows], strict=True):
            shown.add(key(row["state"], following["state"], row["action"], row["reward"], row["terminated"]))
    assert taught, "the simulated human never took over: the test shows nothing"
    assert contents(offline) == shown | set(taught)
    assert offline.pinned == demos.manifest.rows


def test_weights_arrive_and_evaluations_come_back_with_them(trained, tiny_config) -> None:
    run, actor, session = trained
    assert session.result.evaluations and all(point.episodes == 2 for point in session.result.evaluations)
    assert max(point.weights_version for point in session.result.evaluations) > 1
    facts = read_policy_manifest(run.best_policy)["facts"]
    assert facts["run_id"] == run.run_id and facts["weights_version"] == session.result.best.weights_version
    assert Policy.load(run.last_policy).version == session.result.updates + 1
    assert actor.result.reason == "the learner finished: all 150 environment steps are done"


@pytest.mark.failure("L11")
def test_temperature_entropy_and_action_size_are_in_the_metrics(trained) -> None:
    _, _, session = trained
    wanted = {"temperature", "entropy", "action/mean_abs", "loss/critic", "loss/actor", "q/mean", "utd/owed", "utd/effective"}
    assert wanted <= session.metrics.names
    assert all(np.isfinite(value) for values in session.metrics.values for value in values.values())
    assert wanted <= {name for entry in session.result.history for name in entry}


def test_continuing_a_finished_run_learns_nothing_more(trained, tiny_config, tiny_buffer) -> None:
    run, _, session = trained

    def refuse(address: str) -> None:
        raise AssertionError("an actor would be started for a run that has ended")

    again = train(tiny_config, run, tiny_buffer, on_listening=refuse)
    assert (again.result.environment_steps, again.result.updates) == (session.result.environment_steps, session.result.updates)
    assert again.result.best == session.result.best and again.result.evaluations == session.result.evaluations
    for name, tensor in session.learner.parts.agent.state_dict().items():
        assert tensor.equal(again.learner.parts.agent.state_dict()[name]), name
    assert contents(again.learner.parts.experience.online) == contents(session.learner.parts.experience.online)
    assert contents(again.learner.parts.experience.offline) == contents(session.learner.parts.experience.offline)


@pytest.mark.failure("L14")
def test_an_actor_that_leaves_ends_the_training_with_a_checkpoint(own_home, tiny_buffer) -> None:
    config = make_tiny_config(learner__actor_timeout_s=1.0, learner__save_freq=10_000, policy__online_steps=5000)
    run = open_run(config)
    actor = ActorThread(config, run.run_id)

    def stop_actor(session: Session) -> None:
        if session.learner.parts.governor.environment_steps > 40:
            actor.stop_reason = "the test stops it"

    session = Session()
    started = time.monotonic()
    with pytest.raises(TransportError, match=r"no actor was heard for \d+ s"):
        train(config, run, tiny_buffer, on_listening=actor.start, supervise=stop_actor, session=session)
    assert time.monotonic() - started < 15
    actor.join()
    steps = session.learner.parts.governor.environment_steps
    assert newest_checkpoint(run) == steps
    assert run.facts()["status"] == "training"  # so that the same command continues it


@pytest.mark.failure("R19")
def test_a_learner_that_fails_stops_its_actor_at_once_and_says_why(own_home, tiny_buffer) -> None:
    config = make_tiny_config(policy__online_steps=5000)
    run = open_run(config)
    actor = ActorThread(config, run.run_id)

    def fail(session: Session) -> None:
        if session.learner.parts.governor.updates > 20:
            raise TrainingError("the disk of the test is on fire")

    with pytest.raises(TrainingError, match="on fire"):
        train(config, run, tiny_buffer, on_listening=actor.start, supervise=fail)
    actor.join(5.0)
    assert isinstance(actor.error, TransportError) and "the learner failed: the disk of the test is on fire" in str(actor.error)


def test_weights_that_are_not_finite_are_neither_sent_nor_saved(own_home, tiny_buffer) -> None:
    config = make_tiny_config(policy__online_steps=5000, learner__save_freq=30)
    run = open_run(config)
    actor = ActorThread(config, run.run_id)

    def poison(session: Session) -> None:
        if session.learner.parts.governor.environment_steps > 60:
            next(session.learner.parts.agent.actor.parameters()).data.fill_(float("nan"))

    with pytest.raises(TrainingError, match=r"not finite .* last checkpoint is from \d+ steps"):
        train(config, run, tiny_buffer, on_listening=actor.start, supervise=poison)
    actor.join(5.0)
    assert "learner failed" in str(actor.error)
    assert run.checkpoints.is_dir()
    session = Session()

    def leave(session: Session) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, run, tiny_buffer, supervise=leave, session=session)
    assert all(bool(t.isfinite().all()) for t in session.learner.parts.agent.state_dict().values() if t.is_floating_point())


@pytest.mark.failure("L12")
def test_q_values_above_the_largest_return_give_an_alarm_once(own_home, tiny_buffer, caplog, monkeypatch) -> None:
    config = make_tiny_config(policy__online_steps=60)
    run = open_run(config)
    actor = ActorThread(config, run.run_id)

    session = Session()

    def start_with_raised_q(address: str) -> None:
        session.learner.parts.agent.critic_ensemble.layers[-1].bias.data.add_(3.0)
        actor.start(address)

    with caplog.at_level(logging.WARNING, "hilserl.learner.reporting"):
        train(config, run, tiny_buffer, on_listening=start_with_raised_q, session=session)
        session.learner._log_metrics()
    actor.join()
    assert session.metrics.values[-1]["alarm/q_above_bound"] == 1.0
    said = [record.getMessage() for record in caplog.records]
    assert len([text for text in said if "`q_above_bound` at" in text and "above the largest possible return" in text]) == 1
    told: list[LearnerStatus] = []
    monkeypatch.setattr(session.learner.parts.server, "set_status", told.append)
    session.learner._set_status("training")
    (alarm,) = (alarm for alarm in told[0].alarms if alarm.name == "q_above_bound")  # the actor hears of it, for its console
    assert "above the largest possible return" in alarm.text and "Raise `policy.num_critics`" in alarm.text


def test_honest_q_values_give_no_alarm(trained) -> None:
    _, _, session = trained
    alarms = [values["alarm/q_above_bound"] for values in session.metrics.values if "alarm/q_above_bound" in values]
    assert alarms and not any(alarms)


@pytest.mark.failure("R16")
def test_a_continued_learner_listens_where_its_actor_looks_for_it_unless_that_port_is_taken(own_home, tiny_buffer, monkeypatch) -> None:
    config = make_tiny_config()
    run = open_run(config)
    monkeypatch.setattr(learner_run, "_SAME_PORT_S", 0.3)

    def address() -> str:
        found: list[str] = []

        def leave(address: str) -> None:
            found.append(address)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(config, run, tiny_buffer, on_listening=leave)
        return found[0]

    first = address()
    assert address() == first
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(first.rpartition(":")[2])))
        other.listen()
        moved = address()
        assert moved != first
    assert address() == moved


@pytest.mark.slow
@pytest.mark.failure("R19")
def test_a_killed_actor_ends_the_training_within_seconds(own_home, tiny_buffer, tmp_path) -> None:
    """The learner's owner watches the actor's process, as `tasks.actor_control` does."""
    config = make_tiny_config(learner__save_freq=100_000, policy__online_steps=100_000, policy__utd_ratio=1)
    run = open_run(config)
    file = write_config(config, tmp_path / "config.json")
    killed_at: list[float] = []
    actor: list[Popen[str]] = []

    def watch(session: Session) -> None:
        if not killed_at and session.learner.parts.governor.environment_steps > 30:
            actor[0].kill()
            killed_at.append(time.monotonic())
        elif actor[0].poll() is not None:
            raise RobotError(f"the actor ended with code {actor[0].returncode} while the learner was training")

    session = Session()
    with ExitStack() as stack:

        def start(address: str) -> None:
            actor.append(stack.enter_context(process("actor", file, address, run.run_id, log=tmp_path / "actor.log")))

        with pytest.raises(RobotError, match="code -9"):
            train(config, run, tiny_buffer, on_listening=start, supervise=watch, session=session)
    assert time.monotonic() - killed_at[0] < 8
    assert newest_checkpoint(run) == session.learner.parts.governor.environment_steps


@pytest.mark.slow
@pytest.mark.failure("L14")
def test_a_learner_killed_in_the_middle_continues_where_its_journal_ends(own_home, tiny_buffer, tmp_path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = make_tiny_config(policy__online_steps=800, link__port=port, learner__save_freq=100)
    run = open_run(config)
    actor = ActorThread(config, run.run_id)
    file = write_config(config, tmp_path / "config.json")
    with process("learner", file, run.path, tiny_buffer, log=tmp_path / "learner.log") as first:
        actor.start(first.stdout.readline().strip())
        wait_until(lambda: newest_checkpoint(run) > 0)
        wait_until(lambda: len(actor.steps) > 250)
        first.kill()
        first.wait()
    saved = newest_checkpoint(run)
    restored = []

    def look(address: str) -> None:
        restored.append((session.learner.parts.governor.environment_steps, session.learner.parts.governor.updates))

    session = Session()
    train(config, run, tiny_buffer, on_listening=look, session=session)
    actor.join()
    assert actor.error is None and actor.result.reason.startswith("the learner finished")
    (steps, updates), governor = restored[0], session.learner.parts.governor
    assert steps >= saved and 0 < updates <= 2 * (steps - 20)
    assert governor.environment_steps == actor.result.environment_steps >= 800
    assert governor.updates == 2 * (governor.environment_steps - 20)
    assert contents(session.learner.parts.experience.online) == set(keys_of(actor.steps))
