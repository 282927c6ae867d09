import errno

import pytest
import torch
from safetensors.torch import save_file

from hilserl.errors import CacheError, CheckpointError
from hilserl.learner import checkpoint as module
from hilserl.learner.checkpoint import Checkpoint, CheckpointFolder


def content(value: float) -> Checkpoint:
    return Checkpoint({"a": torch.full((3,), value)}, {"updates": int(value)}, {"config": {"seed": 1}})


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_newest_intact_checkpoint_is_loaded_and_old_ones_go(tmp_path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    for steps in (100, 200, 1000):
        folder.save(content(steps), steps, 2 * steps)
    assert names(tmp_path) == ["000000200-400", "000001000-2000"]
    newest = folder.load_newest()
    assert newest is not None and newest.state["updates"] == 1000 and newest.tensors["a"][0] == 1000
    assert newest.identity == {"config": {"seed": 1}} and newest.folder == tmp_path / "000001000-2000"


def test_order_is_by_number_and_a_second_save_of_one_moment_replaces_nothing(tmp_path) -> None:
    folder = CheckpointFolder(tmp_path, keep=3)
    for number, updates in enumerate((900, 1000, 1000)):
        folder.save(content(number), 500, updates)
    newest = folder.load_newest()
    assert names(tmp_path) == ["000000500-1000", "000000500-1000-1", "000000500-900"]
    assert newest is not None and newest.state["updates"] == 2


@pytest.mark.failure("L16")
def test_the_best_is_kept_besides_the_newest(tmp_path) -> None:
    folder = CheckpointFolder(tmp_path, keep=1)
    assert folder.best is None
    for steps in (100, 200, 300, 400, 500):
        folder.save(content(steps), steps, steps, is_best=steps in (100, 300))
    assert names(tmp_path) == ["000000300-300", "000000500-500", "best"]
    assert folder.best == tmp_path / "000000300-300"
    newest = folder.load_newest()
    assert newest is not None and newest.state["updates"] == 500


def test_no_checkpoint_means_start(tmp_path) -> None:
    assert CheckpointFolder(tmp_path / "none", keep=2).load_newest() is None


def test_what_a_killed_process_was_writing_is_removed(tmp_path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    folder.save(content(1), 1, 1)
    (tmp_path / ".000000002-2.999999999.tmp").mkdir()
    folder.load_newest()
    assert names(tmp_path) == ["000000001-1"]


@pytest.mark.failure("L15")
@pytest.mark.parametrize("file", ["learner.safetensors", "state.json", "identity.json", "manifest.json"])
def test_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, file) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    folder.save(content(1), 1, 1)
    newest = folder.save(content(2), 2, 2)
    data = bytearray((newest / file).read_bytes())
    data[len(data) // 2] ^= 1
    (newest / file).write_bytes(data)
    loaded = folder.load_newest()
    assert loaded is not None and loaded.state["updates"] == 1


@pytest.mark.failure("L14")
def test_only_damaged_checkpoints_stop_instead_of_starting_over(tmp_path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    (folder.save(content(1), 1, 1) / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match="--fresh"):
        folder.load_newest()


@pytest.mark.failure("L14")
def test_a_checkpoint_of_the_first_format_is_named_as_such(tmp_path) -> None:
    (tmp_path / "000000500").mkdir()
    (tmp_path / "000000500" / "state.json").write_text('{"format_version": 1}')
    with pytest.raises(CheckpointError, match=r"earlier format(?s:.*)--fresh"):
        CheckpointFolder(tmp_path, keep=2).load_newest()


@pytest.mark.failure("L15")
def test_full_disk_keeps_the_previous_checkpoint(tmp_path, monkeypatch) -> None:
    folder = CheckpointFolder(tmp_path, keep=1)
    folder.save(content(1), 1, 1)

    def fill(tensors, path) -> None:
        save_file(tensors, path)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "save_file", fill)
    with pytest.raises(CacheError, match="disk is full"):
        folder.save(content(2), 2, 2)
    assert names(tmp_path) == ["000000001-1"]
    loaded = folder.load_newest()
    assert loaded is not None and loaded.state["updates"] == 1
