"""`hilserl virtual-arm`: a follower and a leader to drive with LeRobot's or our own tools, and the socket to break them with."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hilserl.errors import RobotError
from hilserl.files import home

if TYPE_CHECKING:
    from hilserl.config.models import CameraConfig
    from hilserl.virtual_arm.client import VirtualArmProcess

app = typer.Typer(rich_markup_mode="rich", help="Run a virtual SO-101 on a virtual serial port, until Ctrl-C.")

_WATCH_S = 0.5


class MotorName(StrEnum):
    """Which servos the arms have."""

    v12 = "12V"
    v7 = "7.4V"


class LeaderMotion(StrEnum):
    """What moves the leader."""

    none = "none"
    still = "still"
    wave = "wave"


class CameraName(StrEnum):
    """One of the simulation's cameras."""

    wrist = "wrist"
    front = "front"


class ArmName(StrEnum):
    """One of the two arms."""

    follower = "follower"
    leader = "leader"


Folder = Annotated[Path | None, typer.Option(help="Where ports, sockets and memories are; by default HILSERL_HOME/virtual-arm.")]


@app.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    folder: Folder = None,
    follower_port: Annotated[Path | None, typer.Option(help="Path of the follower's port, such as /dev/ttyACM8.")] = None,
    leader_port: Annotated[Path | None, typer.Option(help="Path of the leader's port.")] = None,
    leader: Annotated[LeaderMotion, typer.Option(help="No leader, one that nobody moves, or one that waves.")] = LeaderMotion.wave,
    recording: Annotated[
        Path | None, typer.Option(help="A LeRobotDataset in joint space, whose actions the leader follows instead.")
    ] = None,
    episode: Annotated[int, typer.Option(min=0, help="Which of its episodes.")] = 0,
    camera: Annotated[
        list[CameraName] | None, typer.Option(help="A camera of the follower: `wrist`, `front`, or both (the option twice).")
    ] = None,
    camera_size: Annotated[str, typer.Option(metavar="WIDTHxHEIGHT", help="Of the frames.")] = "320x240",
    camera_fps: Annotated[float, typer.Option(min=1.0, max=120.0, help="Frames per second; in lock step they come on request.")] = 30.0,
    motor: Annotated[MotorName, typer.Option(help="Servos of the follower.")] = MotorName.v12,
    usb_latency_ms: Annotated[float, typer.Option(min=0.0, max=1000.0, help="From the last byte of an answer to the host.")] = 1.0,
    wire_time: Annotated[bool, typer.Option(help="Bytes take the time that the baud rate says.")] = True,
    lock_step_hz: Annotated[
        float | None,
        typer.Option(min=1.0, max=200.0, help="Let the follower's time pass only with each write of goals: runs repeat exactly."),
    ] = None,
    seed: Annotated[int, typer.Option(help="How the servos are mounted, and which packets faults hit.")] = 0,
    new: Annotated[bool, typer.Option("--new", help="Forget what the servos remember from earlier runs.")] = False,
    uncalibrated: Annotated[bool, typer.Option("--uncalibrated", help="As from the factory; implies --new.")] = False,
) -> None:
    """Run the arms until Ctrl-C; `tell` plays faults meanwhile."""
    if context.invoked_subcommand is not None:
        return
    from hilserl.virtual_arm.arm import ArmOptions
    from hilserl.virtual_arm.bus import Timing
    from hilserl.virtual_arm.client import VirtualArmProcess
    from hilserl.virtual_arm.server import ServerOptions

    where = _folder(folder)
    timing = Timing(wire=wire_time, usb_latency_s=usb_latency_ms / 1000.0)
    shared: dict[str, Any] = {"seed": seed, "calibrated": not uncalibrated, "timing": timing}
    arms = [
        ServerOptions(
            folder=where / "follower",
            name="follower",
            port=follower_port,
            keep_eeprom=True,
            arm=ArmOptions(motor=motor.value, lock_step_hz=lock_step_hz, **shared),
            cameras=_cameras(camera or [], camera_size),
            camera_fps=camera_fps,
            until_stdin_ends=True,
        )
    ]
    if leader is not LeaderMotion.none or recording is not None:
        hand: dict[str, Any] | None = {"move": "wave"} if leader is LeaderMotion.wave else None
        if recording is not None:
            hand = {"move": "recording", "folder": str(recording.resolve()), "episode": episode, "loop": True}
        shared["seed"] += 1
        arms.append(
            ServerOptions(
                folder=where / "leader",
                name="leader",
                port=leader_port,
                keep_eeprom=True,
                arm=ArmOptions(motor="7.4V", **shared),
                hand=hand,
                until_stdin_ends=True,
            )
        )
    with ExitStack() as stack:
        for options in arms:
            if new or uncalibrated:
                options.eeprom_path.unlink(missing_ok=True)
                options.calibration_path.unlink(missing_ok=True)
        running = [stack.enter_context(VirtualArmProcess(options)) for options in arms]
        print(_how_to_use(running, calibrated=not uncalibrated), flush=True)
        try:
            _wait(running)
        except KeyboardInterrupt:
            print("\nEnded.")


@app.command()
def tell(
    request: Annotated[str, typer.Argument(help="""A verb, such as `state` or `unplug`, or JSON: '{"do": "jam", "servo": 3}'.""")],
    arm: Annotated[ArmName, typer.Option(help="Which arm.")] = ArmName.follower,
    folder: Folder = None,
) -> None:
    """Ask a running virtual arm for something, or break it: see docs/virtual-arm.md for the verbs."""
    from hilserl.virtual_arm.client import ControlClient

    try:
        wanted: Any = json.loads(request) if request.lstrip().startswith("{") else {"do": request}
    except ValueError as error:
        raise RobotError(f'{request}: not JSON ({error}). Quote it for the shell: \'{{"do": "jam", "servo": 3}}\'.') from None
    client = ControlClient(_folder(folder) / arm.value / "control.sock")
    try:
        answer = client.ask(wanted.pop("do", ""), **wanted)
    finally:
        client.close()
    print(json.dumps(answer, indent=2) if answer else "done")


def _folder(folder: Path | None) -> Path:
    return (folder or home() / "virtual-arm").absolute()


def _cameras(names: list[CameraName], size: str) -> dict[str, CameraConfig]:
    from hilserl.config.models import CameraConfig

    try:
        width, height = (int(part) for part in size.lower().split("x"))
        return {name.value: CameraConfig(width=width, height=height) for name in names}
    except ValueError:
        raise RobotError(f"--camera-size {size}: give two numbers of pixels from 16 to 4096, such as 640x480.") from None


def _how_to_use(arms: list[VirtualArmProcess], *, calibrated: bool) -> str:
    lines = [f"{arm.options.name:9} port {arm.port}   LeRobot id `{arm.options.name}`" for arm in arms]
    lines += [f"camera    {name} {arms[0].camera(name)}" for name in arms[0].options.cameras]
    kinds = ["robot", "teleop"]
    types = ["so101_follower", "so101_leader"]

    def options(index: int) -> str:
        kind, arm = kinds[index], arms[index]
        return (
            f"--{kind}.type={types[index]} --{kind}.port={arm.port} --{kind}.id={arm.options.name} "
            f"--{kind}.calibration_dir={arm.calibration.parent}"
        )

    if not calibrated:
        lines += ["", "Calibrate it first; a hand goes through its ranges with `hilserl virtual-arm tell`, see docs/virtual-arm.md:"]
        lines += [f"  lerobot-calibrate {options(0)}"]
    if len(arms) == 2:
        lines += ["", "Let the follower follow the leader:", f"  lerobot-teleoperate {options(0)} \\", f"    {options(1)}"]
    lines += [
        "",
        "The same in LeRobot's commands once plugins/lerobot_robot_hilserl is installed, cameras included: --robot.type=so101_virtual",
    ]
    lines += [
        "",
        "Look into it, or break it, from another terminal:",
        "  hilserl virtual-arm tell state",
        "  hilserl virtual-arm tell unplug",
        """  hilserl virtual-arm tell '{"do": "jam", "servo": 3}'""",
        "",
        "Ctrl-C ends it.",
    ]
    return "\n".join(lines)


def _wait(arms: list[VirtualArmProcess]) -> None:
    while True:
        for arm in arms:
            if not arm.running:
                raise RobotError(f"the virtual {arm.options.name} ended; its reason is above.")
        time.sleep(_WATCH_S)
