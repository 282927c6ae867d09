"""Count what one push of the policy's weights costs, with the frozen encoders sent every time and sent once.

    uv run python benchmarks/weights_push.py
    uv run python benchmarks/weights_push.py --pushes 20 --cameras 1 --json push.json

A learner's server and an actor's client over loopback, at each push new values of all that training changes, as
`reach` has it: a Gaussian actor over the features of a frozen ResNet-10 (HIL-SERL's, 19.6 MB), the same for every
camera. Counted are the bytes of the messages that come, and timed what the learner's loop waits for, and the actor's
download, which a thread does. Every received tensor is compared with the published one, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import torch

from hilserl.config.models import LinkConfig
from hilserl.config.vision import ResNetConfig
from hilserl.link import FrozenTensors, Handshake, LinkServer, Weights, link_pb2, link_pb2_grpc
from hilserl.link.auth import credentials
from hilserl.link.weights_source import WeightsSource
from hilserl.sac.acting import ActingNetworks
from hilserl.sac.networks import InputSpec, StateScaling
from hilserl.vision.build import build_encoder, feature_shapes
from hilserl.vision.encoder import Vision

TOKEN = "a-token-for-benchmarks-only"
RESNET10 = {"model_type": "resnet10", "embedding_size": 64, "hidden_sizes": [64, 128, 256, 512], "depths": [1, 1, 1, 1]}
STATE, ACTION = 18, 4


def make_tensors(cameras: int, size: int) -> dict[str, np.ndarray]:
    """Return a policy's tensors by name; the cameras' encoders are equal, as pretrained ones are."""
    network = ResNetConfig.model_validate(RESNET10 | {"sha256": "0" * 64})
    sizes = {f"camera{number}": (size, size) for number in range(cameras)}
    encoder = build_encoder("pretrained", network, size, size)
    spec = InputSpec(STATE, feature_shapes("pretrained", network, sizes), ACTION)
    scaling = StateScaling(torch.zeros(STATE), torch.ones(STATE))
    vision = Vision(dict.fromkeys(sizes, encoder))
    networks = ActingNetworks.build(spec, vision, scaling, latent_dim=256, hidden_dims=(256, 256), discrete_gripper=False)
    return {name: tensor.numpy() for name, tensor in networks.tensors().items()}


class CountingStub(link_pb2_grpc.LinkStub):
    """Adds up what comes."""

    def __init__(self, channel: grpc.Channel) -> None:
        super().__init__(channel)
        self.received, self._get = 0, self.GetWeights
        self.GetWeights = self._counted

    def _counted(self, *arguments: Any, **options: Any) -> Iterator[link_pb2.WeightsChunk]:
        for chunk in self._get(*arguments, **options):
            self.received += chunk.ByteSize()
            yield chunk


def measure(tensors: dict[str, np.ndarray], *, once: bool, pushes: int, folder: Path) -> dict[str, list[float]]:
    """Push new weights `pushes` times; return figures by name, one a push."""
    handshake = Handshake(run_id="push", schema_hash="schema", architecture_hash="architecture")
    frozen = FrozenTensors.create({name: array for name, array in tensors.items() if once and name.startswith("vision.")})
    random = np.random.default_rng(0)
    figures: dict[str, list[float]] = {"bytes": [], "learner_ms": [], "actor_ms": []}
    with LinkServer(LinkConfig(port=0), token=TOKEN, handshake=handshake, journal_folder=folder) as server:
        address = server.start()
        with grpc.insecure_channel(address) as channel:
            stub = CountingStub(channel)
            source = WeightsSource(stub, credentials(TOKEN), handshake, address)
            for version in range(1, pushes + 1):
                trained = {
                    name: array if name.startswith("vision.") else random.standard_normal(array.shape, np.float32)
                    for name, array in tensors.items()
                    if name not in frozen.tensors
                }
                began, before = time.perf_counter(), stub.received
                server.publish_weights(Weights.create(version, trained, frozen))
                published = time.perf_counter()
                weights = source.fetch()
                figures["actor_ms"].append(1e3 * (time.perf_counter() - published))
                figures["learner_ms"].append(1e3 * (published - began))
                figures["bytes"].append(stub.received - before)
                got, expected = weights.tensors if weights else {}, trained | dict(frozen.tensors)
                if got.keys() != expected.keys() or any(got[name].tobytes() != array.tobytes() for name, array in expected.items()):
                    raise SystemExit(f"push {version}: what came is not what was published")
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pushes", type=int, default=10)
    parser.add_argument("--cameras", type=int, default=2)
    parser.add_argument("--size", type=int, default=128, help="of an image [px]")
    parser.add_argument("--json", type=Path, help="write all figures here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tensors = make_tensors(arguments.cameras, arguments.size)
    print(f"{arguments.cameras} cameras of {arguments.size} px: {sum(array.nbytes for array in tensors.values()):,} bytes of tensors")
    print(f"{'':24}{'first [bytes]':>15}{'then [bytes]':>15}{'learner [ms]':>15}{'actor [ms]':>15}   (times: median of the later pushes)")
    results = {}
    for label, once in (("all at every push", False), ("frozen tensors once", True)):
        with tempfile.TemporaryDirectory() as folder:
            figures = results[label] = measure(tensors, once=once, pushes=arguments.pushes, folder=Path(folder))
        then = {name: statistics.median(values[1:]) for name, values in figures.items()}
        print(f"{label:24}{figures['bytes'][0]:15,}{then['bytes']:15,.0f}{then['learner_ms']:15.1f}{then['actor_ms']:15.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
