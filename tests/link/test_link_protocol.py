"""What is committed is what `link.proto` generates, and what the package shows is on purpose."""

import subprocess
import sys
from pathlib import Path

import hilserl.link

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
