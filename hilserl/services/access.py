"""Who may use a Prefect server that other hosts reach: those with the shared secret, over HTTPS.

Whoever may use Prefect's API runs code on every worker, so beyond loopback neither of them is optional.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from hilserl.errors import ServiceError
from hilserl.files import certificates_folder

AUTH_VARIABLE = "PREFECT_API_AUTH_STRING"
SERVER_AUTH_VARIABLE = "PREFECT_SERVER_API_AUTH_STRING"
CA_VARIABLE = "PREFECT_API_SSL_CERT_FILE"
_LEAST_SECRET = 16


@dataclass(frozen=True)
class ServerTls:
    """What a server shows to its clients.

    Attributes:
        certificate: The learner's certificate, PEM.
        key: Its private key.
    """

    certificate: Path
    key: Path


def auth_string() -> str | None:
    """Return `user:password` of Prefect's API from the environment; None where it is not set."""
    return os.environ.get(AUTH_VARIABLE) or os.environ.get(SERVER_AUTH_VARIABLE) or None


def auth_headers() -> dict[str, str]:
    """Return the header that proves to Prefect's API who asks; empty without a secret."""
    secret = auth_string()
    return {"Authorization": "Basic " + base64.b64encode(secret.encode()).decode()} if secret else {}


def ca_file() -> Path | None:
    """Return the authority that signed the server's certificate; None: the system's own ones."""
    given = os.environ.get(CA_VARIABLE)
    ours = certificates_folder() / "ca.pem"
    return Path(given).expanduser().resolve() if given else ours if ours.is_file() else None


def ssl_context() -> ssl.SSLContext:
    """Return how to check the certificate of a server on another host.

    Raises:
        ServiceError: The file of the authority cannot be read.
    """
    authority = ca_file()
    try:
        return ssl.create_default_context(cafile=authority)
    except (OSError, ssl.SSLError) as error:
        raise ServiceError(
            f"{authority}: is no readable certificate ({error}). Copy `ca.pem` from the learner's host, or correct {CA_VARIABLE}."
        ) from None


def access_environment(api_url: str) -> dict[str, str]:
    """Return the variables with which Prefect's own clients and server in a child process are let in."""
    secret, authority = auth_string(), ca_file()
    variables = {AUTH_VARIABLE: secret, SERVER_AUTH_VARIABLE: secret} if secret else {}
    if api_url.startswith("https:") and authority is not None:
        variables[CA_VARIABLE] = str(authority)
    return variables


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_access(host: str) -> ServerTls | None:
    """Return what a server on `host` needs to be safe; None on loopback.

    Raises:
        ServiceError: Others could use it without a secret, or read the secret on its way; or `host` is no address of its own.
    """
    if is_loopback(host):
        return None
    try:
        address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]
    except OSError as error:
        raise ServiceError(f"`--bind {host}`: this name is not known here ({error.strerror}). Give an address of this machine.") from None
    if ipaddress.ip_address(address).is_loopback or ipaddress.ip_address(address).is_unspecified:
        raise ServiceError(
            f"`--bind {host}` means {address} on this machine, which is no address that another host can use. "
            "Give the one that the robot's host reaches (`ip -br address` lists them)."
        )
    secret = auth_string() or ""
    if len(secret) < _LEAST_SECRET or ":" not in secret:
        raise ServiceError(
            f"Prefect on {host} would obey everybody who reaches it, and it runs code on every worker. Choose a secret and set it on both "
            f"hosts: `export {AUTH_VARIABLE}=hilserl:$(openssl rand -hex 24)` (user:password, {_LEAST_SECRET} characters or more)."
        )
    if os.environ.get(AUTH_VARIABLE, secret) != os.environ.get(SERVER_AUTH_VARIABLE, secret):
        raise ServiceError(f"{AUTH_VARIABLE} and {SERVER_AUTH_VARIABLE} differ: set the first only.")
    folder = certificates_folder()
    tls = ServerTls(folder / "learner.pem", folder / "learner.key")
    if missing := [file for file in (tls.certificate, tls.key, folder / "ca.pem") if not file.is_file()]:
        raise ServiceError(
            f"{missing[0]}: there is no certificate for {host}, and without one everybody on the way could read the secret. "
            f"Make it with `hilserl certificates create --learner {host} --robot-host NAME`."
        )
    return tls
