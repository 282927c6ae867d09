"""`hilserl check-link` against a learner that listens, one that does not, and a host without what it needs."""

from pathlib import Path

import pytest

from commands.check_link import run_check_link
from hilserl.config.models import LinkConfig
from hilserl.files import certificates_folder
from hilserl.link import Handshake, LinkServer
from hilserl.link.certificates import create_certificates

HANDSHAKE = Handshake(run_id="run-1", schema_hash="schema", architecture_hash="architecture")


@pytest.fixture(autouse=True)
def clean(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_API_SSL_CERT_FILE", "HILSERL_CERTIFICATES"):
        monkeypatch.delenv(name, raising=False)


def check(**overrides: object) -> dict[str, tuple[str, str]]:
    """Return verdict and text by what was checked; without Prefect something is always wrong."""
    lines: list[str] = []
    settings = {"robot.host": "bench-1", "link.tls": True, "link.port": 50051}
    assert not run_check_link("reach_state", settings | {key.replace("__", "."): value for key, value in overrides.items()}, lines.append)
    return {line[6:19].strip(): (line[:5].strip(), line[20:]) for line in lines}


def test_a_host_without_anything_is_told_each_thing() -> None:
    found = check(link__host="no-such-name.invalid")
    assert found["certificate"][0] == "FAIL" and "hilserl certificates create" in found["certificate"][1]
    assert found["name"][0] == "FAIL" and "no-such-name.invalid" in found["name"][1]
    assert found["Prefect"][0] == "FAIL" and "PREFECT_API_URL is not set" in found["Prefect"][1]
    assert check(link__tls=False)["certificate"][1].startswith("`link.tls` is false")


def test_the_way_to_a_learner_that_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_certificates(certificates_folder(), ["learner.example"], ["bench-1"])
    with LinkServer(LinkConfig(tls=True), token=None, handshake=HANDSHAKE, journal_folder=tmp_path / "journal") as server:
        port = int(server.start().rpartition(":")[2])
        monkeypatch.setenv("HILSERL_CERTIFICATES", str(certificates_folder() / "bench-1"))
        found = check(link__port=port)
        assert [found[what][0] for what in ("certificate", "name", "learner", "TLS")] == ["ok"] * 4

        other = check(link__port=port, robot__host="bench-2")
        assert other["certificate"][0] == "note" and "that of `bench-1`, and `robot.host` is `bench-2`" in other["certificate"][1]

        create_certificates(tmp_path / "others", ["learner.example"], ["bench-1"])
        monkeypatch.setenv("HILSERL_CERTIFICATES", str(tmp_path / "others" / "bench-1"))
        strange = check(link__port=port)["TLS"]
        assert strange[0] == "FAIL" and "not of the authority" in strange[1]
    quiet = check(link__port=port)["learner"]
    assert quiet[0] == "note" and "nobody listens" in quiet[1]
