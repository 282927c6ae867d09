"""A policy that can act: preprocessor, vision, actor network and its scaling, as one artefact.

The actor process, the evaluation and the registered model all use this object, so what was trained
is what acts. Saved as safetensors and JSON; nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hilserl.config.models import TrainConfig
from hilserl.config.vision import ResNetConfig
from hilserl.data.preprocess import Preprocessor
from hilserl.errors import CheckpointError, ConfigError
from hilserl.files import atomic_directory, file_hash, write_json
from hilserl.sac.acting import ActingNetworks, architecture_hash
from hilserl.sac.networks import InputSpec, StateScaling
from hilserl.schema import STATE_KEY, policy_schema
from hilserl.vision.build import EncoderType, build_encoder, feature_shapes
from hilserl.vision.encoder import Encoder, Vision
from hilserl.vision.pretrained import with_network

FORMAT_VERSION = 3


def _in_order_of_names(cameras: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """The networks concatenate the cameras' features in this order; no file and no hash keeps another one."""
    return dict(sorted(cameras.items()))


class PolicyArchitecture(BaseModel):
    """Sizes from which an untrained policy can be built."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state_dim: int
    action_dim: int
    cameras: Annotated[dict[str, tuple[int, int]], AfterValidator(_in_order_of_names)]
    latent_dim: int
    hidden_dims: tuple[int, ...]
    gripper: Literal["continuous", "discrete"]
    encoder: EncoderType
    network: ResNetConfig | None = None

    @classmethod
    def from_config(cls, config: TrainConfig) -> PolicyArchitecture:
        """Derive the sizes from a run's configuration; a pretrained model's files are read if it does not have `encoder.network` yet."""
        schema = policy_schema(config)
        return cls(
            state_dim=schema.observation[STATE_KEY].shape[0],
            action_dim=schema.action.shape[0],
            cameras={name: image.resize for name, image in config.observation.images.items()},
            latent_dim=config.policy.latent_dim,
            hidden_dims=config.policy.hidden_dims,
            gripper=config.policy.gripper,
            encoder=config.encoder.type,
            network=with_network(config.encoder).network,
        )

    def encoders(self) -> dict[str, Encoder]:
        """Build the cameras' encoders, untrained."""
        return {name: build_encoder(self.encoder, self.network, height, width) for name, (height, width) in self.cameras.items()}

    def input_spec(self) -> InputSpec:
        """Describe the networks' inputs."""
        return InputSpec(self.state_dim, feature_shapes(self.encoder, self.network, self.cameras), self.action_dim)


class Policy:
    """Acts on native observations: [-1, 1] actions from the camera frames and the state."""

    def __init__(self, architecture: PolicyArchitecture, preprocessor: Preprocessor) -> None:
        self.architecture = architecture
        self.preprocessor = preprocessor
        zeros = torch.zeros(architecture.state_dim)
        self.networks = ActingNetworks.build(
            architecture.input_spec(),
            Vision(architecture.encoders()),
            StateScaling(zeros, zeros + 1),
            latent_dim=architecture.latent_dim,
            hidden_dims=architecture.hidden_dims,
            discrete_gripper=architecture.gripper == "discrete",
        )
        self.networks.requires_grad_(False).eval()
        self.version = -1  # no weights yet: `act` refuses

    @property
    def architecture_hash(self) -> str:
        """Identify names, shapes and dtypes of the tensors this policy takes."""
        return self.networks.architecture_hash

    @property
    def schema_hash(self) -> str:
        """Identify what the policy sees and does."""
        return self.preprocessor.schema.hash()

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name."""
        return self.networks.tensors()

    def load_tensors(self, tensors: Mapping[str, Tensor], version: int, *, kept: Collection[str] = ()) -> None:
        """Take new weights.

        Args:
            tensors: By name.
            version: Of the weights.
            kept: Names that `tensors` leaves out, because the weights loaded last had the same values for them.

        Raises:
            CheckpointError: They belong to another architecture, are not finite, or leave something out though
                there were no weights before; nothing was changed.
        """
        if kept and self.version < 0:
            raise CheckpointError(f"weights version {version} leave out `{next(iter(kept))}`, and this policy has no weights yet")
        own = self.tensors()
        if (theirs := architecture_hash({name: own[name] for name in kept if name in own} | dict(tensors))) != self.architecture_hash:
            raise CheckpointError(
                f"weights version {version} are of architecture {theirs}, this policy is {self.architecture_hash}. "
                "Actor and learner must run the same configuration and code version."
            )
        broken = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())]
        if broken:
            raise CheckpointError(f"weights version {version}: `{broken[0]}` is not finite. The policy keeps its previous weights.")
        self.networks.load_state_dict(dict(tensors), strict=not kept)  # whether it is complete, the hash has told
        self.version = version

    @torch.inference_mode()
    def act(self, observation: Mapping[str, np.ndarray], *, generator: torch.Generator | None = None) -> np.ndarray:
        """Choose an action.

        Args:
            observation: Native observation: `observation.state` (S,) in physical units and
                `observation.images.<camera>` uint8 (H, W, 3).
            generator: Source of exploration noise; None acts deterministically (the distribution's mode).

        Returns:
            Action in (-1, 1), (A,) float32.

        Raises:
            CheckpointError: No weights were loaded.
        """
        if self.version < 0:
            raise CheckpointError("the policy has no weights yet: no motion before the learner sent them")
        seen = self.preprocessor(observation)
        state = torch.from_numpy(seen[STATE_KEY])[None]
        images = {name: torch.from_numpy(seen[f"observation.images.{name}"])[None] for name in self.architecture.cameras}
        noise = None if generator is None else torch.randn((1, self.networks.noise_dim), generator=generator)
        return self.networks(state, images, noise)[0].numpy()

    def save(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Write the policy as one artefact; `facts` (success, steps, run) are kept beside it."""
        save_policy(folder, self.architecture, self.preprocessor, self.tensors(), facts)

    @classmethod
    def load(cls, folder: Path) -> Policy:
        """Read a saved policy.

        Raises:
            CheckpointError: It is missing, damaged or of another format version.
        """
        manifest = read_policy_manifest(folder)
        file = folder / "policy.safetensors"
        try:
            policy = cls(PolicyArchitecture.model_validate(manifest["architecture"]), Preprocessor.from_dict(manifest["preprocessor"]))
            if file_hash(file) != manifest["sha256"]:
                raise CheckpointError(f"{file}: the content does not match its checksum: it was damaged or replaced. Use another policy.")
            tensors = load_file(file)
            version = int(manifest["facts"].get("weights_version", 0))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{file}: cannot be read ({error}). Use another policy.") from None
        except (KeyError, TypeError, ValidationError, ConfigError) as error:
            raise CheckpointError(f"{folder / 'policy.json'}: damaged ({error!r}). Use another policy.") from None
        policy.load_tensors(tensors, version)
        return policy


def save_policy(
    folder: Path, architecture: PolicyArchitecture, preprocessor: Preprocessor, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> None:
    """Write a policy folder atomically: `policy.safetensors` and `policy.json`."""
    with atomic_directory(folder) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary / "policy.safetensors")
        write_json(
            temporary / "policy.json",
            {
                "format_version": FORMAT_VERSION,
                "architecture": architecture.model_dump(),
                "architecture_hash": architecture_hash(tensors),
                "sha256": file_hash(temporary / "policy.safetensors"),
                "schema": preprocessor.schema.to_dict(),
                "preprocessor": preprocessor.to_dict(),
                "facts": dict(facts),
            },
        )


def read_policy_manifest(folder: Path) -> dict[str, Any]:
    """Read `policy.json`.

    Raises:
        CheckpointError: It is missing, no JSON, or of another format version.
    """
    file = folder / "policy.json"
    try:
        manifest = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read ({error}). A policy folder holds policy.json and policy.safetensors.") from None
    found = manifest.get("format_version") if isinstance(manifest, dict) else None
    if found != FORMAT_VERSION:
        raise CheckpointError(f"{file}: format version {found}, this program reads {FORMAT_VERSION}. Train it again with this version.")
    return manifest
