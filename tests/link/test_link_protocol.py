"""What is committed is what `link.proto` generates, and what the package shows is on purpose."""

import subprocess
import sys
from pathlib import Path

import pytest

import hilserl.link
from hilserl.link import limits

ROOT = Path(__file__).parents[2]
FOLDER = Path("hilserl/link")


def test_the_generated_files_belong_to_the_proto(tmp_path: Path) -> None:
    outputs = [f"--{kind}={tmp_path}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I", ".", *outputs, str(FOLDER / "link.proto")], cwd=ROOT, check=True)
    for name in ("link_pb2.py", "link_pb2.pyi", "link_pb2_grpc.py"):
        assert (tmp_path / FOLDER / name).read_text() == (ROOT / FOLDER / name).read_text(), f"run scripts/generate_protocol: {name}"


def test_the_public_names_are_these() -> None:
    assert hilserl.link.__all__ == [
        "PROTOCOL_VERSION",
        "TOKEN_VARIABLE",
        "EpisodeReport",
        "FrozenTensors",
        "Handshake",
        "Journal",
        "LearnerStatus",
        "LinkClient",
        "LinkServer",
        "ReceivedRecord",
        "Record",
        "Step",
        "Weights",
        "create_token",
        "read_token",
        "weights_hash",
    ]
    assert all(getattr(hilserl.link, name).__module__.startswith("hilserl.link") for name in ("LinkClient", "LinkServer", "Step"))


LIMITS = {
    "actors connected": f"{limits.MAX_ACTORS} ",
    "connections": f"{limits.MAX_CONNECTIONS} ",
    "calls at once": f"{limits.MAX_CALLS}; {limits.MAX_CALLS_PER_CONNECTION} on one connection",
    "weights at once, on one connection": f"{limits.MAX_WEIGHT_CALLS_PER_CONNECTION} ",
    "weights": f"{limits.MAX_WEIGHTS_BYTES >> 30} GiB, {limits.MAX_WEIGHT_TENSORS:,} tensors",
    "headers of a call": f"{limits.MAX_METADATA_BYTES >> 10} KiB",
    "time for TLS and HTTP/2": f"{limits.HANDSHAKE_TIMEOUT_S:.0f} s",
    "time for the first complete message": f"{limits.HELLO_TIMEOUT_S:.0f} s",
    "silence of an actor's stream": f"{limits.SILENCE_S:.0f} s",
    "connection without a call": f"{limits.IDLE_CONNECTION_S:.0f} s",
    "actors' journals in one run": f"{limits.MAX_JOURNALS:,}",
    "past actors remembered": f"{limits.MAX_REMEMBERED_ACTORS} ",
    "a message, before and after decompression": f"one record and {limits.ENVELOPE_BYTES >> 10} KiB",
    "records in a message": f"{limits.MAX_BATCH_RECORDS:,}",
    "tensors in an observation": f"{limits.MAX_OBSERVATION_TENSORS} ",
    "text in the status": f"{limits.MAX_STATUS_TEXT:,} characters",
    "alarms in the status": f"{limits.MAX_ALARMS}, of {limits.MAX_ALARM_TEXT} characters each",
}


@pytest.mark.parametrize("what", LIMITS)
def test_the_documented_limits_are_the_real_ones(what: str) -> None:
    rows = [line.split("|") for line in (ROOT / "docs/link.md").read_text().splitlines() if line.startswith(f"| {what} |")]
    assert len(rows) == 1 and LIMITS[what].strip() in rows[0][2], rows
