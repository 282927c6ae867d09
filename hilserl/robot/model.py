"""Where the SO-101's MuJoCo model comes from.

The wheel of so101_nexus carries `robotstudio_so101` of MuJoCo Menagerie (Apache-2.0, pinned
commit, see its PROVENANCE.md). Only its files are used; its code is not imported.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from hilserl.errors import KinematicsError
from hilserl.robot.mujoco_import import mujoco

TOOL_SITE = "gripperframe"
"""Site between the jaws; local z is the approach direction. This project's tool frame."""

FINGERTIP_SITE = "fixed_fingertip"
"""Tip of the fixed jaw, 19.9 mm from the tool: what LeRobot's URDF calls `gripper_frame_link`."""

# Position of `gripper_frame_link` in the gripper body: so101_new_calib.urdf of TheRobotStudio.
_FINGERTIP_IN_GRIPPER_M = (-0.0079, -0.000218121, -0.0981274)


def mjcf_path() -> Path:
    """Return the MJCF file of the arm.

    Raises:
        KinematicsError: so101_nexus is not installed, or lacks the file.
    """
    found = importlib.util.find_spec("so101_nexus")
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = Path(folder) / "assets" / "SO101_menagerie" / "so101.xml"
        if path.is_file():
            return path
    raise KinematicsError("the SO-101 model (so101_nexus/assets/SO101_menagerie/so101.xml) is not installed. Run `uv sync`.")


def arm_spec() -> Any:
    """Parse the arm's MJCF into an editable `mujoco.MjSpec`, with the fingertip site added."""
    spec = mujoco.MjSpec.from_file(str(mjcf_path()))
    spec.body("gripper").add_site(name=FINGERTIP_SITE, pos=_FINGERTIP_IN_GRIPPER_M, group=3)
    return spec


def skeleton_model() -> Any:
    """Compile the arm without any shape: joints, links and sites only (milliseconds)."""
    spec = arm_spec()
    for geom in list(spec.geoms):
        spec.delete(geom)
    for mesh in list(spec.meshes):
        spec.delete(mesh)
    return spec.compile()
