"""The networks that act, as one module: what the learner publishes, the actor runs and the export writes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hilserl.files import content_hash
from hilserl.sac.networks import GripperCritic, InputSpec, SquashedGaussianActor, StateScaling
from hilserl.vision.encoder import Vision


class ActingNetworks(nn.Module):
    """State scaling, vision, Gaussian actor and, with a discrete gripper, the critic that picks its class.

    Its `state_dict` is what travels to the actor and lies in a policy folder.
    """

    def __init__(self, actor: SquashedGaussianActor, vision: Vision, scaling: StateScaling, gripper: GripperCritic | None) -> None:
        super().__init__()
        self.actor = actor
        self.vision = vision
        self.scaling = scaling
        self.gripper = gripper

    @classmethod
    def build(
        cls,
        spec: InputSpec,
        vision: Vision,
        scaling: StateScaling,
        *,
        latent_dim: int,
        hidden_dims: tuple[int, ...],
        discrete_gripper: bool,
    ) -> ActingNetworks:
        """Make untrained networks.

        Args:
            spec: Inputs and the policy's whole action, the gripper included.
            vision: Encoders of the cameras; those that it lacks are given features.
            scaling: Of the state.
            latent_dim: Width of each input's projection.
            hidden_dims: Widths of the hidden layers.
            discrete_gripper: The last action is a gripper class.
        """
        actor = SquashedGaussianActor(gaussian_part(spec, discrete_gripper), latent_dim=latent_dim, hidden_dims=hidden_dims)
        gripper = GripperCritic(spec, latent_dim=latent_dim, hidden_dims=hidden_dims) if discrete_gripper else None
        return cls(actor, vision, scaling, gripper)

    def forward(self, state: Tensor, images: Mapping[str, Tensor], noise: Tensor | None = None) -> Tensor:
        """Choose actions.

        Args:
            state: Physical units, (B, S).
            images: By camera, uint8 (B, H, W, C), or features where `vision` has no encoder.
            noise: Standard normal, (B, Gaussian dimensions); None takes the distribution's mode.

        Returns:
            (B, A) in [-1, 1]; a discrete gripper's action is the best class, exactly -1, 0 or 1.
        """
        scaled, features = self.scaling(state), self.vision(images)
        mean, log_std = self.actor(scaled, features)
        action = torch.tanh(mean if noise is None else mean + log_std.exp() * noise)
        if self.gripper is None:
            return action
        gripper = self.gripper(scaled, features).argmax(1, keepdim=True) - 1
        return torch.cat((action, gripper.to(action.dtype)), 1)

    @property
    def noise_dim(self) -> int:
        """Dimensions of the Gaussian."""
        return self.actor.mean.out_features

    @property
    def architecture_hash(self) -> str:
        """Identify names, shapes and dtypes of the tensors."""
        return architecture_hash(self.tensors())

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name, without gradient."""
        return {name: tensor.detach() for name, tensor in self.state_dict().items()}


def gaussian_part(spec: InputSpec, discrete_gripper: bool) -> InputSpec:
    """Leave the gripper out of the action where it is discrete."""
    return InputSpec(spec.state_dim, spec.feature_shapes, spec.action_dim - discrete_gripper)


def architecture_hash(tensors: Mapping[str, Tensor]) -> str:
    """Identify an architecture by the names, shapes and dtypes of its tensors."""
    return content_hash({name: [list(tensor.shape), str(tensor.dtype)] for name, tensor in tensors.items()})
