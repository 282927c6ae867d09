"""One virtual arm in this process: `python -m hilserl.virtual_arm OPTIONS_AS_JSON`; `client` writes the options."""

from __future__ import annotations

import signal
import sys

from hilserl.errors import HilserlError
from hilserl.virtual_arm.client import READY
from hilserl.virtual_arm.server import Server, ServerOptions


def main() -> None:
    """Serve until told to end. Ctrl-C reaches the whole terminal, and whoever started this says SIGTERM as well: both only ask."""
    try:
        server = Server(ServerOptions.from_json(sys.argv[1]))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: server.stop())
        print(READY, flush=True)
        server.run()
    except HilserlError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
