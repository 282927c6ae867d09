"""The policies that LeRobot's own `gaussian_actor` can represent, and the translation of their weights.

Its actor (lerobot 0.6.1, `policies/gaussian_actor/modeling_gaussian_actor.py`) is ours under other names:
per input Linear, LayerNorm, tanh; then [Linear, LayerNorm, SiLU]*; then mean and standard deviation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hilserl.policy import Policy
from hilserl.schema import ACTION_KEY, IMAGE_PREFIX, STATE_KEY
from hilserl.vision.lerobot_cnn import HIDDEN_DIM, LeRobotCnn
from hilserl.vision.pixels import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from lerobot.policies.gaussian_actor.configuration_gaussian_actor import GaussianActorConfig
    from lerobot.policies.gaussian_actor.modeling_gaussian_actor import GaussianActorPolicy
    from lerobot.processor import PolicyProcessorPipeline

# LeRobot's policy always samples, and what it calls std is the variance. This one leaves the mean unchanged in float32.
_VARIANCE = 1e-30


def obstacle(policy: Policy) -> str | None:
    """Say why `gaussian_actor` cannot represent this policy; None where it can."""
    architecture = policy.architecture
    if architecture.gripper == "discrete":
        return (
            "LeRobot 0.6.1 cannot run a `gaussian_actor` with a discrete gripper: its `select_action` fails on the batch that it is given"
        )
    if len(architecture.cameras) > 1:
        return "it has several cameras, each with its own encoder; a `gaussian_actor` has one encoder for all"
    for camera in architecture.cameras:
        encoder = policy.networks.vision.encoders[camera]
        if not isinstance(encoder, LeRobotCnn):
            return f"its encoder is a {type(encoder).__name__}, and that of a `gaussian_actor` is LeRobot's (`encoder.type: lerobot_cnn`)"
        view = policy.preprocessor.views[camera]
        if view.crop[2:] != view.resize:
            return (
                f"camera `{camera}` is resized from {view.crop[2]}x{view.crop[3]} to {view.resize[0]}x{view.resize[1]} by averaging, "
                "which no step of LeRobot's does"
            )
    return None


def build_policy(policy: Policy) -> GaussianActorPolicy:
    """Make LeRobot's policy with our weights; `obstacle(policy)` must be None."""
    from lerobot.policies.gaussian_actor.modeling_gaussian_actor import GaussianActorPolicy

    built = GaussianActorPolicy(_config(policy))
    built.load_state_dict(_weights(policy))
    return built.eval()


def build_processors(policy: Policy, config: GaussianActorConfig) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]:
    """Make LeRobot's pipelines: scaling of the state and the pixels, and the crop."""
    from lerobot.policies import make_pre_post_processors
    from lerobot.processor.hil_processor import ImageCropResizeProcessorStep

    statistics = {key: {name: torch.tensor(values) for name, values in each.items()} for key, each in (config.dataset_stats or {}).items()}
    preprocessor, postprocessor = make_pre_post_processors(config, dataset_stats=statistics)
    crops = {IMAGE_PREFIX + name: view.crop for name, view in policy.preprocessor.views.items() if view.resize != view.native}
    if crops:
        preprocessor.steps = [*preprocessor.steps[:-1], ImageCropResizeProcessorStep(crop_params_dict=crops), preprocessor.steps[-1]]
    return preprocessor, postprocessor


def _config(policy: Policy) -> GaussianActorConfig:
    from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature
    from lerobot.policies.gaussian_actor.configuration_gaussian_actor import ActorNetworkConfig, GaussianActorConfig, PolicyConfig

    architecture, scaling = policy.architecture, policy.networks.scaling
    images = {IMAGE_PREFIX + name: (3, *size) for name, size in architecture.cameras.items()}
    statistics: dict[str, dict[str, list[Any]]] = {
        # As mean and deviation, not minimum and maximum: (x - center) / half_range with nothing to cancel.
        STATE_KEY: {"mean": scaling.center.tolist(), "std": scaling.half_range.tolist()},
        ACTION_KEY: {"min": [-1.0] * architecture.action_dim, "max": [1.0] * architecture.action_dim},
    }
    statistics |= {key: {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)} for key in images}
    return GaussianActorConfig(
        input_features={
            **{key: PolicyFeature(FeatureType.VISUAL, shape) for key, shape in images.items()},
            STATE_KEY: PolicyFeature(FeatureType.STATE, (architecture.state_dim,)),
        },
        output_features={ACTION_KEY: PolicyFeature(FeatureType.ACTION, (architecture.action_dim,))},
        normalization_mapping={
            "VISUAL": NormalizationMode.MEAN_STD,
            "STATE": NormalizationMode.MEAN_STD,
            "ACTION": NormalizationMode.MIN_MAX,
        },
        dataset_stats=statistics,
        device="cpu",
        push_to_hub=False,
        freeze_vision_encoder=False,
        image_encoder_hidden_dim=HIDDEN_DIM,
        latent_dim=architecture.latent_dim,
        actor_network_kwargs=ActorNetworkConfig(hidden_dims=list(architecture.hidden_dims), activate_final=True),
        policy_kwargs=PolicyConfig(std_min=_VARIANCE, std_max=_VARIANCE),
    )


def _weights(policy: Policy) -> dict[str, Tensor]:
    """Name our tensors as LeRobot does; the encoder appears twice, since it is shared with its critic."""
    ours = {name: tensor.clone() for name, tensor in policy.networks.actor.state_dict().items()}
    latent_dim = policy.architecture.latent_dim
    theirs: dict[str, Tensor] = {}

    def copy(source: str, target: str) -> None:
        theirs[f"{target}.weight"], theirs[f"{target}.bias"] = ours[f"{source}.weight"], ours[f"{source}.bias"]

    encoder = "actor.encoder"
    for index in (0, 1):  # Linear, LayerNorm
        copy(f"trunk.state.{index}", f"{encoder}.state_encoder.{index}")
    for camera in policy.architecture.cameras:
        key = (IMAGE_PREFIX + camera).replace(".", "_")
        theirs[f"{encoder}.spatial_embeddings.{key}.kernel"] = ours[f"trunk.cameras.{camera}.0.kernel"]
        for index in (1, 2):  # theirs has a dropout where ours has the spatial embedding
            copy(f"trunk.cameras.{camera}.{index}", f"{encoder}.post_encoders.{key}.{index}")
        convolutions = policy.networks.vision.encoders[camera].state_dict()
        theirs |= {f"{encoder}.image_encoder.{name}": tensor.clone() for name, tensor in convolutions.items()}
    for index in range(3 * len(policy.architecture.hidden_dims)):
        if f"layers.{index}.weight" in ours:
            copy(f"layers.{index}", f"actor.network.net.{index}")
    # Theirs concatenates images, then the state; ours the state, then images.
    theirs["actor.network.net.0.weight"] = ours["layers.0.weight"].roll(-latent_dim, dims=1)
    copy("mean", "actor.mean_layer")
    # The logarithm of a variance is twice that of a deviation: true to the policy, should somebody widen std_min and std_max.
    theirs["actor.std_layer.weight"], theirs["actor.std_layer.bias"] = 2 * ours["log_std.weight"], 2 * ours["log_std.bias"]
    shared = {name.replace(encoder, owner): tensor for name, tensor in theirs.items() if name.startswith(encoder) for owner in _OWNERS}
    return theirs | shared


_OWNERS = ("encoder_critic", "encoder_actor")
