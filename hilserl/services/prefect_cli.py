"""Run one `prefect` command as soon as a file appears.

`python -m hilserl.services.prefect_cli GATE MODULES ARGUMENTS...` imports Prefect and MODULES
(comma-separated, may be empty) while the server is still starting, which takes as long again, and
runs `prefect ARGUMENTS` when somebody creates GATE.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

_POLL_S = 0.05


def main(argv: list[str]) -> None:
    """Import, wait, run; exit with the command's code."""
    gate, modules, arguments = Path(argv[0]), argv[1], argv[2:]
    for module in filter(None, modules.split(",")):
        importlib.import_module(module)
    from prefect.cli import app

    while not gate.exists():
        time.sleep(_POLL_S)
    sys.argv = ["prefect", *arguments]
    app()  # exits with the command's code


if __name__ == "__main__":
    main(sys.argv[1:])
