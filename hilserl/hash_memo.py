"""Remember the hashes of files that have not changed, as git's index does.

Hashing a dataset of a gigabyte takes seconds, asking the file system whether it changed takes
microseconds. A remembered hash counts while size, modification time, change time and inode are the
same; the change time cannot be set back by a program that edits bytes and restores the other one.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hilserl.files import file_hash, write_json

FORMAT_VERSION = 1
# The kernel's clock for file times ticks every 1 to 10 ms: within this span a second write could leave the same time.
_RACY_NS = 50_000_000
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class HashMemo:
    """SHA-256 by file, remembered in one JSON file. Thread-safe.

    Args:
        file: Where to remember; None remembers nothing beyond this object.
        this_boot_only: Forget after a restart of the machine. For files that we wrote without waiting for
            the disk: after a power cut their size and times may be right and their content lost.
    """

    def __init__(self, file: Path | None, *, this_boot_only: bool = False) -> None:
        self._file = file
        self._head = {"format_version": FORMAT_VERSION, "boot": _boot() if this_boot_only else None}
        self._lock = threading.Lock()
        self._changed = False
        self._entries, self.notes = self._read()

    def sha256(self, path: Path) -> str:
        """Return the hash of `path`, read only if it is not the file that was hashed before."""
        name, stat = str(path), _stat(path)
        with self._lock:
            entry = self._entries.get(name)
        if entry is not None and entry["stat"] == stat:
            return str(entry["sha256"])
        started = time.time_ns()
        digest = file_hash(path)
        if _stat(path) == stat and started - path.stat().st_mtime_ns > _RACY_NS:
            self.put(path, digest)
        return digest

    def sha256_of(self, paths: Iterable[Path]) -> dict[Path, str]:
        """Hash many files, as many at once as there are cores."""
        paths = list(paths)
        with self._lock:
            known = {path: entry for path in paths if (entry := self._entries.get(str(path))) is not None}
        found = {path: str(entry["sha256"]) for path, entry in known.items() if entry["stat"] == _stat(path)}
        missing = [path for path in paths if path not in found]
        if missing:
            with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
                found |= dict(zip(missing, pool.map(self.sha256, missing), strict=True))
        return found

    def put(self, path: Path, digest: str) -> None:
        """Remember a hash that the caller computed from what it wrote itself."""
        with self._lock:
            self._entries[str(path)] = {"stat": _stat(path), "sha256": digest}
            self._changed = True

    def note(self, name: str, value: Any) -> None:
        """Remember a JSON value beside the hashes; read it from `notes`."""
        with self._lock:
            if self.notes.get(name) != value:
                self.notes[name] = value
                self._changed = True

    def save(self, keep: Iterable[Path] | None = None) -> None:
        """Write what was learned; with `keep`, only the entries of these files."""
        with self._lock:
            if keep is not None:
                wanted = {str(path) for path in keep}
                self._entries = {name: entry for name, entry in self._entries.items() if name in wanted}
            if self._file is None or not self._changed:
                return
            write_json(self._file, self._head | {"files": self._entries, "notes": self.notes})
            self._changed = False

    def _read(self) -> tuple[dict[str, Any], dict[str, Any]]:
        try:
            value = json.loads(self._file.read_text()) if self._file else {}
            if {name: value[name] for name in self._head} != self._head:
                return {}, {}
            return dict(value["files"]), dict(value["notes"])
        except (OSError, ValueError, KeyError, TypeError):
            return {}, {}  # No memory: everything is hashed again.


def _stat(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _boot() -> str:
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else "unknown"
