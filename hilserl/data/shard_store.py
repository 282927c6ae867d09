"""Shards on storage that several machines share: a folder, or any URL that fsspec knows.

A worker converts into a folder of its own and then copies, the record last: a shard without a record does
not exist, so a worker that dies in the middle leaves nothing that anybody would read.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import fsspec

from hilserl.data.manifest import is_whole
from hilserl.data.shards import RECORD, ShardJob, ShardRecord, convert_shard, shard_folder
from hilserl.errors import CacheError, DatasetError
from hilserl.files import atomic_directory, file_hash
from hilserl.hash_memo import HashMemo


class ShardStore:
    """Shared storage of shards.

    Args:
        url: Folder or fsspec URL, such as `/mnt/lab/shards`, `s3://bucket/shards`.

    Raises:
        CacheError: No file system is installed for such a URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise CacheError(
                f"conversion.store {url!r}: {error}. Install the package for it, or use a folder that all workers see."
            ) from error

    def __reduce__(self) -> tuple[type[ShardStore], tuple[str]]:
        return ShardStore, (self.url,)

    def has(self, key: str) -> bool:
        """Tell whether a shard is there, whole."""
        return bool(self._files.exists(self._path(key, RECORD)))

    def convert(self, job: ShardJob, on_frames: Callable[[float], None] | None = None) -> None:
        """Convert `job` on this machine and put the shard into the store, unless somebody else did.

        Raises:
            DatasetError: An episode cannot be converted or decoded.
        """
        if self.has(job.key):
            return
        with tempfile.TemporaryDirectory(prefix="hilserl-shard-") as temporary:
            convert_shard(job, Path(temporary), on_frames)
            folder = shard_folder(Path(temporary), job.key)
            self._files.makedirs(self._path(job.key), exist_ok=True)
            for name in sorted((path.name for path in folder.iterdir()), key=lambda name: name == RECORD):
                self._files.put_file(str(folder / name), self._path(job.key, name))

    def fetch(self, key: str, into: Path) -> ShardRecord:
        """Copy a shard into the local folder `into`, and check it against its record.

        Raises:
            CacheError: The shard is not there, or not what its record says.
        """
        folder = shard_folder(into, key)
        with atomic_directory(folder, durable=False) as temporary:
            try:
                self._files.get_file(self._path(key, RECORD), str(temporary / RECORD))
                record = ShardRecord.read(temporary)
                for name in record.files:
                    self._files.get_file(self._path(key, name), str(temporary / name))
            except FileNotFoundError as error:
                raise CacheError(f"{self.url}: shard {key} is not whole ({error}). Run the same command again.") from error
            for name, file in record.files.items():
                if file_hash(temporary / name) != file["sha256"]:
                    self._files.rm(self._path(key), recursive=True)
                    raise CacheError(f"{self.url}: {name} of shard {key} is damaged; it was removed. Run the same command again.")
        return record

    def _path(self, key: str, name: str = "") -> str:
        return "/".join(part for part in (self._root.rstrip("/"), f"shard-{key}", name) if part)


def convert_batch(
    jobs: Sequence[ShardJob], store: ShardStore | Path, on_frames: Callable[[float], None] | None = None
) -> list[BaseException]:
    """Convert some shards into a shared store or a local folder; what another attempt finished is left alone.

    Returns:
        What failed; the other shards are done.
    """
    failures: list[BaseException] = []
    for job in jobs:
        try:
            if isinstance(store, ShardStore):
                store.convert(job, on_frames)
            elif not is_whole(store, job.key, HashMemo(None)):
                convert_shard(job, store, on_frames)
        except Exception as error:
            failures.append(error)  # The caller raises all of them together.
    return failures


def run_in_threads(
    jobs: Sequence[ShardJob], store: ShardStore | Path, on_frames: Callable[[float], None], workers: int | None = None
) -> list[BaseException]:
    """Convert `jobs` in threads of this process, one a core by default; returns what failed."""
    failures: list[BaseException] = []
    with ThreadPoolExecutor(workers or os.cpu_count() or 1, thread_name_prefix="convert") as pool:
        futures = [pool.submit(convert_batch, [job], store, on_frames) for job in jobs]
        try:
            for future in as_completed(futures):
                failures += future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return failures


def joined_failures(failures: Sequence[BaseException], jobs: int) -> BaseException:
    """Turn the failures of several shards into one error; what is no error of the dataset is returned as it is."""
    for failure in failures:
        if not isinstance(failure, DatasetError):
            return failure
    if len(failures) == 1:
        return failures[0]
    lines = "\n".join(f"  {number}. {failure}" for number, failure in enumerate(failures, 1))
    return DatasetError(f"{len(failures)} of {jobs} parts could not be converted; the others are kept:\n{lines}")
