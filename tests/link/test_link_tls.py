"""Mutual TLS between a real server and real clients: who gets in, who does not, and what each is told."""

import dataclasses
import datetime as dt
import logging
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from link_peer import Peer
from link_testing import HANDSHAKE, TOKEN, assert_same, make_client, make_server, make_step, receive, wait_until

from hilserl.config.models import LinkConfig
from hilserl.errors import TransportError
from hilserl.link import LinkServer, certificates, link_pb2, watch
from hilserl.link import client as client_module
from hilserl.link.certificates import create_certificates
from hilserl.link.tls import channel_credentials, explain, load_identity, server_credentials

pytestmark = pytest.mark.failure("R18")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This machine's certificates: a learner's and one robot host's."""
    monkeypatch.setenv("HILSERL_CERTIFICATES", str(tmp_path / "c"))
    create_certificates(tmp_path / "c", ["learner.lab"], ["pi-1"])
    return tmp_path / "c"


def start(tmp_path: Path, **config: object) -> LinkServer:
    server = make_server(tmp_path, token=None, tls=True, **config)
    try:
        server.address = server.start()
    except BaseException:
        server.stop()
        raise
    return server


@pytest.fixture
def server(tmp_path: Path, folder: Path) -> Iterator[LinkServer]:
    with start(tmp_path) as server:
        yield server


def actor(tmp_path: Path, address: str, **options: object):
    return make_client(tmp_path, address, **{"token": None, "tls": True, **options})


def test_records_and_status_cross_without_a_token(server: LinkServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hilserl.link")
    with actor(tmp_path, server.address) as client:
        client.connect(10)
        for number in range(20):
            client.send_step(make_step(number))
        client.flush(10)
        for number, record in enumerate(receive(server, 20)):
            assert_same(record, make_step(number))
        assert [lease.host for lease in server._leases._live] == ["pi-1"]
    assert "Actor `actor-1` connected on robot `arm-1`, from pi-1." in caplog.text


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_the_learner_is_checked_by_the_name_it_is_reached_under(server: LinkServer, tmp_path: Path, host: str) -> None:
    with actor(tmp_path, server.address.replace("127.0.0.1", host)) as client:
        client.connect(10)


def test_a_learner_under_a_name_that_its_certificate_lacks_is_left(tmp_path: Path, folder: Path) -> None:
    with start(tmp_path, host="0.0.0.0", advertise="localhost") as server:
        elsewhere = server.address.replace("localhost", "127.0.0.2")
        with (
            actor(tmp_path, elsewhere) as client,
            pytest.raises(TransportError, match=r"is not for 127.0.0.2. Use `hilserl certificates create` --learner 127.0.0.2"),
        ):
            client.connect(10)
        assert server.live_actors() == []


def raw_call(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.StatusCode:
    """Ask for the status with somebody else's means."""
    peer = Peer(address, tls=credentials)
    try:
        peer.stub.GetStatus(link_pb2.StatusRequest(), timeout=5)
    except grpc.RpcError as error:
        return error.code()
    finally:
        peer.close()
    return grpc.StatusCode.OK


@pytest.fixture
def strangers(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, grpc.ChannelCredentials | None]:
    """By what is wrong with them: credentials of peers that must not get in."""
    other = tmp_path / "other"
    create_certificates(other, ["learner.lab"], ["pi-1"])
    good, theirs = load_identity("actor", folder), load_identity("actor", other)
    learner = load_identity("learner", folder)
    with monkeypatch.context() as patch:
        patch.setattr(certificates, "_now", lambda: dt.datetime.now(dt.UTC) - dt.timedelta(days=800))
        create_certificates(folder, [], ["expired"], force=True)
        patch.setattr(certificates, "_now", lambda: dt.datetime.now(dt.UTC) + dt.timedelta(days=40))
        create_certificates(folder, [], ["early"], force=True)
    create_certificates(folder, [], [], force=True)  # the learner's is of today again
    certificate = {name: folder / name / "actor.pem" for name in ("expired", "early")}
    key = {name: folder / name / "actor.key" for name in ("expired", "early")}
    return {
        "good": channel_credentials(good),
        "another authority's": channel_credentials(dataclasses.replace(theirs, authority=good.authority)),
        "the learner's own": channel_credentials(dataclasses.replace(learner, authority=good.authority)),
        "an expired one": channel_credentials(dataclasses.replace(good, certificate=certificate["expired"], key=key["expired"])),
        "one of the future": channel_credentials(dataclasses.replace(good, certificate=certificate["early"], key=key["early"])),
        "none": grpc.ssl_channel_credentials(good.authority.read_bytes()),
        "no TLS": None,
    }


def test_only_an_actor_of_this_authority_gets_in_and_the_others_are_logged(
    strangers: dict[str, grpc.ChannelCredentials | None], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_LOOK_EVERY_S", 0.1)
    (tmp_path / "c" / "early").rename(tmp_path / "early")
    (tmp_path / "c" / "expired").rename(tmp_path / "expired")
    with start(tmp_path) as server, actor(tmp_path, server.address) as honest:
        honest.connect(10)
        session = honest._session
        answers = {name: raw_call(server.address, credentials) for name, credentials in strangers.items()}
        assert answers.pop("good") is grpc.StatusCode.OK
        assert set(answers.values()) == {grpc.StatusCode.UNAVAILABLE}, answers
        wait_until(lambda: "connections proved nothing" in caplog.text)
        honest.send_step(make_step(0))
        honest.flush(10)
        assert honest._session is session


def test_an_actor_with_a_certificate_of_another_authority_is_told(
    server: LinkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_certificates(tmp_path / "other", ["learner.lab"], ["pi-1"])
    monkeypatch.setenv("HILSERL_CERTIFICATES", str(tmp_path / "other"))
    with actor(tmp_path, server.address) as client, pytest.raises(TransportError, match="is not of the authority in"):
        client.connect(10)


def test_an_actor_that_the_learner_does_not_accept_is_told(server: LinkServer, folder: Path, tmp_path: Path) -> None:
    """It knows the learner's authority, and its own certificate is of an older one."""
    create_certificates(tmp_path / "other", ["learner.lab"], ["pi-1"])
    identity = dataclasses.replace(load_identity("actor", tmp_path / "other"), authority=folder / "ca.pem")
    assert "the learner does not accept" in explain(server.address, identity)
    assert explain(server.address, load_identity("actor", folder)) == ""


def serve(credentials: grpc.ServerCredentials | None) -> tuple[grpc.Server, str]:
    """Listen as somebody who is not a learner."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_secure_port("127.0.0.1:0", credentials) if credentials else server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ("actor", "shows an actor's certificate, not a learner's"),
        ("expired", "the learner's certificate has expired"),
        ("early", "not valid yet. Set the clocks"),
        ("plain", r"does not speak TLS. Set `link.tls: true` on the learner too"),
        ("other", "is not of the authority in"),
    ],
)
def test_an_actor_stays_away_from_who_is_not_its_learner(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str, words: str
) -> None:
    mine = load_identity("actor", folder)
    learner = load_identity("learner", folder)
    if who == "actor":
        shown = mine
    elif who == "other":
        create_certificates(tmp_path / "other", ["learner.lab"], [])
        shown = load_identity("learner", tmp_path / "other")
    else:
        shift = {"expired": -800, "early": 40}.get(who, 0)
        with monkeypatch.context() as patch:
            patch.setattr(certificates, "_now", lambda: dt.datetime.now(dt.UTC) + dt.timedelta(days=shift))
            create_certificates(folder, [], [], force=True)
        shown = learner
    impostor, address = serve(None if who == "plain" else server_credentials(shown))
    with actor(tmp_path, address) as client, pytest.raises(TransportError, match=words):
        client.connect(10)
    impostor.stop(0).wait()


def test_after_the_first_welcome_a_wrong_learner_is_waited_out(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An impostor on the port of a learner that died must not end an actor whose journal is full of steps."""
    monkeypatch.setattr(client_module, "_REPORT_EVERY_S", 0.3)
    first = start(tmp_path)
    address, port = first.address, int(first.address.rpartition(":")[2])
    with actor(tmp_path, address) as client:
        client.connect(10)
        first.stop()
        impostor = grpc.server(futures.ThreadPoolExecutor(1))
        impostor.add_secure_port(address, server_credentials(load_identity("actor", folder)))
        impostor.start()
        client.send_step(make_step(0))
        wait_until(lambda: "shows an actor's certificate" in caplog.text, 20)
        impostor.stop(0).wait()
        with start(tmp_path, port=port) as second:
            client.flush(20)
            assert len(receive(second, 1)) == 1


# ------------------------------------------------------------------------ where the learner listens


def test_with_tls_every_address_may_be_bound_and_the_certified_one_is_told(tmp_path: Path, folder: Path) -> None:
    with start(tmp_path, host="0.0.0.0", advertise="localhost") as server:
        assert server.address.startswith("localhost:")
        with actor(tmp_path, server.address) as client:
            client.connect(10)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"host": "0.0.0.0"}, r"every address of this machine. Set `link.advertise` to the one that robot hosts connect to"),
        ({"host": "::"}, r"every address of this machine"),
        ({"advertise": "elsewhere.lab"}, r"is for learner.lab, .*--learner elsewhere.lab"),
        ({"host": "127.0.0.3"}, r"told to connect to `127.0.0.3`"),
    ],
)
def test_an_address_that_no_actor_could_use_is_refused(tmp_path: Path, folder: Path, config: dict, words: str) -> None:
    with pytest.raises(TransportError, match=words):
        start(tmp_path, **config)


def test_a_learner_without_certificates_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HILSERL_CERTIFICATES", str(tmp_path / "none"))
    with pytest.raises(TransportError, match=r"learner.pem: there is no such certificate. `hilserl certificates create`"):
        LinkServer(LinkConfig(tls=True), handshake=HANDSHAKE, journal_folder=tmp_path)
    with pytest.raises(TransportError, match=r"actor.pem: there is no such certificate"):
        actor(tmp_path, "127.0.0.1:1")


def test_without_tls_a_token_is_needed(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="The learner's link: a link token has"):
        LinkServer(LinkConfig(), handshake=HANDSHAKE, journal_folder=tmp_path)
    with pytest.raises(TransportError, match="The actor's link: a link token has"):
        make_client(tmp_path, "127.0.0.1:1", token=None)


def test_another_host_cannot_take_over_a_live_actor_with_its_journals_name(server: LinkServer, folder: Path, tmp_path: Path) -> None:
    create_certificates(folder, [], ["pi-2"])
    own = Peer(server.address, tls=channel_credentials(load_identity("actor", folder / "pi-1"))).hello()
    own.answer()
    thief = Peer(server.address, tls=channel_credentials(load_identity("actor", folder / "pi-2"))).hello()
    code, details = thief.refusal()
    assert code is grpc.StatusCode.ALREADY_EXISTS and "from pi-1 holds robot" in details
    own.say(heartbeat=link_pb2.Heartbeat())
    own.answer()
    own.close()
    thief.close()


def test_a_token_does_not_open_a_door_of_certificates(server: LinkServer, folder: Path) -> None:
    authority = (folder / "ca.pem").read_bytes()
    peer = Peer(server.address, TOKEN, tls=grpc.ssl_channel_credentials(authority)).hello()
    assert peer.refusal()[0] is grpc.StatusCode.UNAVAILABLE
    peer.close()
