"""Trimming: only what stands still goes, and never a reward."""

import numpy as np
import pytest
from data_helpers import LENGTHS, make_config, set_column
from editing_testing import CAMERA, columns, pictures, stats_of

from hilserl.data.editing.check import check_result
from hilserl.data.editing.idle import find_idle, trim_idle
from hilserl.data.editing.record import Edit
from hilserl.data.editing.tables import Tables
from hilserl.data.validation import validate_dataset

EDIT = Edit("trim", {})


def stand_still(root, episode, frames):
    """Let the state of some frames be that of the first of them, within the noise of an encoder, and the action nothing."""
    start = sum(LENGTHS[:episode])
    state, action = (np.stack(columns(root)[key].to_numpy()).copy() for key in ("observation.state", "action"))
    rows = [start + frame for frame in frames]
    rng = np.random.default_rng(0)
    state[rows] = state[rows[0]] + rng.uniform(-1e-3, 1e-3, (len(rows), state.shape[1]))
    state[:, 6:12] = rng.uniform(-1, 1, (len(state), 6))  # velocities are noise at rest, and do not count
    action[rows] = rng.uniform(-0.01, 0.01, (len(rows), action.shape[1]))
    set_column(root, "observation.state", state)
    set_column(root, "action", action)


def cuts(root, **options):
    return {idle.episode: (idle.head, idle.tail) for idle in find_idle(Tables.open(root), **options)}


@pytest.mark.failure("D19")
def test_only_idle_ends_go(demos, tmp_path):
    stand_still(demos, 1, range(4))
    stand_still(demos, 3, range(5, 8))
    stand_still(demos, 0, range(2, 4))  # a pause in the middle stays
    # Frame 4 is the first that moves; frame 3, in which it was asked to, stays.
    assert cuts(demos) == {0: (0, 0), 1: (3, 0), 2: (0, 0), 3: (0, 2)}
    assert cuts(demos, tail=False) == {0: (0, 0), 1: (3, 0), 2: (0, 0), 3: (0, 0)}
    assert cuts(demos, head=False) == {0: (0, 0), 1: (0, 0), 2: (0, 0), 3: (0, 2)}

    tables = Tables.open(demos)
    trim_idle(tables, find_idle(tables), tmp_path / "cut", EDIT)

    rows = [*range(6), *range(9, 14), *range(14, 21), *range(21, 27)]
    assert (pictures(tmp_path / "cut") == pictures(demos)[rows]).all()
    cut = columns(tmp_path / "cut")
    assert cut["action"].equals(columns(demos)["action"][rows])
    assert cut["frame_index"].to_list() == [*range(6), *range(5), *range(7), *range(6)]
    assert cut["timestamp"].to_numpy() == pytest.approx(cut["frame_index"].to_numpy() / 10, abs=1e-6)
    ends = np.flatnonzero(cut["next.done"].to_numpy())
    assert ends.tolist() == [5, 10, 17, 23], "the last frame of every episode, wherever it is now"
    assert not validate_dataset(make_config(tmp_path / "cut"), tmp_path / "cut").stops
    assert check_result(tmp_path / "cut") == (4, 24)


def test_a_smaller_threshold_calls_noise_motion(demos):
    stand_still(demos, 1, range(4))
    assert cuts(demos, idle_mm=0.1)[1] == (0, 0)
    assert cuts(demos, idle_deg=0.01)[1] == (0, 0)


def test_a_reward_is_never_cut(demos):
    stand_still(demos, 0, range(2, 6))  # the reward is on frame 5
    found = {idle.episode: idle for idle in find_idle(Tables.open(demos))}
    assert (found[0].head, found[0].tail) == (0, 0)
    assert "last reward" in found[0].note


def test_an_episode_in_which_nothing_moves_is_kept_and_named(demos):
    stand_still(demos, 3, range(8))
    found = {idle.episode: idle for idle in find_idle(Tables.open(demos))}
    assert (found[3].head, found[3].tail) == (0, 0)
    assert "drop it" in found[3].note


def test_joints_in_degrees_have_their_own_threshold(teleop):
    state = np.stack(columns(teleop)["observation.state"].to_numpy()).copy()
    state[:3] = state[0]
    state[1] += 0.6  # more than 1 degree in radians would be, less than 1 degree
    set_column(teleop, "observation.state", state)
    set_column(teleop, "action", state)
    assert cuts(teleop)[0] == (2, 0)
    assert cuts(teleop, idle_deg=0.5)[0] == (0, 0)


def test_image_statistics_are_of_the_frames_that_are_left(demos, tmp_path):
    stand_still(demos, 1, range(4))
    tables = Tables.open(demos)
    trim_idle(tables, find_idle(tables), tmp_path / "cut", EDIT)
    pixels = pictures(tmp_path / "cut").reshape(-1, 3) / 255
    stats = stats_of(tmp_path / "cut")[CAMERA]
    # Whole episodes keep what LeRobot computed from the frames before they were encoded.
    assert np.ravel(stats["mean"]) == pytest.approx(pixels.mean(0), abs=0.01)
    assert np.ravel(stats["std"]) == pytest.approx(pixels.std(0), abs=0.01)
    assert stats["count"] != stats_of(demos)[CAMERA]["count"]
