"""A remembered hash is believed exactly as long as the file is the same."""

import os
import time
from pathlib import Path

import pytest

from hilserl import hash_memo
from hilserl.files import file_hash
from hilserl.hash_memo import HashMemo


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"first")
    time.sleep(0.06)  # older than the clock's grain
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    found: list[Path] = []
    monkeypatch.setattr(hash_memo, "file_hash", lambda path: found.append(path) or file_hash(path))
    return found


def remembered(tmp_path: Path, file: Path, **how: bool) -> HashMemo:
    memo = HashMemo(tmp_path / "memo.json", **how)
    memo.sha256(file)
    memo.save()
    return HashMemo(tmp_path / "memo.json", **how)


def test_an_unchanged_file_is_read_once(tmp_path: Path, file: Path, reads: list[Path]) -> None:
    memo = remembered(tmp_path, file)
    assert memo.sha256(file) == memo.sha256_of([file])[file] == file_hash(file)
    assert reads == [file]


@pytest.mark.failure("D12")
def test_a_changed_byte_is_noticed_though_size_and_time_are_restored(tmp_path: Path, file: Path) -> None:
    before = file.stat()
    memo = remembered(tmp_path, file)
    file.write_bytes(b"other")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert memo.sha256(file) == file_hash(file)


@pytest.mark.failure("D12")
def test_a_file_replaced_by_another_of_the_same_times_is_noticed(tmp_path: Path, file: Path) -> None:
    before = file.stat()
    memo = remembered(tmp_path, file)
    other = tmp_path / "other"
    other.write_bytes(b"other")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)
    assert memo.sha256(file) == file_hash(file)


@pytest.mark.failure("D12")
def test_a_file_written_this_instant_is_not_remembered(tmp_path: Path, reads: list[Path]) -> None:
    """A second write within the clock's grain would leave the same times."""
    path = tmp_path / "new"
    path.write_bytes(b"first")
    memo = HashMemo(None)
    memo.sha256(path)
    memo.sha256(path)
    assert len(reads) == 2


@pytest.mark.failure("D12")
def test_what_was_not_flushed_is_forgotten_at_a_restart_of_the_machine(
    tmp_path: Path, file: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    memo = remembered(tmp_path, file, this_boot_only=True)
    memo.sha256(file)
    assert len(reads) == 1
    monkeypatch.setattr(hash_memo, "_boot", lambda: "another")
    HashMemo(tmp_path / "memo.json", this_boot_only=True).sha256(file)
    assert len(reads) == 2


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format_version": 0}', b'{"format_version": 1, "boot": null}'])
def test_a_damaged_memory_is_an_empty_one(tmp_path: Path, file: Path, content: bytes) -> None:
    (tmp_path / "memo.json").write_bytes(content)
    assert HashMemo(tmp_path / "memo.json").sha256(file) == file_hash(file)


def test_notes_survive_and_old_files_are_dropped(tmp_path: Path, file: Path) -> None:
    memo = HashMemo(tmp_path / "memo.json")
    memo.put(tmp_path / "file", "a")
    memo.note("episodes", [1, 2])
    memo.save(keep=[])
    again = HashMemo(tmp_path / "memo.json")
    assert again.notes == {"episodes": [1, 2]} and again.sha256(file) == file_hash(file)
