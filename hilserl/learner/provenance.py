"""What a training was made from and on, written into its `run.json` for whoever reads its report later."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hilserl.data.offline_buffer import OfflineBuffer

_GIT_S = 5.0


def provenance(identity: Mapping[str, Any], demonstrations: OfflineBuffer | None, device: str) -> dict[str, Any]:
    """Return data, hashes, code and machine, JSON-serialisable.

    Args:
        identity: What the training is, as `hilserl.learner.identity.describe` made it.
        demonstrations: The offline buffer; None where there are no demonstrations.
        device: That trains.
    """
    manifest = None if demonstrations is None else demonstrations.manifest
    sources = [] if manifest is None else manifest.sources
    hashes = {name: identity[name] for name in ("offline_buffer", "encoder")}
    return {
        "data": [
            {"root": source.root, "role": source.role, "weight": source.weight, "episodes": len(source.episodes), "rows": source.rows}
            for source in sources
        ],
        "positives": None if manifest is None else sum(map(bool, manifest.positives_per_episode)),
        "transitions": 0 if manifest is None else manifest.transitions,
        "hashes": {name: value["content"] for name, value in hashes.items()} | {"architecture": identity["architecture"]["hash"]},
        "versions": identity["versions"],
        "code": _commit(),
        "machine": _machine(device),
    }


def _commit() -> str:
    """Name the commit of the code that runs, and whether it was changed since; empty where it is no clone."""
    folder = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=_GIT_S, check=True).stdout

    try:
        commit, changed = git("rev-parse", "HEAD").strip(), git("status", "--porcelain", "--untracked-files=no").strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"{commit}, with changes" if changed else commit


def _machine(device: str) -> str:
    gpu = f", {torch.cuda.get_device_name(device)}" if torch.device(device).type == "cuda" else ""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores{gpu}"
