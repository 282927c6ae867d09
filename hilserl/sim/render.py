"""Pictures of the scene as arrays: with GL where there is one, by casting rays where not."""

from __future__ import annotations

import atexit
import copy
import math
import weakref
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hilserl.robot.mujoco_import import mujoco
from hilserl.sim.appearance import Appearance, table_texture
from hilserl.sim.gl import fall_back_to_rays, select_gl_backend
from hilserl.sim.scene import CUBE_MATERIAL, MOTOR_MATERIALS, TABLE_GEOM, TABLE_MATERIAL, VISIBLE_GROUPS, Scene

Image = NDArray[np.uint8]

_DRAWN_GROUP, _HIDDEN_GROUP = VISIBLE_GROUPS.index(True), VISIBLE_GROUPS.index(False)
_TABLE_HEADLIGHT = 0.7  # GL lights a box at its corners, far from the camera; measured on both cameras
_open: weakref.WeakSet[GlRenderer] = weakref.WeakSet()


class Renderer(Protocol):
    """Draw what a camera of the scene sees."""

    def render(self, data: Any, camera: str, height: int, width: int) -> Image:
        """Draw one picture.

        Args:
            data: `mujoco.MjData` whose positions, cameras and lights are up to date.
            camera: Name of the camera.
            height: Height of the picture [px].
            width: Width of the picture [px].

        Returns:
            RGB picture, shape (H, W, 3), uint8, row 0 on top.
        """
        ...

    def dress(self, appearance: Appearance) -> None:
        """Draw with other light and colours from now on."""
        ...

    def close(self) -> None:
        """Free the graphics memory; safe to call twice."""
        ...


def create_renderer(scene: Scene) -> Renderer:
    """Create the fastest renderer that works on this machine; never fails for lack of GL."""
    if select_gl_backend() != "rays":
        try:
            return GlRenderer(scene)
        except Exception as error:  # every GL stack fails in its own way
            fall_back_to_rays(f"GL loads, but no picture can be drawn with it ({type(error).__name__}: {error}).")
    return RayRenderer(scene)


class GlRenderer:
    """Draw off screen with OpenGL: no shadows, no multisampling, no reflections."""

    def __init__(self, scene: Scene) -> None:
        self._model = model = copy.copy(scene.model)  # its geom groups say what is in view
        self._drawn = np.flatnonzero(np.array(VISIBLE_GROUPS)[model.geom_group])
        self._radius_m = model.geom_rbound[self._drawn]
        size = model.vis.global_.offwidth, model.vis.global_.offheight
        self._gl: Any = mujoco.GLContext(*size)
        try:
            self._gl.make_current()
            self._context: Any = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
            mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
            if self._context.currentBuffer != mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value:
                raise RuntimeError("this GL has no offscreen buffer")
        except BaseException:
            self._gl.free()
            raise
        _close_at_exit(self)
        self._scene = mujoco.MjvScene(model, maxgeom=200)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = VISIBLE_GROUPS
        self._options.sitegroup[:] = False
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._perturb = mujoco.MjvPerturb()
        self._camera_ids = {model.camera(i).name: i for i in range(model.ncam)}
        self._views: dict[tuple[int, int], tuple[Any, Image]] = {}
        self._lamp_direction: tuple[float, float, float] | None = None

    def dress(self, appearance: Appearance) -> None:
        """Draw with other light and colours from now on."""
        model = self._model
        _dress_model(model, appearance)
        self._lamp_direction = appearance.lamp_direction
        texture = model.texture(TABLE_MATERIAL)
        pixels = table_texture(appearance.table, int(texture.width[0])).ravel()
        start = int(model.tex_adr[texture.id])
        model.tex_data[start : start + len(pixels)] = pixels
        self._gl.make_current()
        mujoco.mjr_uploadTexture(model, self._context, texture.id)

    def render(self, data: Any, camera: str, height: int, width: int) -> Image:
        """Draw one picture; see `Renderer.render`."""
        view, pixels = self._view(height, width)
        self._gl.make_current()
        self._camera.fixedcamid = camera_id = self._camera_ids[camera]
        in_view = self._in_view(data, camera_id, width / height)
        self._model.geom_group[self._drawn] = np.where(in_view, _DRAWN_GROUP, _HIDDEN_GROUP)
        mujoco.mjv_updateScene(self._model, data, self._options, self._perturb, self._camera, mujoco.mjtCatBit.mjCAT_ALL.value, self._scene)
        if self._lamp_direction is not None:
            for light in self._scene.lights[: self._scene.nlight]:
                if not light.headlight:
                    light.dir = self._lamp_direction
        mujoco.mjr_render(view, self._scene, self._context)
        mujoco.mjr_readPixels(pixels, None, view, self._context)
        return pixels[::-1].copy()

    def close(self) -> None:
        """Free the graphics memory."""
        if self._gl is not None:
            self._gl.make_current()
            self._context.free()
            self._gl.free()
            self._gl = None

    def _in_view(self, data: Any, camera_id: int, aspect: float) -> NDArray[np.bool_]:
        """Find the geoms whose bounding sphere touches the cone around the picture: most of the arm does not."""
        offset = data.geom_xpos[self._drawn] - data.cam_xpos[camera_id]
        depth = offset @ -data.cam_xmat[camera_id][2::3]
        aside = np.sqrt(np.maximum(np.einsum("nk,nk->n", offset, offset) - depth * depth, 0.0))
        half_angle = math.atan(math.tan(math.radians(self._model.cam_fovy[camera_id]) / 2) * math.hypot(1.0, aspect))
        seen: NDArray[np.bool_] = aside * math.cos(half_angle) - depth * math.sin(half_angle) <= self._radius_m
        return seen

    def _view(self, height: int, width: int) -> tuple[Any, Image]:
        if (height, width) not in self._views:
            self._views[height, width] = mujoco.MjrRect(0, 0, width, height), np.empty((height, width, 3), np.uint8)
        return self._views[height, width]


class RayRenderer:
    """Draw by casting one ray per pixel: colours, the table's texture and Lambert shading."""

    def __init__(self, scene: Scene) -> None:
        # MuJoCo 3.17's mj_multiRay skips bodies by boxes that are too small for this arm (checked
        # against mj_ray, one ray at a time): a copy of the model without those boxes is exact.
        self._model = model = copy.copy(scene.model)
        model.body_bvhadr[:] = -1
        self._dress(scene.table_texture, -model.light_dir[0])
        self._table = model.geom(TABLE_GEOM).id
        self._groups = np.array(VISIBLE_GROUPS, dtype=np.uint8)
        self._sky = self._sky_colours()
        self._rays: dict[tuple[int, int, int], NDArray[np.float64]] = {}

    def dress(self, appearance: Appearance) -> None:
        """Draw with other light and colours from now on."""
        _dress_model(self._model, appearance)
        self._dress(table_texture(appearance.table), -np.array(appearance.lamp_direction))

    def render(self, data: Any, camera: str, height: int, width: int) -> Image:
        """Draw one picture; see `Renderer.render`."""
        camera_id = self._model.camera(camera).id
        rotation = data.cam_xmat[camera_id].reshape(3, 3)
        origin = data.cam_xpos[camera_id]
        rays = self._directions(camera_id, height, width) @ rotation.T
        count = height * width
        geom, distance, normal = np.empty(count, np.int32), np.empty(count), np.empty(3 * count)
        mujoco.mj_multiRay(self._model, data, origin, rays.ravel(), self._groups, True, -1, geom, distance, normal, count, 10.0)
        pixels = self._background(rays)
        hit = geom >= 0
        to_camera, reach_m, normals = -rays[hit], distance[hit], normal.reshape(-1, 3)[hit]
        pixel = 2 * np.tan(np.deg2rad(self._model.cam_fovy[camera_id]) / 2) / height
        footprint = reach_m * pixel
        pixels[hit] = self._shade(data, geom[hit], origin - to_camera * reach_m[:, None], normals, to_camera, footprint)
        return np.minimum(pixels, 255.0).astype(np.uint8).reshape(height, width, 3)

    def close(self) -> None:
        """Do nothing: there is no graphics memory."""

    def _dress(self, texture: Image, to_lamp: Any) -> None:
        model = self._model
        self._mipmaps = _mipmaps(texture[::-1])  # MuJoCo's first row is at +y
        with_material = model.geom_matid >= 0
        self._colours = np.where(with_material[:, None], model.mat_rgba[model.geom_matid, :3], model.geom_rgba[:, :3]) * 255.0
        self._light = to_lamp / np.linalg.norm(to_lamp)
        self._lamp = model.light_diffuse[0].copy()
        self._ambient = np.array(model.vis.headlight.ambient)
        self._headlight = np.array(model.vis.headlight.diffuse)

    def _shade(self, data: Any, geom: Any, point: Any, normal: Any, to_camera: Any, footprint: Any) -> NDArray[np.float64]:
        colour = self._colours[geom]
        on_table = geom == self._table
        if on_table.any():
            centre, half = data.geom_xpos[self._table], self._model.geom_size[self._table]
            place = (point[on_table] - centre) / (2 * half) + 0.5
            colour[on_table] = self._sample_texture(place, footprint[on_table] / (2 * half[0]))
        lamp = np.maximum(normal @ self._light, 0.0)[:, None] * self._lamp
        head = np.maximum(np.einsum("nk,nk->n", normal, to_camera), 0.0)[:, None] * self._headlight
        head[on_table] *= _TABLE_HEADLIGHT
        lit: NDArray[np.float64] = colour * (self._ambient + lamp + head)
        return lit

    def _sample_texture(self, place: Any, footprint: Any) -> NDArray[np.float64]:
        """Look up the table's colour from the mipmap in which a texel is about as large as the pixel."""
        size = len(self._mipmaps[0])
        level = np.clip(np.ceil(np.log2(np.maximum(footprint * size, 1.0))), 0, len(self._mipmaps) - 1).astype(int)
        colour = np.empty((len(place), 3))
        for index in np.unique(level):
            chosen = level == index
            mipmap = self._mipmaps[index]
            at = np.clip((place[chosen, :2] * len(mipmap)).astype(int), 0, len(mipmap) - 1)
            colour[chosen] = mipmap[at[:, 1], at[:, 0]]
        return colour

    def _background(self, rays: NDArray[np.float64]) -> NDArray[np.float64]:
        top, bottom = self._sky
        share = (rays[:, 2:3] + 1.0) / 2.0
        mixed: NDArray[np.float64] = bottom + (top - bottom) * share
        return mixed

    def _sky_colours(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        texture = self._model.texture("sky")
        start = int(self._model.tex_adr[texture.id])
        size = int(texture.width[0]) * int(texture.height[0]) * 3
        face = int(texture.width[0]) ** 2 * 3
        pixels = self._model.tex_data[start : start + size].reshape(-1, 3).astype(np.float64)
        side = pixels[4 * face // 3 :]  # faces in order right, left, up, down, front, back
        return side[0], side[-1]

    def _directions(self, camera_id: int, height: int, width: int) -> NDArray[np.float64]:
        """Compute unit rays through the pixel centres in the camera's frame, row 0 on top, (H*W, 3)."""
        key = camera_id, height, width
        if key not in self._rays:
            half = np.tan(np.deg2rad(self._model.cam_fovy[camera_id]) / 2)
            y = (1 - (np.arange(height) + 0.5) * 2 / height) * half
            x = ((np.arange(width) + 0.5) * 2 / width - 1) * half * width / height
            rays = np.stack([*np.meshgrid(x, y), np.full((height, width), -1.0)], axis=-1).reshape(-1, 3)
            self._rays[key] = rays / np.linalg.norm(rays, axis=1, keepdims=True)
        return self._rays[key]


def _dress_model(model: Any, appearance: Appearance) -> None:
    """Change light and colours of a renderer's own copy of the model."""
    model.light_diffuse[0] = appearance.lamp_rgb
    model.vis.headlight.ambient = appearance.ambient_rgb
    model.vis.headlight.diffuse = appearance.headlight_rgb
    model.mat_rgba[model.material(CUBE_MATERIAL).id, :3] = appearance.cube_rgb
    for index in range(model.nmat):
        name = model.material(index).name
        if name not in (CUBE_MATERIAL, TABLE_MATERIAL) and not name.startswith(MOTOR_MATERIALS):
            model.mat_rgba[index, :3] = appearance.printed_rgb


def _close_at_exit(renderer: GlRenderer) -> None:
    """Close forgotten renderers before MuJoCo shuts EGL down, which would print a traceback."""
    if not _open:
        atexit.register(_close_all)  # after EGL's own hook, so it runs before it
    _open.add(renderer)


def _close_all() -> None:
    for renderer in list(_open):
        renderer.close()


def _mipmaps(texture: Image) -> list[NDArray[np.float64]]:
    """Halve a square texture until it is one texel wide."""
    levels = [texture.astype(np.float64)]
    while len(levels[-1]) > 1:
        half = len(levels[-1]) // 2
        levels.append(levels[-1].reshape(half, 2, half, 2, 3).mean(axis=(1, 3)))
    return levels
