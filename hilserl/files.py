"""Files that are never half-written, and content hashes.

Everything durable goes through here: write to a temporary name in the same directory,
flush to the disk, rename. A reader sees the old content or the new, never a mixture.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hilserl.errors import CacheError

CERTIFICATES_VARIABLE = "HILSERL_CERTIFICATES"
_CHUNK_BYTES = 1 << 20
_FULL_BYTES = 1 << 18


def home() -> Path:
    """Return the folder for everything this project writes: `$HILSERL_HOME` or `./.hilserl`."""
    return Path(os.environ.get("HILSERL_HOME", ".hilserl")).expanduser().resolve()


def certificates_folder() -> Path:
    """Return where this host keeps its certificates: `$HILSERL_CERTIFICATES`, or `certificates` under `home()`."""
    named = os.environ.get(CERTIFICATES_VARIABLE)
    return Path(named).expanduser().resolve() if named else home() / "certificates"


def canonical_json(value: Any) -> str:
    """Serialise `value` so that equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def content_hash(value: Any) -> str:
    """Hash a JSON-serialisable value, 16 hex digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """Hash a file's bytes with SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def source_hash(*modules: Any) -> str:
    """Hash the source files of `modules`: the code version of a cached stage."""
    return content_hash([file_hash(Path(module.__file__)) for module in modules])


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, or leave it as it was.

    Raises:
        CacheError: The disk is full; names the folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise disk_error(error, path.parent) from error
    fsync_directory(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_atomically(path, (json.dumps(value, indent=2, sort_keys=True, default=str) + "\n").encode())


def fsync_directory(path: Path) -> None:
    """Make a rename inside `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_directory(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Fill a temporary folder that becomes `path` when the block succeeds.

    An existing `path` is replaced; if the block raises, it is kept and the temporary folder
    is removed. With `durable=False` nothing waits for the disk: whole after a crash of the process,
    not after a power cut, so its reader must verify it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*") if durable else ():
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        if path.exists():
            old = path.with_name(f".{path.name}.{os.getpid()}.old")
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old)
        else:
            temporary.rename(path)
        if durable:
            fsync_directory(path.parent)
    except Exception as error:  # safetensors, PyAV and others report a full disk as errors of their own
        if isinstance(error, OSError) or is_disk_full(error):
            raise disk_error(error, path.parent) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_abandoned(path: Path) -> None:
    """Remove what a killed process left of `atomic_directory(path)`; what a living one fills stays."""
    for temporary in path.parent.glob(f".{path.name}.*.tmp"):
        pid = temporary.name.removesuffix(".tmp").rpartition(".")[2]
        if not (pid.isdigit() and Path(f"/proc/{pid}").exists()):
            shutil.rmtree(temporary, ignore_errors=True)


def is_disk_full(error: BaseException) -> bool:
    """Tell whether `error`, or what it was raised from, says that the disk is full, in whatever library's words."""
    seen: BaseException | None = error
    visited: set[int] = set()  # an error raised from itself, as `disk_error` makes them, is a circle
    while seen is not None and id(seen) not in visited:
        visited.add(id(seen))
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(words in str(seen) for words in ("No space left on device", "disk is full", "Disk quota exceeded")):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def disk_is_full(folder: Path) -> bool:
    """Tell whether nothing worth mentioning fits under `folder` any more; False where it does not exist."""
    return folder.exists() and shutil.disk_usage(folder).free < _FULL_BYTES


def disk_full_error(folder: Path) -> CacheError:
    """Return the error that names the folder and the remedy."""
    return CacheError(
        f"{folder}: the disk is full. Nothing was overwritten. Free space "
        "there, or set HILSERL_HOME to a folder on another disk, and run the same command again."
    )


def disk_error(error: Exception, folder: Path) -> Exception:
    """Turn "no space left" into an error that names the folder and the remedy; keep others."""
    return disk_full_error(folder) if is_disk_full(error) and not isinstance(error, CacheError) else error


def require_free_space(folder: Path, needed_bytes: int, what: str) -> None:
    """Refuse to start writing what will not fit.

    Raises:
        CacheError: Less than `needed_bytes` are free under `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise CacheError(
            f"{folder}: {what} needs {needed_bytes / 1e9:.2f} GB, {free / 1e9:.2f} GB are free. "
            "Free space there, or set HILSERL_HOME to a folder on another disk."
        )


@contextmanager
def file_lock(path: Path, *, timeout_s: float | None = None) -> Iterator[None]:
    """Hold an exclusive lock that the kernel releases if this process dies.

    Raises:
        TimeoutError: Another process held the lock for `timeout_s`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with path.open("a+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError(str(path)) from None
                time.sleep(0.05)
        yield
