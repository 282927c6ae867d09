"""How the policy learns: encoder, algorithm, learner process."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from hilserl.config.base import Count, Fraction, Model, Positive
from hilserl.config.vision import ResNetConfig


class EncoderConfig(Model):
    """Vision encoder, one per camera."""

    type: Literal["sim_pretrained", "cnn", "lerobot_cnn", "pretrained"] = Field(
        "sim_pretrained",
        description="`sim_pretrained`: small CNN pretrained in simulation; `cnn`: the same network from scratch, trained with the critic; "
        "`lerobot_cnn`: LeRobot's four convolutions from scratch; `pretrained`: a ResNet of a Hugging Face folder or repository (`model`)",
    )
    freeze: bool = Field(
        True,
        description="Frozen: features are computed once per view and stored with the transition; "
        "trained with the critic: every batch encodes its images, shifted at random",
    )
    model: str | None = Field(
        None,
        description="`pretrained`: folder with config.json and model.safetensors, beginning with `/`, `.` or `~`; or a repository id, "
        "such as `lerobot/resnet10`, which is fetched before a run and never during one",
    )
    revision: str | None = Field(None, description="`pretrained`: commit of the repository, 40 hex digits; a run needs it")
    network: ResNetConfig | None = Field(
        None, description="`pretrained`: filled in when a run starts, from the model's files; the robot host needs no more than this"
    )
    views: Annotated[int, Field(ge=1, le=16)] | None = Field(
        None,
        description="Frozen: stored views of each image. 1: the image itself, no augmentation; more: that many random shifts, one of them "
        "drawn per sample. None: 1 for `sim_pretrained`, whose features are positions that a shift would falsify, else 2",
    )
    samples: Annotated[int, Field(ge=100, le=1_000_000, description="Rendered images for pretraining")] = 4000
    epochs: Annotated[int, Field(ge=1, le=1000)] = 24
    seed: int = 7

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.freeze and self.type in ("cnn", "lerobot_cnn"):
            raise ValueError(
                "a frozen encoder must be a pretrained one: set `encoder.type: sim_pretrained` or `pretrained`, or `encoder.freeze: false`"
            )
        if self.type == "pretrained" and self.model is None:
            raise ValueError(
                "`encoder.type: pretrained` needs `encoder.model`: a folder with config.json and model.safetensors (`./resnet10`), "
                "or a repository id with `encoder.revision`"
            )
        if self.type != "pretrained" and self.model is not None:
            raise ValueError(f"`encoder.model` goes with `encoder.type: pretrained`; the type is `{self.type}`")
        if self.network is not None and self.type != "pretrained":
            raise ValueError("`encoder.network` goes with `encoder.type: pretrained`, and is filled in by the program")
        self._source_is_pinned()
        if self.views is not None and self.views > 1 and not self.freeze:
            raise ValueError("`encoder.views` are stored for a frozen encoder only; a trained one shifts the images of every batch")
        return self

    def _source_is_pinned(self) -> None:
        if self.is_repository and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(self.model)):
            raise ValueError(f"`encoder.model` {self.model!r} is no repository id; a folder begins with `/`, `.` or `~`")
        if self.revision is not None and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise ValueError(f"`encoder.revision` is a commit, 40 hex digits; {self.revision!r} can change what it means")
        if self.revision is not None and not self.is_repository:
            raise ValueError("`encoder.revision` is the commit of a repository; a folder has none")

    @property
    def is_repository(self) -> bool:
        """Whether `model` names a repository and not a folder."""
        return self.model is not None and not self.model.startswith(("/", ".", "~"))

    @property
    def stored_views(self) -> int:
        """Views of each image that a frozen encoder's features are stored of."""
        return self.views or (2 if self.type == "pretrained" else 1)


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
    hidden_dims: Annotated[tuple[Count, ...], Field(min_length=1)] = (256, 256)
    grad_clip_norm: Positive | None = Field(
        40.0, description="Longest gradient of a network; None: not clipped, for rewards that are much larger than 1"
    )
    batch_size: Annotated[int, Field(ge=2, le=65_536, description="Half online, half demonstrations")] = 256
    critic_layer_norm: bool = Field(True, description="LayerNorm in the critics; without it 22 expert demonstrations make RLPD diverge")
    clip_target: bool = Field(
        True,
        description="Never aim a critic above the largest possible return, where it is known (no entropy in the target): "
        "without it one of five trainings of `lift` chased its own overestimate and unlearned the task",
    )
    n_step: Annotated[
        int, Field(ge=1, le=100, description="Steps of the return before it bootstraps; never across the end of a segment")
    ] = 1
    gripper: Literal["continuous", "discrete"] = Field(
        "continuous",
        description="`discrete`: the last action is close, stay or open (-1, 0, 1), chosen by a DQN head; "
        "`continuous`: it is one more dimension of the Gaussian",
    )
    gripper_penalty: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="Taken from the reward for |gripper action| = 1, in the loss; None: 0.02 with `discrete`, else 0"
    )
    bc_steps: Annotated[
        int, Field(ge=0, description="Behaviour cloning updates of the actor on the demonstrations before anything else")
    ] = 0
    online_ratio: Fraction = Field(0.5, description="Share of online data in a batch")
    utd_ratio: Annotated[int, Field(ge=1, le=1000, description="Critic updates owed per environment step")] = 2
    online_steps: Annotated[int, Field(ge=1, description="Environment steps of training")] = 20_000
    online_step_before_learning: Annotated[int, Field(ge=0)] = 100
    online_buffer_capacity: Annotated[int, Field(ge=100, description="Transitions")] = 100_000
    offline_buffer_capacity: Annotated[int, Field(ge=1, description="Transitions: demonstrations (pinned) and interventions")] = 20_000

    @property
    def gripper_cost(self) -> float:
        """Penalty of one step with |gripper action| = 1; HIL-SERL's value for its discrete gripper."""
        if self.gripper_penalty is not None:
            return self.gripper_penalty
        return 0.02 if self.gripper == "discrete" else 0.0

    @model_validator(mode="after")
    def _penalty_is_known(self) -> Self:
        if self.n_step > 1 and self.gripper_cost:
            raise ValueError(
                f"n_step ({self.n_step}) sums the rewards of several steps, and the gripper's penalty is known for the first alone: "
                "set `policy.gripper_penalty: 0`, or `policy.n_step: 1`"
            )
        return self

    @model_validator(mode="after")
    def _subsample_is_possible(self) -> Self:
        if self.num_subsample_critics is not None and self.num_subsample_critics > self.num_critics:
            raise ValueError(f"num_subsample_critics ({self.num_subsample_critics}) exceeds num_critics ({self.num_critics})")
        return self


class LearnerConfig(Model):
    """The learner process."""

    execution: Literal["auto", "eager", "compiled", "cuda_graphs"] = Field(
        "auto", description="How an update is computed. `auto`: measures at the start whether compiling pays, and says what it chose"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Of the matrix products; parameters, optimisers, normalisation and losses stay in float32"
    )
    save_freq: Annotated[int, Field(ge=1, description="Environment steps between checkpoints")] = 500
    keep_checkpoints: Annotated[int, Field(ge=1, description="Newest checkpoints kept, besides the best")] = 2
    policy_parameters_push_frequency: Annotated[
        float, Field(gt=0, le=60, description="Seconds between weight updates to the actor [s]")
    ] = 0.5
    max_owed_updates: Annotated[
        int, Field(ge=1, description="A simulated actor waits while the learner owes more than this; a real one never waits")
    ] = 128
    actor_timeout_s: Annotated[float, Field(gt=0, description="Stop with an error when no actor was heard for this long [s]")] = 300.0
    storage_device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where the replay buffers lie. `auto`: on the GPU that trains if both fit, else in memory"
    )
    on_regression: Literal["alarm", "stop", "roll_back"] = Field(
        "alarm",
        description="When an evaluation's 95 % interval lies below the best one's. `alarm`: say it; `stop`: end the training, with the "
        "best policy; `roll_back`: go on from the best checkpoint with all that was experienced since, at most three times, then stop",
    )
    device: str = Field("cpu", description="Where the networks are trained: `cpu`, `cuda`, or one GPU of several: `cuda:1`")
    torch_threads: Annotated[int, Field(ge=1, le=64)] = 1

    @field_validator("device")
    @classmethod
    def _device_is_known(cls, device: str) -> str:
        if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
            raise ValueError(f"`{device}` is no device: it is `cpu`, `cuda`, or one GPU of several, such as `cuda:1`")
        return device
