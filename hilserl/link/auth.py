"""The token that lets an actor in.

It lives in a file that only its owner can read, or in the environment; never in the
configuration, a log or MLflow.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

import grpc

from hilserl.errors import TransportError
from hilserl.files import disk_error, fsync_directory

TOKEN_VARIABLE = "HILSERL_LINK_TOKEN"
METADATA_KEY = "authorization"
_TOKEN = re.compile(r"[\x21-\x7e]{16,512}")


def create_token(file: Path) -> str:
    """Write a new random token to `file`, readable by its owner only, and return it."""
    token = secrets.token_urlsafe(32)
    write_secret(file, f"{token}\n".encode())
    return token


def write_secret(file: Path, content: bytes) -> None:
    """Replace `file` by `content`, atomically; nobody else can read it at any moment.

    Raises:
        CacheError: The disk is full.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(descriptor)
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise disk_error(error, file.parent) from error
    fsync_directory(file.parent)


def require_private(file: Path, what: str) -> None:
    """Refuse a secret that other users of this machine can read.

    Raises:
        TransportError: They can; names the remedy.
        FileNotFoundError: There is no such file.
    """
    mode = file.stat().st_mode
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise TransportError(f"{file}: other users can read the {what} (mode {stat.S_IMODE(mode):o}). Run `chmod 600 {file}`.")


def read_token(file: Path) -> str:
    """Return the token from `HILSERL_LINK_TOKEN` if that is set, else from `file`.

    Raises:
        TransportError: There is none, others can read the file, or it is not a token.
    """
    from_environment = os.environ.get(TOKEN_VARIABLE, "").strip()
    if from_environment:
        return check_token(from_environment, TOKEN_VARIABLE)
    try:
        require_private(file, "link token")
        content = file.read_text().strip()
    except FileNotFoundError:
        raise TransportError(
            f"{file}: there is no link token. Start the learner first (it writes one), "
            f"copy its file here, or set {TOKEN_VARIABLE} to its content."
        ) from None
    return check_token(content, str(file))


def check_token(token: str, where: str) -> str:
    """Return `token` if it can be one.

    Raises:
        TransportError: Too short to be a secret, or with characters that cannot be sent.
    """
    if not _TOKEN.fullmatch(token):
        raise TransportError(f"{where}: a link token has 16 to 512 printable characters without spaces, this one {len(token)}.")
    return token


def credentials(token: str) -> tuple[tuple[str, str], ...]:
    """Return the call metadata that carries `token`."""
    return ((METADATA_KEY, f"Bearer {token}"),)


class TokenInterceptor(grpc.ServerInterceptor):
    """Refuses every call without the token, before its first message is read.

    Args:
        token: What a call must carry.
        on_refusal: Called with the peer of each call that is refused.
    """

    def __init__(self, token: str, on_refusal: Callable[[str], None]) -> None:
        self._expected = f"Bearer {token}".encode()
        self._on_refusal = on_refusal
        self._refusal = grpc.stream_stream_rpc_method_handler(self._refuse)

    def intercept_service(self, continuation, handler_call_details):  # type: ignore[no-untyped-def]
        """Pass the call on, or answer UNAUTHENTICATED."""
        values = [value for key, value in handler_call_details.invocation_metadata if key == METADATA_KEY]
        given = values[0] if len(values) == 1 else ""
        if hmac.compare_digest(given.encode() if isinstance(given, str) else given, self._expected):
            return continuation(handler_call_details)
        return self._refusal

    def _refuse(self, requests: object, context: grpc.ServicerContext) -> None:
        self._on_refusal(context.peer())
        context.abort(
            grpc.StatusCode.UNAUTHENTICATED,
            f"wrong or missing link token. Copy the learner's token file to this host, or set {TOKEN_VARIABLE} to its content",
        )
