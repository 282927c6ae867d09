import errno
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hilserl import files
from hilserl.errors import CacheError


def test_failed_write_keeps_the_old_content_and_leaves_nothing_behind(tmp_path, monkeypatch) -> None:
    target = tmp_path / "a.json"
    files.write_json(target, {"value": 1})

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(CacheError, match="disk is full"):
        files.write_json(target, {"value": 2})
    assert target.read_text() == '{\n  "value": 1\n}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_atomic_directory_appears_whole_or_not_at_all(tmp_path) -> None:
    target = tmp_path / "out"
    with pytest.raises(RuntimeError), files.atomic_directory(target) as folder:
        (folder / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with files.atomic_directory(target) as folder:
        (folder / "whole").write_text("x")
    with files.atomic_directory(target) as folder:
        (folder / "newer").write_text("x")
    assert [path.name for path in target.iterdir()] == ["newer"]


def test_lock_is_free_again_when_its_holder_is_killed(tmp_path) -> None:
    lock = tmp_path / "lock"
    code = f"""
from pathlib import Path
from hilserl.files import file_lock
with file_lock(Path({str(lock)!r})):
    print('held', flush=True)
    input()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(TimeoutError), files.file_lock(lock, timeout_s=0.1):
            pass
        holder.kill()
        holder.wait()
        with files.file_lock(lock, timeout_s=1):
            pass


def test_missing_space_is_refused_with_the_amount(tmp_path) -> None:
    with pytest.raises(CacheError, match=r"needs 1000000.00 GB"):
        files.require_free_space(tmp_path, 10**15, "the buffer")


def test_an_error_that_is_its_own_cause_is_looked_at_once() -> None:
    """`raise disk_error(error) from error` makes one: it must not be followed for ever."""
    error = OSError("no such device")
    error.__cause__ = error
    assert not files.is_disk_full(error)


def test_threads_that_write_the_same_file_do_not_take_each_others(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: files.write_json(tmp_path / "file.json", [number] * 200), range(200)))
    written = json.loads((tmp_path / "file.json").read_text())
    assert len(set(written)) == 1 and list(tmp_path.iterdir()) == [tmp_path / "file.json"]


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_fills_stays(tmp_path: Path) -> None:
    dead, living = tmp_path / ".folder.999999999.tmp", tmp_path / f".folder.{os.getpid()}.tmp"
    dead.mkdir()
    living.mkdir()
    files.remove_abandoned(tmp_path / "folder")
    assert not dead.exists() and living.exists()
