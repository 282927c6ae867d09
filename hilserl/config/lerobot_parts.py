"""The keys of LeRobot that mean something only together: cameras, state, bounds, reset, dataset."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hilserl.config.lerobot_draft import Draft
from hilserl.config.lerobot_learning import LEARNING_PARTS
from hilserl.config.models import RobotConfig

_IMAGE_PREFIX = "observation.images."
_SIMULATED_CAMERAS = ("wrist", "front")
_STATE_SIZES = {"joint_pos": 6, "joint_vel": 6, "ee_pos": 3, "ee_euler": 3}
_STATE_SWITCHES = (
    "add_full_proprioception",
    "add_joint_velocity_to_observation",
    "add_ee_pose_to_observation",
    "add_current_to_observation",
)


def _name(draft: Draft) -> None:
    key, value = draft.first("job_name")
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", str(value or "")).strip("-") or "lerobot"
    draft.put_quietly("name", name)
    if key:
        draft.put(key, value, "name", "" if name == value else "other characters became `-`", ours=name)


def _action(draft: Draft) -> None:
    """Decide between the 3-D and the 4-D action, and take the simulated task that has it."""
    features_key, features = draft.first("policy.output_features")
    shape = ((features or {}).get("action") or {}).get("shape")
    use_key, use_gripper = draft.first("wrapper.use_gripper", "gripper.use_gripper")
    if shape not in (None, [3], [4]):
        draft.problems.append(
            f"`policy.output_features.action.shape` is {json.dumps(shape)}; the policy acts in [3] = [dx, dy, dz] "
            "or [4] = [dx, dy, dz, gripper]."
        )
    if shape == [4] and use_gripper is False:
        draft.problems.append(f"`policy.output_features.action.shape` is [4], with a gripper, but `{use_key}` is false. Make them agree.")
    # With a discrete gripper LeRobot counts only the three continuous dimensions.
    discrete = draft.leaves.get("policy.num_discrete_actions") is not None
    has_gripper = bool(use_gripper) if use_key else shape != [3] or discrete
    task = "lift" if has_gripper else "reach"
    reason = f"the simulated task with {'a' if has_gripper else 'no'} gripper in its action"
    draft.put_quietly("task.type", task)
    for key, value in ((features_key, features), (use_key, use_gripper)):
        if key:
            draft.put(key, value, "task.type", reason, ours=task)


def _observation(draft: Draft) -> None:
    """Translate cameras, crops, sizes and the state."""
    features_key, features = draft.first("policy.input_features")
    features = features or {}
    images = _images(draft, features)
    if features_key:
        draft.put_quietly("observation.images", images)
        draft.note(features_key, features, "mapped", "[3, height, width] became resize: [height, width]", "observation.images")
    _state(draft, (features.get("observation.state") or {}).get("shape"))
    _cameras(draft)


def _images(draft: Draft, features: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    crops_key, crops = draft.first("crop_params_dict")
    size_key, size = draft.first("resize_size")
    images: dict[str, dict[str, Any]] = {}
    for key, feature in features.items():
        shape = feature.get("shape") if isinstance(feature, Mapping) else None
        where = f"`policy.input_features.{key}`"
        if key == "observation.state":
            continue
        if not key.startswith(_IMAGE_PREFIX):
            draft.problems.append(f"{where} is neither `observation.state` nor `{_IMAGE_PREFIX}<camera>`. Name the camera.")
        elif not isinstance(shape, list) or len(shape) != 3 or shape[0] != 3:
            draft.problems.append(f"{where} has shape {json.dumps(shape)}; an image is [3, height, width].")
        elif size and list(size) != shape[1:]:
            draft.problems.append(f"{where} has shape {shape}, but `{size_key}` is {json.dumps(size)} = [height, width]. Make them agree.")
        else:
            images[key.removeprefix(_IMAGE_PREFIX)] = {"resize": shape[1:]}
    for key, crop in (crops or {}).items():
        camera = key.removeprefix(_IMAGE_PREFIX)
        if camera in images:
            images[camera]["crop"] = crop
        elif features and not draft.problems:
            draft.problems.append(f"`{crops_key}` crops `{key}`, but `policy.input_features` has only {', '.join(features)}.")
    if crops_key:
        draft.note(crops_key, crops, "mapped", "[top, left, height, width], as here", "observation.images.*.crop")
    if size_key:
        draft.note(size_key, size, "mapped", "[height, width], as here", "observation.images.*.resize")
    return images


def _state(draft: Draft, shape: Sequence[int] | None) -> None:
    """Name the components of LeRobot's anonymous state vector: 18 numbers alone have two meanings."""
    switches = {name: bool(draft.first(name)[1]) for name in _STATE_SWITCHES}
    full, velocity, pose, current = switches.values()
    everything = list(_STATE_SIZES)
    state = everything if full else ["joint_pos", *["joint_vel"] * velocity, *["ee_pos"] * pose]
    if shape and not any(switches.values()):  # then only the size can tell
        state = {6: ["joint_pos"], 12: ["joint_pos", "joint_vel"], 18: everything}.get(shape[0], state)
    size = sum(_STATE_SIZES[name] for name in state) + 6 * current
    if shape and list(shape) != [size]:
        parts = [f"{name} {_STATE_SIZES[name]}" for name in state] + ["motor current 6"] * current
        draft.problems.append(
            f"`policy.input_features.observation.state` has shape {json.dumps(shape)}, but the switches `add_...` of the file give "
            f"{size} = {' + '.join(parts)}. What the numbers are must be known by name: make them agree."
        )
    draft.put_quietly("observation.state", state)
    for name, on in switches.items():
        for key in draft.find(name):
            if name == "add_current_to_observation" and on:
                draft.note(key, on, "unsupported", "the motors' current is no component here yet: the policy does not see it")
            elif on:
                draft.note(key, on, "mapped", "", "observation.state")
            else:
                draft.note(key, on, "no effect", "not asked for")


def _cameras(draft: Draft) -> None:
    cameras: dict[str, dict[str, Any]] = {}
    for key, value in draft.find("width", "height").items():
        match = re.fullmatch(r"env\.robot\.cameras\.(.+)\.(width|height)", key)
        if match:
            camera, side = match.groups()
            cameras.setdefault(camera, {})[side] = value
            draft.note(key, value, "mapped", "", f"robot.cameras.{camera}.{side}")
    for camera, values in cameras.items():
        if camera not in _SIMULATED_CAMERAS:
            values["simulated_as"] = "wrist"
            reason = f"`{camera}` keeps its name; the simulation renders its wrist camera for it"
            draft.note(f"env.robot.cameras.{camera}", camera, "adapted", reason, f"robot.cameras.{camera}.simulated_as")
    if cameras:
        draft.put_quietly("robot.cameras", cameras)


def _motion(draft: Draft) -> None:
    """Translate step sizes, gripper, workspace and reset pose."""
    key, steps = draft.first("end_effector_step_sizes")
    if key and set(steps) == {"x", "y", "z"} and len(set(steps.values())) == 1:
        draft.put(key, steps, "robot.action_scale_m", ours=steps["x"])
    elif key:
        draft.problems.append(f"`{key}` is {json.dumps(steps)}; here x, y and z share one step size in metres, `robot.action_scale_m`.")
    key, scale = draft.first("robot.action_scale")
    if key:
        draft.put(key, scale, "robot.action_scale_m")
    key, gripper = draft.first("max_gripper_pos")
    if key:
        draft.put(key, gripper, "robot.max_gripper_step_pct", "LeRobot's step of the gripper, on the 0-100 scale")
    key, bounds = draft.first("end_effector_bounds")
    if key:
        corners = [bounds.get(side) for side in ("min", "max")]
        if any(not isinstance(corner, list) or len(corner) != 3 for corner in corners):
            draft.problems.append(f"`{key}` is {json.dumps(bounds)}; give `min` and `max`, each [x, y, z] in metres, base frame.")
            return
        draft.put_quietly("robot.workspace_min_m", corners[0])
        draft.put_quietly("robot.workspace_max_m", corners[1])
        draft.note(key, bounds, "mapped", "", "robot.workspace_min_m, robot.workspace_max_m")
        if not draft.find("ik_reset_ee_pos"):
            _reset_inside(draft, *corners)
    _reset(draft)


def _reset(draft: Draft) -> None:
    """Translate the reset by inverse kinematics and its randomisation."""
    key, position = draft.first("ik_reset_ee_pos")
    if key:
        draft.put(key, position, "robot.reset_ee_pos_m")
    switch_key, randomised = draft.first("random_ee_reset")
    if switch_key:
        draft.note(switch_key, randomised, "mapped", "", "robot.reset_noise_m")
    ranges = draft.find("random_ee_range_xy", "random_ee_range_z")
    noise = min(ranges.values(), default=RobotConfig.model_fields["reset_noise_m"].default)
    if switch_key and not randomised:
        noise = 0.0
    for key, value in ranges.items():
        if noise == value:
            draft.note(key, value, "mapped", "", "robot.reset_noise_m")
        else:
            reason = "not randomised" if noise == 0 else "one range for all axes here: the smaller"
            draft.note(key, value, "adapted", reason, "robot.reset_noise_m")
    if switch_key or ranges:
        draft.put_quietly("robot.reset_noise_m", noise)


def _reset_inside(draft: Draft, low: Sequence[float], high: Sequence[float]) -> None:
    """Reset to the centre of bounds that our default tool position is outside of."""
    fields = RobotConfig.model_fields
    default, noise = fields["reset_ee_pos_m"].default, fields["reset_noise_m"].default
    if all(a + noise <= value <= b - noise for a, value, b in zip(low, default, high, strict=True)):
        return
    half = min((b - a) / 2 for a, b in zip(low, high, strict=True))
    draft.put_quietly("robot.reset_ee_pos_m", [(a + b) / 2 for a, b in zip(low, high, strict=True)])
    draft.put_quietly("robot.reset_noise_m", max(0.0, min(noise, half * 0.9)))
    draft.note(
        "ik_reset_ee_pos", None, "default", "no tool position to reset to in the file: the centre of the bounds", "robot.reset_ee_pos_m"
    )


def _dataset(draft: Draft) -> None:
    """Find the dataset's folder where LeRobot looks; without a dataset, record one in simulation."""
    repo = draft.leaves.get("dataset.repo_id")
    root = draft.leaves.get("dataset.root")
    if repo is None and root is None:
        draft.put_quietly("dataset.record", {})
        draft.note("dataset", None, "default", "no dataset in the file: the scripted expert records one in simulation", "dataset.record")
        _gripper_classes(draft, has_dataset=False)
        _episodes(draft, None)
        return
    if repo is not None:
        draft.put("dataset.repo_id", repo, "dataset.repo_id")
    if root is not None:
        draft.put("dataset.root", root, "dataset.root")
    else:
        cache = Path(
            os.environ.get("HF_LEROBOT_HOME") or Path(os.environ.get("HF_HOME") or "~/.cache/huggingface") / "lerobot"
        ).expanduser()
        draft.put_quietly("dataset.root", str(cache / str(repo)))
        draft.note("dataset.root", None, "adapted", "where LeRobot keeps it", "dataset.root")
    _gripper_classes(draft, has_dataset=True)
    info = _dataset_info(Path(draft.values["dataset"]["root"]))
    _episodes(draft, info.get("total_episodes"))
    _frame_rate(draft, info.get("fps"))


def _dataset_info(root: Path) -> Mapping[str, Any]:
    """Return the dataset's meta/info.json, or nothing where it is not on this machine (validation says what is wrong with it)."""
    try:
        info = json.loads((root / "meta" / "info.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return info if isinstance(info, dict) else {}


def _gripper_classes(draft: Draft, *, has_dataset: bool) -> None:
    """Translate LeRobot's gripper with classes: of the policy, and of what was recorded."""
    key, classes = draft.first("policy.num_discrete_actions")
    if key and classes != 3:
        draft.note(key, classes, "unsupported", "LeRobot's gripper has 3 classes: close, stay, open; this number has no meaning here")
    elif key:
        if has_dataset:
            draft.put_quietly("dataset.gripper", "discrete")
        reason = "close, stay, open" + ("; the dataset's classes 0, 1, 2 are read as the same" if has_dataset else "")
        draft.put(key, classes, "policy.gripper", reason, ours="discrete")


def _episodes(draft: Draft, total: Any) -> None:
    """LeRobot names the episodes to use, we those to leave out: translated where the dataset can be read."""
    key, episodes = draft.first("dataset.episodes")
    if not key:
        return
    if not isinstance(episodes, list) or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in episodes):
        draft.problems.append(f"`{key}` is {json.dumps(episodes)}; give a list of episode numbers from 0 on.")
    elif not isinstance(total, int):
        reason = (
            "the dataset is not on this machine, so which episodes to leave out is not known: ALL WILL BE USED. "
            "Import again where it is, or list the others under `dataset.exclude_episodes`"
        )
        draft.note(key, episodes, "unsupported", reason)
    elif absent := sorted(set(episodes) - set(range(total))):
        draft.problems.append(f"`{key}` names episodes {absent}, the dataset has {total}: 0 to {total - 1}.")
    else:
        others = [number for number in range(total) if number not in set(episodes)]
        reason = f"the other {len(others)} of {total} are left out"
        draft.put(key, episodes, "dataset.exclude_episodes", reason, ours=others)


def _frame_rate(draft: Draft, recorded_hz: Any) -> None:
    """Convert a dataset that was recorded faster than the policy acts; LeRobot would have played it in slow motion."""
    _, control_hz = draft.first("env.fps")
    control_hz = control_hz or RobotConfig.model_fields["control_hz"].default
    if isinstance(recorded_hz, int | float) and recorded_hz > control_hz:
        draft.put_quietly("dataset.frame_rate", "convert")
        reason = f"the dataset has {recorded_hz:g} frames per second and the policy acts at {control_hz:g} Hz; LeRobot would not convert it"
        draft.note("fps in the dataset's meta/info.json", recorded_hz, "adapted", reason, "dataset.frame_rate")


def _people(draft: Draft) -> None:
    """Say plainly that the arm and the person are simulated, until somebody names their devices."""
    draft.put_quietly("robot.type", "so101_sim")
    draft.put_quietly("actor.intervention.type", "simulated")
    for key, value in draft.find("env.robot.type").items():
        draft.note(
            key,
            value,
            "adapted",
            "THIS RUN USES THE SIMULATED SO-101; for the real one set robot.type and the path of each camera",
            "robot.type",
        )
    _, port = draft.first("env.teleop.port")
    leader = f"{{type: leader, leader: {{port: {port or '/dev/serial/by-id/...'}, id: NAME}}}}"
    for key, value in draft.find("control_mode", "env.teleop.type").items():
        instead = f"set `actor.intervention: {leader}`" if "leader" in str(value) else f"set `actor.intervention.type: {value}`"
        reason = f"a simulated human intervenes on the simulated arm; with the real one {instead}"
        draft.note(key, value, "adapted", reason, "actor.intervention.type")


PARTS: tuple[Callable[[Draft], None], ...] = (
    _name,
    _action,
    _observation,
    _motion,
    *LEARNING_PARTS,
    _dataset,
    _people,
)
