"""One virtual arm in this process: `python -m hilserl.virtual_arm OPTIONS_AS_JSON`; `client` writes the options."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

from hilserl.errors import HilserlError
from hilserl.virtual_arm.client import READY
from hilserl.virtual_arm.server import Server, ServerOptions


def _terminate(*_: object) -> NoReturn:
    raise SystemExit(0)


def main() -> None:
    """Serve until told to end."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        server = Server(ServerOptions.from_json(sys.argv[1]))
        print(READY, flush=True)
        server.run()
    except KeyboardInterrupt:
        pass  # Ctrl-C reaches the whole terminal; `run` has closed everything
    except HilserlError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
