"""LeRobot's pipelines around the policy: they move tensors; scaling and cropping happen inside the policy."""

from __future__ import annotations

from typing import Any

from lerobot.processor import PolicyAction, PolicyProcessorPipeline
from lerobot.processor.factory import make_default_policy_processor_steps, make_policy_processor_pipelines

from .configuration_hilserl import HilserlConfig


def make_hilserl_pre_post_processors(
    config: HilserlConfig, dataset_stats: dict[str, dict[str, Any]] | None = None
) -> tuple[PolicyProcessorPipeline[dict[str, Any], dict[str, Any]], PolicyProcessorPipeline[PolicyAction, PolicyAction]]:
    """Make the pipelines: rename, batch, device; and back to the CPU.

    Args:
        config: The policy's configuration.
        dataset_stats: Not used: the policy carries the statistics that it was trained with.
    """
    steps = make_default_policy_processor_steps(config)
    return make_policy_processor_pipelines([steps.rename_observations, steps.add_batch_dim, steps.to_device], [steps.to_cpu])
