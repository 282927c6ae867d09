import errno

import pytest
import torch
from safetensors.torch import save_file

from hilserl.errors import CacheError, CheckpointError
from hilserl.learner import checkpoint as module
from hilserl.learner.checkpoint import Checkpoint, CheckpointFolder


def content(value: float) -> Checkpoint:
    return Checkpoint({"a": torch.full((3,), value)}, {"updates": int(value)})


def test_newest_intact_checkpoint_is_loaded_and_old_ones_go(tmp_path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    for steps in (100, 200, 1000):
        folder.save(content(steps), steps)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000200", "000001000"]
    newest = folder.load_newest()
    assert newest is not None and newest.state["updates"] == 1000 and newest.tensors["a"][0] == 1000


def test_no_checkpoint_means_start(tmp_path) -> None:
    assert CheckpointFolder(tmp_path / "none", keep=2).load_newest() is None


@pytest.mark.failure("L15")
def test_damaged_checkpoint_falls_back_to_the_one_before(tmp_path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    folder.save(content(1), 1)
    newest = folder.save(content(2), 2)
    data = bytearray((newest / "learner.safetensors").read_bytes())
    data[-1] ^= 1
    (newest / "learner.safetensors").write_bytes(data)
    loaded = folder.load_newest()
    assert loaded is not None and loaded.state["updates"] == 1


@pytest.mark.failure("L14")
def test_only_damaged_checkpoints_stop_instead_of_starting_over(tmp_path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    (folder.save(content(1), 1) / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match="--fresh"):
        folder.load_newest()


@pytest.mark.failure("L15")
def test_full_disk_keeps_the_previous_checkpoint(tmp_path, monkeypatch) -> None:
    folder = CheckpointFolder(tmp_path, keep=1)
    folder.save(content(1), 1)

    def fill(tensors, path) -> None:
        save_file(tensors, path)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "save_file", fill)
    with pytest.raises(CacheError, match="disk is full"):
        folder.save(content(2), 2)
    assert [path.name for path in tmp_path.iterdir()] == ["000000001"]
    loaded = folder.load_newest()
    assert loaded is not None and loaded.state["updates"] == 1
