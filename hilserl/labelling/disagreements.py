"""Single frames on which human and classifier disagreed, while somebody says who was right."""

from __future__ import annotations

import datetime as dt
import getpass
import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from hilserl.errors import DatasetError
from hilserl.files import write_json
from hilserl.labelling.session import alone
from hilserl.reward.disagreements import Disagreement, Disagreements, labels_file

FORMAT_VERSION = 1


class DisagreementSession:
    """What the page shows of a folder of disagreements, and what it says of them. The folder itself is not written to.

    Attributes:
        file: Of the labels, beside the folder.
        entries: Frames by id, the oldest first.
    """

    def __init__(self, folder: Path, file: Path | None = None, by: str | None = None) -> None:
        """Open a folder and what was said of it before.

        Args:
            folder: Written by the actor.
            file: Of the labels; by default beside the folder.
            by: Who labels; by default the user of this machine.

        Raises:
            DatasetError: There are no frames, or the labels are damaged.
        """
        if not folder.is_dir():
            raise DatasetError(
                f"{folder}: no such folder. The actor makes it while a classifier judges: `task.success.disagreements`, by default "
                "HILSERL_HOME/disagreements/<task>."
            )
        self.entries: dict[str, Disagreement] = {entry.id: entry for entry in Disagreements(folder).entries()}
        if not self.entries:
            raise DatasetError(f"{folder}: no frames on which human and classifier disagreed. The actor writes them while it trains.")
        self._folder, self._by = folder, by or getpass.getuser()
        self.file = file or labels_file(folder)
        if folder.resolve() in self.file.resolve().parents:
            raise DatasetError(f"{self.file}: labels are never written into the folder. Give `--labels` a file outside of {folder}.")
        self._said: dict[str, dict[str, Any]] = {}
        if self.file.exists():
            try:
                self._said = dict(json.loads(self.file.read_text())["frames"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise DatasetError(f"{self.file}: no readable labels ({error!r}). Restore it, or move it away to label anew.") from None

    def alone(self) -> AbstractContextManager[None]:
        """Hold the labels for this process, as `alone`."""
        return alone(self.file)

    def describe(self) -> dict[str, Any]:
        """Say everything the page needs to begin."""
        return {
            "name": self._folder.resolve().name,
            "file": str(self.file),
            "frames": [self.frame(name) for name in self.entries],
        }

    def frame(self, name: str) -> dict[str, Any]:
        """Say what is known of one frame."""
        entry, said = self._entry(name), self._said.get(name)
        return {
            "id": name,
            "cameras": list(entry.cameras),
            "probability": entry.probability,
            "threshold": entry.threshold,
            "human_says": entry.human_says,
            "place": f"{entry.run}, episode {entry.episode}, step {entry.step}",
            "is_seen": said is not None,
            "success": said["success"] if said else None,
            "by": said["by"] if said else "",
        }

    def picture(self, name: str, camera: str) -> Path:
        """Return a PNG file.

        Raises:
            DatasetError: There is no such frame or camera, or it is gone.
        """
        entry = self._entry(name)
        if camera not in entry.cameras or not (file := entry.picture(camera)).is_file():
            raise DatasetError(
                f"{self._folder}: frame {name} has no picture of camera {camera}. The oldest give way while the actor writes."
            )
        return file

    def say(self, name: str, success: bool | None) -> dict[str, Any]:
        """Keep what a person says of a frame; None: nobody can tell, and nothing learns from it."""
        self._entry(name)
        self._said[name] = {"success": success, "by": self._by, "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds")}
        self._save()
        return self.frame(name)

    def forget(self, name: str) -> dict[str, Any]:
        """Make a frame unseen again."""
        self._said.pop(name, None)
        self._save()
        return self.frame(name)

    def summary(self) -> str:
        """Say how far the labels are."""
        said = [self._said[name]["success"] for name in self.entries if name in self._said]
        return f"{self.file}: {len(said)} of {len(self.entries)} frames labelled, {said.count(True)} success, {said.count(False)} not"

    def _entry(self, name: str) -> Disagreement:
        if name not in self.entries:
            raise DatasetError(f"{self._folder}: no frame {name}.")
        return self.entries[name]

    def _save(self) -> None:
        write_json(self.file, {"version": FORMAT_VERSION, "frames": self._said})
