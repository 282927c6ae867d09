"""The live display: what a person sees at 80 columns, and in a log file."""

import io

import pytest
from rich.console import Console

from commands.display import STAGES, Display
from hilserl.progress import Progress, publish

LEARNING = {"episode/success": 0.5, "intervention/rate": 0.1, "steps_per_s": 123.0, "updates_per_s": 246.0, "owed_updates": 64.0}


def screen(width: int = 80, *, terminal: bool = True) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None, highlight=False)


def text_of(display: Display) -> str:
    console = screen()
    console.print(display._render())
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_row_of_a_long_run_fits_into_80_columns() -> None:
    with Display("hilserl", screen()) as display:
        publish(Progress("train-learner", done=1500, total=20000, unit="steps", values=LEARNING))
        shown = text_of(display)
    assert "1500/20000 steps" in shown and "…" not in shown
    assert "123 steps/s, 246 updates/s, 64 owed" in shown


def test_stages_follow_each_other_and_show_what_was_cached() -> None:
    with Display("hilserl", screen()) as display:
        display.begin("start-prefect")
        publish(Progress("record-demonstrations", cached=True))
        publish(Progress("validate-dataset"))
        rows = {label: line for line in text_of(display).splitlines() for label in STAGES.values() if label in line}
    assert "✓" in rows["Start Prefect"] and "cached" in rows["Record demonstrations"]
    assert "✓" not in rows["Validate the dataset"] and "·" in rows["Evaluate"]


@pytest.mark.parametrize(("error", "mark"), [(None, "✓"), (RuntimeError("broken"), "✗")])
def test_the_last_picture_says_how_it_ended(error: Exception | None, mark: str) -> None:
    display = Display("hilserl", screen())
    display.__enter__()
    display.begin("train-learner")
    display.__exit__(type(error) if error else None, error, None)
    assert f"{mark} Learn" in text_of(display).replace("  ", " ")


def test_notes_and_the_request_to_stop_are_shown_once() -> None:
    with Display("hilserl", screen()) as display:
        display.note("install libegl1")
        display.note("install libegl1")
        display.stopping()
        shown = text_of(display)
    assert shown.count("install libegl1") == 1 and "Stopping" in shown


def test_the_curve_spans_the_whole_run() -> None:
    with Display("hilserl", screen()) as display:
        for index in range(1000):
            publish(Progress("train-learner", done=1 + index, total=1000, unit="steps", values={"episode/success": index / 999}))
        shown = text_of(display)
    assert "▁" in shown and "█" in shown, "the beginning and the end of the run are both in it"


def test_plain_lines_elsewhere_than_on_a_terminal() -> None:
    console = screen(terminal=False)
    with Display("hilserl", console) as display:
        display.begin("start-prefect")
        publish(Progress("record-demonstrations", done=1, total=5, unit="episodes"))
        display.note("a note")
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0].startswith("Start Prefect: done in")
    assert lines[1].strip() == "Record demonstrations: 1/5 episodes" and lines[2] == "note: a note"


def test_a_phase_that_is_left_out_is_shown_as_skipped_with_its_reason_in_the_log() -> None:
    with Display("hilserl", screen()) as display:
        publish(Progress("record-demonstrations", message="there are none", skipped=True))
        rows = {label: line for line in text_of(display).splitlines() for label in STAGES.values() if label in line}
    assert "skipped" in rows["Record demonstrations"] and "skipped" not in rows["Validate the dataset"]
    plain = Display("hilserl", screen(terminal=False), plain=True)
    with plain:
        publish(Progress("record-demonstrations", message="there are none", skipped=True))
    assert "Record demonstrations: skipped, there are none" in plain.console.file.getvalue()  # type: ignore[attr-defined]


def test_an_environment_without_success_shows_its_return() -> None:
    values = {"episode/return": -153.25, "eval/return": -120.5, "steps_per_s": 50.0, "updates_per_s": 50.0}
    with Display("hilserl", screen()) as display:
        publish(Progress("train-learner", done=10, total=20, unit="steps", values=values))
        shown = text_of(display)
    assert "-153.2" in shown and "-120.5" in shown and "success" not in shown
