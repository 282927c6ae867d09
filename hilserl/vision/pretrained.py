"""Pretrained networks of a Hugging Face folder or repository: JSON and safetensors are read, nothing is run or unpickled.

A run downloads nothing. A repository is fetched before, by a command of its own (`python -m hilserl.vision.fetch`),
at the commit that the configuration pins.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hilserl.config.learning import EncoderConfig
from hilserl.config.vision import ResNetConfig
from hilserl.errors import CacheError, ConfigError
from hilserl.files import file_hash
from hilserl.vision.encoder import Encoder
from hilserl.vision.hilserl_resnet import HilSerlResNet
from hilserl.vision.resnet import ResNet

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_PICKLES = ("pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "flax_model.msgpack")
_SIZES = set(ResNetConfig.model_fields) - {"sha256"}
_ACCEPTED = "`resnet` (transformers' ResNetModel, such as microsoft/resnet-18) and `resnet10` (HIL-SERL's, such as lerobot/resnet10)"


def with_network(encoder: EncoderConfig) -> EncoderConfig:
    """Fill in what the pretrained network is, from its files; other encoders, and one that says it already, stay as they are.

    A run's configuration states it from the start, so that the robot host needs none of the files and a changed file is
    another run.

    Raises:
        ConfigError: The network is of a kind that cannot be built here.
        CacheError: A file is missing or damaged.
    """
    if encoder.type != "pretrained" or encoder.network is not None:
        return encoder
    return EncoderConfig.model_validate(encoder.model_dump() | {"network": read_network(model_folder(encoder))})


def model_folder(encoder: EncoderConfig) -> Path:
    """Return the folder of a pretrained model: the configured one, or that of the repository in Hugging Face's cache.

    Raises:
        ConfigError: A repository without a commit.
        CacheError: It is not on this machine; says how to get it.
    """
    assert encoder.model is not None
    if not encoder.is_repository:
        folder = Path(encoder.model).expanduser()
        if not folder.is_dir():
            raise CacheError(f"{folder}: no such folder. `encoder.model` is one with {CONFIG} and {WEIGHTS}, or a repository id.")
        return folder
    if encoder.revision is None:
        raise ConfigError(
            f"`encoder.model: {encoder.model}` is a repository, whose content can change: set `encoder.revision` to the commit "
            "that you mean, 40 hex digits (on its page under `Files and versions`, `History`). Or name a folder, which begins with "
            "`/`, `.` or `~`; or take the simulation's encoder, `encoder.type: sim_pretrained` with `encoder.model: null`."
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(encoder.model, revision=encoder.revision, allow_patterns=[CONFIG, WEIGHTS], local_files_only=True))
    except LocalEntryNotFoundError:
        raise CacheError(
            f"{encoder.model} at {encoder.revision} is not on this machine, and a run downloads nothing. Fetch it first: "
            f"`uv run python -m hilserl.vision.fetch {encoder.model} {encoder.revision}`."
        ) from None


def read_network(folder: Path) -> ResNetConfig:
    """Read a model folder's `config.json`, and hash its weights.

    Raises:
        ConfigError: Another kind of network.
        CacheError: A file is missing or damaged, or the weights are there as a pickle only.
    """
    file = folder / CONFIG
    try:
        raw: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CacheError(f"{file}: cannot be read ({error}). A model folder holds {CONFIG} and {WEIGHTS}.") from None
    kind = raw.get("model_type") if isinstance(raw, dict) else None
    if kind not in ("resnet", "resnet10"):
        raise ConfigError(f"{file}: `model_type` is {json.dumps(kind)}, which cannot be built here. Accepted: {_ACCEPTED}.")
    _require_weights(folder)
    if raw.get("num_channels", 3) != 3:
        raise ConfigError(f"{file}: `num_channels` is {raw['num_channels']}; the cameras' images have 3.")
    try:
        network = ResNetConfig.model_validate({key: raw[key] for key in _SIZES & raw.keys()} | {"sha256": file_hash(folder / WEIGHTS)})
    except ValidationError as error:
        found = "; ".join(f"`{'.'.join(map(str, item['loc']))}`: {item['msg']}" for item in error.errors())
        raise ConfigError(f"{file}: {found}.") from None
    neighbours = itertools.pairwise(network.hidden_sizes)
    if network.model_type == "resnet10" and (set(network.depths) != {1} or any(a == b for a, b in neighbours)):
        raise ConfigError(f"{file}: a `resnet10` has one block per stage and another width in each; this one has not.")
    if len(network.depths) != len(network.hidden_sizes):
        raise ConfigError(f"{file}: {len(network.depths)} `depths` for {len(network.hidden_sizes)} `hidden_sizes`.")
    return network


def build_network(network: ResNetConfig, height: int, width: int) -> Encoder:
    """Build a network for images of one size, without its weights."""
    kind = ResNet if network.model_type == "resnet" else HilSerlResNet
    return kind(network, height, width)


def load_pretrained(encoder: EncoderConfig, cameras: Mapping[str, tuple[int, int]]) -> dict[str, Encoder]:
    """Build the pretrained network for each camera, with its weights.

    Args:
        encoder: With `type: pretrained`.
        cameras: (height, width) [px] of the policy's image, by camera.

    Raises:
        ConfigError: The network is of a kind that cannot be built here.
        CacheError: A file is missing, damaged, or not the one that the run was started with.
    """
    folder = model_folder(encoder)
    network = with_network(encoder).network
    assert network is not None
    file = folder / WEIGHTS
    _require_weights(folder)
    if file_hash(file) != network.sha256:
        raise CacheError(f"{file}: its SHA-256 is not that of the file the run was started with. Restore it, or start with `--fresh`.")
    try:
        tensors = _rename(load_file(file))
    except (OSError, SafetensorError) as error:
        raise CacheError(f"{file}: cannot be read as safetensors ({error}). Fetch or copy it again.") from None
    encoders = {}
    for camera, (height, width) in cameras.items():
        encoders[camera] = build_network(network, height, width)
        _load(encoders[camera], tensors, file)
    return encoders


def _require_weights(folder: Path) -> None:
    if (folder / WEIGHTS).is_file():
        return
    pickles = [name for name in _PICKLES if (folder / name).exists()]
    if pickles:
        raise CacheError(
            f"{folder / pickles[0]}: holds the weights as a pickle, which can run anybody's code, and is not opened. "
            f"Get {WEIGHTS} from the same place, or convert it where you trust it (`save_pretrained` writes safetensors)."
        )
    raise CacheError(f"{folder}: has no {WEIGHTS}.")


def _rename(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take the network out of a classifier: without `resnet.`, the classifier's own layer and batch counters."""
    names = {name: name.removeprefix("resnet.") for name in tensors}
    return {
        short: tensors[name].float()
        for name, short in names.items()
        if not short.startswith("classifier.") and not short.endswith("num_batches_tracked")
    }


def _load(network: Encoder, tensors: Mapping[str, Tensor], file: Path) -> None:
    wanted = network.state_dict()
    missing, unknown = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing or unknown:
        raise CacheError(
            f"{file}: is not the network of {CONFIG}: it lacks {missing[:3] or 'nothing'} and has unknown {unknown[:3] or 'none'}."
        )
    wrong = [name for name, tensor in wanted.items() if tensor.shape != tensors[name].shape]
    if wrong:
        raise CacheError(
            f"{file}: `{wrong[0]}` has shape {tuple(tensors[wrong[0]].shape)}, {CONFIG} makes it {tuple(wanted[wrong[0]].shape)}."
        )
    broken = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise CacheError(f"{file}: `{broken[0]}` is not finite.")
    network.load_state_dict(dict(tensors))
