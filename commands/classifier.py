"""`hilserl classifier`: train a success classifier from marked datasets, and see what it says of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hilserl.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hilserl.classifier_training import ClassifierRequest
    from hilserl.reward.agreement import JudgedEpisode
    from hilserl.reward.metrics import Confusion
    from hilserl.reward.train import TrainedClassifier

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="The success classifier: record examples in simulation, train it from labelled datasets, see what it says of a dataset.",
)

Config = Annotated[
    str | None, typer.Option(help="Configuration whose cameras, crops and sizes are used; by default whole pictures, shrunk.")
]


@app.command()
def examples(
    config: Annotated[str, typer.Argument(help="Configuration of a simulated lift; `classifier.images` are the cameras.")],
    into: Annotated[Path, typer.Option("--into", metavar="FOLDER", help="Folder of the dataset; must not exist.")],
    episodes: Annotated[int, typer.Option(min=1, help="How many attempts.")] = 160,
    seed: Annotated[int, typer.Option(help="Seed of attempts, light and table.")] = 0,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="In light and on tables that the others never show: to ask, not to learn from.")
    ] = False,
) -> None:
    """Record successes, near misses and failures in simulation, each in another light, with the successes marked: to try it all out."""
    from commands.progress_bar import shown_progress
    from hilserl.config import load_config
    from hilserl.success_examples import record_examples

    with shown_progress():
        recorded = record_examples(load_config(config), into, episodes, seed=seed, variation="held_out" if held_out else "varied")
    succeeded = sum(bool(episode.success.any()) for episode in recorded)
    print(f"{into}: {len(recorded)} attempts, {succeeded} with success, {sum(len(episode.success) for episode in recorded)} frames")
    print(f"  hilserl classifier train {into} --config {config}")


@app.command()
def train(
    datasets: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[DATASET]...", help="Folders of datasets with labels beside them (`hilserl label`) or `next.reward`."),
    ] = None,
    into: Annotated[
        Path | None, typer.Option("--into", metavar="FOLDER", help="Folder of the classifier; must not exist. Default: under HILSERL_HOME.")
    ] = None,
    config: Config = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value, such as classifier.backbone=pretrained.")
    ] = None,
    disagreements: Annotated[
        list[Path] | None, typer.Option(metavar="FOLDER", help="Labelled frames on which person and classifier disagreed; may be repeated.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of split, weights and order.")] = None,
    hold_frames: Annotated[
        int | None,
        typer.Option(min=1, max=50, help="Frames in a row that must agree before the verdict changes; by default 3, or what was marked."),
    ] = None,
    false_positive_rate: Annotated[
        float | None, typer.Option(min=1e-6, max=0.49, help="Of false successes that the threshold may leave; by default 0.005.")
    ] = None,
    register: Annotated[bool, typer.Option("--register", help="Register it in MLflow as `candidate`.")] = False,
    promote: Annotated[
        bool, typer.Option("--promote", help="Register it, and make it `champion` if it is no worse than the present one.")
    ] = False,
) -> None:
    """Learn what success looks like; a quarter of the episodes decides nothing, and says how well. Writes a page with it."""
    from commands.progress_bar import shown_progress
    from hilserl.errors import ConfigError

    if into is not None and into.exists():
        raise CheckpointError(f"{into}: exists. Training never overwrites a classifier: choose another folder with --into.")
    if into is not None and (register or promote):
        raise ConfigError("--into names a folder of your own; what is registered is kept under HILSERL_HOME: leave one of them out.")
    given = {"seed": seed, "hold_frames": hold_frames, "false_positive_rate": false_positive_rate}
    changes = {f"classifier.{name}": value for name, value in given.items() if value is not None}
    if config is None:
        if into is None or register or promote or set_:
            raise ConfigError("without --config there is only --into FOLDER: name the configuration whose task it is for.")
        _train_alone(datasets or [], into, changes, disagreements or [])
        return
    from hilserl.classifier_training import ARTEFACT, MARKDOWN, PAGE, ClassifierRequest, get_or_train, register_classifier
    from hilserl.config import load_config
    from hilserl.config.loader import parse_override

    settings = load_config(config, dict(parse_override(text) for text in set_ or []) | changes)
    request = ClassifierRequest.of(settings, datasets or [], disagreements or [])
    if into is not None:
        _train_alone(request.datasets, into, {}, request.disagreements, request)
        return
    with shown_progress():
        folder = get_or_train(request)
    print((folder / MARKDOWN).read_text())
    print(f"{folder / ARTEFACT}: the classifier. {folder / PAGE}: its page. To let it judge:")
    named = str(folder / ARTEFACT)
    if register or promote:
        version = register_classifier(request, folder, promote=promote)
        print(f"registered as {version.uri}{' and promoted' if promote else ', candidate'}")
        named = f"models:/{version.name}@champion" if promote else version.uri
    print(f"  task: {{success: {{by: classifier, classifier: {named}}}}}")


def _train_alone(
    datasets: Sequence[Path],
    into: Path,
    changes: Mapping[str, object],
    disagreements: Sequence[Path],
    request: ClassifierRequest | None = None,
) -> None:
    """Train into a folder that the person names."""
    from commands.progress_bar import shown_progress
    from hilserl.config.classifier import Recipe
    from hilserl.report.classifier import write_classifier_page
    from hilserl.reward.train import train_classifier

    own = Recipe.model_validate({name.removeprefix("classifier."): value for name, value in changes.items()})
    recipe, views = (own, None) if request is None else (request.config.classifier, request.views)
    with shown_progress():
        trained = train_classifier(datasets, views, recipe, disagreements=disagreements)
        trained.classifier.save(into)
    page = write_classifier_page(trained, into.with_name(f"{into.name}.html"), folder=into.resolve())
    print("\n".join(_report(trained, into, page)))


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


def _report(trained: TrainedClassifier, folder: Path, page: Path) -> list[str]:
    classifier, split, metrics = trained.classifier, trained.split, trained.validation
    lines = []
    for name, side in (("learned from", split.train), ("chosen on", split.choice), ("held out", split.validation)):
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
        "The held-out episodes decided nothing; a dataset recorded on another day has the last word"
    )
    lines += [f"note: {remark}." for remark in trained.remarks]
    lines.append(f"{page}: curves, worst pictures, and every held-out episode")
    lines.append(
        f"{folder}: classifier {classifier.version}. To let it judge the arm: task: {{success: {{by: classifier, classifier: {folder}}}}}"
    )
    lines.append("To let it reward a dataset:")
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


@app.command()
def versions(config: Annotated[str, typer.Argument(help="Configuration of the task.")] = "lift_classifier") -> None:
    """List the registered classifiers of a task: figures, and which of them judges."""
    from rich.console import Console
    from rich.table import Table

    from hilserl.classifier_training import registered_name
    from hilserl.config import load_config
    from hilserl.tracking.registry import list_versions

    settings = load_config(config)
    name = registered_name(settings)
    table = Table("address", "aliases", "balanced accuracy", "wrongly rewarded", "threshold", title=name)
    for version in list_versions(name, config=settings.tracking):
        tags = version.tags
        accuracy = tags.get("hilserl.balanced_accuracy")
        table.add_row(
            version.uri, ", ".join(version.aliases), "-" if accuracy is None else f"{float(accuracy):.1%}",
            f"{tags.get('hilserl.wrongly_rewarded', '-')} of {tags.get('hilserl.failed_episodes', '-')}",
            tags.get("hilserl.threshold", "-"),
        )  # fmt: skip
    Console().print(table)
