"""`hilserl deliver`: to MLflow, what it did not take while the runs were training."""

from __future__ import annotations

from pathlib import Path

from hilserl.errors import CheckpointError, HilserlError, ServiceError


def run_deliver(folder: Path | None, uri: str | None) -> None:
    """Deliver what waits in the folder of one run, or in all of them, and say how much that was.

    Args:
        folder: Of the run; None: every run under HILSERL_HOME.
        uri: Another store than the one that the run was configured with.

    Raises:
        CheckpointError: `folder` is no run.
        ServiceError: MLflow did not take everything; what is left still waits.
    """
    from hilserl.config import load_config
    from hilserl.files import home
    from hilserl.runs import RunFolder
    from hilserl.tracking.delivery import deliver_waiting

    if folder is not None and not (folder / "run.json").is_file():
        raise CheckpointError(f"{folder} is not the folder of a run. Those are under {home() / 'runs'}.")
    runs = (
        [RunFolder(folder)] if folder is not None else [RunFolder(file.parent) for file in sorted((home() / "runs").glob("*/*/run.json"))]
    )
    problems = []
    for run in runs:
        if not run.tracking.is_dir():
            continue
        try:
            config = load_config(run.path / "resolved.yaml", {} if uri is None else {"tracking.uri": uri}).tracking
            count = deliver_waiting(config, run.tracking, print)
        except HilserlError as error:
            problems.append(f"{run.path}: {error}")
            continue
        if count or folder is not None:
            print(f"{run.path}: {count:,} metric values delivered")
    if problems:
        raise ServiceError("\n".join(problems))
    print("Nothing waits any more.")
