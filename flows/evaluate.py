"""The flow `evaluate`, deployed as `evaluate/policy`: how good a policy is, and whether it becomes the champion."""

from __future__ import annotations

from typing import Any, Literal

from hilserl.telemetry import disable_telemetry

disable_telemetry()

from prefect import flow, runtime  # noqa: E402
from prefect.flow_runs import pause_flow_run  # noqa: E402
from prefect.input import RunInput  # noqa: E402
from prefect.states import Cancelled  # noqa: E402
from pydantic import Field  # noqa: E402

from hilserl.config import TrackingConfig  # noqa: E402
from hilserl.config.overrides import TrainOverrides, overrides_to_dict  # noqa: E402
from tasks import champions  # noqa: E402
from tasks.console_asks import also_on_the_page  # noqa: E402
from tasks.evaluate_policy import evaluate_policy  # noqa: E402
from tasks.preflight import needs_preflight, preflight  # noqa: E402
from tasks.run_watch import RunStopped  # noqa: E402


class Promotion(RunInput):
    """What a person decides with the figures before them."""

    promote: bool = Field(False, description="Make the candidate the champion")
    your_name: str = Field("", description="Who decides; kept beside the version")
    why: str = Field("", description="In one sentence; kept beside the version")


class Presence(RunInput):
    """A person stands beside a real arm."""

    arm_may_move: bool = Field(False, description="I stand beside the arm, `hilserl doctor` passed, and it may move now")


@flow(name="evaluate", persist_result=False, retries=0)
def evaluate(
    policy: str = "models:/hilserl-lift@candidate",
    config: str | None = None,
    overrides: TrainOverrides = TrainOverrides(),  # noqa: B008
    promote: Literal["rule", "ask", "never"] = "rule",
    answer_within_min: float = 60.0,
) -> Any:
    """Evaluate a policy on starts it never saw, beside the champion of its task.

    Args:
        policy: `models:/hilserl-lift@candidate`, the name of a run, or the folder of a run, a policy or a checkpoint.
        config: Configuration to play it with; empty: the one that it was trained with.
        overrides: Values that win over the file, such as evaluation.episodes.
        promote: `rule`: the champion if it beats it in the paired test; `ask`: else a person is, here or on the console.
        answer_within_min: A person who is asked has so long.
    """
    values = overrides_to_dict(overrides)
    try:
        candidate = champions.find(policy, TrackingConfig.model_validate(values.get("tracking", {})))
        if promote == "ask":
            champions.require_version(candidate.version, candidate.shown)  # before anything is played
        settings = candidate.config(config, values)
        folder = champions.evaluation_folder(settings, str(runtime.flow_run.id))
        if needs_preflight(settings):
            if settings.robot.is_real and not _ask(Presence, "# May the arm move?", answer_within_min).arm_may_move:
                return Cancelled(message="Nobody stands beside the arm, so it was not moved.")
            preflight(settings)
        evaluated = evaluate_policy(settings, candidate.folder, folder / "candidate")
        champion = champions.find_champion(settings) if promote != "never" else None
        reigns = champions.reigns(candidate, champion)
        its = None if champion is None or reigns else evaluate_policy(settings, champion.folder, folder / "champion")
        contest = champions.compare(settings, candidate, evaluated, champion, its, folder)
        promoted = None
        if promote != "never" and candidate.version is not None:
            if contest.verdict.is_better:
                promoted = champions.promote_policy(settings, contest, "the rule", contest.verdict.why)
            elif promote == "ask" and not reigns:
                with also_on_the_page(str(runtime.flow_run.id), "promotion", contest.question, _promotion):
                    answer = _ask(Promotion, contest.figures, answer_within_min)
                if answer.promote:
                    promoted = champions.promote_policy(settings, contest, answer.your_name or "a person", answer.why or "no reason given")
        return champions.summary(contest, evaluated, promoted)
    except RunStopped as stopped:
        return Cancelled(message=str(stopped))


def _promotion(approved: bool, by: str) -> dict[str, Any]:
    """Return the form as somebody filled it in who answered on an operator's page."""
    return {"promote": approved, "your_name": by, "why": "approved on the operator's page"}


def _ask(question: type[Any], text: str, within_min: float) -> Any:
    """Pause this run until a person answers its form in the UI."""
    return pause_flow_run(wait_for_input=question.with_initial_data(description=text), timeout=round(60 * within_min), poll_interval=2)
