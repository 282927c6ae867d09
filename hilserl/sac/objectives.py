"""What the networks are trained for: critic, gripper critic, actor and cloning, as functions of a batch and its noise.

Nothing here draws a random number or changes a parameter, so the same functions run eagerly, compiled and
as CUDA graphs, and must agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from hilserl.config.models import PolicyConfig
from hilserl.sac import losses
from hilserl.sac.acting import ActingNetworks
from hilserl.sac.batch import TensorBatch
from hilserl.sac.networks import CriticEnsemble, GripperCritic, sample_squashed
from hilserl.vision.encoder import Vision


class CriticObjective(NamedTuple):
    """Outcome of the critics' objective.

    Attributes:
        loss: To be minimised over critics, gripper critic and trained vision.
        state: Scaled, (B, S).
        features: Of the images, by camera, without gradient: the actor reads the critic's vision.
        metrics: Scalars without gradient.
    """

    loss: Tensor
    state: Tensor
    features: dict[str, Tensor]
    metrics: dict[str, Tensor]


class ActorObjective(NamedTuple):
    """Outcome of the actor's objective: loss, log-probability of its actions (B,), and scalars without gradient."""

    loss: Tensor
    log_probability: Tensor
    metrics: dict[str, Tensor]


class Objectives:
    """The objectives over one set of networks.

    Args:
        config: The algorithm.
        acting: Actor, trained vision, state scaling, gripper critic.
        critics: The ensemble.
        target_critics, target_vision, target_gripper: Their slowly moving copies.
        mixed_precision: Matrix products in bfloat16.
    """

    def __init__(
        self,
        config: PolicyConfig,
        acting: ActingNetworks,
        critics: CriticEnsemble,
        target_critics: CriticEnsemble,
        target_vision: Vision,
        target_gripper: GripperCritic | None,
        *,
        mixed_precision: bool,
    ) -> None:
        self._config = config
        self._acting = acting
        self._critics = critics
        self._target_critics = target_critics
        self._target_vision = target_vision
        self._target_gripper = target_gripper
        self._mixed_precision = mixed_precision

    def critic(self, batch: TensorBatch, noise: Tensor, members: Tensor | None, temperature: Tensor, bound: Tensor) -> CriticObjective:
        """Squared TD error of every critic, and of the gripper critic.

        Args:
            batch: Transitions.
            noise: Standard normal for the next action, (B, Gaussian dimensions).
            members: Target critics whose minimum counts, (M,); None: all.
            temperature: Of the entropy, scalar without gradient.
            bound: The largest possible return, scalar; infinite where none is known.
        """
        with self._autocast(batch.state):
            state = self._acting.scaling(batch.state)
            with torch.no_grad():
                next_state = self._acting.scaling(batch.next_state)
                next_features = self._acting.vision(batch.next_images)
                target_features = self._target_vision(batch.next_images) if len(self._target_vision.encoders) else next_features
                target = self._target(batch, next_state, next_features, target_features, noise, members, temperature, bound)
            features = self._acting.vision(batch.images)
            q = self._critics(state, features, self._continuous(batch.action)).float()
            loss = losses.critic_loss(q, target)
            metrics = {"loss/critic": loss.detach(), "q/mean": q.detach().mean(), "q/max": q.detach().max()}
            if self._acting.gripper is not None:
                gripper_target = self._gripper_target(batch, next_state, next_features, target_features, bound)
                gripper_q = self._acting.gripper(state, features).float()
                gripper_loss = losses.gripper_loss(gripper_q, losses.gripper_class(batch.action[:, -1]), gripper_target)
                metrics |= {"loss/gripper": gripper_loss.detach(), "q/gripper_mean": gripper_q.detach().mean()}
                loss = loss + gripper_loss
        return CriticObjective(loss, state, {name: value.detach() for name, value in features.items()}, metrics)

    def actor(self, state: Tensor, features: Mapping[str, Tensor], noise: Tensor, temperature: Tensor) -> ActorObjective:
        """Entropy-regularised value of the actor's own actions, negated.

        Args:
            state: Scaled, (B, S).
            features: By camera, without gradient.
            noise: Standard normal, (B, Gaussian dimensions).
            temperature: Scalar without gradient.
        """
        with self._autocast(state):
            mean, log_std = self._acting.actor(state, features)
            action, log_probability = sample_squashed(mean, log_std, noise)
            q = self._critics(state, features, action).float()
        # RLPD's actor climbs the ensemble mean when targets use a sub-sampled minimum (its Algorithm 1).
        value = q.amin(0) if self._config.num_subsample_critics is None else q.mean(0)
        loss = losses.actor_loss(temperature, log_probability, value)
        metrics = {
            "loss/actor": loss.detach(),
            "entropy": -log_probability.detach().mean(),
            "action/mean_abs": action.detach().abs().mean(),
        }
        return ActorObjective(loss, log_probability, metrics)

    def cloning(self, batch: TensorBatch) -> Tensor:
        """Mean squared error between the actor's mode and the demonstrated actions; exploration noise is left alone."""
        with self._autocast(batch.state), torch.no_grad():
            features = self._acting.vision(batch.images)
        with self._autocast(batch.state):
            mean, _ = self._acting.actor(self._acting.scaling(batch.state), features)
        return F.mse_loss(torch.tanh(mean), self._continuous(batch.action))

    def _target(
        self,
        batch: TensorBatch,
        next_state: Tensor,
        next_features: Mapping[str, Tensor],
        target_features: Mapping[str, Tensor],
        noise: Tensor,
        members: Tensor | None,
        temperature: Tensor,
        bound: Tensor,
    ) -> Tensor:
        mean, log_std = self._acting.actor(next_state, next_features)
        next_action, log_probability = sample_squashed(mean, log_std, noise)
        next_q = self._target_critics(next_state, target_features, next_action, members).float().amin(0)
        if self._config.use_backup_entropy:
            next_q = next_q - temperature * log_probability
        reward = batch.reward
        if self._acting.gripper is None and self._config.gripper_cost:
            reward = losses.less_gripper_cost(reward, batch.action[:, -1], self._config.gripper_cost)
        return losses.td_target(reward, batch.terminated, next_q, batch.discount, bound)

    @torch.no_grad()
    def _gripper_target(
        self,
        batch: TensorBatch,
        next_state: Tensor,
        next_features: Mapping[str, Tensor],
        target_features: Mapping[str, Tensor],
        bound: Tensor,
    ) -> Tensor:
        assert self._acting.gripper is not None and self._target_gripper is not None
        chosen = self._acting.gripper(next_state, next_features).argmax(1)
        next_q = self._target_gripper(next_state, target_features).float()
        reward = losses.less_gripper_cost(batch.reward, batch.action[:, -1].round(), self._config.gripper_cost)
        return losses.td_target(reward, batch.terminated, losses.of_class(next_q, chosen), batch.discount, bound)

    def _continuous(self, action: Tensor) -> Tensor:
        return action if self._acting.gripper is None else action[:, :-1]

    def _autocast(self, like: Tensor) -> torch.autocast:
        return torch.autocast(like.device.type, torch.bfloat16, enabled=self._mixed_precision)
