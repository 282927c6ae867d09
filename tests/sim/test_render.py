import numpy as np
import pytest

from hilserl.config.models import CameraConfig
from hilserl.robot import gl_probe
from hilserl.robot.kinematics import HOME_RAD, Kinematics
from hilserl.robot.mujoco_import import mujoco
from hilserl.sim import render
from hilserl.sim.render import GlRenderer, RayRenderer, create_renderer
from hilserl.sim.scene import VIDEO_CAMERA, VISIBLE_GROUPS, load_scene

CAMERAS = {"wrist": CameraConfig(), "front": CameraConfig()}


@pytest.fixture(scope="module")
def scene():
    return load_scene(CAMERAS)


@pytest.fixture(scope="module")
def gl(scene):
    if gl_probe.select_gl_backend() == "rays":
        pytest.skip(f"this machine has no GL: {gl_probe.gl_advice()}")
    renderer = GlRenderer(scene)
    yield renderer
    renderer.close()


def arranged(scene, tool_m=(0.22, 0.0, 0.12), cube_m=(0.24, 0.03, 0.0125)):
    data = mujoco.MjData(scene.model)
    data.qpos[:6] = Kinematics().inverse(HOME_RAD, tool_m)
    data.qpos[5] = 0.9
    data.qpos[scene.cube_qpos : scene.cube_qpos + 3] = cube_m
    mujoco.mj_forward(scene.model, data)
    return data


def red(picture):
    """Where the cube is seen."""
    colour = picture.astype(int)
    return (colour[..., 0] > 90) & (colour[..., 0] > 2 * colour[..., 1]) & (colour[..., 0] > 2 * colour[..., 2])


@pytest.mark.parametrize("camera", ["wrist", "front"])
def test_both_renderers_show_the_same_picture(scene, gl, camera):
    data = arranged(scene)
    drawn, cast = gl.render(data, camera, 84, 84), RayRenderer(scene).render(data, camera, 84, 84)
    assert drawn.shape == cast.shape == (84, 84, 3)
    assert np.abs(drawn.astype(int) - cast.astype(int)).mean() < 9  # of 255; edges and texture filters differ
    overlap = (red(drawn) & red(cast)).sum() / (red(drawn) | red(cast)).sum()
    assert overlap > 0.7
    assert red(drawn).sum() > 10


@pytest.mark.parametrize("camera", ["wrist", "front"])
def test_the_tables_texture_lies_the_same_way_in_both_renderers(scene, gl, camera):
    data, upright, turned = arranged(scene), RayRenderer(scene), RayRenderer(scene)
    turned._mipmaps = [mipmap[::-1] for mipmap in upright._mipmaps]
    drawn = gl.render(data, camera, 84, 84).astype(int)
    difference = [np.abs(drawn - renderer.render(data, camera, 84, 84)).mean() for renderer in (upright, turned)]
    assert difference[0] < 0.9 * difference[1]


@pytest.mark.parametrize("camera", ["wrist", "front", VIDEO_CAMERA])
def test_rays_agree_with_mujocos_single_ray(scene, camera):
    # mj_multiRay of MuJoCo 3.17 loses parts of the arm; the renderer works around it.
    data, renderer, size = arranged(scene), RayRenderer(scene), 48
    index = scene.model.camera(camera).id
    rays = renderer._directions(index, size, size) @ data.cam_xmat[index].reshape(3, 3).T
    hit, groups = np.zeros(1, np.int32), np.array(VISIBLE_GROUPS, np.uint8)
    expected, found = np.empty(len(rays), np.int32), np.empty(len(rays), np.int32)
    for i, ray in enumerate(rays):
        mujoco.mj_ray(scene.model, data, data.cam_xpos[index], ray, groups, True, -1, hit)
        expected[i] = hit[0]
    distance = np.empty(len(rays))
    mujoco.mj_multiRay(renderer._model, data, data.cam_xpos[index], rays.ravel(), groups, True, -1, found, distance, None, len(rays), 10.0)
    np.testing.assert_array_equal(found, expected)


def test_hiding_what_is_out_of_view_changes_no_pixel(scene, gl, monkeypatch):
    rng = np.random.default_rng(0)
    hidden = 0
    for _ in range(12):
        data = arranged(scene, rng.uniform((0.12, -0.15, 0.0), (0.33, 0.15, 0.2)), rng.uniform((0.15, -0.1, 0.0125), (0.3, 0.1, 0.05)))
        for camera in ("wrist", "front"):
            culled = gl.render(data, camera, 60, 84)
            hidden += (~gl._in_view(data, scene.model.camera(camera).id, 84 / 60)).sum()
            with monkeypatch.context() as patch:
                patch.setattr(gl, "_in_view", lambda *_: np.ones(len(gl._drawn), bool))
                np.testing.assert_array_equal(gl.render(data, camera, 60, 84), culled)
    assert hidden > 50


def test_the_shared_model_is_never_changed(scene, gl):
    groups, boxes = scene.model.geom_group.copy(), scene.model.body_bvhadr.copy()
    gl.render(arranged(scene), "wrist", 84, 84)
    RayRenderer(scene).render(arranged(scene), "wrist", 84, 84)
    np.testing.assert_array_equal(scene.model.geom_group, groups)
    np.testing.assert_array_equal(scene.model.body_bvhadr, boxes)


@pytest.mark.parametrize("make", [RayRenderer, create_renderer])
def test_the_wrist_camera_sees_a_raised_cube_larger_and_the_table_move(scene, make):
    renderer = make(scene)
    low = renderer.render(arranged(scene, cube_m=(0.24, 0.0, 0.0125)), "wrist", 84, 84)
    high = renderer.render(arranged(scene, cube_m=(0.24, 0.0, 0.0625)), "wrist", 84, 84)
    near_table = renderer.render(arranged(scene, (0.22, 0.0, 0.08), cube_m=(0.4, 0.3, 0.0125)), "wrist", 84, 84)
    far_table = renderer.render(arranged(scene, (0.22, 0.0, 0.12), cube_m=(0.4, 0.3, 0.0125)), "wrist", 84, 84)
    renderer.close()
    assert red(high).sum() > 1.3 * red(low).sum()
    assert np.abs(near_table.astype(int) - far_table.astype(int)).mean() > 3  # the texture shows height


def test_gl_that_cannot_create_a_context_falls_back_to_rays(scene, monkeypatch, caplog):
    def broken(*_):
        raise ImportError("Cannot initialize a EGL device display")

    monkeypatch.setattr(gl_probe, "_selected", "egl")
    monkeypatch.setattr(gl_probe, "_reason", None)
    monkeypatch.setattr(render.mujoco, "GLContext", broken, raising=False)
    renderer = create_renderer(scene)
    assert isinstance(renderer, RayRenderer)
    assert "Cannot initialize a EGL device display" in caplog.text
    assert gl_probe.select_gl_backend() == "rays"
    assert "libosmesa6" in gl_probe.gl_advice()
    assert renderer.render(arranged(scene), "wrist", 84, 84).std() > 5
