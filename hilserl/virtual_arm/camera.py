"""The virtual arm's cameras: they draw what is on the bench into shared memory, and can fail as real ones do."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hilserl.config.models import CameraConfig
from hilserl.errors import RobotError
from hilserl.robot.frame_memory import FrameWriter, Image
from hilserl.robot.mujoco_import import mujoco
from hilserl.sim.render import Renderer, create_renderer
from hilserl.sim.scene import load_scene

CameraFault = Literal["frozen", "stuck", "black", "gone"]
"""`frozen`: no new frames; `stuck`: new frames with the same picture; `black`; `gone`: unplugged."""

_NICE = 5  # the bus comes first
_STOP_S = 10.0


def frame_path(folder: Path, camera: str) -> Path:
    """Return the frame memory of one camera of the arm in `folder`."""
    return folder / "cameras" / f"{camera}.frames"


class Cameras:
    """All cameras of one arm.

    In real time a thread draws them at their rate, so that the bus never waits for a picture. In lock step a frame is drawn
    when a reader asks for one, of exactly this moment, so that a run repeats bit for bit.
    """

    def __init__(self, cameras: Mapping[str, CameraConfig], folder: Path, fps: float, request_socket: Path | None) -> None:
        """Make the frame memories.

        Args:
            cameras: By name.
            folder: Of the arm.
            fps: Frames per second in real time.
            request_socket: Where frames are asked for, in lock step; None: real time.

        Raises:
            RobotError: A frame memory cannot be made.
            SimulationError: A camera is not one that the simulation has.
        """
        self._cameras = dict(cameras)
        self._folder, self._fps, self._socket = folder, fps, request_socket
        self._scene = load_scene(self._cameras)
        self._data: Any = mujoco.MjData(self._scene.model)  # the plant's own is left alone
        self._renderer: Renderer | None = None
        self._writers = {name: self._plug(name) for name in self._cameras}
        self._last: dict[str, Image] = {}
        self._faults: dict[str, CameraFault] = {}
        self._lock = threading.Lock()
        self._seen: tuple[NDArray[Any], float] | None = None
        self._failure: BaseException | None = None
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """In real time, begin to draw."""
        if self._socket is None:
            self._thread = threading.Thread(target=self._draw_on, name="cameras")
            self._thread.start()

    def see(self, qpos: NDArray[Any]) -> None:
        """Take the scene's positions now, to be drawn in real time.

        Raises:
            Exception: What ended the drawing thread.
        """
        if self._failure is not None:
            raise self._failure
        self._seen = qpos.copy(), time.monotonic()

    def draw(self, camera: str, qpos: NDArray[Any]) -> int:
        """In lock step, draw one camera at these positions; return the number of its newest frame.

        Raises:
            RobotError: There is no such camera, it is unplugged, or frames come by themselves.
        """
        self._require(camera)
        if self._socket is None:
            raise RobotError("frames are drawn on request in lock step only; this arm runs in real time.")
        if self._faults.get(camera) == "gone":
            raise RobotError(f"the camera `{camera}` is unplugged.")
        self._publish([camera], qpos, time.monotonic())
        return self._writers[camera].number

    def fail(self, camera: str, fault: CameraFault | None) -> None:
        """Let one camera fail; None: repair it.

        Raises:
            RobotError: There is no such camera.
        """
        self._require(camera)
        with self._lock:
            before = self._faults.pop(camera, None)
            if fault is not None:
                self._faults[camera] = fault
            if fault == "gone":
                self._writers[camera].close()
            elif before == "gone":
                self._writers[camera] = self._plug(camera)

    def repair(self) -> None:
        """Repair all of them."""
        for camera in self._cameras:
            self.fail(camera, None)

    def close(self) -> None:
        """End the thread and take the cameras away; safe to call twice."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(_STOP_S)
            self._thread = None
        self._free()
        for writer in self._writers.values():
            writer.close()

    def _require(self, camera: str) -> None:
        if camera not in self._cameras:
            known = f"There are: {', '.join(self._cameras)}." if self._cameras else "Start it with `hilserl virtual-arm --camera wrist`."
            raise RobotError(f"the virtual arm has no camera `{camera}`. {known}")

    def _plug(self, camera: str) -> FrameWriter:
        config = self._cameras[camera]
        rate = self._fps if self._socket is None else 0.0
        return FrameWriter(frame_path(self._folder, camera), config.width, config.height, rate, self._socket)

    def _draw_on(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)  # of this thread, and of those that GL starts for it
        next_s = time.monotonic()
        try:
            while not self._ending.wait(max(next_s - time.monotonic(), 0.0)):
                next_s = max(next_s + 1.0 / self._fps, time.monotonic())
                if (seen := self._seen) is not None:
                    self._publish(list(self._cameras), *seen)
        except BaseException as error:
            self._failure = error
        finally:
            self._free()  # GL contexts belong to their thread

    def _publish(self, cameras: list[str], qpos: NDArray[Any], at: float) -> None:
        self._data.qpos[:] = qpos
        mujoco.mj_kinematics(self._scene.model, self._data)
        mujoco.mj_comPos(self._scene.model, self._data)  # cameras and lights follow the bodies
        mujoco.mj_camlight(self._scene.model, self._data)
        for name in cameras:
            if (fault := self._faults.get(name)) not in ("frozen", "gone"):
                image = self._picture(name, fault)
                with self._lock:
                    if self._faults.get(name) != "gone":
                        self._writers[name].write(image, at)

    def _picture(self, name: str, fault: CameraFault | None) -> Image:
        config = self._cameras[name]
        if fault == "black":
            return np.zeros((config.height, config.width, 3), np.uint8)
        if fault != "stuck" or name not in self._last:
            if self._renderer is None:
                self._renderer = create_renderer(self._scene)
            self._last[name] = self._renderer.render(self._data, name, config.height, config.width)
        return self._last[name]

    def _free(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
