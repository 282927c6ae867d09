"""What is exported: a policy with what its run knows about it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hilserl.errors import CheckpointError
from hilserl.evaluation import wilson_interval
from hilserl.policy import Policy, read_policy_manifest
from hilserl.runs import newest_policy
from hilserl.schema import Feature


@dataclass(frozen=True)
class PolicySource:
    """A policy folder, read.

    Attributes:
        folder: Where `policy.json` lies.
        policy: The policy, ready to act.
        manifest: Content of `policy.json`.
        config: The run's resolved configuration; empty where the folder lies outside a run.
        success: What is known about its success, with its interval; None: nothing.
    """

    folder: Path
    policy: Policy
    manifest: dict[str, Any]
    config: dict[str, Any]
    success: str | None

    @classmethod
    def read(cls, folder: Path) -> PolicySource:
        """Read a policy folder and, where it lies in one, its run.

        Raises:
            CheckpointError: The policy is missing, damaged or of another format version.
        """
        manifest = read_policy_manifest(folder)
        run = folder.resolve().parents[1]
        try:
            config = yaml.safe_load((run / "resolved.yaml").read_text())
        except (OSError, yaml.YAMLError):
            config = {}
        policy = Policy.load(folder)
        return cls(folder, policy, manifest, config if isinstance(config, dict) else {}, _success(folder, run, manifest["facts"]))

    @property
    def name(self) -> str:
        """Name of the run, else of the folder."""
        return str(self.config.get("name") or self.folder.resolve().name)

    @property
    def environment(self) -> str | None:
        """Id of the Gymnasium environment that the policy acts in; None: it is an SO-101's."""
        env = self.config.get("env")
        return str(env["id"]) if isinstance(env, dict) and "id" in env else None

    @property
    def facts(self) -> dict[str, Any]:
        """What was noted when the policy was saved: steps, version of the weights, run."""
        return dict(self.manifest["facts"])

    @property
    def observation(self) -> dict[str, Feature]:
        """Schema of what the policy sees, after its preprocessor."""
        return self.policy.preprocessor.schema.observation

    @property
    def action(self) -> Feature:
        """Schema of what the policy does."""
        return self.policy.preprocessor.schema.action


def _success(folder: Path, run: Path, facts: dict[str, Any]) -> str | None:
    try:
        final = json.loads((run / "evaluation" / "evaluation.json").read_text())
        if newest_policy(str(run)).resolve() == folder.resolve():  # the policy that the final evaluation played
            return _describe(final, final["interval_low"], final["interval_high"], "evaluated after training")
    except (OSError, ValueError, KeyError, TypeError, CheckpointError):
        pass  # no final evaluation, or not one of this version: the policy's own facts may still have one
    if not facts.get("episodes"):
        return None
    low, high = wilson_interval(int(facts.get("successes", 0)), int(facts["episodes"]))
    return _describe(facts, low, high, "an evaluation during training, which chose it")


def _describe(facts: dict[str, Any], low: float | None, high: float | None, when: str) -> str:
    episodes = int(facts["episodes"])
    if facts.get("by_return") or facts.get("judged_by") == "return":
        return f"mean return {facts['mean_return']:.4g} over {episodes} episodes ({when})"
    return f"{int(facts['successes']) / episodes:.1%} of {episodes} episodes (95 % Wilson interval {low:.1%} to {high:.1%}; {when})"
