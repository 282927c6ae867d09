"""The only place that imports MuJoCo, so that the GL probe always ran before.

Use `from hilserl.robot.mujoco_import import mujoco`.
"""

import logging

from hilserl.robot.gl_probe import select_gl_backend

select_gl_backend()

import mujoco  # noqa: E402

__all__ = ["mujoco"]

# Into the log instead of a MUJOCO_LOG.TXT in whatever folder the user happens to be.
mujoco.set_mju_user_warning(logging.getLogger("mujoco").warning)
