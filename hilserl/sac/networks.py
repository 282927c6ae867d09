"""Actor and critic networks of SAC with prior data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
GRIPPER_CLASSES = 3


@dataclass(frozen=True)
class InputSpec:
    """What the networks are fed.

    Attributes:
        state_dim: S, scalars of `observation.state`.
        feature_shapes: Of each camera's features, by camera: (F,), or (C, H, W) of a map.
        action_dim: A; dimensions of the Gaussian, without a discrete gripper.
    """

    state_dim: int
    feature_shapes: Mapping[str, tuple[int, ...]]
    action_dim: int


class StateScaling(nn.Module):
    """Bring the state from physical units to order one with fixed statistics: (x - center) / half_range."""

    def __init__(self, center: Tensor, half_range: Tensor) -> None:
        super().__init__()
        self.register_buffer("center", center.float().clone())
        self.register_buffer("half_range", half_range.float().clone())
        self.center: Tensor
        self.half_range: Tensor

    def forward(self, state: Tensor) -> Tensor:
        """Scale states (B, S)."""
        return (state - self.center) / self.half_range


class SpatialEmbedding(nn.Module):
    """Weigh a feature map with learned masks: `masks` numbers per channel.

    As in HIL-SERL and LeRobot (`SpatialLearnedEmbeddings`); the kernel has LeRobot's shape (C, H, W, masks).
    """

    def __init__(self, shape: tuple[int, int, int], masks: int = 8) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(*shape, masks))
        nn.init.kaiming_normal_(self.kernel, mode="fan_in", nonlinearity="linear")
        self.output_dim = shape[0] * masks

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C * masks)."""
        per_channel = maps.flatten(2).transpose(0, 1) @ self.kernel.flatten(1, 2)  # (C, B, masks)
        return per_channel.transpose(0, 1).flatten(1)


class Trunk(nn.Module):
    """Project state and each camera's features to `latent_dim` each, and concatenate.

    Linear, LayerNorm, tanh per input, as HIL-SERL bounds its encoders' outputs. A feature map is
    first weighed with learned masks.
    """

    def __init__(self, spec: InputSpec, latent_dim: int) -> None:
        super().__init__()
        self.state = nn.Sequential(nn.Linear(spec.state_dim, latent_dim), nn.LayerNorm(latent_dim), nn.Tanh())
        self.cameras = nn.ModuleDict({name: _projection(shape, latent_dim) for name, shape in spec.feature_shapes.items()})
        self.output_dim = latent_dim * (1 + len(spec.feature_shapes))

    def forward(self, state: Tensor, features: Mapping[str, Tensor]) -> Tensor:
        """Map scaled state (B, S) and features (B, F) or (B, C, H, W) by camera to (B, D)."""
        return torch.cat([self.state(state), *(project(features[name].float()) for name, project in self.cameras.items())], 1)


def _projection(shape: tuple[int, ...], latent_dim: int) -> nn.Sequential:
    if len(shape) == 1:
        return nn.Sequential(nn.Linear(shape[0], latent_dim), nn.LayerNorm(latent_dim), nn.Tanh())
    channels, height, width = shape
    masks = SpatialEmbedding((channels, height, width))
    return nn.Sequential(masks, nn.Linear(masks.output_dim, latent_dim), nn.LayerNorm(latent_dim), nn.Tanh())


class EnsembleLinear(nn.Module):
    """N independent linear layers in one batched product."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor, members: Tensor | None = None) -> Tensor:
        """Map (N, B, inputs) to (N, B, outputs); with `members` (M,) only those, and M in place of N."""
        if members is None:
            return torch.baddbmm(self.bias, x, self.weight)
        return torch.baddbmm(self.bias[members], x, self.weight[members])


class EnsembleLayerNorm(nn.Module):
    """LayerNorm with a separate scale and shift per member."""

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(members, 1, width))
        self.shift = nn.Parameter(torch.zeros(members, 1, width))

    def forward(self, x: Tensor, members: Tensor | None = None) -> Tensor:
        """Normalise (N, B, width), or (M, B, width) of the given members, over the last axis; float32 out."""
        scale, shift = (self.scale, self.shift) if members is None else (self.scale[members], self.shift[members])
        return torch.addcmul(shift, F.layer_norm(x.float(), x.shape[-1:]), scale)


class CriticEnsemble(nn.Module):
    """N Q-functions; every layer after the trunk is separate, the last one included.

    LayerNorm keeps values bounded on actions outside the data (RLPD, arXiv 2302.02948 §4.2).
    """

    def __init__(self, spec: InputSpec, *, members: int, latent_dim: int, hidden_dims: Sequence[int], layer_norm: bool = True) -> None:
        super().__init__()
        self.members = members
        self.trunk = Trunk(spec, latent_dim)
        layers: list[nn.Module] = []
        width = self.trunk.output_dim + spec.action_dim
        for hidden in hidden_dims:
            layers += [EnsembleLinear(members, width, hidden), *([EnsembleLayerNorm(members, hidden)] if layer_norm else []), nn.SiLU()]
            width = hidden
        layers.append(EnsembleLinear(members, width, 1))
        self.layers = nn.ModuleList(layers)

    def forward(self, state: Tensor, features: Mapping[str, Tensor], action: Tensor, members: Tensor | None = None) -> Tensor:
        """Return Q-values (N, B) of scaled states (B, S), features and actions (B, A).

        With `members` (M,) only those critics are computed: (M, B).
        """
        x = torch.cat((self.trunk(state, features), action), 1)
        x = x.expand(self.members if members is None else len(members), *x.shape)
        for layer in self.layers:
            x = layer(x) if isinstance(layer, nn.SiLU) else layer(x, members)
        return x.squeeze(-1)


class GripperCritic(nn.Module):
    """Q-value of each gripper class: close, stay, open (HIL-SERL's DQN head, arXiv 2410.21845 §IV-B).

    A class is the gripper action plus one, so -1, 0 and 1 in the policy's space.
    """

    def __init__(self, spec: InputSpec, *, latent_dim: int, hidden_dims: Sequence[int]) -> None:
        super().__init__()
        self.trunk = Trunk(spec, latent_dim)
        self.layers = _mlp(self.trunk.output_dim, hidden_dims)
        self.output = nn.Linear(hidden_dims[-1], GRIPPER_CLASSES)

    def forward(self, state: Tensor, features: Mapping[str, Tensor]) -> Tensor:
        """Return Q-values (B, 3) of scaled states (B, S) and features."""
        return self.output(self.layers(self.trunk(state, features)))


class SquashedGaussianActor(nn.Module):
    """Diagonal Gaussian squashed by tanh: actions in (-1, 1)."""

    def __init__(self, spec: InputSpec, *, latent_dim: int, hidden_dims: Sequence[int]) -> None:
        super().__init__()
        self.trunk = Trunk(spec, latent_dim)
        self.layers = _mlp(self.trunk.output_dim, hidden_dims)
        self.mean = nn.Linear(hidden_dims[-1], spec.action_dim)
        self.log_std = nn.Linear(hidden_dims[-1], spec.action_dim)
        for output in (self.mean, self.log_std):
            nn.init.uniform_(output.weight, -1e-2, 1e-2)
            nn.init.zeros_(output.bias)

    def forward(self, state: Tensor, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation before the squashing, each (B, A)."""
        x = self.layers(self.trunk(state, features))
        return self.mean(x).float(), self.log_std(x).float().clamp(LOG_STD_MIN, LOG_STD_MAX)


def _mlp(width: int, hidden_dims: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for hidden in hidden_dims:
        layers += [nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.SiLU()]
        width = hidden
    return nn.Sequential(*layers)


def sample_squashed(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Sample actions and their log-probability by reparameterisation.

    Args:
        mean: Before the squashing, (B, A).
        log_std: Logarithm of the standard deviation (not the variance), (B, A).
        noise: Standard normal, (B, A).

    Returns:
        Action in (-1, 1), (B, A), and its log density, (B,). The tanh correction uses
        log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u)), exact where tanh saturates.
    """
    pre_tanh = mean + log_std.exp() * noise
    gaussian = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    correction = 2.0 * (math.log(2.0) - pre_tanh - F.softplus(-2.0 * pre_tanh))
    return torch.tanh(pre_tanh), (gaussian - correction).sum(-1)
