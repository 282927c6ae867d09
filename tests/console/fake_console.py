"""A stand-in for the console's server: says what a test wants, and writes down what the page says. The page is the real one."""

import asyncio
import json
import struct
import threading
import time
from typing import Any

import cv2
import numpy as np
import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles

from hilserl.console.serving.app import STATIC
from hilserl.web.guard import THEME, Guard

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
HELLO: dict[str, Any] = {
    "type": "hello",
    "protocol": 1,
    "robot": "so101-left",
    "run": "lift/2026-11-23_010203",
    "mode": "train",
    "task": "lift",
    "sentence": "Grasp the cube and lift it.",
    "actions": ["delta_x", "delta_y", "delta_z", "gripper"],
    "control_hz": 10.0,
    "kind": "virtual",
    "episode_steps": 60,
    "cameras": {"wrist": {"width": 640, "height": 480, "policy": [84, 84]}, "front": {"width": 640, "height": 480, "policy": [84, 84]}},
    "workspace_min_m": [0.1, -0.15, 0.0],
    "workspace_max_m": [0.35, 0.15, 0.25],
    "cube_x_m": [0.18, 0.28],
    "cube_y_m": [-0.08, 0.08],
    "joints": list(JOINTS),
    "take_after_s": 10.0,
    "drive_every_ms": 40,
}


def a_state() -> dict[str, Any]:
    """An arm in the middle of an episode, with something to say everywhere."""
    return {
        "type": "state",
        "number": 812,
        "age_s": 0.01,
        "alive": True,
        "phase": "episode",
        "text": "Episode 37",
        "control": "policy",
        "held_because": "",
        "paused": False,
        "real_time": False,
        "source": {"type": "gamepad", "available": ["none", "console", "gamepad", "keyboard", "leader"], "changing_to": None, "error": ""},
        "episode": {
            "number": 37,
            "evaluation": False,
            "step": 21,
            "clock_s": 2.1,
            "limit_s": 6.0,
            "reward": 0.0,
            "return": 0.0,
            "success": False,
            "intervention_steps": 12,
            "bouts": 1,
            "bout_steps": 12,
            "action": [0.1, 0.0, -0.4, 1.0],
            "clips": 0,
        },
        "judge": {"probability": 0.62, "threshold": 0.8, "judged_by": "classifier", "true_success": None},
        "session": {
            "episodes": 37,
            "steps": 1810,
            "success_rate": 0.45,
            "intervention_rate": 0.2,
            "of_last": 20,
            "wanted": None,
            "saved": None,
            "failed": None,
            "discarded": 2,
        },
        "learner": {
            "connected": True,
            "phase": "training",
            "message": "",
            "updates": 3620,
            "updates_per_s": 181.0,
            "environment_steps": 1808,
            "owed_updates": 4,
            "max_owed_updates": 128,
            "weights_version": 211,
            "weights_age_s": 0.4,
        },
        "link": {"connected": True, "waiting_records": 2, "journal_bytes": 120000},
        "arm": {
            "tool_m": [0.22, 0.0, 0.12],
            "joint_pos_rad": [0.0] * 6,
            "servos": [
                {"joint": joint, "temperature_c": 33.0 + 4 * number, "load": 0.12 * number, "voltage_v": 12.1, "current_a": 0.2, "error": 0}
                for number, joint in enumerate(JOINTS)
            ],
        },
        "timing": {"late_steps": 0, "longest_period_s": 0.101, "observation_age_s": 0.09},
        "asks": [],
        "alarms": [],
        "stopped": None,
        "advice": [],
        "viewers": 1,
    }


def some_episodes(count: int = 20) -> list[dict[str, Any]]:
    random = np.random.default_rng(1)
    made = []
    for number in range(count):
        success = bool(random.random() < number / count + 0.1)
        length = int(random.integers(20, 60))
        path = [[0.18 + 0.001 * step, 0.05 * np.sin(step / 9 + number), 0.2 - 0.003 * step] for step in range(length)]
        made.append(
            {
                "id": f"{number:06d}",
                "number": number,
                "evaluation": number % 9 == 8,
                "ended": "success" if success else "time",
                "success": success,
                "length": length,
                "return": float(success),
                "seconds": length / 10,
                "intervention_steps": 12,
                "bouts": [[4, 16]],
                "source": "console",
                "cube_m": [float(random.uniform(0.18, 0.28)), float(random.uniform(-0.08, 0.08)), 0.01],
                "path_m": path,
                "at": "2026-11-23T01:02:03+00:00",
                "hz": 10.0,
                "frames": {"wrist": length, "front": length},
                "steps_of_frames": list(range(length)),
            }
        )
    return made


def picture(number: int, width: int = 320, height: int = 240) -> bytes:
    image = np.full((height, width, 3), (90, 100, 80), np.uint8)
    cv2.rectangle(image, (20 + number % 200, 150), (60 + number % 200, 190), (60, 60, 230), -1)
    cv2.putText(image, str(number), (10, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 2)
    return bytes(cv2.imencode(".jpg", image)[1])


class FakeConsole:
    """Serves until closed. Change `state` and it is told 10 times a second; what pages say is in `heard`."""

    def __init__(self, hello: dict[str, Any] = HELLO) -> None:
        self.hello, self.state, self.episodes = hello, a_state(), some_episodes()
        self.controller: str | None = None
        self.heard: list[dict[str, Any]] = []
        self.refuse = ""
        self.frozen = False
        self._sockets: dict[str, WebSocket] = {}
        self._names = iter(f"v{number}" for number in range(1, 1000))
        config = uvicorn.Config(Guard(self._app()), port=0, log_level="warning", ws="websockets-sansio", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"

    def said(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        """What the pages said of one kind."""
        return [message for message in self.heard if message["type"] == kind and all(message.get(k) == v for k, v in fields.items())]

    def commands(self) -> list[str]:
        return [message["name"] for message in self.said("command")]

    def wait(self, condition: Any, timeout_s: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"never so; heard: {[m for m in self.heard if m['type'] not in ('seen', 'ping')][-20:]}"
            time.sleep(0.02)

    def hang_up(self) -> None:
        """Break every connection."""
        self._broken = list(self._sockets)
        for socket in list(self._sockets.values()):
            asyncio.run_coroutine_threadsafe(socket.close(1011), self._loop).result(10)

    def close(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(20)

    def __enter__(self) -> "FakeConsole":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _control(self, name: str) -> dict[str, Any]:
        driving = self.state["control"] == "human"
        return {
            "type": "control",
            "controller": self.controller,
            "you": name == self.controller,
            "since_s": 1.0,
            "request": None,
            "driving": driving,
        }

    def _app(self) -> FastAPI:
        app = FastAPI()
        app.mount("/static", StaticFiles(directory=STATIC))

        @app.get("/")
        async def page() -> FileResponse:
            return FileResponse(STATIC / "index.html")

        @app.get("/theme.css")
        async def theme() -> FileResponse:
            return FileResponse(THEME)

        @app.get("/replays/{episode}/{camera}/{index}.jpg")
        async def replay(episode: str, camera: str, index: int) -> Response:
            return Response(picture(index), media_type="image/jpeg")

        @app.websocket("/ws")
        async def talk(socket: WebSocket) -> None:
            await socket.accept()
            self._loop = asyncio.get_running_loop()
            name = next(self._names)
            self._sockets[name] = socket
            await socket.send_json(self.hello | {"you": name})
            await socket.send_json({"type": "episodes", "episodes": self.episodes})
            speaker = asyncio.create_task(self._speak(name, socket))
            try:
                while True:
                    await self._hear(name, socket, json.loads(await socket.receive_text()))
            except (WebSocketDisconnect, RuntimeError):
                pass
            finally:
                speaker.cancel()
                self._sockets.pop(name, None)
                if self.controller == name:
                    self.controller = None

        return app

    async def _speak(self, name: str, socket: WebSocket) -> None:
        number = 0
        while True:
            if not self.frozen:
                number += 1
                await socket.send_json(self._control(name))
                await socket.send_json(self.state | {"number": number, "viewers": len(self._sockets)})
                for camera in self.hello["cameras"]:
                    head = {"camera": camera, "view": "raw", "number": number, "age_ms": 6.2, "width": 320, "height": 240, "step": number}
                    text = json.dumps(head).encode()
                    await socket.send_bytes(struct.pack("<I", len(text)) + text + picture(number))
            await asyncio.sleep(0.1)

    async def _hear(self, name: str, socket: WebSocket, message: dict[str, Any]) -> None:
        self.heard.append(message | {"page": name, "heard_s": time.monotonic()})
        kind = message["type"]
        if kind == "ping":
            await socket.send_json({"type": "pong", "at": message["at"]})
        elif kind == "request_control" and self.controller in (None, name):
            self.controller = name
            await socket.send_json(self._control(name))
        elif kind == "release_control":
            self.controller = None
        elif kind == "drive" and any(message["action"]):
            self.state["control"] = "human"
        elif kind in ("command", "estop", "rearm"):
            if message.get("name") == "hand_back":
                self.state["control"] = "policy"
            if message.get("name") == "take_over":
                self.state["control"] = "human"
            await socket.send_json({"type": "reply", "id": message["id"], "ok": not self.refuse, "error": self.refuse})
