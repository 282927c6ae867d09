"""Who may use a Prefect server beyond loopback: real certificates, real HTTPS; no Prefect."""

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from hilserl.errors import ServiceAwayError, ServiceError, ServiceRefusedError
from hilserl.files import certificates_folder
from hilserl.link.certificates import create_certificates
from hilserl.services import access, rest
from hilserl.services.environment import prefect_environment
from hilserl.services.prefect_server import PrefectServer
from hilserl.services.robot_worker import require_actor, server_url
from hilserl.services.up import run_up

SECRET = "hilserl:0123456789abcdef"
ELSEWHERE = "192.0.2.1"  # an address of nobody's (RFC 5737)


@pytest.fixture(autouse=True)
def clean(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (access.AUTH_VARIABLE, access.SERVER_AUTH_VARIABLE, access.CA_VARIABLE, "HILSERL_CERTIFICATES", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(access.AUTH_VARIABLE, SECRET)


class Api(BaseHTTPRequestHandler):
    """Answers like Prefect's API with an authentication string, with one deployment."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        expected = "Basic " + base64.b64encode(SECRET.encode()).decode()
        is_known = self.headers.get("Authorization") == expected
        self.send_response(200 if is_known else 401)
        self.end_headers()
        self.wfile.write(json.dumps([{"name": "bench-1"}] if is_known else {"exception_message": "Unauthorized"}).encode())

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, *arguments: object) -> None:
        """Be quiet."""


@pytest.fixture
def api(own_home: Path) -> Iterator[str]:
    """Serve over HTTPS with the learner's certificate."""
    create_certificates(certificates_folder(), [ELSEWHERE], ["bench-1"])
    server = HTTPServer(("127.0.0.1", 0), Api)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates_folder() / "learner.pem", certificates_folder() / "learner.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda request, address: None  # a client that does not trust us hangs up
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}/api"
    server.shutdown()
    thread.join()
    server.server_close()


def test_loopback_needs_nothing() -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        assert access.require_access(host) is None
    assert PrefectServer(4200).api_url == "http://127.0.0.1:4200/api"


@pytest.mark.failure("R18")
def test_beyond_loopback_needs_a_secret_and_a_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServiceError, match=r"would obey everybody.*export PREFECT_API_AUTH_STRING"):
        run_up(bind=ELSEWHERE)
    for weak in ("hilserl:short", "no-colon-but-long-enough"):
        monkeypatch.setenv(access.AUTH_VARIABLE, weak)
        with pytest.raises(ServiceError, match="would obey everybody"):
            run_up(bind=ELSEWHERE)
    monkeypatch.setenv(access.AUTH_VARIABLE, SECRET)
    with pytest.raises(ServiceError, match=rf"no certificate for {ELSEWHERE}.*certificates create --learner {ELSEWHERE}"):
        run_up(bind=ELSEWHERE)
    create_certificates(certificates_folder(), [ELSEWHERE], [])
    server = PrefectServer(4200, host=ELSEWHERE)
    assert server.api_url == f"https://{ELSEWHERE}:4200/api" and server.is_reachable_from_elsewhere
    monkeypatch.setenv(access.SERVER_AUTH_VARIABLE, "other:0123456789abcdef")
    with pytest.raises(ServiceError, match="differ"):
        access.require_access(ELSEWHERE)


@pytest.mark.usefixtures("secret")
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "no-such-name.invalid"])
def test_an_address_that_nobody_can_call_is_refused(host: str) -> None:
    with pytest.raises(ServiceError, match=r"another host can use|not known here"):
        access.require_access(host)


@pytest.mark.usefixtures("secret")
def test_prefect_in_a_child_process_gets_secret_and_authority(api: str) -> None:
    variables = prefect_environment(api)
    assert variables[access.AUTH_VARIABLE] == variables[access.SERVER_AUTH_VARIABLE] == SECRET
    assert variables[access.CA_VARIABLE] == str(certificates_folder() / "ca.pem")
    assert "192.0.2.1" in prefect_environment(f"https://{ELSEWHERE}:4200/api")["NO_PROXY"]
    assert access.CA_VARIABLE not in prefect_environment("http://127.0.0.1:4200/api")


@pytest.mark.failure("R18")
def test_a_server_of_another_authority_never_sees_the_secret(
    api: str, secret: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_actor(api, "bench-1")
    create_certificates(tmp_path / "others", ["localhost"], [])
    monkeypatch.setenv(access.CA_VARIABLE, str(tmp_path / "others" / "ca.pem"))
    with pytest.raises(ServiceAwayError, match="CERTIFICATE_VERIFY_FAILED"):
        rest.call("POST", f"{api}/deployments/filter", {})


def test_the_robot_host_says_what_it_lacks(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServiceError, match="PREFECT_API_URL is not set"):
        server_url()
    with pytest.raises(ServiceRefusedError, match="refused with 401") as refused:
        require_actor(api, "bench-1")
    assert refused.value.code == 401
    monkeypatch.setenv(access.AUTH_VARIABLE, SECRET)
    with pytest.raises(ServiceError, match="no actor for robot host `bench-2`; it has bench-1"):
        require_actor(api, "bench-2")


@pytest.mark.usefixtures("secret")
def test_the_secret_goes_to_prefect_only(api: str) -> None:
    with pytest.raises(ServiceRefusedError, match="401"):
        rest.call("GET", api, is_prefect=False)
    assert rest.call("GET", api) == [{"name": "bench-1"}]
