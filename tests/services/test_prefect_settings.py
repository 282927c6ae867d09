"""`[tool.prefect]` and the services' environment say the same, and the environment wins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hilserl.services.environment import prefect_environment
from hilserl.services.up import DEFAULT_PREFECT_PORT

READ = """
import json, os, sys
from prefect.settings import Settings
def show():
    s = Settings()
    return {"api": s.api.url, "home": str(s.home), "storage": str(s.results.local_storage_path), "analytics": s.server.analytics_enabled,
            "leases": s.server.concurrency.lease_storage, "heartbeat": s.flows.heartbeat_frequency, "loggers": s.logging.extra_loggers,
            "missing": s.logging.to_api.when_missing_flow, "startup": s.server.ephemeral.startup_timeout_seconds}
folder = show()
os.environ.update(json.loads(sys.argv[1]))
print(json.dumps([folder, show()]))
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return what Prefect understands in the project folder: alone, and with our environment."""
    root = Path(__file__).resolve().parents[2]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "HILSERL_"))}
    clean["HOME"] = str(tmp_path_factory.mktemp("home"))  # no profile of the person who runs the tests
    ours = prefect_environment("http://127.0.0.1:4999/api", Path("/data/prefect"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", READ, json.dumps(ours)], cwd=root, env=clean, capture_output=True, text=True, check=True
    )
    answer: list[dict[str, Any]] = json.loads(done.stdout)
    return answer


def test_a_command_in_the_project_folder_finds_the_server_of_up(settings: list[dict[str, Any]]) -> None:
    assert settings[0]["api"] == f"http://127.0.0.1:{DEFAULT_PREFECT_PORT}/api"


def test_the_environment_wins_and_shares_one_result_cache(settings: list[dict[str, Any]]) -> None:
    assert settings[1]["api"] == "http://127.0.0.1:4999/api"
    assert settings[1]["home"] == "/data/prefect"
    assert settings[1]["storage"] == "/data/prefect/storage"


@pytest.mark.parametrize("name", ["analytics", "leases", "heartbeat", "loggers", "missing", "startup"])
def test_folder_and_environment_agree(settings: list[dict[str, Any]], name: str) -> None:
    assert settings[0][name] == settings[1][name]


def test_nothing_calls_home_and_leases_are_durable(settings: list[dict[str, Any]]) -> None:
    assert settings[0]["analytics"] is False
    assert settings[0]["leases"].endswith(".filesystem")


def test_a_relative_home_becomes_absolute_for_services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HILSERL_HOME", "here")
    environment = prefect_environment("http://127.0.0.1:4200/api")
    assert environment["HILSERL_HOME"] == str(tmp_path / "here")
    assert environment["PREFECT_HOME"] == str(tmp_path / "here" / "prefect")


def test_a_company_proxy_is_kept_away_from_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "intranet,localhost")
    assert prefect_environment("http://127.0.0.1:4200/api")["NO_PROXY"] == "intranet,localhost,127.0.0.1"
