"""The robot, its cameras, the task, and what the policy sees of them; or a Gymnasium environment in their place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from hilserl.config.base import Model, Vector3
from hilserl.config.safety import SafetyConfig

STATE_COMPONENT_NAMES = ("joint_pos", "joint_vel", "ee_pos", "ee_euler")


class CameraConfig(Model):
    """One camera, as it delivers frames."""

    width: Annotated[int, Field(ge=16, le=4096, description="Native frame width [px]")] = 84
    height: Annotated[int, Field(ge=16, le=4096, description="Native frame height [px]")] = 84
    fovy_deg: Annotated[float, Field(gt=1, lt=170, description="Vertical field of view [deg] (simulation only)")] = 75.0
    simulated_as: Literal["wrist", "front"] | None = Field(
        None, description="Simulation only: which of its cameras this one is; None: the one of the same name"
    )
    type: Literal["opencv", "virtual"] = Field(
        "opencv", description="Real arm only. `opencv`: a video device; `virtual`: a virtual arm's, in shared memory"
    )
    path: str | None = Field(
        None,
        description="Real arm only: the device by a name that stays, such as /dev/v4l/by-id/usb-...-video-index0 (a number changes when "
        "another camera is plugged in); `virtual`: its frame memory, which an arm with `robot.virtual` knows by itself",
    )
    fps: Annotated[float, Field(gt=0, le=240, description="Real arm only: frames per second asked for")] = 30.0
    max_age_s: Annotated[
        float, Field(gt=0, le=5, description="Real arm only: with an older frame the arm holds still, and stops if none comes [s]")
    ] = 0.25

    @field_validator("path", mode="before")
    @classmethod
    def _path_is_an_identity(cls, path: Any) -> Any:
        if path is not None and str(path).strip().lstrip("-").isdigit():
            raise ValueError(
                f"`{path}` is a number, and another camera has it after the next start. Give the path of the device: `ls /dev/v4l/by-id`"
            )
        return path


class VirtualArmConfig(Model):
    """A virtual arm in the place of the real one: the same bus, driver and safety, without hardware."""

    lock_step: bool = Field(
        True, description="Its time passes only with the goals that are sent: repeatable, and as fast as it can; false: the wall clock"
    )
    motor: Literal["12V", "7.4V"] = "12V"
    stiffness: Annotated[float, Field(gt=0, le=1, description="Of its servos; 0.02 sags like a weak arm")] = 1.0
    seed: int = Field(0, description="How its servos are mounted")


_SCENE_FACTS = {
    "control_hz",
    "action_scale_m",
    "max_gripper_step_pct",
    "workspace_min_m",
    "workspace_max_m",
    "reset_ee_pos_m",
    "reset_noise_m",
    "reset_gripper_pct",
}


class RobotConfig(Model):
    """Hardware facts of one arm, stated once and shared by every task."""

    type: Literal["so101_sim", "so101_follower", "so101_follower_end_effector"] = Field(
        "so101_sim",
        description="`so101_sim`: the MuJoCo SO-101; `so101_follower`: a real arm, or a virtual one on a servo bus. "
        "`so101_follower_end_effector`, LeRobot's name, is the same: a policy always moves the end effector",
    )
    id: str = Field("so101-sim", pattern=r"^[A-Za-z0-9_.-]+$", description="Name of this arm; one actor at a time holds it")
    host: str = Field("robot-host", pattern=r"^[A-Za-z0-9_.-]+$", description="Deployment `actor/<host>` drives this arm")
    control_hz: Annotated[float, Field(gt=0, le=50, description="Policy rate [Hz]")] = 10.0
    action_scale_m: Annotated[float, Field(gt=0, le=0.1, description="End-effector motion per step at |action| = 1 [m]")] = 0.02
    max_gripper_step_pct: Annotated[
        float, Field(gt=0, le=100, description="Gripper motion per step at |action| = 1, on the 0-100 scale [%]")
    ] = 16.0
    workspace_min_m: Vector3 = Field((0.10, -0.15, 0.0), description="Lower bound of the tool position, base frame [m]")
    workspace_max_m: Vector3 = Field((0.35, 0.15, 0.25), description="Upper bound of the tool position, base frame [m]")
    reset_ee_pos_m: Vector3 = Field((0.22, 0.0, 0.12), description="Tool position at the start of an episode, base frame [m]")
    reset_noise_m: Annotated[float, Field(ge=0, le=0.05, description="Uniform noise on the reset position, each axis [m]")] = 0.01
    reset_gripper_pct: Annotated[float, Field(ge=0, le=100, description="Gripper at the start of an episode (0 closed, 100 open) [%]")] = (
        60.0
    )
    cameras: dict[str, CameraConfig] = Field(
        default_factory=lambda: {"wrist": CameraConfig()}, description="Cameras by name; the simulation knows `wrist` and `front`"
    )

    port: str | None = Field(None, description="Real arm: its serial port, such as /dev/serial/by-id/usb-...; `lerobot-find-port` finds it")
    calibration_dir: Path | None = Field(
        None, description="Real arm: folder of LeRobot's calibration file `<id>.json`; None: where `lerobot-calibrate` writes it"
    )
    bus_hz: Annotated[
        float, Field(ge=10, le=200, description="Real arm: how often it is watched and moved on, a multiple of control_hz")
    ] = 50.0
    bus_timeout_s: Annotated[float, Field(gt=0, le=10, description="Real arm: how long an answer of its servos is waited for [s]")] = 0.05
    max_joint_speed_rad_s: Annotated[float, Field(gt=0, le=6, description="Real arm: no joint is commanded faster [rad/s]")] = 4.0
    reset_speed_rad_s: Annotated[float, Field(gt=0, le=3, description="Real arm: of the fastest joint on the way to a reset [rad/s]")] = 1.0
    torque_limit_pct: Annotated[
        tuple[float, float, float, float, float, float],
        Field(
            description="Real arm: largest torque of each joint, from the base up, written at every connect [%]. Below 80, the jaw below "
            "60, no servo takes pressing on something, or constant motion, for an overload (`Overload_Torque`)"
        ),
    ] = (75.0, 75.0, 75.0, 75.0, 75.0, 50.0)
    safety: SafetyConfig = Field(default_factory=SafetyConfig, description="Real arm: what stops it, and how")
    virtual: VirtualArmConfig | None = Field(None, description="Real arm: start a virtual one in its place, and use its port and cameras")

    def scene_facts(self) -> dict[str, Any]:
        """Return what decides a simulation and what actions mean, for cache keys; the rest is the real arm's own, and changes no data."""
        facts = self.model_dump(mode="json", include=_SCENE_FACTS)
        facts["cameras"] = {
            name: camera.model_dump(mode="json", include={"width", "height", "fovy_deg", "simulated_as"})
            for name, camera in self.cameras.items()
        }
        return facts

    @property
    def is_simulated(self) -> bool:
        """Whether no servo bus is involved."""
        return self.type == "so101_sim"

    @property
    def is_real(self) -> bool:
        """Whether something moves that can be broken."""
        return not self.is_simulated and self.virtual is None

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> Self:
        if self.is_simulated:
            if self.virtual is not None:
                raise ValueError("robot.virtual goes with `robot.type: so101_follower`; the type is `so101_sim`")
            return self
        if self.virtual is None and self.port is None:
            raise ValueError(
                f"robot.port is missing, and `{self.type}` is a real arm. Find it with `lerobot-find-port`, "
                "or set `robot.virtual: {}` to have a virtual one"
            )
        if self.virtual is not None and self.port is not None:
            raise ValueError(f"robot.port is {self.port}, and `robot.virtual` starts an arm of its own: leave one of them out")
        if abs(self.bus_hz / self.control_hz - round(self.bus_hz / self.control_hz)) > 1e-9 or self.bus_hz < 2 * self.control_hz:
            raise ValueError(f"robot.bus_hz ({self.bus_hz:g}) must be a multiple of control_hz ({self.control_hz:g}), at least twice")
        if not all(0 < limit <= 100 for limit in self.torque_limit_pct):
            raise ValueError(f"robot.torque_limit_pct {self.torque_limit_pct}: each is above 0, at most 100 %")
        return self

    @model_validator(mode="after")
    def _workspace_contains_reset(self) -> Self:
        for axis, low, high, reset in zip("xyz", self.workspace_min_m, self.workspace_max_m, self.reset_ee_pos_m, strict=True):
            if not low < high:
                raise ValueError(f"workspace_min_m must be below workspace_max_m on {axis} (got {low} and {high} m)")
            if not low <= reset - self.reset_noise_m or not reset + self.reset_noise_m <= high:
                raise ValueError(f"reset_ee_pos_m on {axis} is {reset} ± {self.reset_noise_m} m, outside the workspace [{low}, {high}] m")
        return self


Judge = Literal["simulator", "classifier", "human"]


class SuccessConfig(Model):
    """Who says that the task is done: it pays the reward and ends the episode, in training and in evaluations."""

    by: Judge | None = Field(
        None,
        description="`simulator`: the simulation's own truth; `classifier`: a trained success classifier looks at every frame; `human`: "
        "the person presses a key. None: `classifier` where one is named, else the simulator, and on a real arm the person",
    )
    classifier: str | None = Field(
        None, description="Folder of `hilserl classifier train`, or `models:/hilserl-<task>-classifier@champion` of the registry"
    )
    accept_poor_classifier: bool = Field(
        False, description="The classifier may judge although its balanced accuracy on held-out frames is below 75 %; guessing reaches 50 %"
    )
    other_crop: bool = Field(False, description="The classifier may look at another part of a camera's picture than the policy does")
    disagreements: Path | None = Field(
        None,
        description="Folder for frames on which the person's key, or in a simulation the truth, and the classifier disagreed, for "
        "labelling; None: `HILSERL_HOME/disagreements/<task>`",
    )

    @model_validator(mode="after")
    def _names_what_it_needs(self) -> Self:
        if self.by == "classifier" and self.classifier is None:
            raise ValueError("task.success.by is `classifier`: name its folder, or its address in the registry, in task.success.classifier")
        if self.classifier is not None and self.by not in (None, "classifier"):
            raise ValueError(f"task.success.classifier is named and task.success.by is `{self.by}`: leave one of them out")
        return self


class TaskConfig(Model):
    """What the arm has to do."""

    type: Literal["reach", "lift"] = Field(
        "reach", description="`reach`: tool to a point above the cube (3-D action); `lift`: grasp and lift it (4-D)"
    )
    control_time_s: Annotated[float, Field(gt=0, le=120, description="Length of an episode before it is truncated [s]")] = 3.0
    cube_x_m: tuple[float, float] = Field((0.18, 0.28), description="Range of the cube's start, base frame x [m]")
    cube_y_m: tuple[float, float] = Field((-0.08, 0.08), description="Range of the cube's start, base frame y [m]")
    reach_height_m: Annotated[float, Field(ge=0, le=0.2, description="`reach`: target above the cube's centre [m]")] = 0.03
    reach_tolerance_m: Annotated[float, Field(gt=0, le=0.1, description="`reach`: success within this distance [m]")] = 0.02
    lift_height_m: Annotated[float, Field(gt=0, le=0.2, description="`lift`: success when the cube is this far above its start [m]")] = 0.04
    reward: Literal["sparse", "shaped"] = Field(
        "sparse",
        description="`sparse`: 1 where the task is done, which ends the episode; `shaped`: also the change of a potential in [-1, 0], "
        "which leaves the best policy as it is (Ng 1999); the largest possible return is then 2",
    )
    success_hold_steps: Annotated[int, Field(ge=1, le=50, description="Steps that the success condition must hold")] = 1
    success: SuccessConfig = Field(default_factory=SuccessConfig, description="Who says that the task is done")
    appearance: Literal["fixed", "varied", "held_out"] = Field(
        "fixed",
        description="Simulation only. `varied`: other light, table and colours in every episode; `held_out`: such as `varied` never shows, "
        "to ask what was learned from it",
    )

    @property
    def sentence(self) -> str:
        """The task as datasets say it."""
        return {"reach": "Move the gripper above the cube.", "lift": "Grasp the cube and lift it."}[self.type]

    @model_validator(mode="before")
    @classmethod
    def _classifier_has_moved(cls, values: Any) -> Any:
        if isinstance(values, dict) and "classifier" in values:
            raise ValueError(
                f"task.classifier is `task.success.classifier` now: write `success: {{by: classifier, classifier: {values['classifier']}}}`"
            )
        return values


class ImageConfig(Model):
    """How one camera's frames become the policy's input."""

    crop: tuple[int, int, int, int] | None = Field(None, description="[top, left, height, width] in the native frame [px]; None keeps all")
    resize: tuple[int, int] = Field((84, 84), description="[height, width] that the policy sees [px]; never larger than the crop")


class ObservationConfig(Model):
    """What the policy sees."""

    images: dict[str, ImageConfig] = Field(
        default_factory=lambda: {"wrist": ImageConfig()}, description="Cameras that the policy uses, by name; empty for a state-only policy"
    )
    state: tuple[str, ...] = Field(STATE_COMPONENT_NAMES, description="Named components of observation.state, in order")
    privileged: bool = Field(
        False, description="Simulation only: add the cube relative to the tool (3) to the state, for machines that cannot render"
    )
    allow_constant: tuple[str, ...] = Field(
        (), description="State scalars that may be constant in the demonstrations, e.g. joint_pos.gripper"
    )


class VectorSpec(Model):
    """A part of an environment's observation that is no image, flattened; None: without bound."""

    low: tuple[float | None, ...]
    high: tuple[float | None, ...]


class EnvSpaces(Model):
    """What an environment sees and does.

    Attributes:
        vectors: By name of the part.
        images: Shape (H, W, 3), (H, W, 1) or (H, W), by name of the part.
        action_low, action_high: Bounds of the environment's own actions, to which [-1, 1] is scaled.
    """

    vectors: dict[str, VectorSpec]
    images: dict[str, tuple[int, ...]]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]


class EnvConfig(Model):
    """An environment that is not the SO-101: then `robot` and `task` are not used."""

    type: Literal["gymnasium"] = "gymnasium"
    id: str = Field(description="Registered id, such as `Pendulum-v1`, or `module:Id-v0`")
    kwargs: dict[str, Any] = Field(default_factory=dict, description="Passed to gymnasium.make")
    max_episode_steps: Annotated[int, Field(ge=1)] | None = Field(None, description="Truncate after so many steps; None: as registered")
    success_key: str | None = Field(
        None, description="Entry of `info` that says whether an episode succeeded; None: policies are judged by their return"
    )
    spaces: EnvSpaces | None = Field(None, description="Filled in when a configuration is loaded, from the environment itself")
