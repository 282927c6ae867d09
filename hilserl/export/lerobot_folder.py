"""Write a policy folder that LeRobot loads, and compare what it loads with the original."""

from __future__ import annotations

import contextlib
import importlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hilserl.export import gaussian_actor
from hilserl.export.card import model_card
from hilserl.export.lerobot_policy import LeRobotPolicy, import_plugin
from hilserl.export.probe import Comparison, compare, probe_observations
from hilserl.export.source import PolicySource
from hilserl.files import atomic_directory
from hilserl.policy import Policy
from hilserl.schema import ACTION_KEY, IMAGE_PREFIX, STATE_KEY

if TYPE_CHECKING:
    from lerobot.policies.pretrained import PreTrainedPolicy
    from lerobot.processor import PolicyProcessorPipeline

TOLERANCE = 1e-4  # of an action in [-1, 1]; float32 differs by a few 1e-6
_OBSERVATIONS = 16


@dataclass(frozen=True)
class LeRobotExport:
    """What was written.

    Attributes:
        folder: The policy folder.
        policy_type: LeRobot's name of the policy type: `gaussian_actor` or `hilserl`.
        reason: Why not `gaussian_actor`; None where it is.
        comparison: Of the actions, through LeRobot's own loader.
    """

    folder: Path
    policy_type: str
    reason: str | None
    comparison: Comparison


def export_lerobot(source: PolicySource, folder: Path) -> LeRobotExport:
    """Write `folder` for LeRobot 0.6.1: as `gaussian_actor` where that can represent the policy, else for our plugin.

    Args:
        source: The policy.
        folder: Where to; replaced if it exists.

    Raises:
        CheckpointError: What LeRobot loads acts differently, or the plugin is needed and missing; nothing was written.
    """
    policy = source.policy
    reason = gaussian_actor.obstacle(policy)
    if reason is None:
        theirs: PreTrainedPolicy = gaussian_actor.build_policy(policy)
        processors = gaussian_actor.build_processors(policy, theirs.config)
    else:
        theirs, processors = _build_plugin_policy(policy)
    with atomic_directory(folder) as temporary:
        _save(theirs, processors, temporary)
        (temporary / "README.md").write_text(model_card(source, theirs.config.type))
        loaded = LeRobotPolicy(temporary)
        what = f"the exported `{theirs.config.type}`, loaded by LeRobot,"
        comparison = compare(policy.act, loaded.act, probe_observations(policy, _OBSERVATIONS), tolerance=TOLERANCE, what=what)
    return LeRobotExport(folder, theirs.config.type, reason, comparison)


def _save(policy: PreTrainedPolicy, processors: tuple[PolicyProcessorPipeline, PolicyProcessorPipeline], folder: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        policy.save_pretrained(folder)
        for processor in processors:
            processor.save_pretrained(folder)


def _build_plugin_policy(policy: Policy) -> tuple[Any, Any]:
    from lerobot.configs import FeatureType, PolicyFeature

    import_plugin()
    configuration, modeling, processor = (
        importlib.import_module(f"lerobot_policy_hilserl.{part}_hilserl") for part in ("configuration", "modeling", "processor")
    )
    preprocessor, architecture = policy.preprocessor, policy.architecture
    config = configuration.HilserlConfig(
        input_features={
            **{IMAGE_PREFIX + name: PolicyFeature(FeatureType.VISUAL, (3, *view.native)) for name, view in preprocessor.views.items()},
            STATE_KEY: PolicyFeature(FeatureType.STATE, (architecture.state_dim,)),
        },
        output_features={ACTION_KEY: PolicyFeature(FeatureType.ACTION, (architecture.action_dim,))},
        device="cpu",
        push_to_hub=False,
        architecture=architecture.model_dump(mode="json"),
        preprocessor=preprocessor.to_dict(),
    )
    theirs = modeling.HilserlPolicy(config)
    theirs.networks.load_state_dict(policy.tensors())
    return theirs.eval(), processor.make_hilserl_pre_post_processors(config)
