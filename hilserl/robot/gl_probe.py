"""Choose how MuJoCo draws, before `import mujoco` (which crashes on a wrong choice).

`import mujoco` with `MUJOCO_GL=egl` fails on a machine without libEGL, and a renderer fails
without libGL, so both are looked for first. Without any GL the simulation uses its own ray
renderer, which needs none (tried on a bare Debian 12).
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from typing import Literal

Backend = Literal["egl", "osmesa", "native", "rays"]

_log = logging.getLogger(__name__)
_LIBRARIES: dict[str, tuple[tuple[str, ...], ...]] = {
    # Every group needs one loadable library.
    "egl": (("libEGL.so.1",), ("libGL.so.1",)),
    "osmesa": (("libOSMesa.so.8", "libOSMesa.so.6"),),
}
_OFF = ("disable", "disabled", "off", "false", "0")
_INSTALL = (
    "Install one of these Debian packages for faster pictures: `libegl1 libgl1 libgl1-mesa-dri` (EGL), or `libosmesa6` (OSMesa). "
    "Until then pictures come from the ray renderer, which needs no GL and is slower."
)

_selected: Backend | None = None
_reason: str | None = None


def select_gl_backend() -> Backend:
    """Decide how pictures are made and set `MUJOCO_GL` to match; the first call decides.

    A `MUJOCO_GL` that the user set is respected as long as it can load. Otherwise EGL is used if
    libEGL and libGL load, then OSMesa, then the ray renderer.

    Returns:
        `egl`, `osmesa`, `native` (a window system's GL) or `rays` (no GL).
    """
    global _selected
    if _selected is None:
        _selected = _backend_of_imported_mujoco() if "mujoco" in sys.modules else _probe()
    return _selected


def gl_advice() -> str | None:
    """Say what to install for faster pictures; None when a GL backend is in use."""
    if select_gl_backend() != "rays":
        return None
    return f"{_reason} {_INSTALL}" if _reason else _INSTALL


def fall_back_to_rays(reason: str) -> None:
    """Use the ray renderer from now on: GL loads but cannot create a context."""
    global _selected, _reason
    if _selected != "rays":
        _log.warning("%s Pictures come from the ray renderer instead.", reason)
    _selected, _reason = "rays", reason


def _probe() -> Backend:
    asked = os.environ.get("MUJOCO_GL", "").lower().strip()
    if asked in _OFF:
        return _without_gl("MUJOCO_GL turns GL off.", warn=False)
    if asked in _LIBRARIES:
        missing = _missing(asked)
        if missing:
            return _without_gl(f"MUJOCO_GL={asked} is set, but {missing}.")
        return _use(asked)
    if sys.platform != "linux":
        return "native"
    if asked in ("glfw", "glx", "on", "enable", "enabled", "true", "1"):
        if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
            return "native"
        return _without_gl(f"MUJOCO_GL={asked} is set, but there is no display.")
    if asked:
        return _without_gl(f"MUJOCO_GL={asked} is unknown; valid: egl, osmesa, glfw, disable.")
    for backend in ("egl", "osmesa"):
        if _missing(backend) is None:
            return _use(backend)
    return _without_gl("No GL library was found.", warn=False)


def _missing(backend: str) -> str | None:
    """Say which library keeps `backend` from loading, or None."""
    platform = os.environ.get("PYOPENGL_PLATFORM", "").lower()
    if platform and platform != backend:
        return f"PYOPENGL_PLATFORM={platform} forbids it: unset that variable"
    for group in _LIBRARIES[backend]:
        if not any(_loads(library) for library in group):
            return f"{' / '.join(group)} cannot be loaded"
    return None


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _use(backend: str) -> Backend:
    os.environ["MUJOCO_GL"] = backend
    return "egl" if backend == "egl" else "osmesa"


def _without_gl(reason: str, *, warn: bool = True) -> Backend:
    global _reason
    _reason = reason
    os.environ["MUJOCO_GL"] = "disable"  # keeps `import mujoco` from loading a window system
    if warn:
        _log.warning("%s Pictures come from the ray renderer instead. %s", reason, _INSTALL)
    return "rays"


def _backend_of_imported_mujoco() -> Backend:
    context = getattr(sys.modules["mujoco"], "GLContext", None)
    module = getattr(context, "__module__", "")
    for backend in ("egl", "osmesa"):
        if module == f"mujoco.{backend}":
            return "egl" if backend == "egl" else "osmesa"
    if context is not None and (sys.platform != "linux" or os.environ.get("DISPLAY")):
        return "native"
    global _reason
    _reason = "mujoco was imported before the GL backend was chosen."
    return "rays"
