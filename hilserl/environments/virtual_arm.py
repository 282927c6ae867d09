"""The environment of a virtual arm: the driver of a real one, on a virtual servo bus that it starts itself."""

from __future__ import annotations

import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilserl.config.models import TrainConfig
from hilserl.errors import RobotError
from hilserl.files import file_lock
from hilserl.robot.cameras import Image
from hilserl.robot.environment import Judgement, So101Arm
from hilserl.robot.kinematics import Kinematics
from hilserl.robot.latch import release, robot_folder
from hilserl.robot.units import GRIPPER, gripper_to_pct
from hilserl.sim.privileged import PrivilegedState, potential, succeeds
from hilserl.sim.scene import CUBE_HALF_M
from hilserl.virtual_arm.arm import ArmOptions
from hilserl.virtual_arm.bus import Timing
from hilserl.virtual_arm.client import VirtualArmProcess
from hilserl.virtual_arm.server import ServerOptions

Array = NDArray[np.floating[Any]]

_RECONNECT_S = 1.0  # nobody plugs a virtual arm in again whose process has ended
_GUARDIAN_S = 30.0
_TIMEOUT_S = 0.25  # a bus that is simulated on a busy machine stands still now and then


class Twin:
    """The referee of a virtual arm: puts the cube on its table, and asks where it is. Nothing of it reaches the driver."""

    def __init__(self, config: TrainConfig, process: VirtualArmProcess) -> None:
        self._task, self._process = config.task, process
        self._kinematics = Kinematics()

    def begin(self, generator: np.random.Generator) -> None:
        """Put the cube where the simulation puts it for the same random numbers."""
        yaw = generator.uniform(-math.pi, math.pi)
        position = generator.uniform(*self._task.cube_x_m), generator.uniform(*self._task.cube_y_m), CUBE_HALF_M
        self._process.ask("cube", position_m=position, yaw_rad=yaw)

    def look(self, joint_pos_rad: Array) -> PrivilegedState:
        """Return the true cube, and the arm as it is measured."""
        truth = self._process.ask("state")
        tool, _ = self._kinematics.forward(joint_pos_rad)
        return PrivilegedState(
            tool, np.array(truth["cube_pos_m"]), truth["cube_yaw_rad"], joint_pos_rad.copy(), gripper_to_pct(float(joint_pos_rad[GRIPPER]))
        )

    def judge(self, joint_pos_rad: Array, images: dict[str, Image]) -> Judgement:
        """Judge as the simulation does."""
        state = self.look(joint_pos_rad)
        return Judgement(succeeds(self._task, state), potential(self._task, state), state.cube_pos_m)


class VirtualSo101Arm(So101Arm):
    """A virtual SO-101. Its process and its folder end with `close`.

    Attributes:
        process: The virtual arm, to look into it and to break it.
    """

    def __init__(self, config: TrainConfig, *, render_mode: str | None = None) -> None:
        """Start the virtual arm, and connect to it.

        Raises:
            RobotError: It does not start, or the arm cannot be connected.
        """
        robot, virtual = config.robot, config.robot.virtual
        assert virtual is not None, "make_environment looks first"
        self.render_mode = render_mode
        self._bench = config
        self._drawing: Any = None
        self._folder: Path | None = Path(tempfile.mkdtemp(prefix="hilserl-arm-"))
        used = {name: robot.cameras[name] for name in config.observation.images}
        self.process = VirtualArmProcess(
            ServerOptions(
                self._folder,
                name=robot.id,
                arm=ArmOptions(
                    motor=virtual.motor,
                    seed=virtual.seed,
                    stiffness=virtual.stiffness,
                    timing=Timing(wire=not virtual.lock_step, usb_latency_s=0.0 if virtual.lock_step else 0.001),
                    lock_step_hz=robot.bus_hz if virtual.lock_step else None,
                ),
                cameras=used,
                camera_fps=min((camera.fps for camera in used.values()), default=30.0),
                until_stdin_ends=True,
            )
        )
        try:
            _forget_the_last_one(robot.id)
            self.process.start()
            self.twin = Twin(config, self.process)
            super().__init__(_on_this_arm(config, self.process), self.twin, lock_step=virtual.lock_step)
        except BaseException:
            self._end()
            raise
        self.metadata = {**self.metadata, "render_modes": ["rgb_array"]}

    def step(self, action: NDArray[np.float32]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Execute one action; the twin knows the truth, and says so in `info`."""
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated, {**info, "judged_by": "simulator", "true_success": terminated}

    @property
    def privileged_state(self) -> PrivilegedState:
        """The true cube and the measured arm, for the scripted expert and the simulated human."""
        return self.twin.look(self._joint_pos)

    def render(self) -> NDArray[np.uint8]:
        """Draw the front view for videos, shape (256, 256, 3), uint8, RGB."""
        if self._drawing is None:
            from hilserl.sim.env import So101Env

            blind = self._bench.observation.model_copy(update={"images": {}})
            self._drawing = So101Env(self._bench.model_copy(update={"observation": blind}))
        state = self.privileged_state
        self._drawing.arrange(state.joint_pos_rad, state.cube_pos_m, state.cube_yaw_rad)
        picture: NDArray[np.uint8] = self._drawing.render()
        return picture

    def close(self) -> None:
        """End the arm, its process and its folder; safe to call twice."""
        if self._folder is None:
            return
        try:
            super().close()
        finally:
            self._end()

    def _end(self) -> None:
        if self._drawing is not None:
            self._drawing.close()
            self._drawing = None
        self.process.stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _on_this_arm(config: TrainConfig, process: VirtualArmProcess) -> TrainConfig:
    """Return the configuration with the ports and cameras of a virtual arm that runs."""
    robot, cameras = config.robot, dict(config.robot.cameras)
    for name in config.observation.images:
        cameras[name] = cameras[name].model_copy(update={"type": "virtual", "path": str(process.camera(name))})
    here = {
        "port": str(process.port),
        "calibration_dir": process.calibration.parent,
        "cameras": cameras,
        "bus_timeout_s": max(robot.bus_timeout_s, _TIMEOUT_S),
        "safety": robot.safety.model_copy(update={"reconnect_s": _RECONNECT_S}),
    }
    return config.model_copy(update={"robot": robot.model_copy(update=here)})


def _forget_the_last_one(robot_id: str) -> None:
    """Release what stopped an earlier virtual arm of this name, once its guardian has ended: this one is new."""
    folder = robot_folder(robot_id)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with file_lock(folder / "guardian.lock", timeout_s=_GUARDIAN_S):
            release(robot_id)
    except TimeoutError:
        raise RobotError(f"robot `{robot_id}`: another virtual arm of this name is driven. End it, or choose another `robot.id`.") from None
