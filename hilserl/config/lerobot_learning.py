"""The keys of LeRobot about learning that need more than a new name: networks, encoder, gripper penalty, execution."""

from __future__ import annotations

import json
from collections.abc import Callable

from hilserl.config.lerobot_draft import Draft


def _networks(draft: Draft) -> None:
    for key, dims in draft.find("actor_network_kwargs.hidden_dims", "critic_network_kwargs.hidden_dims").items():
        if "discrete_critic" not in key:
            draft.put(key, dims, "policy.hidden_dims")


def _encoder(draft: Draft) -> None:
    name_key, freeze_key = "policy.vision_encoder_name", "policy.freeze_vision_encoder"
    frozen = draft.leaves.get(freeze_key, True)
    if freeze_key in draft.leaves:
        draft.put(freeze_key, frozen, "encoder.freeze")
    if name_key not in draft.leaves:
        return
    name = draft.leaves[name_key]
    if name is not None:
        is_folder = str(name).startswith(("/", ".", "~"))
        reason = (
            "read as JSON and safetensors, without running its code"
            if is_folder
            else "SET `encoder.revision` to a commit of it, 40 hex digits (a run needs it), and fetch it with "
            "`python -m hilserl.vision.fetch`; none of its code is run. LeRobot takes the newest, with its code"
        )
        draft.put_quietly("encoder.type", "pretrained")
        draft.put(name_key, name, "encoder.model", reason)
    elif frozen:
        draft.problems.append(
            f"`{name_key}` is null and `{freeze_key}` is true (LeRobot's defaults): that freezes a *random* network, and nothing "
            f"can be learned from what it sees. Name a pretrained encoder, or set `{freeze_key}` to false."
        )
    else:
        draft.put(name_key, name, "encoder.type", "LeRobot's own CNN, trained with the critic", ours="lerobot_cnn")


def _gripper_penalty(draft: Draft) -> None:
    """LeRobot adds a negative number to the reward, we take a positive one from it."""
    key, penalty = draft.first("wrapper.gripper_penalty", "gripper.gripper_penalty")
    if not key:
        return
    if isinstance(penalty, bool) or not isinstance(penalty, int | float) or not -1 <= penalty <= 0:
        draft.problems.append(
            f"`{key}` is {json.dumps(penalty)}; LeRobot adds it to the reward: give a number from -1 to 0, such as -0.02."
        )
    elif penalty == 0:
        draft.put(key, penalty, "policy.gripper_penalty")
    else:
        reason = (
            "as a cost, of every step that opens or closes; LeRobot drops it in the last of a step's updates, so with `utd_ratio: 1` always"
        )
        draft.put(key, penalty, "policy.gripper_penalty", reason, ours=-penalty)


def _execution(draft: Draft) -> None:
    """Translate where and how updates are computed."""
    key, compiles = draft.first("use_torch_compile")
    reason = "compiled updates are checked against eager ones at the start, and taken where they are faster"
    if compiles:
        draft.put(key, compiles, "learner.execution", reason, ours="auto")
    elif key:
        draft.note(key, compiles, "no effect", f"`learner.execution` decides: {reason}")
    key, mixed = draft.first("policy.use_amp")
    if key:
        draft.put(key, mixed, "learner.precision", "matrix products only" if mixed else "", ours="bfloat16" if mixed else "float32")
    key, device = draft.first("policy.storage_device")
    if key and str(device).partition(":")[0] in ("cpu", "cuda"):
        draft.put(key, device, "learner.storage_device", ours=str(device).partition(":")[0])
    elif key:
        draft.note(key, device, "unsupported", "replay buffers lie in memory or on a CUDA device")


LEARNING_PARTS: tuple[Callable[[Draft], None], ...] = (_networks, _encoder, _gripper_penalty, _execution)
