"""Fetch a pretrained model into Hugging Face's cache of this machine: `python -m hilserl.vision.fetch REPOSITORY REVISION`.

The only place that downloads, and only two files: the sizes (JSON) and the weights (safetensors).
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import ValidationError

from hilserl.config.learning import EncoderConfig
from hilserl.errors import CacheError, ConfigError, HilserlError
from hilserl.vision.pretrained import CONFIG, WEIGHTS, read_network


def fetch(repository: str, revision: str) -> Path:
    """Download a model's sizes and weights at one commit, and check that they can be used here.

    Args:
        repository: Such as `microsoft/resnet-18`.
        revision: Commit, 40 hex digits.

    Returns:
        The folder in the cache.

    Raises:
        ConfigError: No repository id or commit, or a network of another kind.
        CacheError: It cannot be downloaded, or has no safetensors.
    """
    try:
        encoder = EncoderConfig(type="pretrained", model=repository, revision=revision)
    except ValidationError as error:
        raise ConfigError("; ".join(item["msg"].removeprefix("Value error, ") for item in error.errors())) from None
    if not encoder.is_repository:
        raise ConfigError(f"{repository!r} is a folder; only a repository is fetched.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=[CONFIG, WEIGHTS]))
    except (HfHubHTTPError, OSError) as error:
        raise CacheError(f"{repository} at {revision} cannot be downloaded: {error}") from None
    read_network(folder)
    return folder


def main(arguments: list[str]) -> int:
    """Fetch, and say where it is; returns the exit code."""
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        folder = fetch(*arguments)
    except HilserlError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{arguments[0]} is in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
