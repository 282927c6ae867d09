"""The flow `reward-classifier`, deployed as `reward-classifier/train` on the learner host."""

from __future__ import annotations

from typing import Any

from hilserl.telemetry import disable_telemetry

disable_telemetry()

from prefect import flow  # noqa: E402

from hilserl.config import load_config  # noqa: E402
from hilserl.config.overrides import TrainOverrides, overrides_to_dict  # noqa: E402
from tasks.train_classifier import register_classifier, train_classifier  # noqa: E402


@flow(name="reward-classifier", persist_result=False)
def reward_classifier(
    config: str = "configs/lift_classifier.yaml",
    datasets: list[str] = [],  # noqa: B006
    disagreements: list[str] = [],  # noqa: B006
    overrides: TrainOverrides = TrainOverrides(),  # noqa: B008
    promote: bool = False,
) -> Any:
    """Learn from labelled datasets what success looks like, say how well, and register it for the actor.

    Args:
        config: Configuration file; its `classifier` section is the recipe.
        datasets: Folders of labelled datasets; none: `classifier.datasets` of the configuration.
        disagreements: Folders of labelled frames on which a person and the last classifier disagreed.
        overrides: Values that win over the file.
        promote: Make it the champion, if it is no worse than the present one on what neither learned from.
    """
    settings = load_config(config, overrides_to_dict(overrides))
    folder = train_classifier(settings, datasets, disagreements)
    if not settings.tracking.enable:
        return {"folder": str(folder)}
    return register_classifier(settings, datasets, disagreements, folder, promote)
