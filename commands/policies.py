"""`hilserl policies`: what is registered in MLflow, and which of it is the champion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="What is registered: list, register. Promotion: the deployment evaluate/policy.", no_args_is_help=True)

Config = Annotated[str, typer.Option(help="Configuration whose `tracking` says which MLflow.")]


@app.command("list")
def list_policies(config: Config = "lift") -> None:
    """List the registered models and their versions, with what is known of them."""
    from hilserl.config import load_config
    from hilserl.tracking import registry

    tracking = load_config(config, {}).tracking
    names = registry.list_models(config=tracking)
    if not names:
        print("Nothing is registered yet. A training registers its policy as candidate; `hilserl policies register RUN` does it by hand.")
    for name in names:
        print(name)
        for version in registry.list_versions(name, config=tracking):
            aliases = " ".join(f"@{alias}" for alias in version.aliases)
            known = version.tags.get("evaluation") or version.description
            print(f"  {version.uri} {aliases}\n    {known}")
            if promoted := version.tags.get("promotion"):
                print(f"    promoted {promoted}")


@app.command()
def register(
    policy: Annotated[str, typer.Argument(help="Name of a run, the folder of a run, a policy or a checkpoint.")],
    config: Annotated[str | None, typer.Option(help="Configuration; by default the one that the policy was trained with.")] = None,
) -> None:
    """Register a policy as the next version of `hilserl-<task>`, and let `@candidate` mean it."""
    from hilserl.champions import register_candidate
    from hilserl.evaluation.source import find_policy

    source = find_policy(policy)
    settings = source.config(config, {})
    run_id = _mlflow_run(source.run)
    version = register_candidate(settings, source.folder, run_id=run_id, facts={"registered": "by hand"})
    print(f"{version.uri} is the candidate of {version.name}.")
    print(f"Evaluate it against the champion: prefect deployment run evaluate/policy -p policy=models:/{version.name}@candidate")


def _mlflow_run(run: Path | None) -> str | None:
    try:
        found = None if run is None else json.loads((run / "run.json").read_text()).get("mlflow_run_id")
    except (OSError, ValueError):
        return None
    return str(found) if found else None
