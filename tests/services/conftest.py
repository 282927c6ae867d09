"""A stand-in for the project: small flows, deployed by the real prefect.yaml's structure."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]

STUB_FLOWS = """
import time
from pathlib import Path
from prefect import flow

def work(mark: str, seconds: float) -> None:
    try:
        Path(mark + ".started").touch()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.05)
    finally:
        Path(mark + ".finally").touch()

@flow
def hilserl(mark: str, seconds: float = 0.0) -> None:
    work(mark, seconds)

@flow
def actor(mark: str, seconds: float = 0.0) -> None:
    from hilserl.actor.lease import robot_lease

    with robot_lease("stub"):
        work(mark, seconds)
"""


@pytest.fixture
def prefect_yaml() -> Path:
    return ROOT / "prefect.yaml"


@pytest.fixture(scope="session")
def stub_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the shipped prefect.yaml, its entrypoints pointed at stub flows."""
    folder = tmp_path_factory.mktemp("project")
    content = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    stubs = STUB_FLOWS
    for deployment in content["deployments"]:
        name = deployment["entrypoint"].partition(":")[2]
        deployment["entrypoint"] = f"stub_flows.py:{name}"
        if f"def {name}(" not in stubs:  # nobody runs it here
            stubs += f"\n@flow\ndef {name}() -> None:\n    pass\n"
    (folder / "stub_flows.py").write_text(stubs)
    (folder / "prefect.yaml").write_text(yaml.safe_dump(content))
    return folder
