"""SAC with prior data: the networks, their optimisers, and one update."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hilserl.config.models import PolicyConfig
from hilserl.errors import TrainingError
from hilserl.sac import losses
from hilserl.sac.acting import ActingNetworks, gaussian_part
from hilserl.sac.batch import TensorBatch
from hilserl.sac.networks import CriticEnsemble, InputSpec, StateScaling
from hilserl.sac.objectives import ActorObjective, CriticObjective, Objectives
from hilserl.vision.encoder import Encoder, Vision

Execution = Literal["eager", "compiled", "cuda_graphs"]


class SacAgent:
    """Actor, critic ensemble, gripper critic, targets, temperature and optimisers.

    The critic's trunk and the trained vision encoder have their own slowly moving target copies;
    the actor reads the critic's vision without sending gradients into it.

    Args:
        config: The algorithm.
        spec: Inputs and the policy's whole action.
        scaling: Of the state.
        trained_encoders: Encoders that learn with the critic, by camera; the other cameras are given features.
        seed: Of the initial networks and of everything random in the updates.
        device: Where it trains.
        precision: Of the matrix products.
    """

    def __init__(
        self,
        config: PolicyConfig,
        spec: InputSpec,
        scaling: StateScaling,
        trained_encoders: Mapping[str, Encoder],
        *,
        seed: int,
        device: str = "cpu",
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        self.config = config
        self.device = torch.device(device)
        discrete_gripper = config.gripper == "discrete"
        gaussian = gaussian_part(spec, discrete_gripper)
        self.target_entropy = -gaussian.action_dim / 2 if config.target_entropy is None else config.target_entropy
        sizes: dict[str, Any] = {"latent_dim": config.latent_dim, "hidden_dims": config.hidden_dims}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.acting = ActingNetworks.build(spec, Vision(trained_encoders), scaling, discrete_gripper=discrete_gripper, **sizes)
            self.critic_ensemble = CriticEnsemble(gaussian, members=config.num_critics, layer_norm=config.critic_layer_norm, **sizes)
        self.acting.to(self.device)
        self.critic_ensemble.to(self.device)
        self.actor, self.vision, self.scaling, self.gripper = (
            self.acting.actor,
            self.acting.vision,
            self.acting.scaling,
            self.acting.gripper,
        )
        self.target_critics = copy.deepcopy(self.critic_ensemble).requires_grad_(False)
        self.target_vision = copy.deepcopy(self.vision).requires_grad_(False)
        self.target_gripper = copy.deepcopy(self.gripper)
        if self.target_gripper is not None:
            self.target_gripper.requires_grad_(False)
        self.log_temperature = torch.tensor(config.temperature_init, device=self.device).log().requires_grad_()
        self._critic_parameters = _parameters(self.critic_ensemble, self.vision, self.gripper)
        self._target_parameters = _parameters(self.target_critics, self.target_vision, self.target_gripper)
        self._actor_parameters = list(self.actor.parameters())
        # An encoder that is trained may have parameters that stay as they are.
        self._learned = [p for p in self._critic_parameters if p.requires_grad]
        self.critic_optimizer = torch.optim.Adam(self._learned, config.critic_lr, fused=True)
        self.actor_optimizer = torch.optim.Adam(self._actor_parameters, config.actor_lr, fused=True)
        self.temperature_optimizer = torch.optim.Adam([self.log_temperature], config.temperature_lr, fused=True)
        self.generator = torch.Generator(self.device).manual_seed(seed + 1)
        self.objectives = Objectives(
            config,
            self.acting,
            self.critic_ensemble,
            self.target_critics,
            self.target_vision,
            self.target_gripper,
            mixed_precision=precision == "bfloat16",
        )
        self._execution = _Execution("eager")

    @property
    def architecture(self) -> str:
        """Hash of the names, shapes and dtypes of everything that travels to the actor."""
        return self.acting.architecture_hash

    def policy_tensors(self) -> dict[str, Tensor]:
        """Return what is needed to act: actor, trained vision, state scaling and gripper critic, by name."""
        return self.acting.tensors()

    @property
    def execution(self) -> Execution:
        """How updates are computed."""
        return self._execution.mode

    @execution.setter
    def execution(self, mode: Execution) -> None:
        self._execution.mode = mode

    def update(self, batch: TensorBatch, *, update_actor: bool, return_bound: float | None = None) -> dict[str, Tensor]:
        """Do one critic update, and one of actor and temperature when asked.

        Args:
            batch: Transitions.
            update_actor: Also climb with the actor, and adapt the temperature.
            return_bound: The largest possible return, which no target exceeds; None where none is known. An entropy in the
                target is no reward and has no bound: then it is not used.

        Returns:
            Scalars without gradient, still tensors so that nothing waits for the device.
        """
        temperature = self.log_temperature.detach().exp()
        noise = self._noise(len(batch.reward))
        members = losses.subset_of_critics(self.config.num_critics, self.config.num_subsample_critics, self.generator)
        if return_bound is None or self.config.use_backup_entropy or not self.config.clip_target:
            return_bound = math.inf
        bound = torch.full((), return_bound, device=self.device)
        objective = self._execution.critic(self.objectives)(batch, noise, members, temperature, bound)
        grad_norm = self._descend(objective.loss, self.critic_optimizer, self._learned)
        with torch.no_grad():
            torch._foreach_lerp_(self._target_parameters, self._critic_parameters, self.config.critic_target_update_weight)
        metrics = self._execution.keep(objective.metrics) | {"grad_norm/critic": grad_norm}
        if update_actor:
            metrics |= self._update_actor(self._execution.keep({"": objective.state})[""], self._execution.keep(objective.features))
        return metrics

    def clone_behaviour(self, batch: TensorBatch) -> dict[str, Tensor]:
        """Do one step of behaviour cloning on demonstrations: the actor alone, towards their actions."""
        loss = self.objectives.cloning(batch)
        grad_norm = self._descend(loss, self.actor_optimizer, self._actor_parameters)
        return {"loss/cloning": loss.detach(), "grad_norm/actor": grad_norm}

    def _update_actor(self, state: Tensor, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        temperature = self.log_temperature.detach().exp()
        # The actor's gradient passes through the critics, not into their parameters.
        self.critic_ensemble.requires_grad_(False)
        try:
            objective = self._execution.actor(self.objectives)(state, features, self._noise(len(state)), temperature)
            grad_norm = self._descend(objective.loss, self.actor_optimizer, self._actor_parameters)
        finally:  # also where compiling failed: critics left without gradients would learn nothing
            self.critic_ensemble.requires_grad_(True)
        temperature_loss = losses.temperature_loss(self.log_temperature, objective.log_probability, self.target_entropy)
        self.temperature_optimizer.zero_grad(set_to_none=True)
        temperature_loss.backward()
        self.temperature_optimizer.step()
        return self._execution.keep(objective.metrics) | {
            "loss/temperature": temperature_loss.detach(),
            "temperature": self.log_temperature.detach().exp(),
            "grad_norm/actor": grad_norm,
        }

    def _descend(self, loss: Tensor, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(parameters, math.inf if self.config.grad_clip_norm is None else self.config.grad_clip_norm)
        optimizer.step()
        return grad_norm

    def _noise(self, rows: int) -> Tensor:
        return torch.randn((rows, self.acting.noise_dim), generator=self.generator, device=self.device)

    def state_dict(self) -> dict[str, Tensor]:
        """Copy every tensor of the learning state, by a flat name; restored by `load_state_dict`."""
        tensors = {f"{owner}.{name}": tensor for owner, module in self._modules().items() for name, tensor in module.state_dict().items()}
        tensors["log_temperature"] = self.log_temperature.detach()
        tensors["generator"] = self.generator.get_state()
        for owner, optimizer in self._optimizers().items():
            for index, slots in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{owner}.{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
        return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            TrainingError: Names or shapes differ.
        """
        expected = {owner: module.state_dict() for owner, module in self._modules().items()}
        names = {f"{owner}.{name}" for owner, entries in expected.items() for name in entries}
        missing = sorted((names | {"log_temperature", "generator"}) - tensors.keys())
        if missing:
            raise TrainingError(f"the saved learning state lacks {missing[:3]}{' and more' if len(missing) > 3 else ''}")
        for owner, entries in expected.items():
            for name, entry in entries.items():
                if (saved := tensors[f"{owner}.{name}"].shape) != entry.shape:
                    raise TrainingError(
                        f"`{owner}.{name}` was saved with shape {tuple(saved)}, this configuration and code make it {tuple(entry.shape)}. "
                        "Start a new run with `--fresh`."
                    )
        for owner, module in self._modules().items():
            module.load_state_dict({name: tensors[f"{owner}.{name}"] for name in expected[owner]})
        with torch.no_grad():
            self.log_temperature.copy_(tensors["log_temperature"])
        self.generator.set_state(tensors["generator"])
        for owner, optimizer in self._optimizers().items():
            state: dict[int, dict[str, Any]] = {}
            prefix = f"optimizer.{owner}."
            for name, tensor in tensors.items():
                if name.startswith(prefix):
                    index, slot = name.removeprefix(prefix).split(".")
                    state.setdefault(int(index), {})[slot] = tensor.clone()
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})

    def _modules(self) -> dict[str, nn.Module]:
        modules: dict[str, nn.Module | None] = {
            "actor": self.actor,
            "critic": self.critic_ensemble,
            "target_critic": self.target_critics,
            "vision": self.vision,
            "target_vision": self.target_vision,
            "scaling": self.scaling,
            "gripper": self.gripper,
            "target_gripper": self.target_gripper,
        }
        return {name: module for name, module in modules.items() if module is not None}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"critic": self.critic_optimizer, "actor": self.actor_optimizer, "temperature": self.temperature_optimizer}


class _Execution:
    """The objectives as they are called: as written, or compiled at first use.

    A copy compiles anew, since compiled functions are bound to the networks that they were compiled with.
    """

    def __init__(self, mode: Execution) -> None:
        self.mode = mode
        self._compiled: dict[tuple[Execution, str], Callable[..., Any]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> _Execution:
        return _Execution(self.mode)

    def critic(self, objectives: Objectives) -> Callable[..., CriticObjective]:
        return self._get("critic", objectives.critic)

    def actor(self, objectives: Objectives) -> Callable[..., ActorObjective]:
        return self._get("actor", objectives.actor)

    def keep(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copy what a replayed CUDA graph would overwrite; otherwise return it as it is."""
        return {name: tensor.clone() for name, tensor in tensors.items()} if self.mode == "cuda_graphs" else dict(tensors)

    def _get(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        if self.mode == "eager":
            return function
        if self.mode == "cuda_graphs":
            torch.compiler.cudagraph_mark_step_begin()
        key = (self.mode, name)
        if key not in self._compiled:
            graphs = "reduce-overhead" if self.mode == "cuda_graphs" else None
            self._compiled[key] = torch.compile(function, dynamic=False, mode=graphs)
        return self._compiled[key]


def _parameters(*modules: nn.Module | None) -> list[Tensor]:
    return [parameter for module in modules if module is not None for parameter in module.parameters()]
