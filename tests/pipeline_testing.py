"""A learner and an actor of one tiny run, in threads or, to be killed, in processes of their own.

python pipeline_testing.py learner CONFIG.json RUN_FOLDER BUFFER     prints the address; trains to the end
python pipeline_testing.py actor CONFIG.json ADDRESS RUN_ID          acts to the end
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hilserl.actor import run as actor_run
from hilserl.actor.loop import ActorResult
from hilserl.config.loader import load_config
from hilserl.config.models import TrainConfig
from hilserl.files import home, write_json
from hilserl.learner import run as learner_run
from hilserl.learner.loop import Learner, LearnerResult
from hilserl.link.auth import create_token, read_token
from hilserl.link.client import LinkClient
from hilserl.link.messages import Step
from hilserl.runs import RunFolder, token_file

TINY = {
    "name": "tiny",
    "dataset.record.episodes": 3,
    "policy.hidden_dims": [16, 16],
    "policy.latent_dim": 8,
    "policy.batch_size": 16,
    "policy.utd_ratio": 2,
    "policy.online_steps": 150,
    "policy.online_step_before_learning": 20,
    "learner.policy_parameters_push_frequency": 0.05,
    "learner.save_freq": 50,
    "actor.evaluate_every_steps": 60,
    "actor.evaluate_episodes": 2,
    "actor.stop_at_success": None,
    "actor.intervention.stuck_steps": 2,
    "actor.intervention.delay_steps": 1,
    "actor.intervention.max_bout_steps": 4,
    "actor.intervention.probability": 1.0,
    "tracking.enable": False,
}


def make_tiny_config(**overrides: Any) -> TrainConfig:
    return load_config("reach_state", {**TINY, **{key.replace("__", "."): value for key, value in overrides.items()}})


@dataclass
class Metrics:
    """Keeps what the learner logs."""

    values: list[dict[str, float]] = field(default_factory=list)

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        self.values.append({**values, "step": step})

    @property
    def names(self) -> set[str]:
        return {name for values in self.values for name in values}


@dataclass
class Session:
    """What happened on the learner's side of one run."""

    metrics: Metrics = field(default_factory=Metrics)
    learner: Learner | None = None
    result: LearnerResult | None = None


def open_run(config: TrainConfig) -> RunFolder:
    run, _ = RunFolder.open(config)
    if not run.token_file.exists():
        create_token(run.token_file)
    return run


def train(
    config: TrainConfig,
    run: RunFolder,
    buffer: Path,
    *,
    on_listening: Callable[[str], None] = lambda address: None,
    supervise: Callable[[Session], None] = lambda session: None,
    session: Session | None = None,
) -> Session:
    """Run the learner in this thread, and keep hold of it."""
    session = session or Session()
    build = learner_run.build_learner

    def build_and_keep(*args: Any, **kwargs: Any) -> Learner:
        session.learner = build(*args, **kwargs)
        return session.learner

    learner_run.build_learner = build_and_keep
    try:
        session.result = learner_run.run_learner(
            config,
            run,
            offline_buffer=buffer,
            encoders=None,
            metrics=session.metrics,
            on_listening=on_listening,
            supervise=lambda view: supervise(session),
        )
    finally:
        learner_run.build_learner = build
    return session


class ActorThread:
    """The actor of a run in a thread; remembers the steps that it sent."""

    def __init__(self, config: TrainConfig, run_id: str) -> None:
        self.config, self.run_id = config, run_id
        self.steps: list[Step] = []
        self.result: ActorResult | None = None
        self.error: Exception | None = None
        self.stop_reason: str | None = None
        self._thread: threading.Thread | None = None

    def start(self, address: str) -> None:
        self._thread = threading.Thread(target=self._run, args=(address,), name="test-actor", daemon=True)
        self._thread.start()

    def _run(self, address: str) -> None:
        sent = self.steps

        class RecordingClient(LinkClient):
            def send_step(self, step: Step) -> None:
                super().send_step(step)
                sent.append(step)

        original, actor_run.LinkClient = actor_run.LinkClient, RecordingClient  # type: ignore[misc]
        try:
            self.result = actor_run.run_actor(
                self.config,
                address=address,
                token=read_token(token_file(self.run_id)),
                run_id=self.run_id,
                journal_folder=home() / "actors",
                should_stop=lambda: self.stop_reason,
            )
        except Exception as error:
            self.error = error
        finally:
            actor_run.LinkClient = original  # type: ignore[misc]

    def join(self, timeout_s: float = 20.0) -> None:
        if self._thread is not None:
            self._thread.join(timeout_s)
            assert not self._thread.is_alive(), "the actor did not end"


def transitions_of(steps: list[Step]) -> list[tuple[Step, np.ndarray]]:
    """Pair every step with its next state, by brute force; a step whose episode was cut by the end has none."""
    by_place = {(step.episode, step.step): step for step in steps}
    found = []
    for step in steps:
        if step.final_observation is not None:
            found.append((step, step.final_observation["observation.state"]))
        elif following := by_place.get((step.episode, step.step + 1)):
            found.append((step, following.observation["observation.state"]))
    return found


@contextlib.contextmanager
def process(*arguments: object, log: Path) -> Iterator[subprocess.Popen[str]]:
    """Run this file as a process of its own; killed at the end."""
    with log.open("w") as errors:
        child = subprocess.Popen([sys.executable, __file__, *map(str, arguments)], stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            yield child
        finally:
            child.kill()
            child.wait()
            assert child.stdout is not None
            child.stdout.close()


def write_config(config: TrainConfig, file: Path) -> Path:
    write_json(file, config.model_dump(mode="json"))
    return file


def wait_until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def main() -> None:
    role, config_file = sys.argv[1], Path(sys.argv[2])
    config = TrainConfig.model_validate_json(config_file.read_text())
    if role == "learner":
        train(config, RunFolder(Path(sys.argv[3])), Path(sys.argv[4]), on_listening=lambda address: print(address, flush=True))
    else:
        address, run_id = sys.argv[3:]
        token = read_token(token_file(run_id))
        actor_run.run_actor(config, address=address, token=token, run_id=run_id, journal_folder=home() / "actors" / str(os.getppid()))


if __name__ == "__main__":
    main()
