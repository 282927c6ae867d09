"""Observations on the GPU that trains: a batch is gathered and shifted there, and only its row numbers travel."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hilserl.config.models import TrainConfig
from hilserl.data.observation_storage import ArraySpec, Choices, HostStorage, ObservationStorage
from hilserl.errors import ConfigError

logger = logging.getLogger(__name__)


class DeviceStorage:
    """`ObservationStorage` of tensors on a device; all memory is taken at once.

    Args:
        capacity: N.
        parts: What an observation consists of.
        device: Where the tensors lie.
    """

    def __init__(self, capacity: int, parts: Mapping[str, ArraySpec], device: torch.device) -> None:
        self.parts = dict(parts)
        self.device = device
        self._tensors = {
            name: torch.zeros((capacity * spec.views, *spec.shape), dtype=getattr(torch, spec.dtype), device=device)
            for name, spec in parts.items()
        }

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    def write(self, row: int, observation: Mapping[str, Any]) -> None:
        """Store one observation."""
        for name, tensor in self._tensors.items():
            views = self.parts[name].views
            tensor[row * views : (row + 1) * views] = _tensor(observation[name])

    def read(self, row: int) -> dict[str, Any]:
        """Return the observation of one row, as `write` takes it."""
        return {name: self._rows(name)[row] for name in self._tensors}

    def load(self, name: str, rows: slice | np.ndarray, values: np.ndarray) -> None:
        """Store one part of many rows, (n, *stored_shape)."""
        self._rows(name)[rows if isinstance(rows, slice) else torch.from_numpy(rows).to(self.device)] = _tensor(values).to(self.device)

    def gather(self, rows: np.ndarray, choices: Choices) -> dict[str, Any]:
        """Copy observations out, each part (B, *shape) on the device."""
        numbers = to_device(np.concatenate([rows[None], *(np.atleast_2d(choice) for choice in choices.values())]), self.device)
        index, line = numbers[0], 1
        gathered = {}
        for name, tensor in self._tensors.items():
            spec = self.parts[name]
            if spec.shift_px:
                gathered[name] = _shifted(tensor, index, numbers[line], numbers[line + 1])
                line += 2
            elif spec.views > 1:
                gathered[name] = tensor.index_select(0, index * spec.views + numbers[line])
                line += 1
            else:
                gathered[name] = tensor.index_select(0, index)
        return gathered

    def _rows(self, name: str) -> Tensor:
        return self._tensors[name].view(-1, *self.parts[name].stored_shape)


def _shifted(images: Tensor, rows: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Read pixel (y, x) of each image from (y + down, x + right), or from the nearest border pixel."""
    _, height, width, _ = images.shape
    y = (torch.arange(height, device=images.device) + down[:, None]).clamp_(0, height - 1)
    x = (torch.arange(width, device=images.device) + right[:, None]).clamp_(0, width - 1)
    return images[rows[:, None, None], y[:, :, None], x[:, None, :]]


def _tensor(values: Any) -> Tensor:
    return values if isinstance(values, Tensor) else torch.tensor(values)


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Move an array without waiting for the device, from pinned memory where it is a GPU; on the CPU it is shared."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def storage_for(config: TrainConfig, bytes_needed: int) -> torch.device:
    """Choose where the replay buffers lie, and log it.

    Args:
        config: `learner.storage_device` says what is wanted, `learner.device` what trains.
        bytes_needed: Of both buffers [byte].

    Raises:
        ConfigError: A GPU is demanded and none trains, or both buffers are larger than its free memory.
    """
    trains, wanted = torch.device(config.learner.device), config.learner.storage_device
    host, needed = torch.device("cpu"), f"{bytes_needed / 1e9:.2f} GB of replay buffers"
    if wanted == "cpu" or (wanted == "auto" and trains.type != "cuda"):
        logger.info("%s lie in main memory", needed)
        return host
    if trains.type != "cuda":
        raise ConfigError(f"`learner.storage_device: cuda` needs `learner.device: cuda` (it is `{trains}`); use `auto`.")
    free = torch.cuda.mem_get_info(trains)[0]
    if wanted == "auto" and bytes_needed > free / 2:
        logger.info("%s lie in main memory: %s has only %.1f GB free, and half of it is for training", needed, trains, free / 1e9)
        return host
    if bytes_needed > free:
        raise ConfigError(
            f"{needed} do not fit on {trains}, which has {free / 1e9:.2f} GB free. "
            "Use `learner.storage_device: auto`, or lower `policy.online_buffer_capacity`."
        )
    logger.info("%s lie on %s, which has %.1f GB free", needed, trains, free / 1e9)
    return trains


def make_storage(config: TrainConfig, capacity: int, parts: Mapping[str, ArraySpec]) -> ObservationStorage:
    """Make storage of `capacity` rows where `storage_for` says."""
    device = storage_for(config, capacity * sum(spec.row_bytes for spec in parts.values()))
    return HostStorage(capacity, parts) if device.type == "cpu" else DeviceStorage(capacity, parts, device)
