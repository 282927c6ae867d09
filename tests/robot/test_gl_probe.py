import os
import subprocess
import sys

import pytest

from hilserl.robot import gl_probe


@pytest.fixture
def probe(monkeypatch):
    """A fresh probe on a machine that can load only the named libraries."""

    def on_machine_with(*libraries: str, **environment: str):
        monkeypatch.setattr(gl_probe, "_selected", None)
        monkeypatch.setattr(gl_probe, "_reason", None)
        monkeypatch.setattr(gl_probe, "_loads", lambda library: library in libraries)
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.delitem(sys.modules, "mujoco", raising=False)
        for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return gl_probe.select_gl_backend()

    return on_machine_with


def test_egl_needs_both_of_its_libraries(probe):
    assert probe("libEGL.so.1", "libGL.so.1", "libOSMesa.so.8") == "egl"
    assert os.environ["MUJOCO_GL"] == "egl"
    assert gl_probe.gl_advice() is None
    assert probe("libEGL.so.1", "libOSMesa.so.8") == "osmesa"
    assert probe("libOSMesa.so.6") == "osmesa"


def test_a_bare_machine_uses_rays_and_is_told_what_to_install(probe):
    assert probe() == "rays"
    assert "libegl1 libgl1 libgl1-mesa-dri" in gl_probe.gl_advice()
    assert "libosmesa6" in gl_probe.gl_advice()


def test_the_users_choice_is_respected(probe):
    everything = ("libEGL.so.1", "libGL.so.1", "libOSMesa.so.8")
    assert probe(*everything, MUJOCO_GL="osmesa") == "osmesa"
    assert probe(*everything, MUJOCO_GL="disable") == "rays"
    assert probe(*everything, MUJOCO_GL="glfw", DISPLAY=":0") == "native"


@pytest.mark.parametrize("wanted, reason", [("osmesa", "libOSMesa"), ("glfw", "no display"), ("vulkan", "unknown")])
def test_a_choice_that_cannot_load_falls_back_and_says_why(probe, caplog, wanted, reason):
    assert probe("libEGL.so.1", "libGL.so.1", MUJOCO_GL=wanted) == "rays"
    assert reason in caplog.text
    assert reason in gl_probe.gl_advice()
    assert os.environ["MUJOCO_GL"] == "disable"  # else `import mujoco` crashes


def test_a_conflicting_pyopengl_platform_does_not_crash_the_import(probe):
    assert probe("libEGL.so.1", "libGL.so.1", "libOSMesa.so.8", PYOPENGL_PLATFORM="osmesa") == "osmesa"
    assert probe("libEGL.so.1", "libGL.so.1", PYOPENGL_PLATFORM="glx") == "rays"


def test_the_first_answer_stays(probe):
    assert probe() == "rays"
    gl_probe._loads = lambda library: True
    assert gl_probe.select_gl_backend() == "rays"


def test_no_context_means_rays_from_then_on(probe, caplog):
    probe("libEGL.so.1", "libGL.so.1")
    gl_probe.fall_back_to_rays("EGL has no device.")
    assert gl_probe.select_gl_backend() == "rays"
    assert "EGL has no device" in caplog.text
    assert "EGL has no device" in gl_probe.gl_advice()


BARE = """
import ctypes
load = ctypes.CDLL
def refuse(name, *arguments, **options):
    if "libEGL" in str(name) or "libGL" in str(name) or "OSMesa" in str(name):
        raise OSError(name)
    return load(name, *arguments, **options)
ctypes.CDLL = refuse
from hilserl.config.models import TrainConfig
from hilserl.sim.env import So101Env
from hilserl.sim.gl import gl_advice
env = So101Env(TrainConfig())
picture = env.reset(seed=0)[0]["observation.images.wrist"]
assert picture.std() > 5 and gl_advice()
print("drawn without GL", picture.shape)
"""


def test_a_machine_without_any_gl_still_draws():
    environment = {name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    done = subprocess.run([sys.executable, "-W", "error", "-c", BARE], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "drawn without GL (84, 84, 3)" in done.stdout
