"""What every Prefect process of ours is told, as environment variables.

`[tool.prefect]` in pyproject.toml says the same to a person's own `prefect` commands, but only from
the project folder; a service must not depend on where it was started.
"""

from __future__ import annotations

import os
import urllib.parse
from pathlib import Path

from hilserl.errors import ServiceError
from hilserl.files import home
from hilserl.services.access import access_environment
from hilserl.telemetry import SWITCHES

_LEASES = "prefect.server.concurrency.lease_storage.filesystem"


def prefect_home() -> Path:
    """Return the folder of Prefect's database and result cache, shared by `demo` and `up`."""
    return home() / "prefect"


def project_root() -> Path:
    """Return the folder that holds `prefect.yaml`, `flows/` and `configs/`.

    It is `$HILSERL_ROOT`, else the current folder, else the checkout that this module is part of.

    Raises:
        ServiceError: None of them has a `prefect.yaml`.
    """
    given = os.environ.get("HILSERL_ROOT")
    candidates = [Path(given).expanduser()] if given else [Path.cwd(), Path(__file__).resolve().parents[2]]
    for candidate in candidates:
        if (candidate / "prefect.yaml").is_file():
            return candidate.resolve()
    raise ServiceError(
        f"No prefect.yaml in {' or '.join(map(str, candidates))}. Run this in the project folder, or set HILSERL_ROOT to it."
    )


def prefect_environment(api_url: str, folder: Path | None = None) -> dict[str, str]:
    """Return the variables that bind a process to one server and one result cache.

    Args:
        api_url: Address of the server's API.
        folder: PREFECT_HOME; None is `prefect_home()`.
    """
    return SWITCHES | {
        "HILSERL_HOME": str(home()),
        "PREFECT_HOME": str(folder or prefect_home()),
        "PREFECT_API_URL": api_url,
        **access_environment(api_url),
        "PREFECT_CLI_PROMPT": "false",
        # A restarted server keeps the slots of running actors; in memory, they die 228 s later.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": _LEASES,
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "hilserl",
        # Our loggers also speak outside of flow runs; that is no reason for a warning.
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_RUNNER_AUTO_INSTALL_DEPENDENCIES": "false",
        "NO_PROXY": _without_proxy("NO_PROXY", api_url),
        "no_proxy": _without_proxy("no_proxy", api_url),
    }


def _without_proxy(name: str, api_url: str) -> str:
    """Keep a company's proxy away from this machine's own addresses and from the server."""
    hosts = [host for host in os.environ.get(name, "").split(",") if host]
    ours = dict.fromkeys(("127.0.0.1", "localhost", urllib.parse.urlsplit(api_url).hostname or "localhost"))
    return ",".join([*hosts, *(host for host in ours if host not in hosts)])
