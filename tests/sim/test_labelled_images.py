import math

import numpy as np
import pytest

from hilserl.config.models import CameraConfig, ImageConfig, ObservationConfig, RobotConfig, TrainConfig
from hilserl.errors import SimulationError
from hilserl.progress import subscribed
from hilserl.robot.kinematics import HOME_RAD
from hilserl.sim.env import So101Env
from hilserl.sim.labelled_images import LABEL_NAMES, STAGE, _label, sample_labelled_images

COUNT = 160


@pytest.fixture(scope="module")
def sampled(seeing):
    reports = []
    with subscribed(reports.append):
        found = sample_labelled_images(seeing, COUNT, seed=1)
    return found, reports


def red_share(images):
    colour = images.astype(int)
    return ((colour[..., 0] > 90) & (colour[..., 0] > 2 * colour[..., 1]) & (colour[..., 0] > 2 * colour[..., 2])).mean(axis=(1, 2))


def test_shapes_names_and_ranges(sampled):
    found, _ = sampled
    assert found.images["wrist"].shape == (COUNT, 84, 84, 3)
    assert found.images["wrist"].dtype == np.uint8
    assert found.labels.shape == (COUNT, len(LABEL_NAMES))
    assert found.labels.dtype == np.float32
    assert np.abs(found.labels[:, :3]).max() < 0.5  # metres
    np.testing.assert_allclose(np.linalg.norm(found.labels[:, 3:5], axis=1), 1.0, atol=1e-5)


def test_visible_cubes_are_in_the_picture_and_others_are_not(sampled):
    found, _ = sampled
    visible = found.labels[:, 5] == 1
    share = red_share(found.images["wrist"])
    assert 0.5 < visible.mean() < 0.98
    assert (share[visible] > 0).mean() > 0.9  # the jaw may hide one
    assert share[~visible].mean() < 0.2 * share[visible].mean()  # only corners reach in


def test_a_nearer_cube_is_larger(sampled):
    found, _ = sampled
    visible = found.labels[:, 5] == 1
    size, distance = red_share(found.images["wrist"])[visible], np.linalg.norm(found.labels[visible, :3] - [0, 0, -0.08], axis=1)
    assert np.corrcoef(size, distance)[0, 1] < -0.5


def test_grasped_and_lifted_cubes_occur(sampled):
    found, _ = sampled
    assert (np.linalg.norm(found.labels[:, :3], axis=1) < 0.015).mean() > 0.1


def test_progress_is_published(sampled):
    _, reports = sampled
    assert {report.stage for report in reports} == {STAGE}
    assert (reports[-1].done, reports[-1].total) == (COUNT, COUNT)


def test_the_seed_decides(seeing):
    first, again, other = (sample_labelled_images(seeing, 12, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.labels, again.labels)
    np.testing.assert_array_equal(first.images["wrist"], again.images["wrist"])
    assert not np.array_equal(first.labels, other.labels)


def test_labels_of_a_known_scene(seeing_env):
    joints = seeing_env.kinematics.inverse(HOME_RAD, [0.22, 0.0, 0.05])
    tool, rotation = seeing_env.kinematics.forward(joints)
    approach, yaw = rotation[:, 2], math.atan2(rotation[1, 1], rotation[0, 1]) - math.pi / 2
    seeing_env.arrange(joints, tool + 0.03 * approach, yaw)
    np.testing.assert_allclose(_label(seeing_env, "wrist")[:5], [0, 0, 0.03, 1, 0], atol=1e-3)
    seeing_env.arrange(joints, tool + 0.03 * approach, yaw + math.pi / 2)
    np.testing.assert_allclose(_label(seeing_env, "wrist")[3:5], [1, 0], atol=1e-3)  # a quarter turn looks the same
    seeing_env.arrange(joints, [0.22, 0.4, 0.0125], 0.0)
    assert _label(seeing_env, "wrist")[5] == 0.0


def test_a_camera_under_another_name(seeing):
    config = TrainConfig(
        robot=RobotConfig(cameras={"gripper_cam": CameraConfig(simulated_as="wrist")}),
        observation=ObservationConfig(images={"gripper_cam": ImageConfig()}),
    )
    assert sample_labelled_images(config, 4, seed=0).images.keys() == {"gripper_cam"}


def test_without_a_camera_there_is_nothing_to_render(reach):
    with pytest.raises(SimulationError, match=r"observation\.images is empty"):
        sample_labelled_images(reach, 4, seed=0)


def test_a_closed_environment_draws_again(seeing):
    env = So101Env(seeing)
    first = env.reset(seed=0)[0]["observation.images.wrist"]
    env.close()
    np.testing.assert_array_equal(env.reset(seed=0)[0]["observation.images.wrist"], first)
    env.close()
