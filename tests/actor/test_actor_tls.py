"""The actor's process with `link.tls`: certificates from their folder, no token anywhere, every step of the run's schema."""

import pytest

from hilserl.actor.run import run_actor
from hilserl.config.models import LinkConfig
from hilserl.data.preprocess import Preprocessor
from hilserl.errors import TransportError
from hilserl.files import certificates_folder
from hilserl.link import Handshake, LinkServer
from hilserl.link.certificates import create_certificates
from hilserl.link.messages import LearnerStatus, Weights
from hilserl.policy import Policy, PolicyArchitecture
from hilserl.schema import policy_schema


@pytest.mark.failure("R18")
def test_an_actor_proves_itself_by_its_certificate_alone(own_home, tiny_config, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("HILSERL_LINK_TOKEN", raising=False)
    create_certificates(certificates_folder(), ["learner.lab"], [tiny_config.robot.host])
    config = tiny_config.model_copy(update={"link": LinkConfig(tls=True, compression="deflate", keep_journals=True)})
    policy = Policy(PolicyArchitecture.from_config(config), Preprocessor.from_config(config))
    handshake = Handshake("run-1", policy.schema_hash, policy.architecture_hash)
    with LinkServer(config.link, handshake=handshake, schema=policy_schema(config), journal_folder=tmp_path / "learner") as server:
        server.publish_weights(Weights.create(1, {name: tensor.numpy() for name, tensor in policy.tensors().items()}))
        server.set_status(LearnerStatus(phase="training"))
        options = {"address": server.start(), "token": None, "run_id": "run-1", "journal_folder": tmp_path / "actor"}
        received = []

        def enough() -> str | None:
            received.extend(server.poll(0))
            server.set_status(LearnerStatus(phase="training", environment_steps=len(received)))
            return "enough" if len(received) >= 30 else None

        result = run_actor(config, **options, should_stop=enough)
        received += server.poll(0.2)
        assert result.reason == "enough" and len(received) >= result.environment_steps >= 30
        kept = list((tmp_path / "actor").rglob("*.journal"))
        assert sum(file.stat().st_size for file in kept) > 0  # `keep_journals`

        monkeypatch.setenv("HILSERL_CERTIFICATES", str(tmp_path / "none"))
        with pytest.raises(TransportError, match=r"actor\.pem: there is no such certificate"):
            run_actor(config, **options)
