"""Mutual TLS: what each side shows, what it asks of the other, and why a connection failed, in words.

gRPC says of most failures only that the socket was closed. So each side looks at its own files before it starts, and an
actor that cannot connect asks the learner once more through Python's `ssl`, which names the reason.
"""

from __future__ import annotations

import datetime as dt
import logging
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from hilserl.errors import TransportError
from hilserl.files import CERTIFICATES_VARIABLE, certificates_folder
from hilserl.link.auth import require_private
from hilserl.link.certificates import (
    Role,
    files_of,
    names_of,
    problem_of,
    read_certificate,
    read_key,
    role_of,
)

logger = logging.getLogger(__name__)

_WARN_BEFORE = dt.timedelta(days=30)
_PROBE_TIMEOUT_S = 3.0
_CREATE = "`hilserl certificates create`"
_NOBODY = "neither learner nor actor"


@dataclass(frozen=True)
class Identity:
    """What one side of the link proves itself with.

    Attributes:
        role: `learner` or `actor`.
        host: Name of the robot host; empty for a learner.
        names: Names and addresses that it vouches for; none for an actor.
        certificate: Its file.
        key: Its private key's file.
        authority: The authority's file.
    """

    role: Role
    host: str
    names: tuple[str, ...]
    certificate: Path
    key: Path
    authority: Path

    @property
    def pems(self) -> tuple[bytes, bytes, bytes]:
        """Authority, key and certificate, as gRPC takes them."""
        return self.authority.read_bytes(), self.key.read_bytes(), self.certificate.read_bytes()


def load_identity(role: Role, folder: Path | None = None) -> Identity:
    """Find and check this host's certificate; warns of one that expires soon.

    Args:
        role: Which side this is.
        folder: Of the certificates; None: `certificates_folder()`.

    Raises:
        TransportError: One is missing, damaged, readable by others, expired, not yet valid, of another authority or another role.
    """
    folder = _folder_of(role, folder or certificates_folder())
    file, key_file, authority_file = files_of(folder, role)
    certificate, authority = read_certificate(file), read_certificate(authority_file)
    try:
        require_private(key_file, "private key")
    except FileNotFoundError:
        raise TransportError(f"{key_file}: the key of {file.name} is missing. Copy it here too, or use {_CREATE} --force.") from None
    found, host = role_of(certificate)
    if found != role:
        raise TransportError(f"{file} is the certificate of {found or _NOBODY}, not of the {role}. Put the right one there.")
    if _public(read_key(key_file).public_key()) != _public(certificate.public_key()):
        raise TransportError(f"{key_file} is not the key of {file.name}. Copy both again, or make new ones with {_CREATE} --force.")
    for path, checked in ((authority_file, authority), (file, certificate)):
        if problem := problem_of(checked, authority):
            raise TransportError(f"{path}: this certificate is of no use: {problem}. {_remedy(problem, role, host)}")
        left = checked.not_valid_after_utc - dt.datetime.now(dt.UTC)
        if left < _WARN_BEFORE:
            logger.warning("%s: this certificate expires in %d days. %s", path, left.days, _remedy("it expired", role, host))
    return Identity(role, host, names_of(certificate), file, key_file, authority_file)


def require_name(identity: Identity, name: str) -> None:
    """Refuse to go by a name that this learner's certificate does not vouch for: no actor would connect.

    Raises:
        TransportError: It does not; lists those that it does vouch for.
    """
    if name.lower() not in identity.names:
        raise TransportError(
            f"{identity.certificate}: this certificate is for {', '.join(identity.names)}, and actors are told to connect to `{name}`. "
            f"Use {_CREATE} --learner {name}, or set `link.advertise` to one of those names."
        )


def server_credentials(identity: Identity) -> grpc.ServerCredentials:
    """Return credentials that let in who shows a certificate of the same authority."""
    authority, key, certificate = identity.pems
    return grpc.ssl_server_credentials(((key, certificate),), authority, require_client_auth=True)


def channel_credentials(identity: Identity) -> grpc.ChannelCredentials:
    """Return credentials for connecting to a learner of the same authority."""
    authority, key, certificate = identity.pems
    return grpc.ssl_channel_credentials(authority, key, certificate)


def host_of(peer: Mapping[str, Sequence[bytes]]) -> str:
    """Return the robot host of a connected actor.

    Args:
        peer: `auth_context()` of its call.

    Raises:
        TransportError: Its certificate is not an actor's.
    """
    certificates = peer.get("x509_pem_cert", ())
    role, host = role_of(x509.load_pem_x509_certificate(certificates[0])) if len(certificates) == 1 else ("", "")
    if role != "actor" or not host:
        raise TransportError(f"its certificate is that of {role or _NOBODY}, not of an actor")
    return host


def explain(address: str, identity: Identity) -> str:
    """Say why an actor cannot connect; empty where its and the learner's certificates are not the reason."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(identity.authority)
    context.load_cert_chain(identity.certificate, identity.key)
    context.set_alpn_protocols(["h2"])
    refused = (
        f"the learner does not accept {identity.certificate}. It has another authority (copy this host's folder from the "
        "learner's certificates again; if those were made anew, start the learner again), or its clock is wrong"
    )
    try:
        plain = socket.create_connection((host, int(port)), _PROBE_TIMEOUT_S)
        with plain, context.wrap_socket(plain, server_hostname=host) as probe:
            # With TLS 1.3 the other side judges our certificate only now: it goes on with HTTP/2, or hangs up.
            return "" if _said_something(probe) else refused
    except ssl.SSLCertVerificationError as error:
        return _REASONS.get(error.verify_code, f"the learner's certificate is refused: {error.verify_message}").format(
            address=address, host=host, ca=identity.authority, create=_CREATE
        )
    except ssl.SSLError as error:
        if (error.reason or "") in _NO_TLS:
            return f"what listens at {address} does not speak TLS. Set `link.tls: true` on the learner too, or check the address"
        return refused if "ALERT" in (error.reason or "") else f"TLS with {address} fails: {error}"
    except OSError:
        return ""  # nobody listens, or the network is down: gRPC says that itself


def _said_something(probe: ssl.SSLSocket) -> bool:
    try:
        return bool(probe.recv(1))
    except TimeoutError:
        return True
    except (ConnectionError, ssl.SSLError):
        return False


# OpenSSL's X509_V_ERR_* (openssl/x509_vfy.h): what the learner's certificate lacks.
_REASONS = {
    9: "the learner's certificate is not valid yet. Set the clocks of both hosts",
    10: "the learner's certificate has expired. Use {create} --force on its host and start it again; or this host's clock is wrong",
    18: "the learner's certificate is not of the authority in {ca}. Copy this host's folder from the learner's certificates again",
    19: "the learner's certificate is not of the authority in {ca}. Copy this host's folder from the learner's certificates again",
    20: "the learner's certificate is not of the authority in {ca}. Copy this host's folder from the learner's certificates again",
    26: "what listens at {address} shows an actor's certificate, not a learner's",
    62: "the learner's certificate is not for `{host}`. Use {create} --learner {host} on its host and start it again",
    64: "the learner's certificate is not for {host}. Use {create} --learner {host} on its host and start it again",
}
_NO_TLS = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")


def _folder_of(role: Role, folder: Path) -> Path:
    """Return where this host's certificate is: in `folder`, or, where learner and robot share a machine, in the only host's folder."""
    if role == "learner" or files_of(folder, role)[0].exists():
        return folder
    hosts = sorted(file.parent for file in folder.glob("*/actor.pem"))
    if len(hosts) == 1:
        return hosts[0]
    if hosts:
        raise TransportError(
            f"{folder} holds the certificates of several robot hosts: {', '.join(host.name for host in hosts)}. "
            f"Set {CERTIFICATES_VARIABLE} to the folder of this one, such as {hosts[0]}."
        )
    return folder


def _remedy(problem: str, role: Role, host: str) -> str:
    if "clock" in problem:
        return "Set this host's clock."
    if "expired" in problem:
        names = f"--robot-host {host} --force, and copy its folder here" if role == "actor" else "--force"
        return f"Use {_CREATE} {names}; where the authority expires, with `--new-ca`, for every host."
    return f"Copy the whole folder of this host again; all files of it must come from one {_CREATE}."


def _public(key: object) -> bytes:
    encoding, kind = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(encoding, kind)  # type: ignore[attr-defined]
