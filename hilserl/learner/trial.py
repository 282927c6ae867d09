"""Find out at the start how updates are computed fastest on this machine, and keep to it when a run continues."""

from __future__ import annotations

import logging

import torch

from hilserl.config.models import TrainConfig
from hilserl.errors import TrainingError
from hilserl.policy import PolicyArchitecture
from hilserl.runs import RunFolder
from hilserl.sac.agent import SacAgent
from hilserl.sac.batch import TensorBatch
from hilserl.sac.execution import ChosenExecution, choose_execution

logger = logging.getLogger(__name__)


def choose_for_run(
    config: TrainConfig, run: RunFolder, agent: SacAgent, architecture: PolicyArchitecture, *, updates: int
) -> ChosenExecution:
    """Set how the agent computes its updates: as an earlier process of the run did, else as configured, else by measuring.

    Staying with the earlier choice keeps a continued run bit for bit what it would have been.

    Args:
        config: The run's configuration.
        run: Its folder; remembers the choice.
        agent: To be trained; its state is left as it is.
        architecture: Of its policy.
        updates: Critic updates still to be done.
    """
    asked = f"{config.learner.execution} on {agent.device}"
    earlier = run.facts().get("execution")
    if earlier and earlier["asked"] == asked:
        agent.execution = earlier["execution"]
        logger.info("Updates are computed %s, as before in this run", agent.execution)
        return ChosenExecution(agent.execution, {}, "as before in this run")
    chosen = choose_execution(agent, trial_batch(config, architecture), config.learner, updates=updates)
    run.update(execution={"asked": asked, "execution": chosen.execution, "update_ms": chosen.update_ms, "reason": chosen.reason})
    return chosen


def require_device(config: TrainConfig) -> None:
    """Stop where the configured device is not there, before anything else is done.

    Raises:
        TrainingError: No such GPU.
    """
    device = torch.device(config.learner.device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TrainingError(
            f"`learner.device: {config.learner.device}`: this machine shows {torch.cuda.device_count()} CUDA devices to torch. "
            "Set it to `cpu`, or install the GPU's driver."
        )


def trial_batch(config: TrainConfig, architecture: PolicyArchitecture) -> TensorBatch:
    """Make a batch of random numbers with the shapes and dtypes of the training's."""
    size, device = config.policy.batch_size, torch.device(config.learner.device)
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn((size, *shape), generator=generator).to(device)

    def images() -> dict[str, torch.Tensor]:
        shapes = architecture.input_spec().feature_shapes
        if config.encoder.freeze:
            return {camera: normal(*shape).to(torch.float16 if len(shape) == 3 else torch.float32) for camera, shape in shapes.items()}
        return {
            camera: torch.randint(0, 256, (size, *image, 3), dtype=torch.uint8, generator=generator).to(device)
            for camera, image in architecture.cameras.items()
        }

    discount = torch.full((size,), config.policy.discount**config.policy.n_step, device=device)
    return TensorBatch(
        state=normal(architecture.state_dim),
        next_state=normal(architecture.state_dim),
        images=images(),
        next_images=images(),
        action=normal(architecture.action_dim).tanh(),
        reward=normal().abs(),
        terminated=(normal() > 1).float(),
        discount=discount,
    )
