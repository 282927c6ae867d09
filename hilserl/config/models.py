"""The configuration of a run: typed, frozen, bounded, with units in the names.

Field names are LeRobot's where LeRobot has one. An unknown key stops the run (`load_config`
suggests the nearest). Nothing else in the project reads a raw dictionary of settings.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from hilserl.config.base import Count, Fraction, Model
from hilserl.config.classifier import Augmentation, Recipe
from hilserl.config.console import ConsoleConfig
from hilserl.config.dataset import (
    ActionFrom,
    ConversionConfig,
    DatasetConfig,
    DoneFrom,
    EpisodeIndex,
    FrameRate,
    GripperCoding,
    Interpretation,
    JointUnit,
    RecordConfig,
    RewardFrom,
    Role,
    SourceConfig,
)
from hilserl.config.environment import (
    STATE_COMPONENT_NAMES,
    CameraConfig,
    EnvConfig,
    ImageConfig,
    Judge,
    ObservationConfig,
    RobotConfig,
    SuccessConfig,
    TaskConfig,
    VirtualArmConfig,
)
from hilserl.config.intervention import GamepadConfig, InterventionConfig, LeaderConfig
from hilserl.config.learning import EncoderConfig, LearnerConfig, PolicyConfig

__all__ = [
    "STATE_COMPONENT_NAMES",
    "ActionFrom",
    "ActorConfig",
    "Augmentation",
    "CameraConfig",
    "ConsoleConfig",
    "ConversionConfig",
    "DatasetConfig",
    "DoneFrom",
    "EncoderConfig",
    "EnvConfig",
    "EpisodeIndex",
    "EvaluationConfig",
    "FrameRate",
    "GamepadConfig",
    "GripperCoding",
    "ImageConfig",
    "Interpretation",
    "InterventionConfig",
    "JointUnit",
    "LeaderConfig",
    "LearnerConfig",
    "LinkConfig",
    "Model",
    "ObservationConfig",
    "PolicyConfig",
    "Recipe",
    "RecordConfig",
    "RewardFrom",
    "RobotConfig",
    "Role",
    "SourceConfig",
    "SuccessConfig",
    "TaskConfig",
    "TrackingConfig",
    "TrainConfig",
    "VirtualArmConfig",
]


class ActorConfig(Model):
    """The actor process."""

    pace: Literal["realtime", "unthrottled"] = Field(
        "realtime", description="`realtime`: control_hz on the wall clock; `unthrottled`: as fast as the simulation and the learner allow"
    )
    realtime_priority: Annotated[int, Field(ge=1, le=99)] | None = Field(
        10,
        description="`realtime`: SCHED_FIFO priority of the control loop's thread, where the system allows it; the log says what it got. "
        "None: never ask",
    )
    restarts: Annotated[
        int, Field(ge=0, le=1000, description="A crashed actor is started anew this often without a new environment step in between")
    ] = 5
    intervention: InterventionConfig = Field(default_factory=InterventionConfig)
    evaluate_every_steps: Annotated[int, Field(ge=0, description="Environment steps between evaluations during training; 0: never")] = 500
    evaluate_episodes: Annotated[int, Field(ge=1, le=1000)] = 20
    ask_before_evaluation: bool | None = Field(
        None,
        description="An evaluation during training begins when the operator says so: on the console, or with the key y (n: not now). "
        "None: on a real arm",
    )
    stop_at_success: Fraction | None = Field(
        None, description="End training early once `stop_after_evaluations` evaluations in a row reach this success rate"
    )
    stop_after_evaluations: Count = 2


class EvaluationConfig(Model):
    """The evaluation of the trained policy: deterministic, seeded."""

    episodes: Annotated[int, Field(ge=1, le=100_000)] = 100
    seed: int = 1_000_000
    starts: Literal["sample", "grid"] = Field(
        "sample", description="`sample`: the object lies where the episode's seed says; `grid`: on an even grid over its range"
    )
    video_episodes: Annotated[int, Field(ge=0, le=100, description="So many episodes are filmed, side by side")] = 4
    workers: Annotated[int, Field(ge=1, le=64)] | None = Field(
        None, description="Simulation only: processes that play; None: as many as there are cores, at most 4"
    )
    pause_s: Annotated[float, Field(ge=0, le=600, description="Real arm only: time to arrange the scene before each episode [s]")] = 5.0


class LinkConfig(Model):
    """Where actor and learner meet."""

    host: str = Field("127.0.0.1", description="Address that the learner binds; anything but loopback needs `tls`")
    port: Annotated[int, Field(ge=0, le=65_535, description="0: a free one; a continued run takes the one that it had")] = 0
    advertise: str | None = Field(
        None, description="Name or address under which the robot host reaches the learner, as in the learner's certificate. None: `host`"
    )
    tls: bool = Field(
        False, description="Both sides show a certificate of `hilserl certificates create`. Without it: a token, and loopback only"
    )
    compression: Literal["none", "deflate", "gzip"] = Field("none", description="Of what the actor sends; lossless")
    keep_journals: bool = Field(
        False, description="Neither side deletes what is acknowledged and saved: for audits; the disk must have room"
    )
    max_message_mb: Annotated[int, Field(ge=1, le=512)] = 32


class TrackingConfig(Model):
    """MLflow."""

    enable: bool = True
    uri: str | None = Field(None, description="None: SQLite and an artefact folder under HILSERL_HOME")
    experiment: str = "hilserl"
    system_metrics: bool = Field(False, description="Also sample this machine's CPU, memory and GPU every 10 s")


class TrainConfig(Model):
    """One training run, complete."""

    name: str = Field("reach", pattern=r"^[A-Za-z0-9_.-]+$")
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    env: EnvConfig | None = Field(None, description="A Gymnasium environment in place of the SO-101")
    robot: RobotConfig = Field(default_factory=RobotConfig)
    task: TaskConfig = Field(default_factory=TaskConfig)
    observation: ObservationConfig = Field(default_factory=ObservationConfig)
    dataset: DatasetConfig = Field(default_factory=lambda: DatasetConfig(record=RecordConfig()))
    conversion: ConversionConfig = Field(default_factory=ConversionConfig)
    encoder: EncoderConfig = Field(default_factory=EncoderConfig)
    classifier: Recipe = Field(default_factory=Recipe)
    policy: PolicyConfig = Field(default_factory=PolicyConfig)
    learner: LearnerConfig = Field(default_factory=LearnerConfig)
    actor: ActorConfig = Field(default_factory=ActorConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    link: LinkConfig = Field(default_factory=LinkConfig)
    console: ConsoleConfig = Field(default_factory=ConsoleConfig)
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)

    @model_validator(mode="before")
    @classmethod
    def _an_environment_has_no_expert(cls, values: Any) -> Any:
        """Without `dataset`, the SO-101 records demonstrations; another environment has none, and names the run."""
        if not isinstance(values, dict) or values.get("env") is None:
            return values
        environment = values["env"]
        id_ = environment.get("id", "") if isinstance(environment, dict) else environment.id
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", str(id_)).strip("-")
        return {**({"name": name} if name else {}), **values, "dataset": values.get("dataset") or {}}

    @model_validator(mode="after")
    def _fits_the_environment(self) -> Self:
        if self.env is None:
            if not self.dataset.is_given:
                raise ValueError(
                    "dataset: give exactly one of `root` (an existing dataset), `sources` (several) and `record` (make one in simulation)"
                )
            if self.task.reward == "shaped" and (self.dataset.record is None or self.dataset.record.flavour == "teleop"):
                raise ValueError(
                    "task.reward: `shaped` is known to the simulation only, so demonstrations must be recorded with it: set "
                    "`dataset.record` with `flavour: policy`, or `task.reward: sparse`"
                )
            return self
        if self.dataset.is_given:
            raise ValueError("dataset: demonstrations are those of the SO-101; with `env` there are none: leave `dataset` out")
        if self.policy.bc_steps:
            raise ValueError("policy.bc_steps: there are no demonstrations to clone with `env`")
        if self.policy.gripper != "continuous":
            raise ValueError("policy.gripper: with `env` all actions are continuous")
        if self.actor.intervention.type != "none":
            raise ValueError("actor.intervention: people and the simulated human know the SO-101 only; with `env` set `type: none`")
        if self.actor.stop_at_success is not None and not self.judges_success:
            raise ValueError("actor.stop_at_success: without `env.success_key` nobody says what success is")
        if self.observation.privileged:
            raise ValueError("observation.privileged: only the SO-101's simulation has a state of its own to add")
        if self.env.spaces is not None and self.observation.images and self.encoder.type == "sim_pretrained":
            raise ValueError("encoder.type: `sim_pretrained` knows pictures of the SO-101 only. Set `encoder: {type: cnn, freeze: false}`")
        return self

    @model_validator(mode="after")
    def _somebody_can_say_success(self) -> Self:
        success, named = self.task.success, self.success_by
        if self.env is not None and (success.by is not None or success.classifier is not None):
            raise ValueError("task.success is the SO-101's: with `env` success is what `env.success_key` says")
        if named == "simulator" and self.robot.is_real:
            raise ValueError("task.success.by: a real arm has no simulator that knows; set `classifier` or `human`")
        if named in ("classifier", "human") and self.task.reward == "shaped" and not self.robot.is_real:
            raise ValueError(f"task.reward: `shaped` is the simulation's; with `task.success.by: {named}` set `sparse`")
        unknown = sorted(set(self.classifier.images) - set(self.robot.cameras))
        if unknown:
            raise ValueError(f"classifier.images.{unknown[0]}: the robot has no such camera; it has {sorted(self.robot.cameras)}")
        return self

    @model_validator(mode="after")
    def _a_real_arm_knows_no_truth(self) -> Self:
        if self.env is not None or not self.robot.is_real:
            return self
        if self.observation.privileged:
            raise ValueError("observation.privileged: a real arm does not know where the cube is. Give the policy a camera")
        if self.task.reward == "shaped":
            raise ValueError("task.reward: `shaped` needs to know where the cube is; with a real arm set `sparse`")
        if self.actor.intervention.is_simulated:
            raise ValueError("actor.intervention: the simulated human sees the simulation only; with a real arm choose another `type`")
        for name in self.observation.images:
            if name in self.robot.cameras and self.robot.cameras[name].path is None:
                raise ValueError(f"robot.cameras.{name}.path is missing: name the device, such as one of `ls /dev/v4l/by-id`")
        return self

    @model_validator(mode="after")
    def _something_is_learned(self) -> Self:
        policy, learner = self.policy, self.learner
        if policy.online_steps <= policy.online_step_before_learning:
            raise ValueError(
                f"policy.online_steps ({policy.online_steps}) ends before the first update, which comes after "
                f"policy.online_step_before_learning ({policy.online_step_before_learning}) steps: raise the one or lower the other"
            )
        if learner.device == "cpu" and learner.execution == "cuda_graphs":
            raise ValueError("learner.execution: `cuda_graphs` needs `learner.device: cuda`")
        return self

    @model_validator(mode="after")
    def _gripper_exists(self) -> Self:
        if self.env is None and self.action_names[-1] != "gripper" and (self.policy.gripper == "discrete" or self.policy.gripper_penalty):
            raise ValueError(
                f"policy.gripper: task `{self.task.type}` does not move the gripper (its actions are {list(self.action_names)}): "
                "leave `policy.gripper` and `policy.gripper_penalty` out, or choose `task.type: lift`"
            )
        if self.env is not None and self.policy.gripper_penalty:
            raise ValueError("policy.gripper_penalty: an environment has no gripper")
        return self

    @model_validator(mode="after")
    def _cameras_exist_and_fit(self) -> Self:
        if self.env is not None and self.env.spaces is None:
            return self  # `resolve_environment` asks the environment first
        for name, image in self.observation.images.items():
            if name not in self.robot.cameras:
                raise ValueError(f"observation.images.{name}: the robot has no such camera; it has {sorted(self.robot.cameras)}")
            camera = self.robot.cameras[name]
            top, left, height, width = image.crop or (0, 0, camera.height, camera.width)
            if min(top, left) < 0 or min(height, width) < 1 or top + height > camera.height or left + width > camera.width:
                raise ValueError(
                    f"observation.images.{name}.crop {image.crop} = [top, left, height, width] "
                    f"leaves the {camera.height}x{camera.width} (height x width) frame"
                )
            if image.resize[0] > height or image.resize[1] > width:
                raise ValueError(
                    f"observation.images.{name}.resize {image.resize} is larger than the {height}x{width} crop: "
                    "upscaling adds no information. Record at a higher resolution, or lower resize"
                )
        known = STATE_COMPONENT_NAMES if self.env is None or self.env.spaces is None else tuple(self.env.spaces.vectors)
        unknown = [name for name in self.observation.state if name not in known]
        if unknown:
            raise ValueError(f"observation.state: unknown component {unknown[0]!r}; known: {list(known)}")
        return self

    @property
    def action_names(self) -> tuple[str, ...]:
        """Names of the policy's action dimensions."""
        if self.env is not None:
            return tuple(f"action.{index}" for index in range(len(self.env.spaces.action_low))) if self.env.spaces else ()
        return ("delta_x", "delta_y", "delta_z") + (("gripper",) if self.task.type == "lift" else ())

    @property
    def episode_steps(self) -> int:
        """Control steps of an episode before it is truncated."""
        if self.env is not None and self.env.max_episode_steps is not None:
            return self.env.max_episode_steps
        return max(1, round(self.task.control_time_s * self.robot.control_hz))

    @property
    def largest_return(self) -> float | None:
        """The largest possible discounted return where the reward's definition says it; None: what the rewards seen allow."""
        # Shaping adds minus the start's potential, at most 1, to the discounted success, at most 1.
        return 2.0 if self.env is None and self.task.reward == "shaped" else None

    @property
    def asks_before_evaluation(self) -> bool:
        """Whether a person is asked before an evaluation during training."""
        asks = self.actor.ask_before_evaluation
        return asks if asks is not None else self.env is None and self.robot.is_real

    @property
    def task_name(self) -> str:
        """What is learned, for a person."""
        return self.task.type if self.env is None else self.env.id

    @property
    def success_by(self) -> Judge:
        """Who says that the task is done, where `task.success.by` leaves it open too."""
        if self.task.success.by is not None:
            return self.task.success.by
        return "classifier" if self.task.success.classifier is not None else "human" if self.robot.is_real else "simulator"

    @property
    def judges_success(self) -> bool:
        """Whether an episode succeeds or fails; else policies are compared by their return."""
        return self.env is None or self.env.success_key is not None
