import numpy as np
import pytest

from hilserl.config.models import CameraConfig
from hilserl.errors import SimulationError
from hilserl.robot.model import arm_spec, mjcf_path
from hilserl.sim.meshes import decimate, read_stl
from hilserl.sim.scene import load_scene

MESHES = mjcf_path().parent / "assets"


def test_the_scene_is_compiled_once():
    assert load_scene({"wrist": CameraConfig()}) is load_scene({"wrist": CameraConfig()})


def test_merging_vertices_by_hand():
    # Two triangles of a 10 mm square and one that is smaller than a cell and vanishes.
    square = np.array(
        [[[0, 0, 0], [10, 0, 0], [10, 10, 0]], [[0, 0, 0], [10, 10, 0], [0, 10, 0]], [[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0]]], float
    )
    vertices, faces = decimate(square, cell=1.0)
    assert len(vertices) == 4
    assert len(faces) == 2
    areas = (
        np.linalg.norm(np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]]), axis=1) / 2
    )
    assert areas.sum() == pytest.approx(100, rel=0.1)


def test_a_real_mesh_keeps_its_shape():
    triangles = read_stl(MESHES / "upper_arm_so101_v1.stl")
    vertices, faces = decimate(triangles, 0.003)
    assert len(faces) < len(triangles) / 10
    np.testing.assert_allclose(vertices.min(axis=0), triangles.min(axis=(0, 1)), atol=0.002)  # 2 mm
    np.testing.assert_allclose(vertices.max(axis=0), triangles.max(axis=(0, 1)), atol=0.002)


def test_meshes_that_touch_stay_exact():
    scene, exact = load_scene({}), arm_spec().compile()
    for index in range(exact.nmesh):
        name = exact.mesh(index).name
        before, after = int(exact.mesh_facenum[index]), int(scene.model.mesh_facenum[scene.model.mesh(name).id])
        if "gripper_part" in name:
            assert after == before
        else:
            assert after <= before
    drawn = int(scene.model.mesh_facenum.sum())
    assert drawn < 30_000 < int(exact.mesh_facenum.sum())


@pytest.mark.parametrize("content", [b"", b"solid text", b"\0" * 80 + (7).to_bytes(4, "little") + b"\0" * 60])
def test_a_damaged_mesh_is_named(tmp_path, content):
    broken = tmp_path / "part.stl"
    broken.write_bytes(content)
    with pytest.raises(SimulationError, match=r"part\.stl.*Reinstall"):
        read_stl(broken)
    with pytest.raises(SimulationError, match=r"missing\.stl"):
        read_stl(tmp_path / "missing.stl")
