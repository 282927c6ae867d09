"""D01, D14, D15, D18: the features of the dataset are those that the policy wants, at the rate that it acts."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection

from hilserl.config.models import TrainConfig
from hilserl.data.dataset import INDEX_KEYS, Dataset
from hilserl.data.validation.findings import Finding
from hilserl.schema import ACTION_KEY, IMAGE_PREFIX, policy_schema

_RATE = "Frame rate"


def check_keys(config: TrainConfig, dataset: Dataset, columns: Collection[str]) -> list[Finding]:
    """D01: every key the policy wants exists, in info.json and in the frames (`columns`)."""
    wanted = [*policy_schema(config).observation, ACTION_KEY]
    findings = []
    for key in wanted:
        if key not in dataset.features:
            message = f"the policy wants `{key}`, the dataset has no such feature: it would fail, or see nothing there"
            findings.append(Finding("D01", "stops", "meta/info.json", message, _other_name(config, dataset, key)))
        elif dataset.features[key]["dtype"] != "video" and columns and key not in columns:
            if dataset.features[key]["dtype"] == "image":
                continue  # Told by check_images.
            message = f"`{key}` is declared in meta/info.json but is no column of data/: the policy would have nothing to learn from"
            findings.append(Finding("D01", "stops", "data/", message, "# restore data/ from the recording, or record it again"))
    unused = [key for key in dataset.camera_keys if key not in wanted]
    if unused:
        message = f"the policy does not use {unused}; list them under observation.images to use them"
        findings.append(Finding("D01", "informs", "meta/info.json", message))
    return findings


def _other_name(config: TrainConfig, dataset: Dataset, key: str) -> str:
    """Write what may be meant by a feature that is missing: a camera's other name is two entries to replace."""
    near = difflib.get_close_matches(key, [k for k in dataset.features if k not in INDEX_KEYS], n=1, cutoff=0.6)
    lines = [f"# did you mean `{near[0]}`?" if near else f"# the dataset has {sorted(set(dataset.features) - set(INDEX_KEYS))}"]
    if not key.startswith(IMAGE_PREFIX):
        return lines[0]
    cameras = [name.removeprefix(IMAGE_PREFIX) for name in near or dataset.camera_keys if name.startswith(IMAGE_PREFIX)]
    if not cameras:
        if not dataset.camera_keys:
            lines.append("observation: {images: {}}  # a policy without pictures, since the dataset has no camera")
        return "\n".join(lines)
    old, new = key.removeprefix(IMAGE_PREFIX), cameras[0]
    shape = dataset.shape(IMAGE_PREFIX + new)
    height, width = (shape[0], shape[1]) if len(shape) == 3 else (config.robot.cameras[old].height, config.robot.cameras[old].width)
    image = config.observation.images[old]
    same = (height, width) == (config.robot.cameras[old].height, config.robot.cameras[old].width)
    crop = json.dumps(list(image.crop) if image.crop and same else None)
    lines += [
        f"# then replace `{old}` in both places by:",
        f"# robot: {{cameras: {{{new}: {{height: {height}, width: {width}}}}}}}",
        f"# observation: {{images: {{{new}: {{crop: {crop}, resize: {list(image.resize)}}}}}}}",
    ]
    return "\n".join(lines)


def check_rate(config: TrainConfig, dataset: Dataset) -> list[Finding]:
    """D18: the dataset was recorded at the rate of the policy, or is brought to it."""
    fps, hz, place = dataset.fps, config.robot.control_hz, "meta/info.json"
    if fps == hz:
        return []
    convert = config.dataset.frame_rate == "convert"
    if fps > hz and convert:
        message = f"recorded at {fps:g} Hz, brought to the policy's {hz:g} Hz: about {fps / hz:.3g} deltas add up to one action"
        return [Finding("D18", "informs", place, message, title=_RATE)]
    message = f"recorded at {fps:g} Hz, the policy acts at {hz:g} Hz: each action would be held {fps / hz:.2g} times as long as it was"
    remedy = "dataset: {frame_rate: convert}"
    if fps < hz:
        remedy = f"robot: {{control_hz: {fps:g}}}\n# or record at {hz:g} Hz"
        if convert:
            message += "; frames that were not recorded cannot be made"
    elif fps <= 50:
        remedy += f"\n# or: robot: {{control_hz: {fps:g}}}  # to act as fast as it was recorded"
    return [Finding("D18", "stops", place, message, remedy, _RATE)]


def check_images(config: TrainConfig, dataset: Dataset) -> list[Finding]:
    """D14, D15: pictures are stored as the camera delivers them, and large enough."""
    findings = []
    for name, image in config.observation.images.items():
        key = IMAGE_PREFIX + name
        if key not in dataset.features:
            continue
        camera = config.robot.cameras[name]
        shape, dtype = dataset.shape(key), dataset.features[key]["dtype"]
        if dtype != "video":
            message = f"stored as `{dtype}`, this reads encoded video: the policy would have no pictures"
            remedy = "# encode it with LeRobot (`lerobot-edit-dataset --operation.type convert_image_to_video`), or record with video: true"
            findings.append(Finding("D18", "stops", key, message, remedy, "Pictures that are no video"))
        if len(shape) != 3:
            remedy = f'# in a copy of the dataset, meta/info.json: "{key}": {{"shape": [{camera.height}, {camera.width}, 3]}}'
            findings.append(Finding("D14", "stops", key, f"shape {shape} is no picture: it cannot be cropped and resized", remedy))
            continue
        if shape == (camera.height, camera.width, 3):
            continue
        top, left, height, width = image.crop or (0, 0, min(shape[0], camera.height), min(shape[1], camera.width))
        fix = f"robot: {{cameras: {{{name}: {{height: {shape[0]}, width: {shape[1]}}}}}}}  # if that is what the camera delivers"
        if image.resize[0] > min(height, shape[0] - top) or image.resize[1] > min(width, shape[1] - left):
            message = (
                f"frames were recorded at {shape[0]}x{shape[1]} (height x width), the policy wants {image.resize[0]}x{image.resize[1]} of "
                f"{camera.height}x{camera.width}: enlarged, they would be blurred where live frames are sharp"
            )
            remedy = f"observation: {{images: {{{name}: {{crop: null, resize: [{shape[0]}, {shape[1]}]}}}}}}\n{fix}"
            findings.append(Finding("D15", "stops", key, message, remedy))
            continue
        message = (
            f"frames are {shape} (height, width, channels), the robot's camera delivers {(camera.height, camera.width, 3)}: "
            "demonstrations and live frames would be cropped and resized differently"
        )
        if image.crop and (top + height > shape[0] or left + width > shape[1]):
            fix += f"\nobservation: {{images: {{{name}: {{crop: null}}}}}}  # the crop does not fit into such frames"
        if shape[0] < camera.height:
            fix += "\n# or record native frames again: a smaller recording cannot be enlarged (D15)"
        findings.append(Finding("D14", "stops", key, message, fix))
    return findings


def used_videos(config: TrainConfig, dataset: Dataset) -> list[str]:
    """List the keys that the policy sees and the dataset holds as video."""
    keys = [IMAGE_PREFIX + name for name in config.observation.images]
    return [key for key in keys if key in dataset.features and dataset.features[key]["dtype"] == "video"]
