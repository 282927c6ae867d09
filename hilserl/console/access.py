"""Where the console listens, and who may use it there: beyond loopback, only with TLS and a token."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hilserl.config.console import ConsoleConfig
from hilserl.errors import ServiceError, TransportError
from hilserl.files import certificates_folder, home
from hilserl.link.auth import check_token, create_token, require_private
from hilserl.link.certificates import files_of, names_of, problem_of, read_certificate, role_of

TOKEN_VARIABLE = "HILSERL_CONSOLE_TOKEN"
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class Access:
    """How a console is reached.

    Attributes:
        host: Address that it binds.
        port: Preferred port; 0: any.
        names: Names and addresses under which it is known, as a browser writes them.
        token: What a page must have; None: nobody is asked, on loopback.
        certificate: PEM file; None: no TLS, on loopback.
        key: Its private key.
    """

    host: str
    port: int
    names: tuple[str, ...] = LOOPBACK_NAMES
    token: str | None = None
    certificate: str | None = None
    key: str | None = None

    @classmethod
    def of(cls, config: ConsoleConfig, robot_host: str) -> Access:
        """Find certificate and token.

        Args:
            config: The console's settings.
            robot_host: Name of this host, whose folder of certificates may lie beside the learner's.

        Raises:
            ServiceError: Beyond loopback without a certificate that vouches for the address.
            TransportError: The token or the certificate is of no use.
        """
        token = configured_token()
        if _is_loopback(config.host):
            return cls(config.host, config.port, token=token)
        certificate, key, names = _certificate(config.host, robot_host)
        return cls(config.host, config.port, (*names, *LOOPBACK_NAMES), token or kept_token(), str(certificate), str(key))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable form, with the token in it."""
        return asdict(self)

    def address(self, url: str) -> str:
        """Return what a person opens: with the token, where there is one."""
        return url if self.token is None else f"{url}/?token={self.token}"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _certificate(host: str, robot_host: str) -> tuple[Path, Path, tuple[str, ...]]:
    folders = [certificates_folder(), certificates_folder() / robot_host]
    folder = next((folder for folder in folders if files_of(folder, "console")[0].is_file()), None)
    make = f"`hilserl certificates create --console {host if host not in ('0.0.0.0', '::') else 'NAME_OR_IP'}`"
    if folder is None:
        raise ServiceError(
            f"console.host is {host}, which other hosts reach, and {folders[0]} has no certificate for the console: everybody on the way "
            f"could move the arm. Make one with {make}, or leave `console.host` at 127.0.0.1."
        )
    file, key, authority = files_of(folder, "console")
    found = read_certificate(file)
    problem = problem_of(found, read_certificate(authority)) or ("" if role_of(found)[0] == "console" else "it is not the console's")
    if problem:
        raise TransportError(f"{file}: this certificate is of no use: {problem}. Make a new one with {make} --force.")
    require_private(key, "private key")
    names = names_of(found)
    if host not in (*names, "0.0.0.0", "::"):
        raise ServiceError(f"{file} is for {', '.join(names)}, and console.host is {host}. Add it with {make}.")
    return file, key, tuple(f"[{name}]" if ":" in name else name for name in names)


def configured_token() -> str | None:
    """Return the token from the environment; None where it is not set.

    Raises:
        TransportError: It is too short to be a secret.
    """
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    return check_token(token, TOKEN_VARIABLE) if token else None


def kept_token() -> str:
    """Return the token of this HILSERL_HOME; made the first time.

    Raises:
        TransportError: Others can read it.
    """
    file = home() / "console" / "token"
    if not file.exists():
        return create_token(file)
    require_private(file, "console's token")
    return check_token(file.read_text().strip(), str(file))
