"""Write a policy as one ONNX graph, and compare what onnxruntime computes with torch.

Scaling, vision, actor and gripper are inside; crop and resize stay outside, because OpenCV's area averaging
has no ONNX operator that rounds as it does: the graph takes images as the preprocessor leaves them.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hilserl.errors import CheckpointError
from hilserl.export.probe import Comparison, Observation, compare, probe_observations
from hilserl.export.source import PolicySource
from hilserl.files import atomic_directory, file_hash, write_json
from hilserl.policy import Policy
from hilserl.schema import ACTION_KEY, IMAGE_PREFIX, STATE_KEY

OPSET = 18
TOLERANCE = 1e-4  # of an action in [-1, 1]
FORMAT_VERSION = 1
MODEL_FILE, INTERFACE_FILE = "model.onnx", "interface.json"
_OBSERVATIONS = 32


@dataclass(frozen=True)
class OnnxExport:
    """What was written.

    Attributes:
        folder: Holds `model.onnx` and `interface.json`.
        inputs: Names of the graph's inputs.
        comparison: Of onnxruntime's actions with torch's.
    """

    folder: Path
    inputs: tuple[str, ...]
    comparison: Comparison


class _Graph(nn.Module):
    """The acting networks with the images in a list, in the order of the cameras."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.networks = policy.networks
        self.cameras = tuple(policy.architecture.cameras)

    def forward(self, state: Tensor, images: list[Tensor]) -> Tensor:
        """Choose actions (B, A) from states (B, S) and uint8 images (B, H, W, 3) of each camera."""
        actions: Tensor = self.networks(state, dict(zip(self.cameras, images, strict=True)))
        return actions


class OnnxPolicy:
    """Acts on native observations with onnxruntime, through the preprocessor of the original."""

    def __init__(self, file: Path, policy: Policy) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._preprocessor = policy.preprocessor

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """Choose an action (A,) for one native observation."""
        return self.act_on_batch([dict(observation)])[0]

    def act_on_batch(self, observations: list[Observation]) -> np.ndarray:
        """Choose actions (B, A) for native observations."""
        seen = [self._preprocessor(observation) for observation in observations]
        (actions,) = self._session.run([ACTION_KEY], {key: np.stack([each[key] for each in seen]) for key in seen[0]})
        return np.asarray(actions)


def export_onnx(source: PolicySource, folder: Path) -> OnnxExport:
    """Write `model.onnx` and `interface.json` into `folder`, and check them with onnxruntime.

    Args:
        source: The policy.
        folder: Where to; replaced if it exists.

    Raises:
        CheckpointError: onnx, onnxscript or onnxruntime is missing, or its actions differ; nothing was written.
    """
    _require_packages()
    policy = source.policy
    names = (STATE_KEY, *(IMAGE_PREFIX + camera for camera in policy.architecture.cameras))
    with atomic_directory(folder) as temporary:
        file = temporary / MODEL_FILE
        _write_graph(policy, names, file)
        loaded = OnnxPolicy(file, policy)
        observations = probe_observations(policy, _OBSERVATIONS)
        comparison = compare(policy.act, loaded.act, observations, tolerance=TOLERANCE, what="the ONNX graph, run by onnxruntime,")
        batch = iter(loaded.act_on_batch(observations))  # also with another batch size than 1
        compare(policy.act, lambda _: next(batch), observations, tolerance=TOLERANCE, what="the ONNX graph with a batch")
        write_json(temporary / INTERFACE_FILE, _interface(source, names, file, comparison))
    return OnnxExport(folder, names, comparison)


def _write_graph(policy: Policy, names: tuple[str, ...], file: Path) -> None:
    two = [policy.preprocessor(observation) for observation in probe_observations(policy, 2)]
    state, *images = (torch.from_numpy(np.stack([each[name] for each in two])) for name in names)
    batch = torch.export.Dim("batch", min=1)
    quiet = logging.getLogger("onnxscript")
    level = quiet.level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's exporter warns of its own deprecations
        quiet.setLevel(logging.ERROR)
        try:
            torch.onnx.export(
                _Graph(policy).eval(),
                (state, images),
                str(file),
                input_names=list(names),
                output_names=[ACTION_KEY],
                opset_version=OPSET,
                dynamic_shapes=({0: batch}, [{0: batch} for _ in images]),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        finally:
            quiet.setLevel(level)


def _interface(source: PolicySource, names: tuple[str, ...], file: Path, comparison: Comparison) -> dict[str, Any]:
    """Describe the graph for whoever runs it, as JSON."""
    import onnxruntime

    policy = source.policy
    inputs = [
        {"name": key, "dtype": feature.dtype, "shape": ["batch", *feature.shape], "unit": feature.unit, "names": list(feature.names)}
        for key, feature in ((name, source.observation[name]) for name in names)
    ]
    action = source.action
    return {
        "format_version": FORMAT_VERSION,
        "model": MODEL_FILE,
        "sha256": file_hash(file),
        "opset": OPSET,
        "inputs": inputs,
        "outputs": [
            {"name": ACTION_KEY, "dtype": action.dtype, "shape": ["batch", *action.shape], "unit": action.unit, "names": list(action.names)}
        ],
        "outside_the_graph": "crop and resize of each camera's frame (`preprocessor.views`, cv2.INTER_AREA); everything else is inside",
        "preprocessor": policy.preprocessor.to_dict(),
        "schema_hash": policy.schema_hash,
        "policy": {"sha256": source.manifest["sha256"], "architecture_hash": policy.architecture_hash, "facts": source.facts},
        "success": source.success,
        "checked_with": {
            "torch": torch.__version__,
            "onnxruntime": onnxruntime.__version__,
            "observations": comparison.observations,
            "max_abs_difference": comparison.max_abs_difference,
        },
    }


def _require_packages() -> None:
    missing = []
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            missing.append(name)
    if missing:
        raise CheckpointError(f"export to ONNX needs {', '.join(missing)}. Install with `uv sync --extra export`.")
