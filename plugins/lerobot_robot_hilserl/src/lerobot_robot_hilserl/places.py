"""Where `hilserl virtual-arm` keeps its arms."""

from __future__ import annotations

from pathlib import Path

from hilserl.files import home


def arm_folder(arm: str) -> Path:
    """Return the folder of the `follower` or the `leader`."""
    return home() / "virtual-arm" / arm


def frames_of(folder: Path, camera: str) -> Path:
    """Return the frame memory of one camera of the arm in `folder`."""
    return folder / "cameras" / f"{camera}.frames"


def cameras_of(folder: Path) -> list[str]:
    """Return the names of the cameras that the arm in `folder` has now."""
    return sorted(path.stem for path in (folder / "cameras").glob("*.frames"))
