"""How pictures are made on this machine (the probe itself runs below, before any `import mujoco`)."""

from hilserl.robot.gl_probe import Backend, fall_back_to_rays, gl_advice, select_gl_backend

__all__ = ["Backend", "fall_back_to_rays", "gl_advice", "select_gl_backend"]
