"""What a training is: everything a checkpoint must have in common with the program that continues it.

A checkpoint carries this description. Continuing compares it, name by name, with the present one: what would
change what is learned is refused, everything else is allowed and said; the checkpoint never wins in silence.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from torch import Tensor, nn

from hilserl.config.models import TrainConfig
from hilserl.data.declared import declared_normalizer
from hilserl.data.manifest import OfflineBufferManifest
from hilserl.data.offline_buffer import OfflineBuffer
from hilserl.data.preprocess import Preprocessor
from hilserl.errors import CheckpointError
from hilserl.files import content_hash
from hilserl.learner.checkpoint import Checkpoint
from hilserl.link.messages import weights_hash
from hilserl.runs import changes_learning
from hilserl.sac.acting import architecture_hash
from hilserl.sac.agent import SacAgent
from hilserl.schema import policy_schema

logger = logging.getLogger(__name__)

_PACKAGES = ("hilserl", "torch", "numpy", "safetensors", "lerobot")
_SHOWN = 12  # differences that an error lists
_ABSENT = "absent"


def describe(config: TrainConfig, agent: SacAgent, demonstrations: OfflineBuffer | None, encoders: nn.Module) -> dict[str, Any]:
    """Describe a training, JSON-serialisable.

    Args:
        config: Its configuration.
        agent: The networks, as built.
        demonstrations: The offline buffer; None where there are no demonstrations.
        encoders: Frozen encoders; a module without tensors where there are none.
    """
    robot = config.robot
    normalizer = declared_normalizer(config) if demonstrations is None else demonstrations.normalizer
    frozen = {name: tensor.detach().cpu().numpy() for name, tensor in encoders.state_dict().items()}
    return {
        "config": config.model_dump(mode="json"),
        "schema": policy_schema(config).to_dict(),
        "preprocessor": Preprocessor.from_config(config).to_dict()["views"],
        "codec": {
            "action_names": list(config.action_names),
            "action_scale_m": robot.action_scale_m,
            "max_gripper_step_pct": robot.max_gripper_step_pct,
            "workspace_min_m": list(robot.workspace_min_m),
            "workspace_max_m": list(robot.workspace_max_m),
        },
        "normalizer": {
            name: {"center": float(center), "half_range": float(half)}
            for name, center, half in zip(normalizer.names, normalizer.center, normalizer.half_range, strict=True)
        },
        "offline_buffer": {"content": _ABSENT} if demonstrations is None else _content(demonstrations.manifest),
        "encoder": {"content": weights_hash(frozen) if frozen else _ABSENT},
        "architecture": {"hash": architecture_hash(agent.policy_tensors()), "tensors": _shapes(agent)},
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
    }


def _content(manifest: OfflineBufferManifest) -> dict[str, Any]:
    content = [
        [source.weight, source.role, [manifest.shards[key].to_dict()["files"] for key in source.shards]] for source in manifest.sources
    ]
    return {"content": content_hash(content), "key": manifest.key, "transitions": manifest.transitions}


def check_identity(checkpoint: Checkpoint, now: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of another training, and say what is allowed to differ and does.

    Raises:
        CheckpointError: Lists the differences by name, before and now.
    """
    refused: list[str] = []
    allowed: list[str] = []
    for name, before, after in differences(checkpoint.identity, now):
        (refused if _decides(name) else allowed).append(f"{name}: {before} -> {after}")
    if refused:
        more = f"\n  and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
        raise CheckpointError(
            f"{checkpoint.folder}: the checkpoint belongs to another training, and is not continued. Before -> now:\n  "
            + "\n  ".join(refused[:_SHOWN])
            + more
            + "\nSet back what differs (the version of hilserl, the dataset, the configuration), or start a new run with `--fresh`."
        )
    if allowed:
        logger.info("Continuing with other settings than the checkpoint's; the present ones count. Before -> now: %s", "; ".join(allowed))


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Compare two nested descriptions; yield (dotted name, before, now) of every leaf that differs.

    Lists of names are compared as such: what only one of them holds is yielded.
    """
    for key in [*before, *(key for key in now if key not in before)]:
        old, new, name = _plain(before.get(key, _ABSENT)), _plain(now.get(key, _ABSENT)), f"{prefix}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, f"{name}.")
        elif old != new:
            if _are_names(old) and _are_names(new) and set(old) != set(new):
                old, new = [item for item in old if item not in new], [item for item in new if item not in old]
            yield name, _short(old), _short(new)


def _decides(name: str) -> bool:
    """Whether a difference under this name makes it another training."""
    section, _, rest = name.partition(".")
    if section == "config":
        return changes_learning(rest)
    return section != "versions" and name != "offline_buffer.key"


def _shapes(agent: SacAgent) -> dict[str, str]:
    tensors: Mapping[str, Tensor] = agent.state_dict()
    # Optimisers have no state before their first step; the generator's size is the library's affair.
    names = sorted(name for name in tensors if not name.startswith("optimizer.") and name != "generator")
    return {name: f"{tuple(tensors[name].shape)} {str(tensors[name].dtype).removeprefix('torch.')}" for name in names}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return _ABSENT


def _plain(value: Any) -> Any:
    """Return lists for tuples and arrays, as JSON has them."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else text[:117] + "..."
