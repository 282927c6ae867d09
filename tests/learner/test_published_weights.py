"""What the learner publishes is its policy, bit for bit, however often; of a frozen encoder only once."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pipeline_testing import make_tiny_config

from hilserl.config.models import LinkConfig
from hilserl.errors import TrainingError
from hilserl.learner.loop import Learner
from hilserl.learner.run import build_learner
from hilserl.link import Handshake, LinkClient, LinkServer
from hilserl.runs import RunFolder

TOKEN = "a-token-for-tests-only"
HANDSHAKE = Handshake(run_id="run-1", schema_hash="schema", architecture_hash="architecture")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LinkServer]:
    with LinkServer(LinkConfig(port=0), token=TOKEN, handshake=HANDSHAKE, journal_folder=tmp_path / "journal") as server:
        yield server


@pytest.fixture
def learner(own_home: Path, tiny_buffer: Path, server: LinkServer) -> Iterator[Learner]:
    """A learner of the real parts, to which something frozen was added."""
    config = make_tiny_config()
    run, _ = RunFolder.open(config)
    built = build_learner(config, run, server, offline_buffer=tiny_buffer, encoders=None, metrics=None, supervise=lambda view: None)
    torch.manual_seed(0)
    learner = Learner(replace(built.parts, frozen_tensors={f"vision.{camera}": torch.randn(70, 30) for camera in ("front", "wrist")}))
    yield learner
    built.close()


def change(learner: Learner) -> None:
    """Do what an update does, as far as the link is concerned."""
    with torch.no_grad():
        for parameter in learner.parts.agent.actor.parameters():
            parameter.add_(torch.randn_like(parameter))
    learner.parts.governor.updates += 1


@pytest.mark.failure("L18")
def test_the_actor_has_the_learners_policy_after_every_push(
    learner: Learner, server: LinkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hilserl.link.client._HEARTBEAT_S", 0.05)
    learner.announce()
    frozen_payload = server._board.weights.frozen_payload
    assert len(frozen_payload) > 2 * 4 * 70 * 30
    options = {"token": TOKEN, "actor_id": "a", "robot_id": "r", "handshake": HANDSHAKE, "journal_folder": tmp_path / "actor"}
    with LinkClient(server.start(), **options) as client:
        client.connect(5)
        for _ in range(5):
            weights = client.wait_for_weights(5)
            policy = learner._copy_policy()
            assert weights.version == learner.weights_version_now()
            assert weights.tensors.keys() == policy.keys()
            for name, tensor in policy.items():
                np.testing.assert_array_equal(weights.tensors[name], tensor.numpy())
            assert weights.frozen.tensors.keys() == learner.parts.frozen_tensors.keys()
            change(learner)
            learner._publish_weights()
        assert server._board.weights.frozen_payload is frozen_payload  # encoded once
        assert len(server._board.weights.payload) < sum(t.nbytes for t in learner._copy_trained().values()) + 10_000


def test_the_best_policy_is_kept_with_its_frozen_part(learner: Learner) -> None:
    learner.announce()
    learner.best.hold(learner.weights_version_now())
    (kept,) = learner.best._evaluated.values()
    assert kept.keys() == learner._copy_policy().keys()


@pytest.mark.parametrize("part", ["trained", "frozen"])
def test_numbers_that_are_not_finite_are_not_published(learner: Learner, server: LinkServer, part: str) -> None:
    tensors = learner.parts.frozen_tensors if part == "frozen" else learner.parts.agent.policy_tensors()
    with torch.no_grad():
        list(tensors.values())[-1].fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite after 0 updates"):
        learner.announce()
    assert server._board.weights.version == 0
