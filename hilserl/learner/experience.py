"""What the learner has seen: demonstrations and interventions on one side, everything online on the other."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hilserl.config.models import TrainConfig
from hilserl.data.augment import SHIFT_PX, shifted_views
from hilserl.data.device_storage import make_storage, to_device
from hilserl.data.normalize import StateNormalizer
from hilserl.data.offline_buffer import OfflineBuffer, OfflineShard
from hilserl.data.replay import ArraySpec, Batch, ReplayBuffer, gather
from hilserl.errors import CheckpointError, TrainingError
from hilserl.files import content_hash
from hilserl.learner.experience_store import ExperienceStore
from hilserl.learner.feature_cache import FeatureCache
from hilserl.learner.statistics import ReturnBound
from hilserl.learner.step_linker import Placement, StepLinker
from hilserl.link.messages import Step
from hilserl.policy import PolicyArchitecture
from hilserl.sac.batch import TensorBatch
from hilserl.schema import IMAGE_PREFIX, STATE_KEY
from hilserl.vision.encoder import Vision

logger = logging.getLogger(__name__)

Read = Callable[[str, np.ndarray], Iterator[tuple[slice, np.ndarray]]]

_ENCODE_CHUNK = 256  # images at once


class Experience:
    """Online ring and pinned offline buffer, fed step by step, sampled half and half.

    Observations are stored as the networks take them: the state in physical units, and per camera
    either the frozen encoder's features or, when the encoder is trained, uint8 images, which every
    sampled batch shows shifted at random. This is the one place where images are augmented, and what
    is stored decides it: images are shifted when they are sampled; of features, `encoder.views` randomly
    shifted images' are stored, and one is drawn per sample (with one view, the unshifted image's).
    """

    def __init__(self, config: TrainConfig, architecture: PolicyArchitecture, frozen_vision: Vision, *, seed: int) -> None:
        self._device = torch.device(config.learner.device)
        self._frozen_vision = frozen_vision if self._device.type == "cpu" else copy.deepcopy(frozen_vision).to(self._device)
        self._frozen_vision.eval()  # batch normalisation, where there is one, must not see which images come together
        self._cameras = tuple(architecture.cameras)
        self._frozen_cameras = tuple(camera for camera in self._cameras if camera in frozen_vision.encoders)
        self._parts = _stored_parts(config, architecture, self._frozen_cameras)
        policy = config.policy
        online, offline, actions = policy.online_buffer_capacity, policy.offline_buffer_capacity, architecture.action_dim
        self._action_dim = actions
        # One storage for both, so that a batch of both is gathered in one pass.
        self._storage = make_storage(config, online + offline, self._parts)
        make = partial(ReplayBuffer, parts=self._parts, action_dim=actions, storage=self._storage)
        make = partial(make, discount=policy.discount, n_step=policy.n_step)
        self.online = make(online)
        self.offline = make(offline, first_row=online)
        self.generator = np.random.default_rng(seed)
        self._view_generator = np.random.default_rng([seed, 1])
        self._seed = seed
        self._online_share = policy.online_ratio
        self._normalizer: StateNormalizer | None = None
        self.return_bound = ReturnBound(policy.discount, stated=config.largest_return)
        self._linker = StepLinker(self.online, self.offline, self.return_bound)
        self._store: ExperienceStore | None = None

    @property
    def dropped_steps(self) -> int:
        """Steps that never became a transition: their next observation is lost."""
        return self._linker.dropped_steps

    def add_demonstrations(self, buffer: OfflineBuffer) -> None:
        """Copy the offline buffer in, and pin it: online data never evict it."""
        self._normalizer = buffer.normalizer
        cache = FeatureCache({camera: self._frozen_vision.encoders[camera] for camera in self._frozen_cameras}, self._parts, self._seed)
        keys = [key for source in buffer.manifest.sources for key in source.shards]
        for key, shard in zip(keys, buffer.shards(), strict=True):
            self._add_shard(key, shard, cache)
        if not len(self.offline):
            raise TrainingError("the offline buffer holds no transition: every episode has a single frame and no reward.")
        self.offline.pin()

    def _add_shard(self, key: str, shard: OfflineShard, cache: FeatureCache) -> None:
        columns = shard.columns
        _require_policy_space(columns["action"], "the offline buffer")
        arrays: dict[str, np.ndarray] = {camera: shard.images[IMAGE_PREFIX + camera] for camera in self._cameras}
        arrays[STATE_KEY] = columns["state"]
        if self._frozen_cameras:
            arrays |= cache.get(key, len(columns), lambda: self._encode_shard(key, shard))
        rows = np.array([self.offline.reserve() for _ in range(len(columns))])
        for name in self._parts:
            for start in range(0, len(rows), _ENCODE_CHUNK):
                self.offline.load(name, rows[start : start + _ENCODE_CHUNK], arrays[name][start : start + _ENCODE_CHUNK])
        for source, following in zip(shard.transition_rows, shard.next_rows, strict=True):
            reward, terminated = float(columns["reward"][source]), bool(columns["terminated"][source])
            self.offline.add_transition(
                int(rows[source]),
                int(rows[following]),
                action=columns["action"][source],
                reward=reward,
                terminated=terminated,
                is_intervention=True,
                weight=shard.weight,
            )
            self.return_bound.add(reward, terminated=terminated)

    def _encode_shard(self, key: str, shard: OfflineShard) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        generator = np.random.default_rng([self._seed, int(content_hash(key), 16)])  # whatever other shards there are
        count = max(1, _ENCODE_CHUNK // max(self._parts[camera].views for camera in self._frozen_cameras))
        for start in range(0, len(shard.columns), count):
            where = slice(start, start + count)
            yield where, self._encode({camera: shard.images[IMAGE_PREFIX + camera][where] for camera in self._frozen_cameras}, generator)

    def add(self, actor_id: str, step: Step) -> None:
        """Take one step of one actor; it becomes a transition once its next observation is known.

        Raises:
            TrainingError: A scalar of the state is so far from the demonstrations' that it must be in another unit,
                or the action is not in the policy's space.
        """
        where = f"{actor_id}, episode {step.episode} step {step.step}"
        _require_policy_space(step.action, where)
        if self._normalizer is not None:
            self._normalizer.check(step.observation[STATE_KEY], where)
        store = self._opened_store() if self._store is not None else None
        if store is not None:
            store.add_step(actor_id, step)
        observation = self._as_stored(step.observation)
        self._keep(self._linker.take(actor_id, step), observation, store)
        if step.final_observation is not None:
            final = self._as_stored(step.final_observation)
            self._keep(self._linker.conclude(actor_id), final, store)

    def _keep(self, placed: Placement, observation: Mapping[str, np.ndarray], store: ExperienceStore | None) -> None:
        self.online.write(placed.row, observation)
        if store is not None:
            store.add_observation(observation)
        for offline_row, online_row in placed.copies:
            copied = self.online.observation(online_row)
            self.offline.write(offline_row, copied)
            if store is not None:
                store.add_copy(copied)

    def sample(self, size: int) -> TensorBatch:
        """Draw a batch: `online_ratio` of it online, the rest demonstrations and interventions; where there are none, all online."""
        share = self._online_share if len(self.offline) else 1.0
        online = round(size * share) if len(self.online) else 0
        draws = [buffer.draw(count, self.generator) for buffer, count in ((self.online, online), (self.offline, size - online)) if count]
        return self._to_tensors(gather(self._storage, draws))

    def sample_demonstrations(self, size: int) -> TensorBatch:
        """Draw a batch of demonstrations and interventions alone."""
        return self._to_tensors(self.offline.sample(size, self.generator))

    def _to_tensors(self, batch: Batch) -> TensorBatch:
        def move(values: Any) -> torch.Tensor:
            return values if isinstance(values, torch.Tensor) else to_device(values, self._device)

        size, actions = batch.action.shape
        numbers = move(np.concatenate((batch.action.ravel(), batch.reward, batch.terminated, batch.discount), dtype=np.float32))
        action, reward, terminated, discount = numbers.split((size * actions, size, size, size))
        return TensorBatch(
            state=move(batch.observation[STATE_KEY]),
            next_state=move(batch.next_observation[STATE_KEY]),
            images={camera: move(batch.observation[camera]) for camera in self._cameras},
            next_images={camera: move(batch.next_observation[camera]) for camera in self._cameras},
            action=action.view(size, actions),
            reward=reward,
            terminated=terminated,
            discount=discount,
        )

    def attach_store(self, folder: Path) -> None:
        """Keep what is added from now on in `folder`, append-only, so that `restore` can load it; before the first step.

        What an earlier process left there is kept until `restore`, or removed when the first step comes without it.
        """
        assert not self.online.added, "the store holds a run from its first step on"
        self._store = ExperienceStore(folder, self._parts, self._action_dim)

    def snapshot(self) -> dict[str, Any]:
        """Return what pins the present state exactly: JSON-able counters and generator states; costs microseconds.

        Raises:
            TrainingError: No store is attached.
        """
        return {
            "store": self._opened_store().position(),
            "state": self._counters(),
            "demonstrations": self._foundation(),
            "sampler": self.generator.bit_generator.state,
            "view_generator": self._view_generator.bit_generator.state,
        }

    def sync(self, snapshot: Mapping[str, Any]) -> None:
        """Make everything up to `snapshot` durable; may be called from another thread.

        Raises:
            CacheError: The disk is full.
        """
        self._opened_store().sync()

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Load the state that `snapshot` pins from the attached store; `add_demonstrations` comes before.

        What a killed process stored behind the snapshot is removed. Every chunk that is read is checked by its checksum.

        Raises:
            CheckpointError: The store is short, damaged, or of other observations.
        """
        assert not self.online.added, "restored before the first step"
        if self._store is None:
            raise TrainingError("the experience has no store: call `attach_store` first")
        store = self._store
        store.rewind(snapshot["store"])
        origins = np.full(self.offline.capacity, -1, np.int64)  # of each offline row: which copy of the store, or -1
        copies = 0
        for actor_id, step in store.steps():
            placements = [self._linker.take(actor_id, step)]
            if step.final_observation is not None:
                placements.append(self._linker.conclude(actor_id))
            for placed in placements:
                for offline_row, _ in placed.copies:
                    origins[offline_row] = copies
                    copies += 1
        if self._foundation() != snapshot["demonstrations"]:
            logger.warning("The demonstrations or the buffers' capacities are not those of the checkpoint: the buffers hold other rows.")
        elif self._counters() != snapshot["state"]:
            raise CheckpointError(
                f"{store.folder}: its steps lead to {self._counters()}, the checkpoint says {snapshot['state']}: "
                "the store and the checkpoint are not of one run and program version. Start a new run with `--fresh`."
            )
        newest = np.arange(max(0, self.online.added - self.online.capacity), self.online.added)
        self._load(self.online, store.observations, newest % self.online.capacity, newest)
        rows = np.flatnonzero(origins >= 0)
        rows = rows[np.argsort(origins[rows], kind="stable")]
        self._load(self.offline, store.copies, rows, origins[rows])
        self.generator.bit_generator.state = dict(snapshot["sampler"])
        self._view_generator.bit_generator.state = dict(snapshot["view_generator"])

    def salvage(self, snapshot: Mapping[str, Any]) -> int:
        """Take what of a damaged store is whole, into a new one; returns how many steps that were.

        Steps that are missing break the chain: no transition is made across them. Interventions that the online
        buffer no longer held are lost with it.
        """
        assert not self.online.added and self._store is not None, "salvaged before the first step"
        found, oldest = 0, max(0, snapshot["state"]["online"][1] - self.online.capacity)
        for actor_id, step, stored in self._store.move_aside().whole_steps(snapshot["store"], oldest):
            store = self._opened_store()
            store.add_step(actor_id, step)
            self._keep(self._linker.take(actor_id, step), stored[0], store)
            if step.final_observation is not None:
                self._keep(self._linker.conclude(actor_id), stored[1], store)
            found += 1
        self._view_generator.bit_generator.state = dict(snapshot["view_generator"])
        return found

    def trim(self, snapshots: Sequence[Mapping[str, Any]]) -> None:
        """Drop from the store what none of `snapshots` needs to be restored; may be called from another thread."""
        if self._store is None or not self._store.is_open:
            return
        observations, copies = [], []
        for snapshot in snapshots:
            _, added, _ = snapshot["state"]["online"]
            observations.append(max(0, added - self.online.capacity))
            _, added, _ = snapshot["state"]["offline"]
            copies.append(max(0, added - self.offline.capacity))  # of those added, the pinned ones are no copies
        if snapshots:
            self._store.drop_before(min(observations), min(copies))

    def close(self) -> None:
        """Close the store's files; nothing can be added any more."""
        if self._store is not None:
            self._store.close()

    def _load(self, buffer: ReplayBuffer, read: Read, rows: np.ndarray, numbers: np.ndarray) -> None:
        for name in self._parts:
            for where, values in read(name, numbers):
                buffer.load(name, rows[where], values)

    def _counters(self) -> dict[str, Any]:
        return {
            "online": [len(self.online), self.online.added, self.online.evicted],
            "offline": [len(self.offline), self.offline.added, self.offline.evicted],
            "open": {actor: [opened.step.episode, opened.step.step] for actor, opened in self._linker.open.items()},
            "dropped_steps": self.dropped_steps,
            "return_bound": self.return_bound.value,
        }

    def _foundation(self) -> list[int]:
        return [self.online.capacity, self.offline.capacity, self.offline.pinned]

    def _opened_store(self) -> ExperienceStore:
        if self._store is None:
            raise TrainingError("the experience has no store: call `attach_store` first")
        if not self._store.is_open:
            self._store.clear()
        return self._store

    def _as_stored(self, observation: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        stored = {STATE_KEY: observation[STATE_KEY]} | {camera: observation[IMAGE_PREFIX + camera] for camera in self._cameras}
        if self._frozen_cameras:
            encoded = self._encode({camera: stored[camera][None] for camera in self._frozen_cameras}, self._view_generator)
            stored |= {camera: features[0] for camera, features in encoded.items()}
        return stored

    @torch.inference_mode()
    def _encode(self, images: Mapping[str, np.ndarray], generator: np.random.Generator) -> dict[str, np.ndarray]:
        """Compute the features of frozen cameras' images (n, H, W, C) as they are stored, (n, F) or (n, K, F), F their shape."""
        shown = {}
        for camera, array in images.items():
            views = self._parts[camera].views
            views_shown = array if views == 1 else shifted_views(array, views, generator).reshape(-1, *array.shape[1:])
            shown[camera] = torch.tensor(views_shown, device=self._device)
        encoded = {}
        for camera, features in self._frozen_vision(shown).items():
            spec = self._parts[camera]
            stored = features.cpu().numpy().astype(spec.dtype)
            if not np.isfinite(stored).all():
                raise TrainingError(
                    f"camera `{camera}`: a feature of the frozen encoder is not finite in {spec.dtype}; is its model whole?"
                )
            encoded[camera] = stored.reshape(-1, *spec.stored_shape)
        return encoded


def _require_policy_space(actions: np.ndarray, where: str) -> None:
    """Stop on actions, (A,) or (N, A), that the actor could not choose: the critic would be taught about others than it is asked about."""
    outside = ~(np.abs(np.atleast_2d(actions)) <= 1.0 + 1e-6).all(1)  # NaN is outside too
    if outside.any():
        raise TrainingError(
            f"{where}: the action {np.atleast_2d(actions)[outside][0]} is outside [-1, 1], where the policy acts. "
            "Actions are stored as the codec encodes them: executed, after all limits."
        )


def _stored_parts(config: TrainConfig, architecture: PolicyArchitecture, frozen: tuple[str, ...]) -> dict[str, ArraySpec]:
    feature_shapes = architecture.input_spec().feature_shapes
    parts = {STATE_KEY: ArraySpec((architecture.state_dim,), "float32")}
    for camera, (height, width) in architecture.cameras.items():
        if camera in frozen:
            shape = feature_shapes[camera]
            # Maps of a pretrained network are large, and its activations are of order one: half precision holds them.
            parts[camera] = ArraySpec(shape, "float16" if len(shape) == 3 else "float32", views=config.encoder.stored_views)
        else:
            parts[camera] = ArraySpec((height, width, 3), "uint8", SHIFT_PX)
    return parts
