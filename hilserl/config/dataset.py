"""The demonstrations: which datasets, what their columns mean, and where they are converted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from hilserl.config.base import Count, Model


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

    @property
    def is_given(self) -> int:
        """How many of `root`, `sources` and `record` there are."""
        return (self.root is not None) + (self.record is not None) + bool(self.sources)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.is_given > 1:
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
