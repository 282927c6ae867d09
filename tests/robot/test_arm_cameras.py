"""Cameras of a real arm: a stream stands in for the device, frame memory for the virtual arm's."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from hilserl.config.models import CameraConfig
from hilserl.errors import RobotError
from hilserl.robot.cameras import Cameras
from hilserl.robot.frame_memory import FrameWriter

SIZE = {"width": 64, "height": 48}


class Device(BaseHTTPRequestHandler):
    """A camera that OpenCV opens by its address: red on the left and blue on the right, until it is unplugged."""

    unplugged = threading.Event()

    def do_GET(self) -> None:
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[:, :32, 2] = picture[:, 32:, 0] = 255  # OpenCV's order is BGR
        data = cv2.imencode(".jpg", picture)[1].tobytes()
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        while not self.unplugged.wait(0.02):
            self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data) + data + b"\r\n")

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def device() -> Iterator[str]:
    Device.unplugged.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Device)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/film.mjpg"
    Device.unplugged.set()
    server.shutdown()
    thread.join()
    server.server_close()


def virtual(path: Path, **settings) -> CameraConfig:
    return CameraConfig(type="virtual", path=str(path), **(SIZE | settings))


def test_a_device_gives_its_newest_frame_in_rgb_and_tells_when_it_has_gone(device) -> None:
    cameras = Cameras({"wrist": CameraConfig(path=device, max_age_s=5, **SIZE)})
    try:
        images, age_s = cameras.read()
        assert images["wrist"].shape == (48, 64, 3) and images["wrist"].dtype == np.uint8
        assert images["wrist"][24, 8, 0] > 200 > 50 > images["wrist"][24, 8, 2]  # red
        assert 0 <= age_s < 5
        assert cameras.stale() is None
        Device.unplugged.set()
        deadline = time.monotonic() + 30
        while (why := cameras.stale()) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert why is not None and "has gone. Plug it in" in why
        with pytest.raises(RobotError, match=r"camera `wrist` \(http.*\) has gone"):
            cameras.read()
    finally:
        cameras.close()
        cameras.close()


@pytest.mark.failure("R14")
def test_a_frame_that_is_too_old_is_named_until_a_new_one_comes(tmp_path) -> None:
    writer = FrameWriter(tmp_path / "wrist.frames", 64, 48, fps=30.0)
    writer.write(np.full((48, 64, 3), 7, np.uint8))
    cameras = Cameras({"wrist": virtual(writer.path, max_age_s=1.0)})
    try:
        assert cameras.stale() is None
        writer.write(np.full((48, 64, 3), 8, np.uint8), at=time.monotonic() - 3.0)
        why = cameras.stale()
        assert why is not None and "camera `wrist`" in why and "3.0" in why and "`max_age_s` 1" in why
        writer.write(np.full((48, 64, 3), 9, np.uint8))
        assert cameras.stale() is None
        images, age_s = cameras.read()
        assert images["wrist"][0, 0, 0] == 9 and age_s < 1.0
        writer.close()
        why = cameras.stale()
        assert why is not None and "has gone" in why
    finally:
        cameras.close()
        writer.close()


def test_a_camera_of_another_size_is_refused(tmp_path) -> None:
    writer = FrameWriter(tmp_path / "wrist.frames", 64, 48, fps=30.0)
    writer.write(np.zeros((48, 64, 3), np.uint8))
    with pytest.raises(RobotError, match=r"sends 64x48 pixels, `robot\.cameras\.wrist` says 640x480"):
        Cameras({"wrist": virtual(writer.path, width=640, height=480)})
    writer.close()


def test_a_camera_that_is_missing_or_silent_is_refused(tmp_path, monkeypatch) -> None:
    with pytest.raises(RobotError, match=r"camera `wrist` \(.*none\) cannot be opened\. Check its cable, and its name"):
        Cameras({"wrist": CameraConfig(path=str(tmp_path / "none"), **SIZE)})
    writer = FrameWriter(tmp_path / "wrist.frames", 64, 48, fps=30.0)
    monkeypatch.setattr("hilserl.robot.cameras._FIRST_FRAME_S", 0.05)
    with pytest.raises(RobotError, match="sent no frame for"):
        Cameras({"wrist": virtual(writer.path)})
    writer.close()


@pytest.mark.failure("R14")
@pytest.mark.parametrize("number", ["0", " 2", "-1"])
def test_a_camera_is_never_named_by_a_number(number) -> None:
    with pytest.raises(ValidationError, match="is a number, and another camera has it after the next start"):
        CameraConfig(path=number)
