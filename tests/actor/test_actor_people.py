"""A person beside the actor's loop: what they do is stored as executed, and what they say ends the episode."""

import numpy as np
import pytest
from pipeline_testing import make_tiny_config

from hilserl.actor import run
from hilserl.data.preprocess import Preprocessor
from hilserl.link import Handshake, LinkServer
from hilserl.link.messages import EpisodeReport, Step, Weights
from hilserl.policy import Policy, PolicyArchitecture
from hilserl.teleop.events import NO_EVENTS, TeleopEvent

TOKEN = "a-token-for-tests-only"


class ScriptedPerson:
    """Acts in some steps of each episode, far beyond what is allowed, and says something in one."""

    def __init__(self, acts: set[int], says: dict[int, TeleopEvent]) -> None:
        self.acts, self.says = acts, says
        self.step = -1
        self.closed = self.episodes = 0

    def reset(self) -> None:
        self.step, self.episodes = -1, self.episodes + 1

    def intervene(self) -> np.ndarray | None:
        self.step += 1
        return np.full(3, 5.0, np.float32) if self.step in self.acts else None

    def events(self) -> frozenset[TeleopEvent]:
        said = self.says.get(self.step)
        return NO_EVENTS if said is None else frozenset({said})

    def observe_outcome(self, success: bool) -> None:
        self.success = success

    def close(self) -> None:
        self.closed += 1


def play(person: ScriptedPerson, tmp_path, monkeypatch) -> tuple[list[Step], list[EpisodeReport]]:
    """Play three episodes."""
    config = make_tiny_config(actor__evaluate_every_steps=0, task__control_time_s=2, learner__max_owed_updates=10_000)
    policy = Policy(PolicyArchitecture.from_config(config), Preprocessor.from_config(config))
    monkeypatch.setattr(run, "make_human", lambda config, environment: person)
    handshake = Handshake("run-1", policy.schema_hash, policy.architecture_hash)
    with LinkServer(config.link, token=TOKEN, handshake=handshake, journal_folder=tmp_path / "learner") as server:
        server.publish_weights(Weights.create(1, {name: tensor.numpy() for name, tensor in policy.tensors().items()}))
        run.run_actor(
            config,
            address=server.start(),
            token=TOKEN,
            run_id="run-1",
            journal_folder=tmp_path / "actor",
            should_stop=lambda: "enough" if person.episodes >= 3 else None,
        )
        records = [received.record for received in server.poll(5.0)]
    assert person.closed == 1  # whatever happens, the device is let go
    return [one for one in records if isinstance(one, Step)], [one for one in records if isinstance(one, EpisodeReport)]


@pytest.mark.failure("R06")
def test_what_is_stored_of_an_intervention_is_what_was_executed(own_home, tmp_path, monkeypatch) -> None:
    steps, reports = play(ScriptedPerson({1, 2}, {5: TeleopEvent.SUCCESS}), tmp_path, monkeypatch)
    assert [step.is_intervention for step in steps[:6]] == [False, True, True, False, False, False]
    assert all(np.abs(step.action).max() <= 1.0 for step in steps)
    assert reports[0].intervention_steps == 2


@pytest.mark.parametrize(
    ("event", "reward", "terminated", "truncated", "success"),
    [
        (TeleopEvent.SUCCESS, 1.0, True, False, True),
        (TeleopEvent.FAILURE, 0.0, True, False, False),
        (TeleopEvent.TERMINATE_EPISODE, 0.0, True, False, False),
        (TeleopEvent.RERECORD_EPISODE, 0.0, False, True, False),
    ],
)
def test_what_a_person_says_ends_the_episode(own_home, tmp_path, monkeypatch, event, reward, terminated, truncated, success) -> None:
    person = ScriptedPerson(set(), {4: event})
    steps, reports = play(person, tmp_path, monkeypatch)
    last = steps[4]
    assert (last.step, last.reward, last.terminated, last.truncated) == (4, reward, terminated, truncated)
    assert last.final_observation is not None
    assert (reports[0].length, reports[0].is_success) == (5, success)
    assert person.success == success
    assert (steps[5].episode, steps[5].step) == (steps[4].episode + 1, 0)


def test_a_frame_on_which_person_and_classifier_disagree_is_kept(own_home, tmp_path, monkeypatch) -> None:
    """The classifier never sees success; the person says there is one, in the fifth step of each episode."""
    from hilserl.data.preprocess import CameraView
    from hilserl.environments.judged import ClassifierJudge, JudgedEnvironment, unjudged
    from hilserl.reward.classifier import SuccessClassifier
    from hilserl.reward.disagreements import Disagreements
    from hilserl.reward.network import SuccessNetwork
    from hilserl.sim.env import So101Env

    view = CameraView((84, 84), (0, 0, 84, 84), (32, 32))
    network = SuccessNetwork({"wrist": (32, 32)}, channels=8, hidden=8)
    classifier = SuccessClassifier(network, {"wrist": view}, threshold=0.999999, hold_frames=1, training={})
    store = Disagreements(tmp_path / "kept")

    def make(config):
        judge = ClassifierJudge(classifier, config)
        return JudgedEnvironment(So101Env(unjudged(config, judge)), config, judge, store)

    monkeypatch.setattr(run, "make_environment", make)
    steps, _ = play(ScriptedPerson(set(), {4: TeleopEvent.SUCCESS}), tmp_path, monkeypatch)
    assert steps[4].terminated and steps[4].reward == 1.0
    said = [entry for entry in store.entries() if not entry.is_truth]
    assert [(entry.episode, entry.step) for entry in said] == [(step.episode, 4) for step in steps if step.terminated]
    assert all(entry.human_says and entry.image("wrist").shape == (84, 84, 3) for entry in said)
