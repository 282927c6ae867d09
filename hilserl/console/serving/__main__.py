"""Run the console's process: `python -m hilserl.console.serving DESCRIPTOR` with the socket to the actor."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import select
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import uvicorn

from hilserl.console.access import Access
from hilserl.console.serving.app import Door, make_app
from hilserl.console.serving.hub import Hub
from hilserl.console.serving.viewer import LONGEST_MESSAGE
from hilserl.console.wire import Wire
from hilserl.files import home, write_json

_FACTS_S = 30.0
_PORTS = 20
_PING_S = 2.0


def main(descriptor: int) -> int:
    """Serve until the actor has gone."""
    wire = Wire(socket.socket(fileno=descriptor))
    if not select.select([wire], [], [], _FACTS_S)[0] or (message := wire.receive()) is None:
        return 1  # the actor has gone
    return asyncio.run(serve(message["facts"], wire))


async def serve(facts: dict[str, Any], wire: Wire) -> int:
    """Serve the pages of one actor."""
    access = Access(**{**facts["access"], "names": tuple(facts["access"]["names"])})
    listener = bind(access.host, access.port)
    port = listener.getsockname()[1]
    hub = Hub(facts, wire, log)
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(hub, Door(access.token, port, secure=access.certificate is not None), access.names),
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="websockets-sansio",
            ws_max_size=LONGEST_MESSAGE,
            ws_max_queue=32,
            ws_ping_interval=_PING_S,
            ws_ping_timeout=_PING_S,
            ws_per_message_deflate=False,
            limit_concurrency=100,
            h11_max_incomplete_event_size=16_384,
            timeout_graceful_shutdown=2,
            ssl_certfile=access.certificate,
            ssl_keyfile=access.key,
        )
    )
    file = home() / "console" / f"{facts['hello']['robot']}.json"
    urls = addresses(access, port)
    about = {key: facts["hello"][key] for key in ("robot", "mode", "run")}
    write_json(file, about | {"url": urls[0], "pid": os.getpid(), "token": access.token is not None, "since": time.time()})
    hub.start()
    wire.send({"kind": "listening", "url": urls[0], "others": urls[1:]})
    log(f"listening at {', '.join(urls)}")
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    ended = asyncio.create_task(hub.ended.wait())
    try:
        await asyncio.wait([serving, ended], return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            await hub.finish()
        server.should_exit = True
        await serving
    finally:
        file.unlink(missing_ok=True)
        if hub.ended.is_set():
            shutil.rmtree(Path(facts["frames"]), ignore_errors=True)  # where the actor was killed, nobody else does
    return 0 if hub.ended.is_set() else 1


def bind(host: str, port: int) -> socket.socket:
    """Listen at the first free port from `port` on; at any where it is 0.

    Raises:
        OSError: None is free, or the address is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in [0] if port == 0 else range(port, min(port + _PORTS, 65_536)):
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen(128)
        except OSError as error:
            listener.close()
            last = error
            continue
        listener.setblocking(False)
        return listener
    log(f"no port is free at {host}, from {port} on: {last}. Set `console.port`, or `console.host`.")
    raise last


def addresses(access: Access, port: int) -> list[str]:
    """Return the addresses of the page, the most useful one first."""
    scheme = "http" if access.certificate is None else "https"
    loopback = {"127.0.0.1", "localhost", "[::1]", "::1"}
    names = (
        [access.host] if access.host not in ("0.0.0.0", "::") else [name for name in dict.fromkeys(access.names) if name not in loopback]
    )
    return [f"{scheme}://{f'[{name}]' if ':' in name and not name.startswith('[') else name}:{port}" for name in names or ["127.0.0.1"]]


def log(text: str) -> None:
    """Write a line into the console's log."""
    print(f"{dt.datetime.now().isoformat(timespec='milliseconds')} {text}", flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends when the actor does
    sys.exit(main(int(sys.argv[1])))
