"""The flow `hilserl`, deployed as `hilserl/train` on the learner host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hilserl.telemetry import disable_telemetry

disable_telemetry()

from prefect import flow, runtime  # noqa: E402
from prefect.states import Cancelled  # noqa: E402

from flows.convert_shards import converting_on  # noqa: E402
from hilserl.config import load_config  # noqa: E402
from hilserl.config.overrides import TrainOverrides, overrides_to_dict  # noqa: E402
from tasks.actor_control import actor_of  # noqa: E402
from tasks.build_offline_buffer import build_offline_buffer  # noqa: E402
from tasks.champions import register_policy  # noqa: E402
from tasks.evaluate_policy import evaluate_unless_real  # noqa: E402
from tasks.open_run import opened_run  # noqa: E402
from tasks.pretrain_encoder import pretrain_encoder, with_resolved_encoder  # noqa: E402
from tasks.publish_report import publish_report  # noqa: E402
from tasks.record_demonstrations import record_demonstrations  # noqa: E402
from tasks.run_watch import RunStopped  # noqa: E402
from tasks.server import wait_for_server  # noqa: E402
from tasks.tracking import tracking  # noqa: E402
from tasks.train_learner import train_learner  # noqa: E402
from tasks.validate_dataset import validate_dataset  # noqa: E402


def _run_name() -> str:
    """Name a run after its configuration and seed, so that a person finds it again in the UI."""
    parameters = runtime.flow_run.parameters
    seed = overrides_to_dict(TrainOverrides.model_validate(parameters["overrides"])).get("seed")
    return Path(parameters["config"]).stem + ("" if seed is None else f"-seed-{seed}")


@flow(name="hilserl", flow_run_name=_run_name, persist_result=False)
def hilserl(config: str = "configs/reach.yaml", overrides: TrainOverrides = TrainOverrides(), fresh: bool = False) -> Any:  # noqa: B008
    """Teach the arm a task, from demonstrations to an evaluated policy.

    Args:
        config: Configuration file, relative to the project, or a LeRobot train JSON.
        overrides: Values that win over the file.
        fresh: Start anew instead of continuing an interrupted run of the same configuration.
    """
    settings = with_resolved_encoder(load_config(config, overrides_to_dict(overrides)))
    try:
        with opened_run(settings, fresh=fresh) as (run, watch), tracking(settings, run) as tracker:
            with actor_of(settings, run, watch) as actor:
                dataset = record_demonstrations(settings)
                validate_dataset(settings, dataset, tracker)
                encoders = pretrain_encoder(settings)
                offline_buffer = build_offline_buffer(settings, dataset, converting_on(settings.conversion))
                learned = train_learner(settings, run, offline_buffer, encoders, actor, tracker)
            evaluated = evaluate_unless_real(settings, learned.policy, run.path / "evaluation")
            register_policy(settings, run, learned, evaluated, tracker)
            wait_for_server("The report")
            return publish_report(settings, run, learned, evaluated, tracker)
    except RunStopped as stopped:
        return Cancelled(message=str(stopped))
