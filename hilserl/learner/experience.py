"""What the learner has seen: demonstrations and interventions on one side, everything online on the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from hilserl.config.models import TrainConfig
from hilserl.data.augment import SHIFT_PX
from hilserl.data.normalize import StateNormalizer
from hilserl.data.offline_buffer import OfflineBuffer, OfflineShard
from hilserl.data.replay import NO_ROW, ArraySpec, Batch, ReplayBuffer, concatenate
from hilserl.errors import TrainingError
from hilserl.learner.statistics import ReturnBound
from hilserl.link.messages import Step
from hilserl.policy import PolicyArchitecture
from hilserl.sac.agent import TensorBatch, Vision
from hilserl.schema import IMAGE_PREFIX, STATE_KEY

_ENCODE_CHUNK = 256


@dataclass
class _Open:
    """The last step of one actor whose next observation has not arrived."""

    step: Step
    row: int
    serial: int
    offline_row: int  # row of the same observation in the offline buffer, or NO_ROW
    offline_serial: int


class Experience:
    """Online ring and pinned offline buffer, fed step by step, sampled half and half.

    Observations are stored as the networks take them: the state in physical units, and per camera
    either the frozen encoder's features (float32) or, when the encoder is trained, uint8 images, which
    every sampled batch shows shifted at random. This is the one place where images are augmented, and
    what is stored decides it: features are never shifted, images always.
    """

    def __init__(self, config: TrainConfig, architecture: PolicyArchitecture, frozen_vision: Vision, *, seed: int) -> None:
        self._frozen_vision = frozen_vision
        self._cameras = tuple(architecture.cameras)
        self._device = torch.device(config.learner.device)
        feature_shapes = architecture.input_spec().feature_shapes
        parts = {STATE_KEY: ArraySpec((architecture.state_dim,), "float32")}
        for camera, (height, width) in architecture.cameras.items():
            frozen = camera in frozen_vision.encoders
            parts[camera] = ArraySpec(feature_shapes[camera], "float32") if frozen else ArraySpec((height, width, 3), "uint8", SHIFT_PX)
        policy = config.policy
        self.online = ReplayBuffer(policy.online_buffer_capacity, parts, architecture.action_dim)
        self.offline = ReplayBuffer(policy.offline_buffer_capacity, parts, architecture.action_dim)
        self.generator = np.random.default_rng(seed)
        self._online_share = policy.online_ratio
        self._discount = policy.discount
        self._open: dict[str, _Open] = {}
        self._normalizer: StateNormalizer | None = None
        self.return_bound = ReturnBound(policy.discount)
        self.dropped_steps = 0

    def add_demonstrations(self, buffer: OfflineBuffer) -> None:
        """Copy the offline buffer in, and pin it: online data never evict it."""
        self._normalizer = buffer.normalizer
        for shard in buffer.shards():
            self._add_shard(shard)
        if not len(self.offline):
            raise TrainingError("the offline buffer holds no transition: every episode has a single frame and no reward.")
        self.offline.pin()

    def _add_shard(self, shard: OfflineShard) -> None:
        columns = shard.columns
        rows = np.empty(len(columns), np.int64)
        for start in range(0, len(rows), _ENCODE_CHUNK):
            chunk = slice(start, min(start + _ENCODE_CHUNK, len(rows)))
            images = {camera: shard.images[IMAGE_PREFIX + camera][chunk] for camera in self._cameras}
            encoded = self._encode(columns["state"][chunk], images)
            for offset in range(chunk.stop - chunk.start):
                rows[start + offset] = self.offline.add_observation({name: array[offset] for name, array in encoded.items()})
        for source, following in zip(shard.transition_rows, shard.next_rows, strict=True):
            reward, terminated = float(columns["reward"][source]), bool(columns["terminated"][source])
            self.offline.add_transition(
                int(rows[source]),
                int(rows[following]),
                action=columns["action"][source],
                reward=reward,
                terminated=terminated,
                weight=shard.weight,
            )
            self.return_bound.add(reward, terminated=terminated)

    def add(self, actor_id: str, step: Step) -> None:
        """Take one step of one actor; it becomes a transition once its next observation is known.

        Raises:
            TrainingError: A scalar of the state is so far from the demonstrations' that it must be in another unit.
        """
        if self._normalizer is not None:
            self._normalizer.check(step.observation[STATE_KEY], f"{actor_id}, episode {step.episode} step {step.step}")
        observation = self._encode_one(step.observation)
        row = self.online.add_observation(observation)
        offline_row = NO_ROW
        before = self._open.pop(actor_id, None)
        if before is not None:
            if (before.step.episode, before.step.step + 1) == (step.episode, step.step):
                offline_row = self._link(before, row, observation)
            else:
                self.dropped_steps += 1  # the actor died in mid-episode: its last step has no next observation
        opened = _Open(step, row, self.online.serial(row), offline_row, self.offline.serial(offline_row))
        if step.final_observation is None:
            self._open[actor_id] = opened
        else:
            final = self._encode_one(step.final_observation)
            self._link(opened, self.online.add_observation(final), final)

    def _link(self, before: _Open, next_row: int, next_observation: Mapping[str, np.ndarray]) -> int:
        """Complete a step in the online buffer and, if the human made it, in the offline one too.

        Returns:
            Row of the next observation in the offline buffer, so that a bout stores it once.
        """
        step = before.step
        self.return_bound.add(step.reward, terminated=step.terminated)
        if self.online.serial(before.row) != before.serial:  # other actors filled the ring while this one was away
            self.dropped_steps += 1
            return NO_ROW
        self.online.add_transition(before.row, next_row, action=step.action, reward=step.reward, terminated=step.terminated)
        if not step.is_intervention:
            return NO_ROW
        offline_next = self.offline.add_observation(next_observation)
        offline_row = before.offline_row
        if offline_row == NO_ROW or self.offline.serial(offline_row) != before.offline_serial:  # a bout begins, or its row was overwritten
            offline_row = self.offline.add_observation(self.online.observation(before.row))
        self.offline.add_transition(offline_row, offline_next, action=step.action, reward=step.reward, terminated=step.terminated)
        return offline_next

    def sample(self, size: int) -> TensorBatch:
        """Draw a batch: `online_ratio` of it online, the rest demonstrations and interventions."""
        online = round(size * self._online_share) if len(self.online) else 0
        parts = [buffer.sample(count, self.generator) for buffer, count in ((self.online, online), (self.offline, size - online)) if count]
        return self._to_tensors(parts[0] if len(parts) == 1 else concatenate(*parts))

    def _to_tensors(self, batch: Batch) -> TensorBatch:
        def move(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(array).to(self._device, non_blocking=True)

        return TensorBatch(
            state=move(batch.observation[STATE_KEY]),
            next_state=move(batch.next_observation[STATE_KEY]),
            images={camera: move(batch.observation[camera]) for camera in self._cameras},
            next_images={camera: move(batch.next_observation[camera]) for camera in self._cameras},
            action=move(batch.action),
            reward=move(batch.reward),
            terminated=move(batch.terminated.astype(np.float32)),
            discount=move(np.full(len(batch.reward), self._discount, np.float32)),
        )

    def _encode_one(self, observation: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        images = {camera: observation[IMAGE_PREFIX + camera][None] for camera in self._cameras}
        return {name: array[0] for name, array in self._encode(observation[STATE_KEY][None], images).items()}

    @torch.inference_mode()
    def _encode(self, state: np.ndarray, images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors = {camera: torch.tensor(array) for camera, array in images.items()}
        return {STATE_KEY: state} | {camera: value.numpy() for camera, value in self._frozen_vision(tensors).items()}
