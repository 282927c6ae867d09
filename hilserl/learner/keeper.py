"""The learning state: copied in the loop, written beside it, restored from disk."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from hilserl.errors import CacheError, CheckpointError, TrainingError
from hilserl.learner.best import BestPolicy
from hilserl.learner.checkpoint import Checkpoint
from hilserl.learner.experience import Experience
from hilserl.learner.intake import Intake, Journal
from hilserl.learner.parts import LearnerParts
from hilserl.link.messages import Step

logger = logging.getLogger(__name__)


class Keeper:
    """Saves and restores a learner.

    Attributes:
        saved_at: Environment steps of the newest checkpoint; 0 before the first.
        cloning_steps: Updates of behaviour cloning done.
    """

    def __init__(self, parts: LearnerParts, intake: Intake, best: BestPolicy) -> None:
        self.saved_at = 0
        self.cloning_steps = 0
        self._parts = parts
        self._intake = intake
        self._best = best

    def save_if_due(self) -> None:
        """Take notice of the save in flight, and start one when it is time.

        Raises:
            TrainingError: The learning state is not finite; the checkpoint before stays the newest.
            CheckpointError: No checkpoint could be written for a long time.
        """
        parts = self._parts
        parts.saver.collect()
        is_due = parts.governor.environment_steps - self.saved_at >= parts.config.learner.save_freq
        if (is_due or self._best.tensors is not None) and parts.saver.is_free:
            self._start()

    def save(self) -> None:
        """Write a checkpoint and wait until it is on disk.

        Raises:
            TrainingError: The learning state is not finite; the checkpoint before stays the newest.
            CacheError: The disk is full.
        """
        self._parts.saver.wait()
        self._start()
        self._parts.saver.wait()

    def _start(self) -> None:
        """Copy what a checkpoint holds; checking, hashing and writing it is left to the saver's thread."""
        parts, steps, updates = self._parts, self._parts.governor.environment_steps, self._parts.governor.updates
        experience = parts.experience.snapshot()
        state = {
            "environment_steps": steps,
            "updates": updates,
            "cloning_steps": self.cloning_steps,
            "taken_in": self._intake.taken_in,
            "generation": parts.schedule.generation,
            "sampler": parts.experience.generator.bit_generator.state,
            "experience": experience,
            "statistics": parts.statistics.state(),
        }
        checkpoint = Checkpoint({name: t.clone() for name, t in parts.agent.state_dict().items()}, state, parts.identity)
        best, best_tensors, saved_at = self._best.point, self._best.tensors, self.saved_at

        def write() -> None:
            for name, tensor in checkpoint.tensors.items():
                if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                    raise not_finite(name, updates, saved_at, parts)
            parts.server.sync_journal()  # else a power cut could take back what the checkpoint says it covers
            parts.experience.sync(experience)
            parts.schedule.sync()
            if best is not None and best_tensors is not None:
                parts.save_policy("best", best_tensors, {**vars(best), "success_rate": best.success_rate})
            parts.checkpoints.save(checkpoint, steps, updates, is_best=best_tensors is not None)
            self._trim()

        def on_saved() -> None:
            self.saved_at = steps
            if self._best.tensors is best_tensors:
                self._best.tensors = None

        parts.saver.start(write, on_saved)

    def _trim(self) -> None:
        """Drop what no kept checkpoint needs to be continued, bit for bit; in the saver's thread.

        The best checkpoint counts until as many steps have come as the online buffer holds: then nothing that it was learned
        from is left in memory either. It still holds its networks; continuing from it takes what the files still have.
        """
        parts, states = self._parts, self._parts.checkpoints.states()
        if parts.config.link.keep_journals or not states:
            return
        oldest = states[0]["environment_steps"] - parts.config.policy.online_buffer_capacity
        newest = parts.config.learner.keep_checkpoints
        needed = states[:newest] + [state for state in states[newest:] if state["environment_steps"] >= oldest]
        through = min(int(state["taken_in"]) for state in needed)
        try:
            parts.schedule.trim(through)
            parts.server.trim_journal(through)
            parts.experience.trim([state["experience"] for state in needed])
        except (CacheError, OSError) as error:  # the checkpoint is written; what could go is dropped after the next one
            logger.warning("What the checkpoints no longer need could not be removed: %s", error)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint, whose experience was restored already."""
        state, parts = checkpoint.state, self._parts
        parts.agent.load_state_dict(checkpoint.tensors)
        parts.governor.environment_steps = self.saved_at = int(state["environment_steps"])
        parts.governor.updates = int(state["updates"])
        parts.statistics.load_state(state["statistics"])
        parts.schedule.generation = max(parts.schedule.generation, int(state["generation"]))
        parts.reporter.history.restore(int(state["environment_steps"]))
        self.cloning_steps = int(state["cloning_steps"])
        self._intake.taken_in = int(state["taken_in"])


def restore_experience(make: Callable[[], Experience], checkpoint: Checkpoint, journal: Journal) -> tuple[Experience, str | None]:
    """Load a checkpoint's experience from its store, or, should that be damaged, from the journal, or from what is whole of the store.

    Args:
        make: Builds it with nothing but the demonstrations, its store attached.
        checkpoint: What to restore.
        journal: What the learner acknowledged, and did not drop.

    Returns:
        The experience, and what of it is lost, in words; None if nothing is.
    """
    experience, lost = make(), None
    snapshot = checkpoint.state["experience"]
    try:
        experience.restore(snapshot)
    except CheckpointError as error:
        experience.close()
        experience = make()
        if next((received.log_seq for received in journal(0)), None) == 1:
            logger.warning("The stored experience cannot be used, so it is made anew from the journal: %s", error)
            taken_in, found = int(checkpoint.state["taken_in"]), 0
            for received in journal(0):
                if received.log_seq > taken_in:
                    break
                found += 1
                if isinstance(received.record, Step):
                    experience.add(received.actor_id, received.record)
            if found < taken_in:
                lost = f"the store is damaged, and {taken_in - found} of {taken_in} records of the journal are, too"
        else:
            found = experience.salvage(snapshot)
            held = min(int(checkpoint.state["environment_steps"]), experience.online.capacity)
            lost = f"{found} steps of about {held} in the replay buffer could be read from the damaged store"
            logger.error("The stored experience is damaged, and the journal no longer reaches back: %s. %s", lost, error)
    experience.generator.bit_generator.state = dict(checkpoint.state["sampler"])
    return experience, lost


def not_finite(name: str, updates: int, saved_at: int, parts: LearnerParts) -> TrainingError:
    """Say what is not finite, and which checkpoint is the last good one."""
    kept = f"The last checkpoint is from {saved_at} steps, and is kept, in {parts.checkpoints.path}. " if saved_at else ""
    return TrainingError(
        f"`{name}` is not finite after {updates} updates. {kept}Lower `policy.critic_lr`, or look for outliers with `hilserl validate`."
    )
