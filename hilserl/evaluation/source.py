"""Which policy is meant: a run, a policy's folder, a learner's checkpoint, or an address in the model registry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hilserl.config.loader import load_config
from hilserl.config.models import TrackingConfig, TrainConfig
from hilserl.environments.named_classifier import resolve_success
from hilserl.errors import CheckpointError
from hilserl.files import file_hash, home
from hilserl.policy import Policy, read_policy_manifest
from hilserl.runs import newest_policy
from hilserl.tracking import registry
from hilserl.tracking.registry import Version

CONFIG_FILE = "config.yaml"
"""Of a registered policy: the resolved configuration that it was trained with."""

_CHECKPOINT_FILES = ("manifest.json", "learner.safetensors", "state.json")


@dataclass(frozen=True)
class Source:
    """A policy that can be played.

    Attributes:
        folder: With `policy.json`.
        trained_with: The configuration that it was trained with; None where it is not known.
        shown: What was asked for and what it is, for a person.
        version: In the registry; None: not from there.
        run: Folder of the run that it lies in; None: in none.
    """

    folder: Path
    trained_with: Path | None
    shown: str
    version: Version | None = None
    run: Path | None = None

    def config(self, given: str | Path | None, overrides: Mapping[str, Any]) -> TrainConfig:
        """Load the configuration to play it with: the given one, else the one that it was trained with.

        Raises:
            CheckpointError: None was given, and it is not known.
        """
        if given is None and self.trained_with is None:
            raise CheckpointError(f"{self.folder}: the configuration that it was trained with is not beside it. Name it with `--config`.")
        return resolve_success(load_config(given or self.trained_with, dict(overrides)))  # type: ignore[arg-type]


def find_policy(name: str | Path, *, tracking: TrackingConfig = TrackingConfig()) -> Source:  # noqa: B008
    """Find a policy.

    Args:
        name: `models:/<name>@<alias>` or `models:/<name>/<n>`; a policy's folder; a checkpoint's; a run's; or the name of a run.
        tracking: Whose registry.

    Raises:
        CheckpointError: There is none, or it is damaged.
        ServiceError: The registry has no such version, or cannot be used.
    """
    text = str(name)
    if registry.is_model_uri(text):
        version = registry.find(text, config=tracking)
        folder = registry.fetch(version.uri, config=tracking)
        config = folder / CONFIG_FILE
        return Source(folder, config if config.is_file() else None, f"{text}: version {version.version} of {version.name}", version)
    path = Path(text).expanduser()
    if (path / _CHECKPOINT_FILES[1]).is_file():
        return _from_checkpoint(path)
    folder = path if (path / "policy.json").is_file() else newest_policy(text)
    read_policy_manifest(folder)
    return _in_folder(folder, str(folder))


def policy_tensors(folder: Path) -> dict[str, Tensor]:
    """Read a policy's tensors by name.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    return Policy.load(folder).tensors()


def _in_folder(folder: Path, shown: str) -> Source:
    run = folder.resolve().parents[1]
    if (folder / CONFIG_FILE).is_file():
        return Source(folder, folder / CONFIG_FILE, shown)
    return Source(folder, run / "resolved.yaml", shown, run=run) if (run / "resolved.yaml").is_file() else Source(folder, None, shown)


def _from_checkpoint(checkpoint: Path) -> Source:
    """Make a policy's folder of a learner's checkpoint, with what does not change from a policy of the same run."""
    checkpoint = checkpoint.resolve()
    run = checkpoint.parents[1]
    try:
        manifest = json.loads((checkpoint / _CHECKPOINT_FILES[0]).read_text())
        if file_hash(checkpoint / _CHECKPOINT_FILES[1]) != manifest["sha256"][_CHECKPOINT_FILES[1]]:
            raise CheckpointError(f"{checkpoint}: the content does not match its checksum: it was damaged or replaced. Use another one.")
        tensors = load_file(checkpoint / _CHECKPOINT_FILES[1])
        state = json.loads((checkpoint / _CHECKPOINT_FILES[2]).read_text())["state"]
        steps, updates = int(state["environment_steps"]), int(state["updates"])
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{checkpoint}: cannot be read ({error!r}). Use another checkpoint.") from None
    try:
        policy = Policy.load(newest_policy(str(run)))
    except CheckpointError as error:
        raise CheckpointError(
            f"{checkpoint}: its run has saved no policy yet, from which the frozen encoders are taken. Wait for the first evaluation "
            f"during training, or for its end. ({error})"
        ) from None
    own = policy.tensors()
    policy.load_tensors(own | {name: tensor for name, tensor in tensors.items() if name in own}, version=updates + 1)
    folder = home() / "models" / "checkpoints" / f"{run.parent.name}-{run.name}-{checkpoint.name}"
    policy.save(folder, {"environment_steps": steps, "weights_version": updates + 1, "run_id": f"{run.parent.name}-{run.name}"})
    return Source(folder, run / "resolved.yaml", f"{checkpoint}: the learner's state at step {steps:,}", run=run)
