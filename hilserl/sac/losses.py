"""The three losses of SAC and its target, as plain functions."""

from __future__ import annotations

import torch
from torch import Tensor


def td_target(reward: Tensor, terminated: Tensor, next_q: Tensor, discount: Tensor | float) -> Tensor:
    """Compute the TD target of one step, or of several already summed up.

    Truncated steps still bootstrap; only `terminated` cuts the return.

    Args:
        reward: Reward of the step, or discounted sum of those of n steps, shape (B,).
        terminated: 1.0 where the task itself ended, shape (B,).
        next_q: Value of the next state, shape (B,).
        discount: Of the next state's value: per control step, in [0, 1), to the power of the steps; shape (B,) or one for all.

    Returns:
        Target shared by all critics, shape (B,), without gradient.
    """
    return (reward + discount * (1.0 - terminated) * next_q).detach()


def minimum_over_subset(target_q: Tensor, subset: Tensor) -> Tensor:
    """Take the minimum over the chosen target critics (REDQ, arXiv 2101.05982).

    Args:
        target_q: Values of all target critics, (N, B).
        subset: Indices of the chosen critics, (M,).
    """
    return target_q[subset].amin(0)


def critic_loss(q: Tensor, target: Tensor) -> Tensor:
    """Sum over critics of the mean squared TD error; q (N, B), target (B,)."""
    return (q - target).square().mean(1).sum()


def actor_loss(temperature: Tensor, log_probability: Tensor, q: Tensor) -> Tensor:
    """Mean of temperature * log pi - Q; log_probability (B,), q (B,)."""
    return (temperature * log_probability - q).mean()


def temperature_loss(log_temperature: Tensor, log_probability: Tensor, target_entropy: float) -> Tensor:
    """Raise the temperature while the entropy is below its target.

    Uses -alpha (log pi + target) with alpha = exp(log_temperature) (SAC, arXiv 1812.05905 eq. 18).
    """
    return -(log_temperature.exp() * (log_probability.detach() + target_entropy)).mean()


def subset_of_critics(members: int, size: int | None, generator: torch.Generator) -> Tensor:
    """Draw `size` of `members` critics without replacement; all of them when `size` is None."""
    if size is None or size == members:
        return torch.arange(members)
    return torch.randperm(members, generator=generator)[:size]
