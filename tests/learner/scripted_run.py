"""A learner driven by a fixed journal: what arrives, and after how many updates, is the same whenever it is run."""

import copy
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hilserl.config.models import TrainConfig
from hilserl.data.offline_buffer import OfflineBuffer
from hilserl.files import content_hash
from hilserl.learner.loop import Learner
from hilserl.learner.parts import LearnerResult
from hilserl.learner.run import build_learner
from hilserl.link.ingest import LinkLoad, ReceivedRecord
from hilserl.link.messages import EpisodeReport, LearnerStatus, Record, Step, Weights
from hilserl.runs import RunFolder
from hilserl.schema import STATE_KEY


@dataclass
class Script:
    """What the actors send, and when.

    Attributes:
        records: In order.
        arrivals: For each, the number of updates after which it arrives; earlier if the learner has nothing else to do.
        delivered: How many are in the journal.
        trims: Whether the learner may drop records from the journal.
        trimmed: How many it dropped.
        damaged: Places in the journal that cannot be read.
    """

    records: list[tuple[str, Record]]
    arrivals: list[int]
    delivered: int = 0
    trims: bool = True
    trimmed: int = 0
    damaged: frozenset[int] = frozenset()


class ScriptedEnd:
    """The learner's end of the link in 40 lines."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.learner: Learner | None = None
        self.status = LearnerStatus()
        self.published: dict[int, str] = {}
        self._recovered = script.delivered

    def poll(self, timeout_s: float) -> list[ReceivedRecord]:
        script, governor = self.script, self.learner.parts.governor
        first = script.delivered
        while script.delivered < len(script.records):
            idle = script.delivered == first and governor.owed <= 0
            if governor.updates < script.arrivals[script.delivered] and not idle:
                break
            script.delivered += 1
            actor, record = script.records[script.delivered - 1]
            if isinstance(record, EpisodeReport) and record.weights_version < 0:  # the first time: made with the newest weights
                script.records[script.delivered - 1] = actor, replace(record, weights_version=max(self.published))
        return [self._received(index) for index in range(first, script.delivered)]

    def _received(self, index: int) -> ReceivedRecord:
        actor, record = self.script.records[index]
        return ReceivedRecord(index + 1, actor, "robot", index + 1, record)

    def replay_journal(self, after: int = 0) -> Iterator[ReceivedRecord]:
        script = self.script
        yield from (self._received(i) for i in range(max(after, script.trimmed), self._recovered) if i + 1 not in script.damaged)

    def publish_weights(self, weights: Weights) -> None:
        self.published[weights.version] = weights.content_hash

    def set_status(self, status: LearnerStatus) -> None:
        self.status = status

    def last_heard_s(self) -> dict[str, float]:
        return {"a": 0.0}

    def live_actors(self) -> list[str]:
        return ["a"] if self.script.delivered < len(self.script.records) else []

    def load(self) -> LinkLoad:
        return LinkLoad()

    def sync_journal(self) -> None:
        pass

    def trim_journal(self, through: int) -> None:
        if self.script.trims:
            self.script.trimmed = max(self.script.trimmed, through)


class _Always:
    def due(self) -> bool:
        return True


@dataclass
class Outcome:
    """What one process of a scripted run did.

    Attributes:
        samples: Hash of each sampled batch, by the number of updates before it.
        published: Hash of the published weights by version.
    """

    learner: Learner
    result: LearnerResult | None
    samples: dict[int, str] = field(default_factory=dict)
    published: dict[int, str] = field(default_factory=dict)


def play(
    config: TrainConfig,
    run: RunFolder,
    buffer: Path,
    script: Script,
    *,
    kill_at: int | None = None,
    before_start: Callable[[Learner], None] = lambda learner: None,
) -> Outcome:
    """Run a learner to its end, or until it has done `kill_at` updates: then only what is on disk is left, as `kill -9` leaves it."""
    end = ScriptedEnd(script)
    values: list[dict[str, float]] = []

    class Log:
        def log_metrics(self, metrics, step) -> None:
            values.append({**metrics, "step": step})

    learner = build_learner(config, run, end, offline_buffer=buffer, encoders=None, metrics=Log(), supervise=lambda view: None)
    outcome = Outcome(learner, None, published=end.published)
    end.learner = learner
    learner._timers["weights"] = _Always()
    experience, sample = learner.parts.experience, learner.parts.experience.sample

    def recording_sample(size):
        batch = sample(size)
        parts = [batch.state, batch.next_state, batch.action, batch.reward, batch.terminated, batch.discount]
        outcome.samples[learner.parts.governor.updates] = content_hash([part.tolist() for part in parts])
        return batch

    experience.sample = recording_sample
    try:
        before_start(learner)
        learner.announce()
        while kill_at is None or learner.parts.governor.updates < kill_at:
            if reason := learner.turn():
                outcome.result = learner.finish(reason)
                return outcome
        learner.parts.saver.close()  # what it is writing may be there or not; here it is
        disk = run.path.with_name(run.path.name + ".killed")
        shutil.copytree(run.path, disk, symlinks=True)
        return outcome
    finally:
        learner.close()
        if outcome.result is None and (disk := run.path.with_name(run.path.name + ".killed")).exists():
            shutil.rmtree(run.path)
            disk.rename(run.path)


def make_script(config: TrainConfig, buffer: Path, *, steps: int, seed: int) -> Script:
    """Make two actors' episodes with interventions, evaluations, an actor that dies, and irregular arrivals."""
    generator = np.random.default_rng(seed)
    states = OfflineBuffer.open(buffer).columns["state"]
    actions = len(config.action_names)
    records: list[tuple[str, Record]] = []
    done, episode = 0, 0
    while done < steps:
        episode += 1
        actor = "a" if generator.random() < 0.8 else "b"
        length = int(generator.integers(1, 14))
        dies, success = generator.random() < 0.1, generator.random() < 0.4
        for index in range(length):
            last = index == length - 1
            at = states[generator.integers(len(states))] + generator.normal(0, 1e-3, states.shape[1]).astype(np.float32)
            final = {STATE_KEY: states[generator.integers(len(states))]} if last and not dies else None
            records.append(
                (
                    actor,
                    Step(
                        episode,
                        index,
                        {STATE_KEY: at.astype(np.float32)},
                        generator.uniform(-1, 1, actions).astype(np.float32),
                        float(last and success and not dies),
                        terminated=bool(last and success and not dies),
                        truncated=bool(last and not success and not dies),
                        is_intervention=bool(generator.random() < 0.3),
                        final_observation=final,
                    ),
                )
            )
        done += length
        if not dies:
            records.append((actor, EpisodeReport(episode, float(success), length, success, 0, 1.0, False, 1, done)))
        if episode % 5 == 0:
            for index in range(config.actor.evaluate_episodes):
                good = bool(generator.random() < 0.5)
                records.append(("a", EpisodeReport(index, float(good), 5, good, 0, 1.0, True, -1, done)))
    gaps = generator.choice([0, 0, 1, 2, 3, 8], len(records))
    return Script(records, np.cumsum(gaps).tolist())


def afresh(script: Script) -> Script:
    """The same script, nothing of it delivered."""
    return replace(copy.copy(script), records=list(script.records), delivered=0, trimmed=0)
