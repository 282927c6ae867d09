"""The configuration of a run: typed, frozen, bounded, with units in the names.

Field names are LeRobot's where LeRobot has one. An unknown key stops the run (`load_config`
suggests the nearest). Nothing else in the project reads a raw dictionary of settings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
Vector3 = tuple[float, float, float]

STATE_COMPONENT_NAMES = ("joint_pos", "joint_vel", "ee_pos", "ee_euler")


class Model(BaseModel):
    """Frozen model that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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


class RecordConfig(Model):
    """Demonstrations made by the scripted expert in simulation."""

    episodes: Annotated[int, Field(ge=1, le=10_000)] = 20
    noise: Annotated[float, Field(ge=0, le=1, description="Standard deviation of the noise on the expert's action")] = 0.2
    flavour: Literal["policy", "teleop"] = Field(
        "policy",
        description="`policy`: the policy's actions, reward and done; "
        "`teleop`: joint-space actions as people teleoperate, without reward and done",
    )
    seed: int = 1000


RewardFrom = Literal["column", "success_at_end", "classifier", "none"]
DoneFrom = Literal["episode_table", "column_is_terminated"]
ActionFrom = Literal["column", "joints"]
Role = Literal["demonstration", "correction", "failure"]
GripperCoding = Literal["continuous", "discrete"]
JointUnit = Literal["deg", "rad"]
FrameRate = Literal["same", "convert"]
EpisodeIndex = Annotated[int, Field(ge=0)]


class Interpretation(Model):
    """What the columns of a dataset mean; None where the dataset itself, or the rule in the description, decides."""

    reward_from: RewardFrom | None = Field(
        None,
        description="`column`: next.reward; `success_at_end`: 1 on the last frame of every episode; `classifier`: its verdict on "
        "each frame; `none`: no reward; without a choice a dataset that lacks next.reward stops the run",
    )
    classifier: Path | None = Field(None, description="Folder of a success classifier, for `reward_from: classifier`")
    done_from: DoneFrom | None = Field(
        None,
        description="`episode_table`: the last frame ends an episode, terminated if it was rewarded, else truncated; "
        "`column_is_terminated`: next.done marks task ends only; "
        "without a choice the episode table, and a next.done that contradicts it stops the run",
    )
    action_from: ActionFrom | None = Field(
        None,
        description="`column`: actions are the policy's (the default); `joints`: joint targets, converted through the kinematics",
    )
    action_scale_m: Annotated[float, Field(gt=0, le=0.1)] | None = Field(
        None, description="End-effector motion of one recorded step at |action| = 1 [m]; without a choice robot.action_scale_m"
    )
    gripper: GripperCoding | None = Field(
        None, description="`continuous`: -1 closes, 1 opens (the default); `discrete`: LeRobot's classes 0 close, 1 stay, 2 open"
    )
    state: tuple[str, ...] | None = Field(
        None, description="Components that the numbers of observation.state are, in order, where the dataset does not name them so itself"
    )
    joint_unit: JointUnit | None = Field(
        None, description="Unit of recorded joints where `state` names them: LeRobot's degrees and 0-100 gripper, or radians (the default)"
    )
    frame_rate: FrameRate | None = Field(
        None,
        description="`same`: recorded at robot.control_hz (the default); `convert`: a faster recording is brought to it, "
        "deltas accumulated over the frames in between",
    )
    exclude_episodes: tuple[EpisodeIndex, ...] = Field((), description="Episodes to leave out, by index")


class SourceConfig(Interpretation):
    """One of several datasets; what is None here is as in `dataset`."""

    root: Path = Field(description="Folder of the dataset")
    weight: Annotated[float, Field(gt=0, le=1000, description="How often a transition of it is drawn, relative to weight 1")] = 1.0
    role: Role = Field(
        "demonstration",
        description="`demonstration`: what the task looks like; `correction`: a human took over; `failure`: what not to do, without reward",
    )


class DatasetConfig(Interpretation):
    """The demonstrations: one LeRobotDataset v3.0, or several."""

    action_from: ActionFrom = Field("column", description=Interpretation.model_fields["action_from"].description)
    gripper: GripperCoding = Field("continuous", description=Interpretation.model_fields["gripper"].description)
    joint_unit: JointUnit = Field("rad", description=Interpretation.model_fields["joint_unit"].description)
    frame_rate: FrameRate = Field("same", description=Interpretation.model_fields["frame_rate"].description)
    repo_id: str = Field("hilserl/demos", description="Name of the dataset")
    root: Path | None = Field(None, description="Folder of the dataset; None with `record`: made and cached by us")
    record: RecordConfig | None = Field(None, description="Record it in simulation with the scripted expert")
    sources: tuple[SourceConfig, ...] = Field((), description="Several datasets in one buffer, each with its weight and role")
    check_videos: Literal["sample", "all"] = Field(
        "sample", description="Validation decodes a few frames of every file and episode, or every frame"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.root is not None) + (self.record is not None) + bool(self.sources) != 1:
            raise ValueError("give exactly one of `root` (an existing dataset), `sources` (several) and `record` (make one in simulation)")
        return self


class ConversionConfig(Model):
    """Where the offline buffer is built."""

    runner: Literal["threads", "processes", "dask"] = Field(
        "threads", description="Prefect task runner that converts shards; decoding releases the GIL, so threads use every core"
    )
    workers: Count | None = Field(None, description="None: one per core, or what the Dask cluster has")
    dask_address: str | None = Field(None, description="Scheduler of an existing Dask cluster; None: a local one for the run")
    store: str | None = Field(
        None, description="Folder or fsspec URL that all workers share; None: HILSERL_HOME/buffers. The learner keeps a local copy"
    )


class EncoderConfig(Model):
    """Vision encoder."""

    type: Literal["sim_pretrained", "cnn"] = Field(
        "sim_pretrained",
        description="`sim_pretrained`: small CNN pretrained in simulation; `cnn`: the same network from scratch, trained with the critic",
    )
    freeze: bool = Field(
        True,
        description="Frozen: features are computed once a step and stored with the transition, so images are never shifted at random; "
        "trained with the critic: every batch is",
    )
    samples: Annotated[int, Field(ge=100, le=1_000_000, description="Rendered images for pretraining")] = 4000
    epochs: Annotated[int, Field(ge=1, le=1000)] = 24
    seed: int = 7

    @model_validator(mode="after")
    def _frozen_is_pretrained(self) -> Self:
        if self.freeze and self.type == "cnn":
            raise ValueError("a frozen encoder must be a pretrained one: set `encoder.type: sim_pretrained`, or `encoder.freeze: false`")
        return self


class PolicyConfig(Model):
    """SAC with prior data (RLPD, arXiv 2302.02948); HIL-SERL's values as defaults."""

    type: Literal["sac"] = "sac"
    discount: Annotated[float, Field(ge=0, lt=1, description="Per control step")] = 0.97
    actor_lr: Positive = 3e-4
    critic_lr: Positive = 3e-4
    temperature_lr: Positive = 3e-4
    temperature_init: Positive = 0.01
    target_entropy: float | None = Field(None, description="None: -dim(action)/2")
    use_backup_entropy: bool = False
    num_critics: Annotated[int, Field(ge=1, le=100)] = 2
    num_subsample_critics: Annotated[int, Field(ge=1, le=100)] | None = Field(
        None, description="Minimum over this many randomly chosen target critics; None: all"
    )
    critic_target_update_weight: Annotated[float, Field(gt=0, le=1)] = 0.005
    latent_dim: Count = 64
    hidden_dims: tuple[Count, ...] = (256, 256)
    grad_clip_norm: Positive = 40.0
    batch_size: Annotated[int, Field(ge=2, le=65_536, description="Half online, half demonstrations")] = 256
    online_ratio: Fraction = Field(0.5, description="Share of online data in a batch")
    utd_ratio: Annotated[int, Field(ge=1, le=1000, description="Critic updates owed per environment step")] = 2
    online_steps: Annotated[int, Field(ge=1, description="Environment steps of training")] = 20_000
    online_step_before_learning: Annotated[int, Field(ge=0)] = 100
    online_buffer_capacity: Annotated[int, Field(ge=100, description="Transitions")] = 100_000
    offline_buffer_capacity: Annotated[int, Field(ge=1, description="Transitions: demonstrations (pinned) and interventions")] = 20_000

    @model_validator(mode="after")
    def _subsample_is_possible(self) -> Self:
        if self.num_subsample_critics is not None and self.num_subsample_critics > self.num_critics:
            raise ValueError(f"num_subsample_critics ({self.num_subsample_critics}) exceeds num_critics ({self.num_critics})")
        return self


class LearnerConfig(Model):
    """The learner process."""

    save_freq: Annotated[int, Field(ge=1, description="Environment steps between checkpoints")] = 500
    keep_checkpoints: Count = 2
    policy_parameters_push_frequency: Annotated[
        float, Field(gt=0, le=60, description="Seconds between weight updates to the actor [s]")
    ] = 1.0
    max_owed_updates: Annotated[
        int, Field(ge=1, description="A simulated actor waits while the learner owes more than this; a real one never waits")
    ] = 128
    actor_timeout_s: Annotated[float, Field(gt=0, description="Stop with an error when no actor was heard for this long [s]")] = 120.0
    storage_device: Literal["cpu"] = "cpu"
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    torch_threads: Annotated[int, Field(ge=1, le=64)] = 1


class InterventionConfig(Model):
    """The human, or in simulation a simulated one."""

    type: Literal["none", "simulated"] = "none"
    stuck_steps: Annotated[int, Field(ge=1, description="Take over after this many steps without progress")] = 8
    delay_steps: Annotated[int, Field(ge=0, description="Reaction time [steps]")] = 3
    noise: Annotated[float, Field(ge=0, le=1)] = 0.2
    max_bout_steps: Annotated[int, Field(ge=1, description="Hand back after at most this many steps")] = 12
    probability: Fraction = Field(0.5, description="Chance to react to one occasion at the start; tapers as success rises")


class ActorConfig(Model):
    """The actor process."""

    pace: Literal["realtime", "unthrottled"] = Field(
        "realtime", description="`realtime`: control_hz on the wall clock; `unthrottled`: as fast as the simulation and the learner allow"
    )
    intervention: InterventionConfig = Field(default_factory=InterventionConfig)
    evaluate_every_steps: Annotated[int, Field(ge=0, description="Environment steps between evaluations during training; 0: never")] = 500
    evaluate_episodes: Annotated[int, Field(ge=1, le=1000)] = 20
    stop_at_success: Fraction | None = Field(
        None, description="End training early once `stop_after_evaluations` evaluations in a row reach this success rate"
    )
    stop_after_evaluations: Count = 2


class EvaluationConfig(Model):
    """The evaluation of the trained policy: deterministic, seeded."""

    episodes: Annotated[int, Field(ge=1, le=100_000)] = 100
    seed: int = 1_000_000
    video_episodes: Annotated[int, Field(ge=0, le=100)] = 4


class LinkConfig(Model):
    """Where actor and learner meet."""

    host: str = Field("127.0.0.1", description="Address that the learner binds; loopback only until the link has TLS")
    port: Annotated[int, Field(ge=0, le=65_535, description="0: a free one")] = 0
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
    robot: RobotConfig = Field(default_factory=RobotConfig)
    task: TaskConfig = Field(default_factory=TaskConfig)
    observation: ObservationConfig = Field(default_factory=ObservationConfig)
    dataset: DatasetConfig = Field(default_factory=lambda: DatasetConfig(record=RecordConfig()))
    conversion: ConversionConfig = Field(default_factory=ConversionConfig)
    encoder: EncoderConfig = Field(default_factory=EncoderConfig)
    policy: PolicyConfig = Field(default_factory=PolicyConfig)
    learner: LearnerConfig = Field(default_factory=LearnerConfig)
    actor: ActorConfig = Field(default_factory=ActorConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    link: LinkConfig = Field(default_factory=LinkConfig)
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)

    @model_validator(mode="after")
    def _cameras_exist_and_fit(self) -> Self:
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
        unknown = [name for name in self.observation.state if name not in STATE_COMPONENT_NAMES]
        if unknown:
            raise ValueError(f"observation.state: unknown component {unknown[0]!r}; known: {list(STATE_COMPONENT_NAMES)}")
        return self

    @property
    def action_names(self) -> tuple[str, ...]:
        """Names of the policy's action dimensions."""
        return ("delta_x", "delta_y", "delta_z") + (("gripper",) if self.task.type == "lift" else ())

    @property
    def episode_steps(self) -> int:
        """Control steps of an episode before it is truncated."""
        return max(1, round(self.task.control_time_s * self.robot.control_hz))
