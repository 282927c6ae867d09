"""The server of a page on this machine, until Ctrl-C."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from hilserl.errors import ServiceError

if TYPE_CHECKING:
    from hilserl.web.guard import App

LOOPBACK = "127.0.0.1"


def serve_page(app: App, port: int, on_open: Callable[[str], None]) -> None:
    """Serve a page on loopback until Ctrl-C.

    Args:
        app: What is served.
        port: TCP port; 0 takes a free one.
        on_open: Called with the page's address once it can be opened.

    Raises:
        ServiceError: The port is taken.
    """
    import uvicorn

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError as error:
            raise ServiceError(f"Port {port} for the page is in use ({error.strerror}). Choose another one with --port.") from None
        listener.listen()
        on_open(f"http://{LOOPBACK}:{listener.getsockname()[1]}/")
        config = uvicorn.Config(app, log_level="warning", access_log=False, ws="none", timeout_graceful_shutdown=2)
        uvicorn.Server(config).run(sockets=[listener])
