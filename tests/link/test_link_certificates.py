"""What the certificates say, that nothing is overwritten, and which of them are refused before anybody connects."""

import datetime as dt
import logging
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from commands.main import app
from hilserl.errors import TransportError
from hilserl.link import certificates as module
from hilserl.link.certificates import create_certificates, describe_certificates
from hilserl.link.tls import load_identity, require_name


def verify(folder: Path, certificate: Path, purpose: str) -> str:
    """Ask OpenSSL's own command, a second implementation."""
    command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", str(folder / "ca.pem"), str(certificate)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip().rpartition(": ")[2]


def state(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_certificates(tmp_path / "c", ["learner.lab", "10.1.2.3"], ["pi-1"])
    return tmp_path / "c"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make certificates as of another day."""

    def shift(days: int) -> None:
        monkeypatch.setattr(module, "_now", lambda: dt.datetime.now(dt.UTC) + dt.timedelta(days=days))

    return shift


@pytest.mark.failure("R18")
def test_each_certificate_serves_one_purpose(folder: Path) -> None:
    assert verify(folder, folder / "learner.pem", "sslserver") == "OK"
    assert verify(folder / "pi-1", folder / "pi-1" / "actor.pem", "sslclient") == "OK"
    assert verify(folder, folder / "learner.pem", "sslclient") != "OK"
    assert verify(folder, folder / "pi-1" / "actor.pem", "sslserver") != "OK"


def test_keys_are_for_their_owner_only_and_a_host_gets_no_other_key(folder: Path) -> None:
    keys = sorted(folder.rglob("*.key"))
    assert [str(key.relative_to(folder)) for key in keys] == ["ca.key", "learner.key", "pi-1/actor.key"]
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}
    assert sorted(file.name for file in (folder / "pi-1").iterdir()) == ["actor.key", "actor.pem", "ca.pem"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_second_create_adds_and_changes_nothing_else(folder: Path) -> None:
    before = state(folder)
    issued = create_certificates(folder, ["192.168.0.9"], ["pi-1", "pi-2"])
    assert [(one.what, one.done) for one in issued] == [("the learner", "extended"), ("pi-1", "kept"), ("pi-2", "created")]
    after = state(folder)
    assert {name for name in before if before[name] != after[name]} == {"learner.pem"}
    assert set(load_identity("learner", folder).names) == {"learner.lab", "10.1.2.3", "192.168.0.9", "localhost", "127.0.0.1", "::1"}
    assert load_identity("actor", folder / "pi-2").host == "pi-2"
    again = state(folder)
    assert {one.done for one in create_certificates(folder, ["LEARNER.lab"], ["pi-2"])} == {"kept"}
    assert state(folder) == again


def test_force_renews_what_is_named_and_not_the_authority(folder: Path) -> None:
    create_certificates(folder, [], ["pi-2"])
    before = state(folder)
    create_certificates(folder, [], ["pi-1"], force=True)
    after = state(folder)
    assert {name for name in before if before[name] != after[name]} == {"learner.pem", "learner.key", "pi-1/actor.pem", "pi-1/actor.key"}
    for each in describe_certificates(folder):
        assert not each.problem


@pytest.mark.failure("R18")
def test_a_new_authority_shuts_out_every_host_that_is_not_named(folder: Path) -> None:
    create_certificates(folder, [], ["lost"])
    create_certificates(folder, [], ["pi-1"], new_authority=True)
    found = {each.what: each for each in describe_certificates(folder)}
    assert {what for what, each in found.items() if each.problem} == {"actor lost"}
    assert "learner.lab" in found["learner"].names  # nothing to type again
    assert verify(folder, folder / "lost" / "actor.pem", "sslclient") != "OK"


@pytest.mark.parametrize("name", ["0.0.0.0", "::", "*.lab", "a b", "-x", "x" * 64, "a..b", "", "https://learner"])
def test_a_name_that_cannot_be_one_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TransportError, match="--learner is"):
        create_certificates(tmp_path, [name], [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("host", ["..", "a/b", "", "x" * 65, "ca.pem"])
def test_a_robot_host_that_cannot_be_a_folder_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(TransportError, match="--robot-host is"):
        create_certificates(tmp_path, ["learner"], [host])


def test_without_a_learner_or_without_the_authoritys_key_nothing_is_made(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="Give `--learner NAME`"):
        create_certificates(tmp_path / "new", [], ["pi-1"])
    (folder / "ca.key").unlink()
    before = state(folder)
    with pytest.raises(TransportError, match=r"ca.key, is not here.*--new-ca"):
        create_certificates(folder, [], ["pi-3"])
    assert state(folder) == before


# ---------------------------------------------------------------------- refused before connecting


def copy(source: str, target: str) -> Callable[[Path], object]:
    return lambda folder: (folder / target).write_bytes((folder / source).read_bytes())


@pytest.mark.failure("R18")
def test_a_key_that_others_can_read_is_refused(folder: Path) -> None:
    (folder / "learner.key").chmod(0o644)
    with pytest.raises(TransportError, match=r"mode 644.*Run `chmod 600"):
        load_identity("learner", folder)


@pytest.mark.parametrize(
    ("days", "words"),
    [
        (-800, r"learner.pem: this certificate is of no use: it expired on .*create` --force"),
        (-4000, r"ca.pem: this certificate is of no use: it expired on .*--new-ca"),
        (40, r"not valid before .* and this host's clock says .*Set this host's clock"),
    ],
)
def test_an_expired_one_and_a_wrong_clock_are_named(
    tmp_path: Path, clock: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, days: int, words: str
) -> None:
    clock(days)
    create_certificates(tmp_path, ["learner"], ["pi-1"])
    clock(0)
    for role, where in (("learner", tmp_path), ("actor", tmp_path / "pi-1")):
        with pytest.raises(TransportError, match=words.replace("learner.pem", f"{role}.pem").replace("--force", "")):
            load_identity(role, where)
    assert any(each.problem for each in describe_certificates(tmp_path))


def test_one_that_expires_within_a_month_is_a_warning(
    tmp_path: Path, clock: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    clock(-710)
    create_certificates(tmp_path, ["learner"], ["pi-1"])
    clock(0)
    with caplog.at_level(logging.WARNING):
        load_identity("actor", tmp_path / "pi-1")
    assert "expires in 19 days" in caplog.text and "--robot-host pi-1 --force" in caplog.text


def test_a_certificate_lives_no_longer_than_its_authority(tmp_path: Path, clock: Callable[[int], None]) -> None:
    clock(-3500)
    create_certificates(tmp_path, ["learner"], [])
    clock(0)
    create_certificates(tmp_path, [], ["pi-1"])
    authority, _, actor = describe_certificates(tmp_path)
    assert actor.expires == authority.expires


@pytest.mark.failure("R18")
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (copy("pi-1/actor.pem", "learner.pem"), "is the certificate of actor, not of the"),
        (copy("ca.pem", "learner.pem"), "neither learner nor actor"),
        (copy("ca.key", "learner.key"), "is not the key of learner.pem"),
        (copy("other/ca.pem", "ca.pem"), "it is of another authority"),
        (lambda folder: (folder / "learner.pem").write_text("-----BEGIN"), "cannot be read"),
        (lambda folder: (folder / "learner.key").write_text("-----BEGIN"), "cannot be read"),
        (lambda folder: (folder / "learner.key").unlink(), "the key of learner.pem is missing"),
        (lambda folder: (folder / "learner.pem").unlink(), "there is no such certificate. `hilserl certificates create`"),
        (lambda folder: (folder / "ca.pem").unlink(), "there is no such certificate"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(folder: Path, damage: Callable[[Path], object], words: str) -> None:
    create_certificates(folder / "other", ["learner"], [])
    damage(folder)
    with pytest.raises(TransportError, match=words):
        load_identity("learner", folder)


def test_the_actor_finds_its_certificate_also_beside_the_learners(folder: Path) -> None:
    assert load_identity("actor", folder).host == "pi-1"
    create_certificates(folder, [], ["pi-2"])
    with pytest.raises(TransportError, match=r"several robot hosts: pi-1, pi-2. Set HILSERL_CERTIFICATES to the folder"):
        load_identity("actor", folder)


def test_a_learner_goes_only_by_its_own_names(folder: Path) -> None:
    identity = load_identity("learner", folder)
    for name in ("learner.lab", "Learner.LAB", "10.1.2.3", "localhost"):
        require_name(identity, name)
    with pytest.raises(TransportError, match=r"is for learner.lab, .*--learner elsewhere.lab, or set `link.advertise`"):
        require_name(identity, "elsewhere.lab")


# ------------------------------------------------------------------------------------ the command


def test_the_command_makes_and_shows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HILSERL_HOME", str(tmp_path))
    monkeypatch.delenv("HILSERL_CERTIFICATES", raising=False)
    made = CliRunner().invoke(app, ["certificates", "create", "--learner", "learner.lab", "--robot-host", "pi-1"])
    assert made.exit_code == 0 and f"{tmp_path}/certificates/pi-1/." in made.output
    shown = CliRunner().invoke(app, ["certificates", "show"])
    assert shown.exit_code == 0
    for text in ("authority", "learner, for learner.lab, localhost", "actor pi-1", "SHA-256", "in 729 days"):
        assert text in shown.output
    CliRunner().invoke(app, ["certificates", "create", "--new-ca"])
    shown = CliRunner().invoke(app, ["certificates", "show"])
    assert shown.exit_code == 1 and "OF NO USE: it is of another authority" in shown.output
    monkeypatch.setenv("HILSERL_CERTIFICATES", str(tmp_path / "elsewhere"))
    nothing = CliRunner().invoke(app, ["certificates", "show"])
    assert isinstance(nothing.exception, TransportError) and "there are no certificates" in str(nothing.exception)
