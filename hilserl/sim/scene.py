"""Build the MuJoCo scene: the arm on a table, a cube, cameras.

Physics settings are those with which the scripted grasp succeeded 60 times of 60 and the cube
slipped less than 0.2 mm in 10 s: 5 ms steps, implicitfast, elliptic cone, impratio 10, noslip 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilserl.config.models import CameraConfig
from hilserl.errors import SimulationError
from hilserl.robot.model import arm_spec
from hilserl.robot.mujoco_import import mujoco
from hilserl.sim.meshes import decimate, read_stl

MAX_TIMESTEP_S = 0.005
CUBE_HALF_M = 0.0125
CUBE_MASS_KG = 0.02
VISIBLE_GROUPS = (True, True, True, False, False, False)
"""Geom groups that are drawn; 3 and 4 hold collision shapes."""

SIMULATED_CAMERAS = ("wrist", "front")
VIDEO_CAMERA = "(video)"  # cannot clash with a configured name that makes a feature
VIDEO_SIZE = 256
VIDEO_OVERSAMPLING = 2
TABLE_GEOM = "table"
TABLE_MATERIAL, CUBE_MATERIAL, MOTOR_MATERIALS = "mat", "cube", "sts3215"

_CELL_M = 0.003
_TABLE_HALF_M = (0.42, 0.42, 0.015)
_TABLE_CENTRE_X_M = 0.16
_VIDEO_FOVY_DEG = 34.0
_VIDEO_POS_M, _VIDEO_TARGET_M = (0.66, -0.46, 0.44), (0.165, 0.0, 0.085)
_FRONT_POS_M, _FRONT_TARGET_M = (0.44, -0.24, 0.28), (0.17, 0.0, 0.05)  # nearer: its lens is wider

_PRINTED_RGBA = (0.95, 0.70, 0.16, 1.0)
_MOTOR_RGBA = (0.13, 0.14, 0.16, 1.0)
_CUBE_RGBA = (0.86, 0.20, 0.16, 1.0)
_MAT_RGB = (0.36, 0.45, 0.48)
_SKY_TOP_RGB, _SKY_BOTTOM_RGB = (0.97, 0.97, 0.98), (0.80, 0.83, 0.86)


@dataclass(frozen=True)
class Scene:
    """A compiled scene and the addresses that the environment needs.

    Attributes:
        model: `mujoco.MjModel`, shared by every environment of the process: never change it.
        substeps: Physics steps in one control period.
        cube_qpos: Where the cube's pose (position 3, quaternion 4) starts in qpos.
        cube_body: Body id of the cube.
        table_texture: Texture of the table, shape (H, W, 3), uint8; row 0 is at the table's +y edge.
    """

    model: Any
    substeps: int
    cube_qpos: int
    cube_body: int
    table_texture: NDArray[np.uint8]


def load_scene(cameras: Mapping[str, CameraConfig], control_hz: float = 10.0) -> Scene:
    """Return the scene for these cameras, compiled once per process.

    Args:
        cameras: Cameras by name, as configured.
        control_hz: Control rate [Hz]; a control period is a whole number of physics steps.

    Raises:
        SimulationError: A camera is not one that the simulation has.
    """
    largest = max([VIDEO_SIZE * VIDEO_OVERSAMPLING, *(max(camera.width, camera.height) for camera in cameras.values())])
    substeps = math.ceil(1.0 / (control_hz * MAX_TIMESTEP_S) - 1e-9)
    views = tuple((name, simulated_camera(name, camera), camera.fovy_deg) for name, camera in sorted(cameras.items()))
    return _compiled(views, largest, 1.0 / (control_hz * substeps), substeps)


def simulated_camera(name: str, camera: CameraConfig) -> str:
    """Tell which of the simulation's cameras a configured one is: `wrist` or `front`.

    Raises:
        SimulationError: Neither its name nor `simulated_as` says so.
    """
    place = camera.simulated_as or name
    if place not in SIMULATED_CAMERAS:
        raise SimulationError(
            f"robot.cameras.{name}: the simulation has no such camera; it has {' and '.join(SIMULATED_CAMERAS)}. "
            f"Say which one this is with `robot.cameras.{name}.simulated_as: wrist`."
        )
    return place


@lru_cache(maxsize=8)
def _compiled(views: tuple[tuple[str, str, float], ...], largest_px: int, timestep_s: float, substeps: int) -> Scene:
    spec = arm_spec()
    spec.option.timestep = timestep_s
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10
    spec.option.noslip_iterations = 3
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET.value  # a diverged simulation stops, it is not reset in silence
    _lighten_visual_meshes(spec)
    _paint(spec)
    texture = _mat_texture()
    _add_table(spec, texture)
    _add_cube(spec)
    _add_lights_and_view(spec, largest_px)
    _add_cameras(spec, views)
    model = spec.compile()
    cube_joint = model.joint("cube")
    return Scene(model, substeps, int(cube_joint.qposadr[0]), model.body("cube").id, texture)


def _lighten_visual_meshes(spec: Any) -> None:
    """Replace meshes that are only seen; those that touch stay exact."""
    touching = {geom.meshname for geom in spec.geoms if geom.classname.name == "collision_gripper_mesh"}
    folder = Path(spec.modelfiledir) / spec.meshdir
    for mesh in spec.meshes:
        name = mesh.name or Path(mesh.file).stem
        if name in touching:
            continue
        vertices, faces = decimate(read_stl(folder / mesh.file), _CELL_M)
        mesh.name = name
        mesh.file = ""
        mesh.uservert = vertices.ravel()
        mesh.userface = faces.ravel()
        mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL  # merged meshes are not watertight


def _paint(spec: Any) -> None:
    for material in spec.materials:
        material.rgba = _MOTOR_RGBA if material.name.startswith(MOTOR_MATERIALS) else _PRINTED_RGBA
        material.specular = 0.25
        material.shininess = 0.3
        material.reflectance = 0.0


def _add_table(spec: Any, texture: NDArray[np.uint8]) -> None:
    height, width, channels = texture.shape
    drawn = spec.add_texture(name=TABLE_MATERIAL, type=mujoco.mjtTexture.mjTEXTURE_2D, width=width, height=height, nchannel=channels)
    drawn.data = texture.tobytes()
    material = spec.add_material(name=TABLE_MATERIAL, specular=0.0, shininess=0.0, reflectance=0.0)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB.value] = TABLE_MATERIAL
    world = spec.worldbody
    world.add_geom(name="ground", type=mujoco.mjtGeom.mjGEOM_PLANE, size=(0, 0, 1), group=3)
    world.add_geom(
        name=TABLE_GEOM,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=(_TABLE_CENTRE_X_M, 0, -_TABLE_HALF_M[2]),
        size=_TABLE_HALF_M,
        material=TABLE_MATERIAL,
        contype=0,
        conaffinity=0,
        group=2,
    )


def _add_cube(spec: Any) -> None:
    body = spec.worldbody.add_body(name="cube", pos=(0.22, 0, CUBE_HALF_M))
    body.add_freejoint(name="cube")
    spec.add_material(name=CUBE_MATERIAL, rgba=_CUBE_RGBA, specular=0.2, shininess=0.2, reflectance=0.0)
    body.add_geom(
        name="cube",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=(CUBE_HALF_M,) * 3,
        mass=CUBE_MASS_KG,
        condim=4,
        friction=(1.0, 0.005, 0.0001),
        material=CUBE_MATERIAL,
        group=2,
    )


def _add_lights_and_view(spec: Any, largest_px: int) -> None:
    spec.worldbody.add_light(
        name="lamp",
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        pos=(0, 0, 1.5),
        dir=(-0.35, 0.3, -1.0),
        diffuse=(0.55, 0.55, 0.53),
        specular=(0.2, 0.2, 0.2),
        castshadow=False,
    )
    visual = spec.visual
    visual.headlight.ambient = (0.35, 0.35, 0.37)
    visual.headlight.diffuse = (0.35, 0.35, 0.35)
    visual.headlight.specular = (0.1, 0.1, 0.1)
    visual.quality.shadowsize = 0
    visual.quality.offsamples = 0
    visual.global_.offwidth = largest_px
    visual.global_.offheight = largest_px
    visual.map.znear = 0.005
    visual.map.zfar = 8.0
    spec.stat.extent = 1.0
    spec.stat.center = (0.15, 0, 0.1)
    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=_SKY_TOP_RGB,
        rgb2=_SKY_BOTTOM_RGB,
        width=64,
        height=384,
    )


def _add_cameras(spec: Any, views: tuple[tuple[str, str, float], ...]) -> None:
    """Add one camera per (name, place, vertical field of view [deg]), and the one for videos."""
    mount = spec.camera("wrist_cam")
    position, angles = mount.pos.copy(), mount.alt.euler.copy()
    spec.delete(mount)
    for name, place, fovy_deg in views:
        if place == "wrist":
            camera = spec.body("camera_mount").add_camera(name=name, pos=position, fovy=fovy_deg)
            camera.alt.type = mujoco.mjtOrientation.mjORIENTATION_EULER
            camera.alt.euler = angles
        else:
            spec.worldbody.add_camera(name=name, pos=_FRONT_POS_M, quat=_looking_at(_FRONT_POS_M, _FRONT_TARGET_M), fovy=fovy_deg)
    spec.worldbody.add_camera(name=VIDEO_CAMERA, pos=_VIDEO_POS_M, quat=_looking_at(_VIDEO_POS_M, _VIDEO_TARGET_M), fovy=_VIDEO_FOVY_DEG)


def _looking_at(position: tuple[float, ...], target: tuple[float, ...]) -> NDArray[np.floating[Any]]:
    """Compute the orientation (quaternion) of a camera at `position` that looks at `target`, upright."""
    back = np.subtract(position, target) / np.linalg.norm(np.subtract(position, target))
    right = np.cross((0, 0, 1), back)
    right /= np.linalg.norm(right)
    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, np.stack([right, np.cross(back, right), back], axis=1).ravel())
    return quaternion


def _mat_texture(size: int = 512) -> NDArray[np.uint8]:
    """Draw a work mat: faint mottling and lines every 2 and 10 cm, so that height and motion can be seen."""
    rng = np.random.default_rng(5)
    mat = np.ones((size, size, 3)) * _MAT_RGB
    for cells, strength in ((6, 0.05), (24, 0.04), (96, 0.03)):
        mat += _enlarge(rng.uniform(-strength, strength, (cells, cells)), size)[..., None]
    metres = (np.arange(size) + 0.5) / size * 2 * _TABLE_HALF_M[0]
    pixel = 2 * _TABLE_HALF_M[0] / size
    for spacing, strength, width in ((0.02, 0.06, 0.6), (0.10, 0.16, 1.2)):
        offset = np.abs((metres + spacing / 2) % spacing - spacing / 2)
        line = offset < width * pixel
        mat[line, :] += strength
        mat[:, line] += strength
    return np.clip(mat * 255, 0, 255).astype(np.uint8)


def _enlarge(coarse: NDArray[np.floating[Any]], size: int) -> NDArray[np.floating[Any]]:
    """Enlarge a square array to (size, size), linearly."""
    old, new = np.arange(len(coarse)), np.linspace(0, len(coarse) - 1, size)
    columns = np.stack([np.interp(new, old, row) for row in coarse])
    return np.stack([np.interp(new, old, column) for column in columns.T], axis=1)
