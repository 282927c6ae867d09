"""Folders of runs: what belongs to one training, and which one an interrupted command continues."""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hilserl.config.models import TrainConfig
from hilserl.errors import CheckpointError
from hilserl.files import content_hash, file_lock, home, write_atomically, write_json

logger = logging.getLogger(__name__)

# What may change between an interrupted run and its continuation: it does not change what is learned.
_NOT_LEARNING = (
    "actor.ask_before_evaluation",
    "actor.realtime_priority",
    "actor.restarts",
    "tracking",
    "evaluation",
    "link",
    "console",
    "classifier",  # how one is trained; which one judges is `task.success.classifier`
    "task.success.disagreements",
    "robot.port",
    "robot.calibration_dir",
    "robot.bus_timeout_s",
    "robot.safety",
    "learner.actor_timeout_s",
    "learner.execution",
    "learner.keep_checkpoints",
    "learner.max_owed_updates",
    "learner.policy_parameters_push_frequency",
    "learner.save_freq",
    "learner.storage_device",
    "learner.torch_threads",
)


def changes_learning(setting: str) -> bool:
    """Tell whether another value of a setting, such as `policy.utd_ratio`, makes it another training."""
    return not any(setting == name or setting.startswith(f"{name}.") for name in _NOT_LEARNING)


def config_identity(config: TrainConfig) -> str:
    """Hash what makes two runs the same training."""
    return content_hash({name: value for name, value in _flat(config.model_dump(mode="json")) if changes_learning(name)})


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of every leaf; an empty section is a leaf."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@dataclass(frozen=True)
class RunFolder:
    """One run on disk: configuration, checkpoints, journal, policies, evaluation."""

    path: Path

    @classmethod
    def open(cls, config: TrainConfig, *, fresh: bool = False, flow_run_id: str | None = None) -> tuple[RunFolder, bool]:
        """Continue the newest unfinished run of this configuration, or start one.

        Args:
            config: The run's configuration.
            fresh: Never continue.
            flow_run_id: Who opens it; the run that this one opened before is continued in every case.

        Returns:
            The folder, and whether it is continued.
        """
        parent = home() / "runs" / config.name
        if flow_run_id is not None:
            for path in sorted(parent.glob("*"), reverse=True):
                facts = cls(path).facts()
                if facts.get("flow_run_id") == flow_run_id and facts.get("identity") == config_identity(config):
                    return cls(path), True
        if not fresh:
            is_told = False
            for path in sorted(parent.glob("*"), reverse=True):
                run = cls(path)
                facts = run.facts()
                if facts.get("status") == "finished" or facts.get("identity") is None or run.is_locked():
                    continue
                if facts["identity"] == config_identity(config):
                    run.update(flow_run_id=flow_run_id)
                    return run, True
                if not is_told:  # of the newest
                    is_told = True
                    run.say_why_not_continued(config)
        stamp = dt.datetime.now().strftime("%Y%m%d-%H%M%S")
        number = 0
        while not _make_folder(path := parent / (f"{stamp}-{number}" if number else stamp)):
            number += 1
        run = cls(path)
        resolved = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        write_atomically(path / "resolved.yaml", resolved.encode())
        facts = {"identity": config_identity(config), "status": "started", "run_id": f"{config.name}-{path.name}"}
        write_json(path / "run.json", {**facts, "flow_run_id": flow_run_id})
        return run, False

    @property
    def run_id(self) -> str:
        """Name of the run, shared by actor, learner and MLflow.

        Raises:
            CheckpointError: The folder is not a run, or its `run.json` is damaged.
        """
        run_id = self.facts().get("run_id")
        if run_id is None:
            raise CheckpointError(
                f"{self.path / 'run.json'}: missing or damaged, so the run cannot be continued. Start anew with `--fresh`."
            )
        return str(run_id)

    @property
    def checkpoints(self) -> Path:
        """Folder of the learner's checkpoints."""
        return self.path / "checkpoints"

    @property
    def learner_journal(self) -> Path:
        """What the learner acknowledged."""
        return self.path / "journal" / "learner"

    @property
    def schedule(self) -> Path:
        """When the learner took the journal's records in."""
        return self.path / "journal" / "schedule"

    @property
    def experience(self) -> Path:
        """The learner's replay rows."""
        return self.path / "experience"

    @property
    def history(self) -> Path:
        """The learner's metrics, a JSON line each."""
        return self.path / "history.jsonl"

    @property
    def tracking(self) -> Path:
        """What the run has to say to MLflow, until MLflow has it."""
        return self.path / "tracking"

    @property
    def token_file(self) -> Path:
        """Secret that admits the actor."""
        return token_file(self.run_id)

    @property
    def best_policy(self) -> Path:
        """Policy of the best evaluation during training."""
        return self.path / "policy" / "best"

    @property
    def last_policy(self) -> Path:
        """Policy at the end of training."""
        return self.path / "policy" / "last"

    def facts(self) -> dict[str, Any]:
        """Read `run.json`; empty for a folder that is no run, or whose file is damaged."""
        try:
            facts = json.loads((self.path / "run.json").read_text())
        except (OSError, ValueError):
            return {}
        return facts if isinstance(facts, dict) else {}

    def update(self, **facts: Any) -> None:
        """Change facts in `run.json`, atomically; safe from several threads and processes."""
        with file_lock(self.path / "facts.lock"):
            write_json(self.path / "run.json", self.facts() | facts)

    def say_why_not_continued(self, config: TrainConfig) -> None:
        """Log the settings, before and now, for which this unfinished run is another training."""
        try:
            before = dict(_flat(yaml.safe_load((self.path / "resolved.yaml").read_text())))
        except (OSError, ValueError, AttributeError, yaml.YAMLError):
            return
        now = dict(_flat(config.model_dump(mode="json")))
        changed = [name for name in [*before, *(n for n in now if n not in before)] if before.get(name) != now.get(name)]
        changed = [f"{name}: {before.get(name)} -> {now.get(name)}" for name in changed if changes_learning(name)]
        logger.info("%s is unfinished and is not continued: other settings are another training. %s", self.path, "; ".join(changed))

    def is_locked(self) -> bool:
        """Whether a learner is working in this folder."""
        try:
            with file_lock(self.path / "run.lock", timeout_s=0):
                return False
        except TimeoutError:
            return True

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one learner.

        Raises:
            CheckpointError: Another learner holds it.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(file_lock(self.path / "run.lock", timeout_s=2))
            except TimeoutError:
                raise CheckpointError(f"{self.path}: another learner is training this run. Wait for it, or start with `--fresh`.") from None
            yield


def _make_folder(path: Path) -> bool:
    """Make a new folder; False where it exists, also when another process was faster."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        return False
    return True


def token_file(run_id: str) -> Path:
    """Return where the secret of a run is kept, on either host."""
    return home() / "tokens" / run_id


def newest_policy(name: str) -> Path:
    """Return the policy to use of the newest run called `name`: its best one, else its last.

    Args:
        name: Name of a run's configuration, or the folder of one run.

    Raises:
        CheckpointError: There is none; lists the names that have one.
    """
    runs = [Path(name)] if Path(name).is_dir() else sorted((home() / "runs" / name).glob("*"), reverse=True)
    for run in runs:
        for policy in (run / "policy" / "best", run / "policy" / "last"):
            if (policy / "policy.json").is_file():
                return policy
    names = sorted({file.parents[3].name for file in (home() / "runs").glob("*/*/policy/*/policy.json")})
    raise CheckpointError(f"no trained policy called `{name}` under {home() / 'runs'}. There are: {', '.join(names) or 'none'}.")
