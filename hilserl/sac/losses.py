"""The three losses of SAC and its target, as plain functions."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def td_target(reward: Tensor, terminated: Tensor, next_q: Tensor, discount: Tensor | float, bound: Tensor | float = math.inf) -> Tensor:
    """Compute the TD target of one step, or of several already summed up.

    Truncated steps still bootstrap; only `terminated` cuts the return.

    Args:
        reward: Reward of the step, or discounted sum of those of n steps, shape (B,).
        terminated: 1.0 where the task itself ended, shape (B,).
        next_q: Value of the next state, shape (B,).
        discount: Of the next state's value: per control step, in [0, 1), to the power of the steps; shape (B,) or one for all.

        bound: The largest possible return, which no target exceeds (as HER clips its targets, arXiv 1707.01495); scalar.

    Returns:
        Target shared by all critics, shape (B,), without gradient.
    """
    return (reward + discount * (1.0 - terminated) * next_q).clamp(max=bound).detach()


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


def gripper_class(action: Tensor) -> Tensor:
    """Return the gripper class 0 close, 1 stay, 2 open of gripper actions in [-1, 1], (B,): the nearest of -1, 0, 1."""
    return action.round().long().clamp(-1, 1) + 1


def less_gripper_cost(reward: Tensor, gripper_action: Tensor, cost: float) -> Tensor:
    """Take the cost of moving the gripper from the reward: `cost` times |action|, all (B,)."""
    return reward - cost * gripper_action.abs()


def of_class(q: Tensor, chosen: Tensor) -> Tensor:
    """Pick each row's value of its class: q (B, 3), chosen (B,)."""
    return q.gather(1, chosen.unsqueeze(1)).squeeze(1)


def gripper_loss(q: Tensor, taken: Tensor, target: Tensor) -> Tensor:
    """Mean squared TD error of the class that was taken (double DQN, arXiv 1509.06461); q (B, 3), taken (B,), target (B,)."""
    return (of_class(q, taken) - target).square().mean()


def subset_of_critics(members: int, size: int | None, generator: torch.Generator) -> Tensor | None:
    """Draw `size` of `members` target critics without replacement (REDQ, arXiv 2101.05982); None stands for all of them."""
    if size is None or size == members:
        return None
    return torch.randperm(members, generator=generator, device=generator.device)[:size]
