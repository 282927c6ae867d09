"""A success classifier on one page: how well it tells, what it gets wrong, and when it calls success in every held-out episode."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from hilserl import web
from hilserl.evaluation import wilson_interval
from hilserl.files import write_atomically
from hilserl.report.charts import Curve, line_chart
from hilserl.reward.calibration import precision_recall, reliability
from hilserl.reward.train import HeldOut, TrainedClassifier

_WORST = 8
_MOST_TIMELINES = 80
_PICTURE_PX = 128
_GOOD = 0.98


def write_classifier_page(trained: TrainedClassifier, file: Path, *, folder: Path) -> Path:
    """Write the page.

    Args:
        trained: A classifier that was just trained, with its held-out episodes.
        file: Of the page.
        folder: Of the classifier, for the lines to paste.
    """
    metrics, classifier = trained.validation, trained.classifier
    balanced = metrics.frames.balanced_accuracy
    failed = metrics.episodes.false_positives + metrics.episodes.true_negatives
    wrong = metrics.episodes.false_positives
    probability = np.concatenate([each.verdict.probability for each in trained.held_out])
    truth = np.concatenate([each.seen.success for each in trained.held_out])
    low, high = wilson_interval(wrong, failed) if failed else (0.0, 1.0)
    claims = reliability(probability, truth)
    text = _template().render(
        theme=Markup((Path(web.__file__).parent / "theme.css").read_text(encoding="utf-8")),
        title=f"{balanced:.1%} balanced accuracy on held-out frames",
        verdict="" if balanced >= _GOOD and not wrong else "warn" if balanced >= 0.9 else "stop",
        lead=f"{wrong} of {failed} failed episodes would have been rewarded (95 % Wilson interval {low:.1%} to {high:.1%}); "
        f"{metrics.episodes.false_negatives} of {metrics.episodes.true_positives + metrics.episodes.false_negatives} successes missed; "
        f"{metrics.early} called before their first marked frame.",
        facts=_facts(trained, claims.error),
        remarks=trained.remarks,
        held_out=len(trained.held_out),
        charts=_charts(probability, truth, classifier.threshold),
        galleries=[
            (
                "What it takes for success, and is not",
                "The most certain wrong frame of each episode.",
                _worst(trained.held_out, wanted=False),
            ),
            ("Success that it does not see", "The most certain wrong frame of each episode.", _worst(trained.held_out, wanted=True)),
        ],
        timelines=_timelines(trained.held_out, classifier.threshold),
        tables=[("What it looks at", _views(trained)), ("Made from", _origin(trained))],
        usage=f"task: {{success: {{by: classifier, classifier: {folder}}}}}\n"
        f"dataset: {{reward_from: classifier, classifier: {folder}}}   # for demonstrations without a reward",
    )
    write_atomically(file, text.encode())
    return file


def classifier_markdown(trained: TrainedClassifier, page: Path) -> str:
    """Say the same in a table, for Prefect's page of a run."""
    metrics = trained.validation
    rows = [
        ("balanced accuracy, held-out frames", f"{metrics.frames.balanced_accuracy:.2%}"),
        (
            "failed episodes rewarded",
            f"{metrics.episodes.false_positives} of {metrics.episodes.false_positives + metrics.episodes.true_negatives}",
        ),
        ("successes missed", f"{metrics.episodes.false_negatives} of {metrics.episodes.true_positives + metrics.episodes.false_negatives}"),
        ("called too early", str(metrics.early)),
        ("flickers ignored", str(metrics.flickers)),
        ("calibration error", f"{trained.classifier.training['calibration_error']:.3f}"),
        ("threshold, held for", f"{trained.classifier.threshold:g}, {trained.classifier.hold_frames} frames"),
        ("page", f"`{page}`"),
    ]
    notes = "".join(f"\n- {remark}." for remark in trained.remarks)
    table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])
    return f"# Success classifier `{trained.classifier.version}`\n\n{table}\n{notes}\n"


@lru_cache(maxsize=1)
def _template() -> Template:
    folder = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=folder, autoescape=True, undefined=StrictUndefined).get_template("classifier.html")


def _facts(trained: TrainedClassifier, error: float) -> list[tuple[str, str]]:
    split, classifier = trained.split, trained.classifier
    return [
        (f"{classifier.threshold:g}", "threshold"),
        (f"{classifier.hold_frames} frames", "must agree in a row"),
        (f"{error:.3f}", "calibration error (0: a claim of 80 % is right 80 % of the time)"),
        (f"{len(split.train)} / {len(split.choice)} / {len(split.validation)}", "episodes learned from / chosen on / held out"),
        (str(trained.validation.flickers), "flickers ignored"),
        (", ".join(classifier.cameras), "cameras"),
    ]


def _charts(probability: np.ndarray, truth: np.ndarray, threshold: float) -> list[tuple[str, str, Markup]]:
    recall, precision, at = precision_recall(probability, truth)
    claims = reliability(probability, truth)
    grid = np.linspace(0.01, 0.99, 99)
    false_share = np.array([float((probability[~truth] >= value).mean()) if (~truth).any() else 0.0 for value in grid])
    found_share = np.array([float((probability[truth] >= value).mean()) if truth.any() else 0.0 for value in grid])
    here = np.array([threshold, threshold])
    return [
        (
            "Precision and recall",
            "Of the frames called success, the share that is some, over the share of successes found.",
            line_chart([Curve("precision over recall", recall, precision, 0), _point(recall, precision, at, threshold)], bounds=(0, 1.02)),
        ),
        (
            "Reliability",
            f"How often it was right, over what it claimed. Error {claims.error:.3f}, Brier score {claims.brier:.4f}.",
            line_chart(
                [
                    Curve("right", claims.claimed, claims.happened, 0, dots=True),
                    Curve("as claimed", np.array([0.0, 1.0]), np.array([0.0, 1.0]), 5),
                ],
                bounds=(0, 1.02),
            ),
        ),
        (
            "What another threshold would do",
            "Frames found and frames wrongly called, over the threshold; frame by frame, before the debounce.",
            line_chart(
                [
                    Curve("found", grid, found_share, 2),
                    Curve("wrongly called", grid, false_share, 4),
                    Curve("chosen", here, np.array([0.0, 1.0]), 5),
                ],
                bounds=(0, 1.02),
            ),
        ),
    ]


def _point(recall: np.ndarray, precision: np.ndarray, at: np.ndarray, threshold: float) -> Curve:
    above = np.flatnonzero(at >= threshold)
    place = above[-1:] if len(above) else np.array([0])
    return Curve("at the threshold", recall[place], precision[place], 1, dots=True)


def _worst(held_out: Sequence[HeldOut], *, wanted: bool) -> list[tuple[str, str]]:
    """Return caption and picture of the worst frames whose truth is `wanted`, one an episode."""
    found = []
    for each in held_out:
        probability, truth = each.verdict.probability, each.seen.success
        error = np.where(truth == wanted, (1 - probability) if wanted else probability, -1.0)
        frame = int(error.argmax())
        if error[frame] > 0.5:
            found.append((float(error[frame]), each, frame))
    found.sort(key=lambda item: -item[0])
    return [
        (
            f"{each.episode.dataset.root.name} episode {each.episode.index}, frame {frame}: {each.verdict.probability[frame]:.3f}",
            _picture(each, frame),
        )
        for _, each, frame in found[:_WORST]
    ]


def _picture(each: HeldOut, frame: int) -> str:
    parts = [
        cv2.resize(images[frame], (_PICTURE_PX, _PICTURE_PX), interpolation=cv2.INTER_NEAREST)
        for _, images in sorted(each.seen.images.items())
    ]
    _, data = cv2.imencode(".png", cv2.cvtColor(np.hstack(parts), cv2.COLOR_RGB2BGR))
    return base64.b64encode(data.tobytes()).decode()


def _timelines(held_out: Sequence[HeldOut], threshold: float) -> list[tuple[str, bool, Markup]]:
    found = []
    for each in held_out:
        first, marked = each.verdict.first_success, each.seen.success
        truth = int(marked.argmax()) if marked.any() else None
        wrong = (first is None) != (truth is None) or (first is not None and truth is not None and first < truth)
        said = "never" if first is None else f"at {first}"
        caption = (
            f"{each.episode.dataset.root.name} {each.episode.index}: called {said}, marked {'never' if truth is None else f'from {truth}'}"
        )
        found.append((caption, wrong, _timeline(each, threshold)))
    return sorted(found, key=lambda item: not item[1])[:_MOST_TIMELINES]


def _timeline(each: HeldOut, threshold: float) -> Markup:
    probability, marked, first = each.verdict.probability, each.seen.success, each.verdict.first_success
    width, height, count = 300.0, 60.0, len(each.verdict.probability)
    step = width / max(1, count)
    edges = np.flatnonzero(np.diff(marked.astype(np.int8), prepend=0, append=0))
    bands = "".join(
        f'<rect class="band c2" x="{start * step:.1f}" y="0" width="{(stop - start) * step:.1f}" height="{height}"/>'
        for start, stop in zip(edges[::2], edges[1::2], strict=True)
    )
    points = " ".join(f"{(frame + 0.5) * step:.1f},{(1 - value) * height:.1f}" for frame, value in enumerate(probability))
    level = (1 - threshold) * height
    dot = (
        ""
        if first is None
        else f'<circle class="dot c1" cx="{(first + 0.5) * step:.1f}" cy="{(1 - probability[first]) * height:.1f}" r="4"/>'
    )
    return Markup(
        f'<svg viewBox="-4 -4 {width + 8:.0f} {height + 8:.0f}" role="img">{bands}'
        f'<path class="rule" stroke-dasharray="4 3" d="M0,{level:.1f}H{width}"/><polyline class="line c0" points="{points}"/>{dot}</svg>'
    )


def _views(trained: TrainedClassifier) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = [("camera", "native", "crop [top, left, height, width]", "seen at")]
    for camera, view in sorted(trained.classifier.views.items()):
        rows.append((camera, f"{view.native[0]}x{view.native[1]}", list(view.crop), f"{view.resize[0]}x{view.resize[1]}"))
    if trained.classifier.state:
        rows.append(("state", ", ".join(trained.classifier.state), "", ""))
    return rows


def _origin(trained: TrainedClassifier) -> list[tuple[Any, ...]]:
    training = trained.classifier.training
    rows: list[tuple[Any, ...]] = [
        (each["root"], each["content"][:16] + (" with labels beside it" if each.get("labels") else "")) for each in training["datasets"]
    ]
    recipe = {name: value for name, value in training["recipe"].items() if value is not None}
    return [
        *rows,
        ("trained", training["date"]),
        ("epochs", training["epochs"]),
        *((f"classifier.{name}", value) for name, value in recipe.items()),
    ]
