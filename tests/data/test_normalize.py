import json

import numpy as np
import pytest
from data_helpers import make_config, states
from hypothesis import given
from hypothesis import strategies as st

from hilserl.data.normalize import MAX_NORMALISED, StateNormalizer
from hilserl.errors import ConfigError, DatasetError, TrainingError
from hilserl.schema import STATE_COMPONENTS, state_components

COMPONENTS = state_components(make_config())
NAMES = tuple(scalar for component in COMPONENTS for scalar in component.scalars)
LIMITS = np.array([component.limit for component in COMPONENTS for _ in component.labels])


@pytest.fixture
def demos() -> np.ndarray:
    return states(np.random.default_rng(0), make_config(), 200)


def test_centre_and_half_range_come_from_the_data_where_it_moves_enough() -> None:
    component = STATE_COMPONENTS["ee_pos"]
    state = np.array([[0.1, -0.2, 0.0], [0.5, 0.1, 0.01]], np.float32)
    normalizer = StateNormalizer.fit(state, [component])
    # x moved 0.4 m: half of it. y and z moved less than twice a quarter of the limit 0.6 m: the floor 0.15 m.
    np.testing.assert_allclose(normalizer.center, [0.3, -0.05, 0.005], atol=1e-7)
    np.testing.assert_allclose(normalizer.half_range, [0.2, 0.15, 0.15], atol=1e-7)
    np.testing.assert_allclose(normalizer.normalize(state)[:, 0], [-1, 1], atol=1e-6)
    assert normalizer.center.dtype == normalizer.half_range.dtype == normalizer.normalize(state).dtype == np.float32


@pytest.mark.failure("D16")
def test_every_constant_scalar_is_named_with_the_line_to_paste(demos: np.ndarray) -> None:
    demos[:, [5, 11]] = 0.25
    with pytest.raises(DatasetError) as caught:
        StateNormalizer.fit(demos, COMPONENTS, ("ee_pos.x",))
    assert "observation: {allow_constant: [ee_pos.x, joint_pos.gripper, joint_vel.gripper]}" in str(caught.value)


@pytest.mark.failure("D16")
def test_movement_below_the_resolution_counts_as_constant(demos: np.ndarray) -> None:
    demos[:, 3] = 1.0 + 1e-4 * np.sin(np.arange(200))  # encoder noise of 0.1 mrad, resolution 5 mrad
    with pytest.raises(DatasetError, match=r"joint_pos.wrist_flex"):
        StateNormalizer.fit(demos, COMPONENTS)


@pytest.mark.failure("D16")
def test_an_allowed_constant_stays_small_when_it_moves_later(demos: np.ndarray) -> None:
    demos[:, 5] = 0.25
    normalizer = StateNormalizer.fit(demos, COMPONENTS, ("joint_pos.gripper",))
    later = demos[0].copy()
    later[5] = 1.7
    assert abs(normalizer.normalize(later)[5]) < 3


@pytest.mark.failure("D17")
def test_degrees_in_the_demonstrations_stop(demos: np.ndarray) -> None:
    demos[:, :6] = np.degrees(demos[:, :6])
    with pytest.raises(DatasetError, match=r"`joint_pos.shoulder_pan` reaches .* rad, declared limit 3.2 rad: these look like degrees"):
        StateNormalizer.fit(demos, COMPONENTS)


@pytest.mark.failure("D17")
def test_degrees_in_a_live_state_stop_and_name_the_joint(demos: np.ndarray) -> None:
    normalizer = StateNormalizer.fit(demos, COMPONENTS)
    normalizer.check(demos, "demonstrations")
    live = demos[:3].copy()
    live[2, 1] = np.degrees(0.8)
    with pytest.raises(TrainingError, match=r"episode 3 step 2: `joint_pos.shoulder_lift` is 45.84, normalised"):
        normalizer.check(live, "episode 3 step 2")


def test_nan_fails_the_check(demos: np.ndarray) -> None:
    live = demos[0].copy()
    live[4] = np.nan
    with pytest.raises(TrainingError, match="wrist_roll"):
        StateNormalizer.fit(demos, COMPONENTS).check(live, "here")


@given(st.lists(st.floats(-1, 1, width=32), min_size=18, max_size=18), st.integers(0, 2**31 - 1))
def test_whatever_lies_inside_the_limits_passes(fractions: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    seen = (rng.uniform(-1, 1, 18) * LIMITS + rng.uniform(-0.05, 0.05, (20, 18)) * LIMITS).clip(-LIMITS, LIMITS).astype(np.float32)
    normalizer = StateNormalizer.fit(seen, COMPONENTS, NAMES)
    live = (np.array(fractions) * LIMITS).astype(np.float32)
    normalizer.check(live, "live")
    assert np.abs(normalizer.normalize(live)).max() < MAX_NORMALISED - 1


def test_an_unknown_allowed_constant_is_suggested(demos: np.ndarray) -> None:
    with pytest.raises(ConfigError, match=r"no scalar `joint_pos.griper`. Did you mean `joint_pos.gripper`"):
        StateNormalizer.fit(demos, COMPONENTS, ("joint_pos.griper",))


def test_json_round_trip_is_exact(demos: np.ndarray) -> None:
    normalizer = StateNormalizer.fit(demos, COMPONENTS)
    restored = StateNormalizer.from_dict(json.loads(json.dumps(normalizer.to_dict())))
    assert restored.names == normalizer.names == NAMES
    np.testing.assert_array_equal(restored.normalize(demos), normalizer.normalize(demos))


def test_wrong_width_and_no_data_stop(demos: np.ndarray) -> None:
    with pytest.raises(DatasetError, match=r"\(200, 17\)"):
        StateNormalizer.fit(demos[:, :17], COMPONENTS)
    with pytest.raises(DatasetError, match=r"\(0, 18\)"):
        StateNormalizer.fit(demos[:0], COMPONENTS)
