"""Pretrain the vision encoder in simulation: a cached stage of its own.

The network learns to say where the cube is from rendered images whose truth the simulator knows.
It is frozen during RL, so its features are computed once per environment step.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from hilserl.config.models import TrainConfig
from hilserl.data.preprocess import Preprocessor
from hilserl.errors import CacheError, TrainingError
from hilserl.files import atomic_directory, content_hash, file_hash, file_lock, home, source_hash, write_json
from hilserl.progress import Progress, publish
from hilserl.vision.pretrained import with_network
from hilserl.vision.small_cnn import SmallCnn

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
STAGE = "pretrain-encoder"
_BATCH = 64
_LEARNING_RATE = 1e-3
_HELD_OUT = 0.1
# Labels are brought to order one before the loss, and stay so in the features.
_POSITION_SCALE_M = 0.1
_VISIBLE = "cube_visible"


def resolve_encoder(config: TrainConfig) -> TrainConfig:
    """Fill in what a pretrained model of a folder or repository is, before the run begins: `encoder.network`.

    Raises:
        HilserlError: The model is not on this machine, or cannot be used.
    """
    return config.model_copy(update={"encoder": with_network(config.encoder)})


def encoder_inputs(config: TrainConfig) -> dict[str, Any]:
    """Return everything that decides the result, by name."""
    from hilserl.data import preprocess
    from hilserl.sim import appearance, env, expert, labelled_images, render, scene
    from hilserl.vision import small_cnn

    return {
        "format_version": FORMAT_VERSION,
        "code": source_hash(appearance, env, expert, labelled_images, render, scene, small_cnn, preprocess, sys.modules[__name__]),
        "encoder": config.encoder.model_dump(mode="json", include={"samples", "epochs", "seed"}),
        "task": config.task.model_dump(mode="json", exclude={"success"}),
        "robot": config.robot.scene_facts(),
        "images": {name: image.model_dump(mode="json") for name, image in config.observation.images.items()},
    }


def encoder_folder(config: TrainConfig) -> Path:
    """Return where this configuration's encoders are kept."""
    return home() / "encoders" / content_hash(encoder_inputs(config))


def verify_encoders(folder: Path) -> list[str]:
    """Say why the folder cannot be used; empty when it can."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        if manifest["format_version"] != FORMAT_VERSION:
            return [f"format version {manifest['format_version']}, this program writes {FORMAT_VERSION}"]
        return (
            [] if file_hash(folder / "encoders.safetensors") == manifest["sha256"] else ["encoders.safetensors does not match its checksum"]
        )
    except FileNotFoundError as error:
        return [f"{Path(error.filename).name} is missing"]
    except (OSError, ValueError, KeyError) as error:
        return [f"manifest.json cannot be read ({error!r})"]


def get_or_pretrain(config: TrainConfig) -> Path:
    """Return the folder of this configuration's pretrained encoders, training them if needed."""
    folder = encoder_folder(config)
    with file_lock(folder.with_name(f"{folder.name}.lock")):
        problems = verify_encoders(folder)
        if not problems:
            return folder
        if folder.exists():
            logger.warning("Encoders in %s are rebuilt: %s", folder, "; ".join(problems))
        _pretrain(config, folder)
    return folder


def load_encoders(folder: Path) -> dict[str, SmallCnn]:
    """Read pretrained encoders, by camera.

    Raises:
        CacheError: The folder is missing or damaged.
    """
    if problems := verify_encoders(folder):
        raise CacheError(f"{folder}: {'; '.join(problems)}. Run the training again to rebuild it.")
    manifest = json.loads((folder / "manifest.json").read_text())
    try:
        tensors = load_file(folder / "encoders.safetensors")
    except (OSError, SafetensorError) as error:
        raise CacheError(f"{folder}: cannot be read ({error}). Remove it to rebuild it.") from None
    encoders = {}
    for camera, (height, width) in manifest["cameras"].items():
        encoders[camera] = SmallCnn(height, width, num_labels=len(manifest["labels"]))
        encoders[camera].load_state_dict({n.removeprefix(f"{camera}."): t for n, t in tensors.items() if n.startswith(f"{camera}.")})
    return encoders


def _pretrain(config: TrainConfig, folder: Path) -> None:
    from hilserl.sim.labelled_images import sample_labelled_images

    torch.set_num_threads(config.learner.torch_threads)
    started = time.monotonic()
    sampled = sample_labelled_images(config, config.encoder.samples, config.encoder.seed)
    rendered_s = time.monotonic() - started
    preprocessor = Preprocessor.from_config(config)
    labels, mask = _scaled_labels(sampled.labels, sampled.label_names)
    encoders, errors = {}, {}
    for camera, frames in sampled.images.items():
        images = torch.from_numpy(np.stack([preprocessor.image(camera, frame) for frame in frames]))
        encoders[camera], errors[camera] = _fit(config, camera, images, labels, mask)
    seconds = time.monotonic() - started
    with atomic_directory(folder) as temporary:
        flat = {f"{camera}.{name}": t.contiguous() for camera, network in encoders.items() for name, t in network.state_dict().items()}
        save_file(flat, temporary / "encoders.safetensors")
        write_json(
            temporary / "manifest.json",
            {
                "format_version": FORMAT_VERSION,
                "sha256": file_hash(temporary / "encoders.safetensors"),
                "inputs": encoder_inputs(config),
                "cameras": {camera: list(config.observation.images[camera].resize) for camera in encoders},
                "labels": list(sampled.label_names),
                "held_out_error_mm": errors,
                "seconds": {"render": rendered_s, "total": seconds},
            },
        )
    logger.info("Encoder pretrained in %.1f s, median cube error on held-out images %s mm", seconds, errors)


def _scaled_labels(labels: np.ndarray, names: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale labels to order one, and weigh position and yaw by whether the cube is visible."""
    scaled = torch.from_numpy(labels).clone()
    scaled[:, :3] /= _POSITION_SCALE_M
    visible = scaled[:, names.index(_VISIBLE)].unsqueeze(1)
    mask = torch.ones_like(scaled)
    for index, name in enumerate(names):
        if name != _VISIBLE:
            mask[:, index : index + 1] = visible
    return scaled, mask


def _fit(
    config: TrainConfig, camera: str, images: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor
) -> tuple[SmallCnn, Mapping[str, float]]:
    generator = torch.Generator().manual_seed(config.encoder.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.encoder.seed)
        network = SmallCnn(images.shape[1], images.shape[2], num_labels=labels.shape[1])
    held_out = max(1, int(len(images) * _HELD_OUT))
    train, test = slice(held_out, None), slice(0, held_out)
    x, y, m = images[train], labels[train], mask[train]
    steps_per_epoch = len(x) // _BATCH
    optimizer = torch.optim.Adam(network.parameters(), _LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2 * _LEARNING_RATE, total_steps=config.encoder.epochs * steps_per_epoch)
    for epoch in range(config.encoder.epochs):
        order = torch.randperm(len(x), generator=generator)
        for step in range(steps_per_epoch):
            rows = order[step * _BATCH : (step + 1) * _BATCH]
            predicted = network.keypoints_and_labels(_jitter(x[rows], generator))[1]
            loss = (F.smooth_l1_loss(predicted, y[rows], reduction="none", beta=0.1) * m[rows]).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        publish(
            Progress(
                STAGE,
                done=epoch + 1,
                total=config.encoder.epochs,
                unit="epochs",
                message=f"training on {camera}",
                values={"loss": float(loss.detach())},
            )
        )
    with torch.inference_mode():
        predicted = torch.cat([network.keypoints_and_labels(chunk)[1] for chunk in images[test].split(_BATCH)])
    distance = (predicted[:, :3] - labels[test][:, :3]).norm(dim=1)[mask[test][:, 0] > 0] * _POSITION_SCALE_M * 1000
    if not len(distance):
        raise TrainingError(
            f"camera `{camera}` sees the cube in none of {held_out} held-out pictures. Raise `encoder.samples`, or turn it."
        )
    errors = {"median": float(distance.median()), "p90": float(distance.quantile(0.9))}
    if not np.isfinite(list(errors.values())).all():
        raise TrainingError(f"pretraining the encoder of camera `{camera}` diverged: its error is {errors} mm. Change `encoder.seed`.")
    return network, errors


def _jitter(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Vary brightness, contrast and pixel noise, so that video compression does not matter; uint8 in and out."""
    shape = (len(images), 1, 1, 1)
    gain = 1.0 + 0.2 * (torch.rand(shape, generator=generator) - 0.5)
    offset = 20.0 * (torch.rand(shape, generator=generator) - 0.5)
    noise = 4.0 * torch.randn((*images.shape[:3], 1), generator=generator)
    return (images.float() * gain + offset + noise).clamp(0, 255).to(torch.uint8)
