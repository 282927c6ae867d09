"""Storage on a device against storage in memory: the same draws give the same batch. On the CPU here, once on a GPU."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hilserl.config.models import TrainConfig
from hilserl.data.device_storage import DeviceStorage, storage_for
from hilserl.data.observation_storage import ArraySpec, HostStorage, ObservationStorage
from hilserl.data.replay import ReplayBuffer, gather
from hilserl.errors import ConfigError

PARTS = {
    "state": ArraySpec((3,), "float32"),
    "image": ArraySpec((9, 7, 3), "uint8", shift_px=4),
    "map": ArraySpec((4, 2, 2), "float16", views=3),
    "small": ArraySpec((5, 6, 3), "uint8", shift_px=6),  # shifted by more than the image
}


def filled(storage: ObservationStorage, first_row: int, seed: int) -> ReplayBuffer:
    """A ring that went round, then one part of four of its rows loaded at once."""
    buffer = ReplayBuffer(12, PARTS, 2, discount=0.9, n_step=2, storage=storage, first_row=first_row)
    rng = np.random.default_rng(seed)

    def observe() -> dict[str, np.ndarray]:
        shown = {name: (rng.random(spec.stored_shape) * 200).astype(spec.dtype) for name, spec in PARTS.items()}
        return shown

    row = buffer.add_observation(observe())
    for number in range(30):
        following = buffer.add_observation(observe())
        buffer.add_transition(row, following, action=np.ones(2), reward=number, terminated=False, weight=1.0 + number % 2)
        row = following
    buffer.load("map", np.array([3, 4, 5]), rng.random((3, 3, 4, 2, 2)).astype(np.float16))
    buffer.load("image", np.array([7, 1]), rng.integers(0, 256, (2, 9, 7, 3), np.uint8))
    buffer.write(2, buffer.observation(9))
    return buffer


def assert_same_batches(device: torch.device) -> None:
    stores: list[ObservationStorage] = [HostStorage(24, PARTS), DeviceStorage(24, PARTS, device)]
    drawn = []
    for storage in stores:
        buffers = [filled(storage, 0, 1), filled(storage, 12, 2)]
        generator = np.random.default_rng(5)
        drawn.append(gather(storage, [buffer.draw(size, generator) for buffer, size in zip(buffers, (40, 24), strict=True)]))
    host, there = drawn
    assert stores[0].nbytes >= stores[1].nbytes
    for name in PARTS:
        for ours, theirs in ((host.observation, there.observation), (host.next_observation, there.next_observation)):
            assert theirs[name].device.type == device.type
            np.testing.assert_array_equal(ours[name], theirs[name].cpu().numpy(), err_msg=name)
            assert ours[name].dtype == PARTS[name].dtype and ours[name].shape == (64, *PARTS[name].shape)
    np.testing.assert_array_equal(host.reward, there.reward)


def test_both_storages_give_the_same_batches() -> None:
    assert_same_batches(torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_storage_on_the_gpu_gives_the_same_batches() -> None:
    assert_same_batches(torch.device("cuda"))


def config(device: str, storage: str) -> TrainConfig:
    return TrainConfig.model_validate({"learner": {"device": device, "storage_device": storage}})


@pytest.mark.parametrize(
    ("device", "storage", "needed", "expected"),
    [
        ("cpu", "auto", 1, "cpu"),
        ("cuda:0", "cpu", 1, "cpu"),
        ("cuda:0", "auto", 50, "cuda:0"),
        ("cuda:0", "auto", 51, "cpu"),
        ("cuda:0", "cuda", 51, "cuda:0"),
    ],
)
def test_the_buffers_lie_on_the_gpu_where_they_fit(
    device: str, storage: str, needed: int, expected: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch, "cuda", SimpleNamespace(mem_get_info=lambda device: (100, 200)))
    caplog.set_level("INFO")
    assert storage_for(config(device, storage), needed) == torch.device(expected)
    assert ("main memory" if expected == "cpu" else expected) in caplog.text


@pytest.mark.parametrize(("device", "needed", "message"), [("cpu", 1, "needs `learner.device: cuda`"), ("cuda", 101, "do not fit")])
def test_a_gpu_that_cannot_hold_them_is_refused_when_demanded(
    device: str, needed: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "cuda", SimpleNamespace(mem_get_info=lambda device: (100, 200)))
    with pytest.raises(ConfigError, match=message):
        storage_for(config(device, "cuda"), needed)
