"""Features of a frozen encoder: of truly shifted images, several views each, computed once and kept on disk."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from hilserl.config.models import TrainConfig
from hilserl.data.augment import shifted_views
from hilserl.data.observation_storage import ArraySpec
from hilserl.errors import TrainingError
from hilserl.learner.experience import Experience, _stored_parts
from hilserl.learner.feature_cache import FeatureCache, encoders_hash
from hilserl.link.messages import Step
from hilserl.policy import PolicyArchitecture
from hilserl.schema import IMAGE_PREFIX, STATE_KEY
from hilserl.vision.encoder import Encoder, Vision

SIZE = 32


class Mean(Encoder):
    """The image's corner and its mean: enough to tell every shift apart."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(3))
        self.feature_shape = (70,)
        self.images_seen = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.images_seen += len(images)
        return torch.cat((images[:, 0, :20].flatten(1).float(), images.float().mean((1, 2)) * self.scale, torch.zeros(len(images), 7)), 1)


def make(views: int | None, encoder: Encoder, seed: int = 0) -> tuple[Experience, PolicyArchitecture]:
    config = TrainConfig.model_validate({"observation": {"images": {"wrist": {"resize": [SIZE, SIZE]}}}, "encoder": {"views": views}})
    architecture = PolicyArchitecture.from_config(config)
    return Experience(config, architecture, Vision({"wrist": encoder}).requires_grad_(False), seed=seed), architecture


def feed(experience: Experience, architecture: PolicyArchitecture) -> np.ndarray:
    """Add one episode of four steps; return its images, whose number is the first scalar of the state."""
    images = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), np.uint8)

    def seen(time: int) -> dict[str, np.ndarray]:
        state = np.full(architecture.state_dim, time, np.float32)
        return {STATE_KEY: state, IMAGE_PREFIX + "wrist": images[time]}

    for time in range(4):
        final = seen(4) if time == 3 else None
        experience.add("a", Step(0, time, seen(time), np.zeros(architecture.action_dim, np.float32), 0.0, False, time == 3, True, final))
    return images


@pytest.mark.failure("L09")
def test_every_view_is_the_encoders_output_of_a_truly_shifted_image() -> None:
    encoder = Mean()
    experience, architecture = make(3, encoder)
    images = feed(experience, architecture)
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="edge")
    shifts = [[padded[time, y : y + SIZE, x : x + SIZE] for y in range(9) for x in range(9)] for time in range(5)]
    with torch.inference_mode():
        possible = [{row.tobytes() for row in encoder(torch.tensor(np.stack(shown))).numpy()} for shown in shifts]
    batch = experience.sample(300)
    drawn: dict[int, set[bytes]] = {}
    for states, features in ((batch.state, batch.images["wrist"]), (batch.next_state, batch.next_images["wrist"])):
        for time, feature in zip(states[:, 0].int().tolist(), features.numpy(), strict=True):
            assert feature.tobytes() in possible[time]
            drawn.setdefault(time, set()).add(feature.tobytes())
    assert {time: len(views) for time, views in drawn.items()} == dict.fromkeys(range(5), 3)  # two samples of one transition differ
    same = (batch.images["wrist"][:, None] == batch.next_images["wrist"][:, None]).flatten(1).all(1)
    assert not same.any()


def test_one_view_is_of_the_image_itself() -> None:
    encoder = Mean()
    experience, architecture = make(1, encoder)
    images = feed(experience, architecture)
    batch = experience.sample(30)
    with torch.inference_mode():
        torch.testing.assert_close(batch.images["wrist"], encoder(torch.tensor(images[batch.state[:, 0].long().numpy()])))


@pytest.mark.failure("L14")
def test_the_views_to_come_are_part_of_the_snapshot(tmp_path: Path) -> None:
    experiences = [make(3, Mean())[0] for _ in range(2)]
    architecture = make(3, Mean())[1]
    experiences[0].attach_store(tmp_path)
    feed(experiences[0], architecture)
    snapshot = experiences[0].snapshot()
    experiences[0].sync(snapshot)
    experiences[0].close()
    experiences[1].attach_store(tmp_path)
    experiences[1].restore(snapshot)
    experiences[0]._store = None
    for experience in experiences:
        feed(experience, architecture)
    first, second = (experience.sample(200) for experience in experiences)
    assert torch.equal(first.images["wrist"], second.images["wrist"]) and torch.equal(
        first.next_images["wrist"], second.next_images["wrist"]
    )
    experiences[1].close()


def test_maps_are_stored_in_half_precision_and_vectors_are_not() -> None:
    shapes = {"map": (512, 4, 4), "vector": (70,)}
    architecture = SimpleNamespace(
        state_dim=3, cameras=dict.fromkeys(shapes, (SIZE, SIZE)), input_spec=lambda: SimpleNamespace(feature_shapes=shapes)
    )
    config = TrainConfig.model_validate({"encoder": {"views": 4}})
    parts = _stored_parts(config, cast(Any, architecture), tuple(shapes))
    assert parts["map"] == ArraySpec((512, 4, 4), "float16", views=4) and parts["vector"] == ArraySpec((70,), "float32", views=4)


def test_a_feature_that_is_not_finite_stops() -> None:
    encoder = Mean()
    with torch.no_grad():
        encoder.scale[0] = torch.inf
    experience, architecture = make(1, encoder)
    with pytest.raises(TrainingError, match="camera `wrist`: a feature of the frozen encoder is not finite"):
        feed(experience, architecture)


Encoded = Iterator[tuple[slice, dict[str, np.ndarray]]]


def compute(calls: list[int]) -> Callable[[], Encoded]:
    def encode() -> Encoded:
        calls.append(1)
        for start in range(0, 10, 4):
            where = slice(start, start + 4)
            yield where, {"wrist": np.arange(10, dtype=np.float32)[where, None, None] + np.ones((1, 3, 2), np.float32)}

    return encode


PARTS = {"wrist": ArraySpec((2,), "float32", views=3)}


def test_features_are_computed_once_and_again_when_anything_differs(own_home: Path) -> None:
    calls: list[int] = []
    encoder, other = Mean(), Mean()
    with torch.no_grad():
        other.scale[1] = 2.0
    first = FeatureCache({"wrist": encoder}, PARTS, 0).get("shard", 10, compute(calls))["wrist"]
    assert first.shape == (10, 3, 2) and (first[7] == 8).all() and len(calls) == 1
    again = FeatureCache({"wrist": Mean()}, PARTS, 0).get("shard", 10, compute(calls))["wrist"]
    assert (again == first).all() and len(calls) == 1
    FeatureCache({"wrist": other}, PARTS, 0).get("shard", 10, compute(calls))
    FeatureCache({"wrist": encoder}, PARTS, 1).get("shard", 10, compute(calls))
    FeatureCache({"wrist": encoder}, PARTS, 0).get("other shard", 10, compute(calls))
    assert len(calls) == 4 and len(list((own_home / "features").iterdir())) == 4


def test_damaged_features_are_computed_again(own_home: Path, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []
    cache = FeatureCache({"wrist": Mean()}, PARTS, 0)
    cache.get("shard", 10, compute(calls))
    (file,) = (own_home / "features").glob("*/wrist.raw")
    data = bytearray(file.read_bytes())
    data[50] ^= 1
    file.write_bytes(data)
    assert (cache.get("shard", 10, compute(calls))["wrist"][7] == 8).all()
    assert len(calls) == 2 and "does not match its checksum; it is computed again" in caplog.text


def test_encoders_are_known_by_tensors_and_code() -> None:
    class Other(Mean):
        pass

    assert encoders_hash({"a": Mean()}) == encoders_hash({"a": Mean()})
    assert len({encoders_hash({"a": Mean()}), encoders_hash({"b": Mean()}), encoders_hash({"a": Other()})}) == 3


def test_views_are_all_shown_and_the_generator_decides() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 12, 9, 3), np.uint8)
    first, again = (shifted_views(images, 30, np.random.default_rng(3)) for _ in range(2))
    assert first.shape == (4, 30, 12, 9, 3) and (first == again).all()
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="edge")
    for image, views in zip(padded, first, strict=True):
        possible = {image[y : y + 12, x : x + 9].tobytes() for y in range(9) for x in range(9)}
        shown = {view.tobytes() for view in views}
        assert shown <= possible and len(shown) > 20
