"""`hilserl classifier`: train a success classifier from marked datasets, and see what it says of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hilserl.errors import CheckpointError

if TYPE_CHECKING:
    from hilserl.data.preprocess import CameraView
    from hilserl.reward.agreement import JudgedEpisode
    from hilserl.reward.metrics import Confusion
    from hilserl.reward.train import TrainedClassifier

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Train a success classifier from datasets whose successful frames are marked, and see what it says of a dataset.",
)

Config = Annotated[
    str | None, typer.Option(help="Configuration whose cameras, crops and sizes are used; by default whole pictures, shrunk.")
]


@app.command()
def train(
    datasets: Annotated[list[Path], typer.Argument(metavar="DATASET...", help="Folders of datasets with `next.reward`.")],
    into: Annotated[Path, typer.Option("--into", metavar="FOLDER", help="Folder of the classifier; must not exist.")],
    config: Config = None,
    seed: Annotated[int, typer.Option(help="Seed of split, weights and order.")] = 0,
    hold_frames: Annotated[
        int | None,
        typer.Option(min=1, help="Frames in a row that must agree before the verdict changes; by default 3, or what was marked."),
    ] = None,
) -> None:
    """Learn what success looks like; a quarter of the episodes is held back to say how well."""
    from commands.progress_bar import shown_progress
    from hilserl.reward.train import Recipe, train_classifier

    if into.exists():
        raise CheckpointError(f"{into}: exists. Training never overwrites a classifier: choose another folder with --into.")
    with shown_progress():
        trained = train_classifier(datasets, _views(config), Recipe(seed=seed, hold_frames=hold_frames))
        trained.classifier.save(into)
    print("\n".join(_report(trained, into)))


@app.command()
def judge(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Folder of a dataset; need not be marked.")],
    classifier: Annotated[Path, typer.Option("--classifier", metavar="FOLDER", help="Folder of the classifier.")],
) -> None:
    """Say of each episode when it succeeds, how often the opinion flickers, and whether that agrees with what is marked."""
    from rich.console import Console
    from rich.table import Table

    from commands.progress_bar import shown_progress
    from hilserl.reward.agreement import judge_dataset
    from hilserl.reward.classifier import SuccessClassifier

    opened = SuccessClassifier.load(classifier)
    with shown_progress():
        judged = list(judge_dataset(opened, dataset))
    columns = ("episode", "frames", "success", "marked", "agrees", "flickers", "highest", "is")
    table = Table(*columns, title=f"{dataset}: threshold {opened.threshold:g}, held for {opened.hold_frames} frames")
    for episode in judged:
        marked = "-" if episode.marked is None else _frame(int(episode.marked.argmax()) if episode.marked.any() else None)
        agreement = "-" if episode.agreement is None else f"{episode.agreement:.0%}"
        table.add_row(
            str(episode.index), str(len(episode.verdict.probability)), _frame(episode.verdict.first_success), marked, agreement,
            str(episode.verdict.flickers), f"{episode.verdict.probability.max():.2f}", episode.known.removesuffix(" on"),
        )  # fmt: skip
    Console().print(table)
    late = opened.hold_frames - 1
    print(f"success, marked: its first frame. A verdict comes {late} frames after the first that looks like it, since it must be held.")
    print("highest: largest probability of a frame. is: whether the training knew the episode.")
    print("\n".join(_summary(judged)))


def _views(config: str | None) -> dict[str, CameraView] | None:
    from hilserl.config import load_config
    from hilserl.data.preprocess import Preprocessor

    return None if config is None else dict(Preprocessor.from_config(load_config(config)).views)


def _report(trained: TrainedClassifier, folder: Path) -> list[str]:
    classifier, split, metrics = trained.classifier, trained.split, trained.validation
    lines = []
    for name, side in (("learned from", split.train), ("held out", split.validation)):
        positives, frames = sum(int(e.success.sum()) for e in side), sum(len(e.success) for e in side)
        successful = sum(bool(e.success.any()) for e in side)
        lines.append(
            f"{name}: {len(side)} episodes ({successful} with success), {frames} frames ({positives} success, {frames - positives} not)"
        )
    for camera, view in sorted(classifier.views.items()):
        lines.append(
            f"camera {camera}: {view.native[0]}x{view.native[1]}, crop {list(view.crop)}, seen at {view.resize[0]}x{view.resize[1]}"
        )
    lines.append(f"held-out episodes: {_quality(metrics.episodes)}")
    lines.append(f"held-out frames, each by itself: {_quality(metrics.frames, interval=False)}")
    lines.append(
        f"threshold {classifier.threshold:g}, held for {classifier.hold_frames} frames; {metrics.flickers} flickers ignored. "
        "Threshold and last epoch were chosen on the held-out episodes: a dataset never shown here has the last word"
    )
    lines += [f"note: {remark}." for remark in trained.remarks]
    lines.append(f"{folder}: classifier {classifier.version}. To let it reward a dataset:")
    lines.append(f"  dataset: {{reward_from: classifier, classifier: {folder.resolve()}}}")
    return lines


def _quality(counts: Confusion, *, interval: bool = True) -> str:
    from hilserl.evaluation import wilson_interval

    shares = ", ".join(
        f"{name} {'unknown' if value is None else f'{value:.1%}'}"
        for name, value in (("accuracy", counts.accuracy), ("precision", counts.precision), ("recall", counts.recall))
    )
    text = f"{counts.right} of {counts.total} right; {shares}; {counts.false_positives} false successes, {counts.false_negatives} missed"
    if interval:
        low, high = wilson_interval(counts.right, counts.total)
        text += f" (95 % interval of the accuracy {low:.0%} to {high:.0%})"
    return text


def _summary(judged: list[JudgedEpisode]) -> list[str]:
    from hilserl.reward.metrics import Confusion

    found = sum(episode.verdict.first_success is not None for episode in judged)
    lines = [f"{found} of {len(judged)} episodes contain success; {sum(episode.verdict.flickers for episode in judged)} flickers ignored"]
    for name, wanted in (("not trained on", ("new", "held out")), ("trained on, which proves nothing", ("trained on",))):
        some = [episode for episode in judged if episode.known in wanted and episode.marked is not None]
        if some:
            said, true = [e.verdict.first_success is not None for e in some], [bool(e.marked.any()) for e in some if e.marked is not None]
            lines.append(f"episodes {name}: {_quality(Confusion.of(said, true))}")
    return lines


def _frame(frame: int | None) -> str:
    return "never" if frame is None else str(frame)
