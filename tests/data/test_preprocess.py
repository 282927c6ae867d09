import json

import cv2
import numpy as np
import pytest
from data_helpers import NATIVE, make_config, paint, states, update

from hilserl.config.models import TrainConfig
from hilserl.data.preprocess import CameraView, Preprocessor
from hilserl.errors import CheckpointError, ConfigError, TrainingError
from hilserl.schema import policy_schema


@pytest.fixture
def config() -> TrainConfig:
    return make_config()


@pytest.fixture
def observation(config: TrainConfig) -> dict[str, np.ndarray]:
    return {"observation.state": states(np.random.default_rng(0), config, 1)[0], "observation.images.wrist": paint(5)}


def block_mean(frame: np.ndarray, factor: int) -> np.ndarray:
    height, width, _ = frame.shape
    return frame.reshape(height // factor, factor, width // factor, factor, 3).astype(float).mean(axis=(1, 3))


@pytest.mark.failure("D14")
def test_crop_is_top_left_height_width_and_shrinking_averages(config: TrainConfig) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*NATIVE, 3), dtype=np.uint8)
    seen = Preprocessor.from_config(config).image("wrist", frame)
    assert seen.shape == (48, 48, 3) and seen.dtype == np.uint8
    # The oracle: columns 16-111 of all rows, averaged over 2x2 blocks by hand.
    np.testing.assert_allclose(seen, block_mean(frame[:, 16:112], 2), atol=0.51)


def test_an_off_centre_crop_is_not_read_as_x_y() -> None:
    frame = np.arange(40 * 60, dtype=np.uint32).reshape(40, 60)
    image = np.stack([frame % 256, frame // 256, frame * 0], axis=-1).astype(np.uint8)
    view = CameraView((40, 60), (3, 20, 10, 30), (10, 30))
    np.testing.assert_array_equal(view.apply(image, "test"), image[3:13, 20:50])


def test_a_frame_that_already_fits_is_passed_through() -> None:
    frame = paint(1)
    assert CameraView(NATIVE, (0, 0, *NATIVE), NATIVE).apply(frame, "test") is frame


@pytest.mark.failure("D15")
def test_upscaling_stops() -> None:
    with pytest.raises(ConfigError, match="upscaling"):
        CameraView((84, 84), (0, 0, 84, 84), (128, 128))


@pytest.mark.failure("D14")
@pytest.mark.parametrize(
    "frame",
    [np.zeros((NATIVE[1], NATIVE[0], 3), np.uint8), np.zeros((480, 640, 3), np.uint8), np.zeros((3, *NATIVE), np.uint8)],
    ids=["transposed", "other camera", "channels first"],
)
def test_another_native_size_stops(config: TrainConfig, frame: np.ndarray) -> None:
    with pytest.raises(TrainingError, match=r"observation.images.wrist: got uint8 .* expects uint8 \(96, 128, 3\)"):
        Preprocessor.from_config(config).image("wrist", frame)


@pytest.mark.failure("D13")
def test_images_stay_uint8_and_scaled_ones_stop(config: TrainConfig, observation: dict[str, np.ndarray]) -> None:
    preprocessor = Preprocessor.from_config(config)
    seen = preprocessor(observation)["observation.images.wrist"]
    assert seen.dtype == np.uint8 and seen.max() > 200
    with pytest.raises(TrainingError, match="float32"):
        preprocessor(observation | {"observation.images.wrist": paint(5).astype(np.float32) / 255})


def test_the_policy_gets_exactly_its_schema(config: TrainConfig, observation: dict[str, np.ndarray]) -> None:
    other_camera = {"observation.images.front": np.zeros((4, 4, 3), np.uint8)}
    seen = Preprocessor.from_config(config)(observation | other_camera)
    for key, feature in policy_schema(config).observation.items():
        assert seen[key].shape == feature.shape and seen[key].dtype == feature.dtype
    assert list(seen) == list(policy_schema(config).observation)
    np.testing.assert_array_equal(seen["observation.state"], observation["observation.state"])


@pytest.mark.failure("D04")
@pytest.mark.parametrize("size", [6, 12, 17, 21, 63])
def test_a_state_of_another_length_stops(config: TrainConfig, observation: dict[str, np.ndarray], size: int) -> None:
    with pytest.raises(TrainingError, match=rf"shape \({size},\)"):
        Preprocessor.from_config(config)(observation | {"observation.state": np.zeros(size, np.float32)})


def test_missing_and_unknown_keys_stop(config: TrainConfig, observation: dict[str, np.ndarray]) -> None:
    preprocessor = Preprocessor.from_config(config)
    with pytest.raises(TrainingError, match=r"lacks \['observation.images.wrist'\]"):
        preprocessor({"observation.state": observation["observation.state"]})
    with pytest.raises(TrainingError, match=r"unknown keys \['state'\]"):
        preprocessor(observation | {"state": np.zeros(1)})


def test_a_value_that_is_not_finite_is_named(config: TrainConfig, observation: dict[str, np.ndarray]) -> None:
    observation["observation.state"][7] = np.nan
    with pytest.raises(TrainingError, match=r"joint_vel.shoulder_lift"):
        Preprocessor.from_config(config)(observation)


def test_an_integer_state_stops(config: TrainConfig, observation: dict[str, np.ndarray]) -> None:
    with pytest.raises(TrainingError, match="int64"):
        Preprocessor.from_config(config)(observation | {"observation.state": np.zeros(18, np.int64)})


def test_json_round_trip_gives_the_same_preprocessor(config: TrainConfig, observation: dict[str, np.ndarray]) -> None:
    original = Preprocessor.from_config(config)
    restored = Preprocessor.from_dict(json.loads(json.dumps(original.to_dict())))
    assert restored == original and restored.hash() == original.hash()
    np.testing.assert_array_equal(restored(observation)["observation.images.wrist"], original(observation)["observation.images.wrist"])
    with pytest.raises(CheckpointError, match="format 99"):
        Preprocessor.from_dict(original.to_dict() | {"format_version": 99})


def test_the_hash_changes_with_everything_the_policy_would_notice(config: TrainConfig) -> None:
    wrist = {"crop": [0, 16, 96, 96], "resize": [48, 48]}
    variants = [
        update(config, observation={"images": {"wrist": wrist | {"crop": [0, 17, 96, 96]}}}),
        update(config, observation={"images": {"wrist": wrist | {"resize": [48, 47]}}}),
        update(config, observation={"state": ["joint_vel", "joint_pos", "ee_pos", "ee_euler"]}),
        update(config, task={"type": "lift"}),
    ]
    hashes = [Preprocessor.from_config(variant).hash() for variant in (config, *variants)]
    assert len(set(hashes)) == len(hashes)
    assert Preprocessor.from_config(update(config, policy={"discount": 0.9})).hash() == hashes[0]


def test_the_resize_is_opencvs_area_resize(config: TrainConfig) -> None:
    frame = np.random.default_rng(3).integers(0, 256, (*NATIVE, 3), dtype=np.uint8)
    view = CameraView(NATIVE, (2, 5, 90, 100), (37, 41))
    expected = cv2.resize(np.ascontiguousarray(frame[2:92, 5:105]), (41, 37), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(view.apply(frame, "test"), expected)
