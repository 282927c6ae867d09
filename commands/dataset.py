"""`hilserl dataset`: look at a dataset, and make a new one from it. Nothing here writes into a dataset that exists."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.progress_bar import shown_progress
from hilserl.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from hilserl.data.editing.crop import Crop
    from hilserl.data.editing.success import SuccessRange

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Look at a dataset, or make a new one from it: merge, keep, drop, split, trim, mark successes, preview a crop, upgrade.",
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the dataset (LeRobotDataset v3.0).")]
Into = Annotated[Path, typer.Option("--into", metavar="NEW", help="Folder of the new dataset; must not exist.")]
_USUAL_SIZE = 84  # of `configs/`
Episodes = Annotated[str, typer.Option(help="Episodes by index, such as 0-9,12.")]


@app.command()
def info(folder: Folder) -> None:
    """Print what is in a dataset: features with names, units and ranges, episodes, cameras, sizes, rewards."""
    from rich.console import Console
    from rich.table import Table

    from hilserl.data.editing.describe import describe_dataset

    found = describe_dataset(folder)
    console = Console()
    console.print(str(found.root), style="bold", markup=False)
    for line in found.summary:
        console.print(f"  {line}", markup=False)
    features = Table("feature", "type", "shape", _plain("scalars [unit] and range"), title="Features")
    for feature in found.features:
        features.add_row(feature.key, feature.dtype, "x".join(map(str, feature.shape)), _plain(feature.scalars))
    console.print(features)
    episodes = Table("episode", "frames", "s", "rewarded frames", "done frames", "task", title="Episodes")
    for episode in found.episodes:
        counts = ("-" if count is None else str(count) for count in (episode.rewarded, episode.ends))
        episodes.add_row(str(episode.index), str(episode.frames), f"{episode.seconds:.1f}", *counts, _plain(episode.tasks))
    console.print(episodes)


@app.command()
def merge(folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of two or more datasets.")], into: Into) -> None:
    """Put the episodes of several datasets one after another. They must agree in rate, features, sizes and units."""
    from hilserl.data.editing.episodes import merge_datasets

    with shown_progress():
        merge_datasets(folders, into)
        _report(into)


@app.command()
def keep(folder: Folder, episodes: Episodes, into: Into) -> None:
    """Write only the chosen episodes."""
    from hilserl.data.editing.episodes import keep_episodes, parse_numbers

    with shown_progress():
        keep_episodes(folder, parse_numbers(episodes), into)
        _report(into)


@app.command()
def drop(folder: Folder, episodes: Episodes, into: Into) -> None:
    """Write all but the chosen episodes."""
    from hilserl.data.editing.episodes import drop_episodes, parse_numbers

    with shown_progress():
        drop_episodes(folder, parse_numbers(episodes), into)
        _report(into)


@app.command()
def split(
    folder: Folder,
    into: Annotated[tuple[Path, Path], typer.Option("--into", metavar="A B", help="Folders of the two new datasets.")],
    fraction: Annotated[float | None, typer.Option(min=0, max=1, help="Share of the episodes for A, drawn at random.")] = None,
    episodes: Annotated[str | None, typer.Option(help="Or: the episodes of A, such as 0-9,12.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
) -> None:
    """Write two datasets, by episode."""
    from hilserl.data.editing.episodes import parse_numbers, split_dataset

    with shown_progress():
        split_dataset(folder, into, fraction=fraction, episodes=None if episodes is None else parse_numbers(episodes), seed=seed)
        for target in into:
            _report(target)


@app.command()
def trim(
    folder: Folder,
    into: Annotated[Path | None, typer.Option("--into", metavar="NEW", help="Folder of the new dataset; must not exist.")] = None,
    idle_mm: Annotated[float, typer.Option(min=0, help="Largest motion of the tool that counts as none, in mm.")] = 2.0,
    idle_deg: Annotated[float, typer.Option(min=0, help="Largest motion of a joint that counts as none, in degrees.")] = 1.0,
    head: Annotated[bool, typer.Option("--head", help="Only the heads.")] = False,
    tail: Annotated[bool, typer.Option("--tail", help="Only the tails.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Cut the start and end of each episode where nothing moves and nothing is asked to move."""
    from rich.console import Console
    from rich.table import Table

    from hilserl.data.editing.compose import require_new
    from hilserl.data.editing.idle import find_idle, trim_idle
    from hilserl.data.editing.record import Edit
    from hilserl.data.editing.tables import Tables

    if into is None and not dry_run:
        raise DatasetError("trim: say where to write with --into NEW, or look first with --dry-run.")
    if into is not None:
        require_new(into)
    both = head == tail
    with shown_progress():
        tables = Tables.open(folder)
        found = find_idle(tables, idle_mm=idle_mm, idle_deg=idle_deg, head=head or both, tail=tail or both)
    table = Table("episode", "frames", "idle head", "idle tail", "left", "", title=f"{folder}: idle frames")
    for idle in found:
        left = idle.length - idle.head - idle.tail
        table.add_row(*map(str, (idle.episode, idle.length, idle.head, idle.tail, left)), idle.note)
    Console().print(table)
    gone, total = sum(idle.head + idle.tail for idle in found), sum(idle.length for idle in found)
    print(f"{gone} of {total} frames ({gone / max(1, total):.0%}) {'would go' if dry_run else 'go'}.")
    if dry_run:
        return
    assert into is not None
    with shown_progress():
        trim_idle(tables, found, into, Edit("trim", {"idle_mm": idle_mm, "idle_deg": idle_deg, "head": head or both, "tail": tail or both}))
        _report(into)


@app.command("crop-preview")
def crop_preview(
    folder: Folder,
    out: Annotated[Path, typer.Option("--out", help="Picture to write (PNG).")],
    config: Annotated[str | None, typer.Option(help="Configuration whose crops are shown.")] = None,
    crop: Annotated[str | None, typer.Option(help="Or: top,left,height,width in pixels, for every camera.")] = None,
    resize: Annotated[
        str | None, typer.Option(help="height,width that the policy sees; by default 84,84, or the crop if it is smaller.")
    ] = None,
) -> None:
    """Draw what a crop leaves: raw frames with the rectangle, beside what the policy sees; several episodes."""
    from hilserl.data.editing.crop import preview_crop

    with shown_progress():
        for line in preview_crop(folder, _crops(folder, config, crop, resize), out):
            print(line)
    print(f"picture: {out}")


@app.command("mark-success")
def mark_success(
    folder: Folder,
    into: Into,
    from_: Annotated[
        Path | None, typer.Option("--from", help="CSV with columns episode,start,end, or a JSON list of such objects.")
    ] = None,
    episodes: Annotated[str | None, typer.Option(help="Or: the successful episodes, such as 0-9,12.")] = None,
    frames: Annotated[str | None, typer.Option(help="With --episodes: their success frames, such as 40-55; else the last one.")] = None,
    cut_after: Annotated[bool, typer.Option("--cut-after", help="End each successful episode with its last success frame.")] = False,
) -> None:
    """Write next.reward (1 on success frames) and next.done. Frames count from 0 in each episode, both ends included."""
    from hilserl.data.editing.success import mark_success

    with shown_progress():
        remarks = mark_success(folder, _ranges(from_, episodes, frames), into, cut_after=cut_after)
        for remark in remarks:
            print(f"note: {remark}.")
        _report(into)


@app.command()
def upgrade(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the dataset (LeRobotDataset v2.1).")], into: Into
) -> None:
    """Write a dataset of LeRobot's older version v2.1 as v3.0, with LeRobot's own converter; video is copied."""
    from hilserl.data.editing.upgrade import upgrade_dataset

    with shown_progress():
        upgrade_dataset(folder, into)
        _report(into)


def _crops(folder: Path, config: str | None, crop: str | None, resize: str | None) -> dict[str, Crop] | Crop:
    from hilserl.config import load_config
    from hilserl.data.editing.crop import Crop, centred_squares

    if config is not None and crop is not None:
        raise ConfigError("crop-preview: give --config or --crop, not both.")
    if config is not None:
        return {name: Crop(image.crop, image.resize) for name, image in load_config(config).observation.images.items()}

    def cut(top: int, left: int, height: int, width: int) -> Crop:
        if resize is None:
            return Crop((top, left, height, width), (min(height, _USUAL_SIZE), min(width, _USUAL_SIZE)))
        seen_height, seen_width = _whole_numbers("--resize", resize, "height,width")
        return Crop((top, left, height, width), (seen_height, seen_width))

    if crop is None:
        return {name: cut(*square) for name, square in centred_squares(folder).items()}
    return cut(*_whole_numbers("--crop", crop, "top,left,height,width"))


def _whole_numbers(option: str, text: str, form: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != form.count(",") + 1:
        raise ConfigError(f"crop-preview: {option} {text!r} is not {form} in whole pixels.")
    return numbers


def _ranges(file: Path | None, episodes: str | None, frames: str | None) -> tuple[SuccessRange, ...]:
    from hilserl.data.editing.episodes import parse_numbers
    from hilserl.data.editing.success import SuccessRange, read_ranges

    if (file is None) == (episodes is None) or (frames is not None and episodes is None):
        raise DatasetError("mark-success: give either --from FILE, or --episodes and perhaps --frames.")
    if file is not None:
        return read_ranges(file)
    assert episodes is not None
    start = end = None
    if frames is not None:
        numbers = parse_numbers(frames, "frames")
        start, end = numbers[0], numbers[-1]
        if len(numbers) != end - start + 1:
            raise DatasetError(f"frames {frames!r}: give one range, such as 40-55; for several, write a CSV file and use --from.")
    return tuple(SuccessRange(episode, start, end, f"--episodes {episodes}") for episode in parse_numbers(episodes))


def _report(target: Path) -> None:
    """Look the new dataset through, and say that it is there."""
    from hilserl.data.editing.check import check_result

    episodes, frames = check_result(target)
    print(f"{target}: {episodes} episodes, {frames} frames. How it was made: {target / 'meta' / 'hilserl_edits.json'}")


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
