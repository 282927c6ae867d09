"""The robot, its cameras, the task, and what the policy sees of them; or a Gymnasium environment in their place."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from hilserl.config.base import Model, Vector3

STATE_COMPONENT_NAMES = ("joint_pos", "joint_vel", "ee_pos", "ee_euler")


class CameraConfig(Model):
    """One camera, as it delivers frames."""

    width: Annotated[int, Field(ge=16, le=4096, description="Native frame width [px]")] = 84
    height: Annotated[int, Field(ge=16, le=4096, description="Native frame height [px]")] = 84
    fovy_deg: Annotated[float, Field(gt=1, lt=170, description="Vertical field of view [deg] (simulation only)")] = 75.0
    simulated_as: Literal["wrist", "front"] | None = Field(
        None, description="Simulation only: which of its cameras this one is; None: the one of the same name"
    )


class RobotConfig(Model):
    """Hardware facts of one arm, stated once and shared by every task."""

    type: Literal["so101_sim"] = Field("so101_sim", description="`so101_sim`: the MuJoCo SO-101")
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

    @model_validator(mode="after")
    def _workspace_contains_reset(self) -> Self:
        for axis, low, high, reset in zip("xyz", self.workspace_min_m, self.workspace_max_m, self.reset_ee_pos_m, strict=True):
            if not low < high:
                raise ValueError(f"workspace_min_m must be below workspace_max_m on {axis} (got {low} and {high} m)")
            if not low <= reset - self.reset_noise_m or not reset + self.reset_noise_m <= high:
                raise ValueError(f"reset_ee_pos_m on {axis} is {reset} ± {self.reset_noise_m} m, outside the workspace [{low}, {high}] m")
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
