"""`hilserl validate`: a configuration or a folder in, findings and a page out, and an exit code that says which."""

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
from pipeline_testing import TINY
from rich.console import Console

from commands.main import main
from commands.validate import show_finding
from hilserl.config.models import TrainConfig
from hilserl.data.validation import Finding
from hilserl.data.validation.assumed import assumed_config

# `reach` does not use the gripper, and its dataset cannot say that this is meant to be so.
HELD = ("--set", "observation.allow_constant=[joint_pos.wrist_roll, joint_pos.gripper, joint_vel.wrist_roll, joint_vel.gripper]")


@pytest.fixture
def demos(tiny_demonstrations: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(tiny_demonstrations, tmp_path / "my demos")


def validate(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["hilserl", "validate", *map(str, arguments)])
    try:
        main()
    except SystemExit as ending:
        return int(ending.code or 0)
    return 0


def edit_info(root: Path, **changes: object) -> None:
    path = root / "meta" / "info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_folder_alone_is_validated_and_says_what_was_assumed(
    demos: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert validate(demos, *HELD, monkeypatch=monkeypatch) == 0
    text = capsys.readouterr().out
    assert "No configuration was given" in text and "control rate 10 Hz, as recorded" in text
    assert "This can train" in text and "INFORMS" in text
    (page,) = (own_home / "validation").glob("my demos-*.html")
    assert str(page) in text.replace("\n", "") and "No configuration was given" in page.read_text()


def test_findings_that_stop_give_code_1_and_the_remedy_in_one_line(
    demos: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    table = next((demos / "data").rglob("*.parquet"))
    table.write_bytes(table.read_bytes()[:100])
    page = tmp_path / "somewhere" / "else.html"
    assert validate(demos, "--report", page, monkeypatch=monkeypatch) == 1
    text = capsys.readouterr().out
    assert "STOPS" in text and "A data file that cannot be used" in text and "stop" in page.read_text()
    assert not own_home.exists(), "nothing is written elsewhere"


def test_json_is_for_programs(demos: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate(demos, *HELD, "--json", "--videos", "all", monkeypatch=monkeypatch) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["can_train"] is True and Path(told["page"]).is_file() and told["assumed"]
    (dataset,) = told["datasets"]
    assert dataset["episodes"] == TINY["dataset.record.episodes"] and {"severity", "code", "place", "message", "remedy"} == set(
        dataset["findings"][0]
    )


def test_a_folder_is_validated_against_a_configuration(
    demos: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert validate(demos, "--config", "lift", monkeypatch=monkeypatch) == 1, "it was recorded for another task"
    assert "(configuration lift)" in " ".join(capsys.readouterr().out.split())
    assert validate(demos, "--config", "reach_state", "--set", "dataset.reward_from=none", monkeypatch=monkeypatch) == 0
    text = capsys.readouterr().out
    assert "WARNS" in text and "No configuration was given" not in text
    judged = ["task.success.by=classifier", "task.success.classifier=/nowhere/classifier"]
    assert (
        validate(demos, "--config", "reach_state", *(part for value in judged for part in ("--set", value)), monkeypatch=monkeypatch) == 1
    )
    assert "task.success.classifier" in capsys.readouterr().err, "who is to judge the training is asked for as well"


def test_a_configuration_is_validated_with_its_dataset(
    demos: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"extends: reach_state\nname: mine\ndataset: {{root: {json.dumps(str(demos))}, record: null}}\n")
    assert validate(file, monkeypatch=monkeypatch) == 0
    assert "(configuration mine)" in capsys.readouterr().out
    shutil.rmtree(demos)
    assert validate(file, monkeypatch=monkeypatch) == 1, "a dataset that is not there is a finding"
    assert "no such folder" in " ".join(capsys.readouterr().out.split())


def test_several_datasets_share_a_page(
    demos: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = shutil.copytree(demos, tmp_path / "other")
    file = tmp_path / "both.yaml"
    sources = json.dumps([{"root": str(demos)}, {"root": str(other), "weight": 2}])
    file.write_text(f"extends: reach_state\nname: both\ndataset: {{record: null, sources: {sources}}}\n")
    assert validate(file, "--json", monkeypatch=monkeypatch) == 0
    told = json.loads(capsys.readouterr().out)
    assert [dataset["root"] for dataset in told["datasets"]] == [str(demos), str(other)]
    assert Path(told["page"]).parent == own_home / "validation" and Path(told["page"]).name.startswith("both-")
    assert 'href="#source-2"' in Path(told["page"]).read_text()


@pytest.mark.failure("R19")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["reech"], "Did you mean `reach`?"),
        (["nowhere", "--config", "reach"], "no such folder"),
        (["reach", "--set", "x=1"], "`x` is unknown"),
    ],
)
def test_mistakes_are_one_message(
    arguments: list[str], words: str, own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert validate(*arguments, monkeypatch=monkeypatch) == 1
    told = capsys.readouterr()
    assert words in told.err and told.err.count("error:") == 1 and "Traceback" not in told.err
    assert not own_home.exists()


def test_a_page_that_cannot_be_written_costs_only_the_page(
    demos: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    assert validate(demos, *HELD, "--report", tmp_path / "file" / "page.html", monkeypatch=monkeypatch) == 0
    told = capsys.readouterr()
    assert "The page could not be written" in told.err and "This can train" in told.out


def test_a_remedy_is_never_wrapped_and_nothing_is_markup() -> None:
    console = Console(file=io.StringIO(), width=40, color_system=None)
    remedy = "dataset: {reward_from: success_at_end, action_from: joints, gripper: discrete}"
    show_finding(
        console, Finding("D02", "stops", "[red]place[/red]", "a long message that has to be wrapped somewhere", f"{remedy}\nsecond: line")
    )
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert f"          {remedy}" in lines and "          second: line" in lines
    assert any("[red]place[/red]" in line for line in lines)
    assert sum("message" in line or "wrapped" in line for line in lines) == 2


def test_a_configuration_is_derived_from_what_a_dataset_says(demos: Path) -> None:
    features = json.loads((demos / "meta/info.json").read_text())["features"]
    joints = [f"{joint}.pos" for joint in ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")]
    camera = {"dtype": "video", "shape": [480, 640, 3], "names": ["height", "width", "channels"]}
    vector = {"dtype": "float32", "shape": [6], "names": joints}
    edit_info(
        demos,
        fps=30,
        total_frames=15858,
        features=features | {"observation.images.top": camera, "action": vector, "observation.state": vector},
    )
    config = assumed_config(demos).config
    assert isinstance(config, TrainConfig)
    assert config.robot.control_hz == 30 and config.dataset.action_from == "joints" and config.task.type == "lift"
    assert (config.robot.cameras["top"].height, config.robot.cameras["top"].width) == (480, 640)
    assert config.observation.images["top"].resize == (84, 112), "not squashed"
    assert config.policy.offline_buffer_capacity == 2 * 15858
    assert config.dataset.reward_from is None, "what cannot be known is not assumed"
    edit_info(demos, fps=100)
    assert assumed_config(demos).config.dataset.frame_rate == "convert"


@pytest.mark.parametrize(
    "damage", [{"features": {"action": {}}}, {"features": {"observation.images.a": {"shape": ["x"]}}}, {"total_frames": "many"}]
)
def test_metadata_that_make_no_sense_leave_defaults(demos: Path, damage: dict[str, object]) -> None:
    edit_info(demos, **damage)
    assumed = assumed_config(demos)
    assert assumed.config.dataset.root == demos and any("defaults for" in sentence for sentence in assumed.assumptions)


@pytest.mark.failure("D02")
def test_what_is_printed_to_paste_is_a_configuration_that_settles_it(
    demos: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"extends: reach_state\nname: mine\ndataset: {{root: {json.dumps(str(demos))}, record: null}}\n")
    small = ("--set", "policy.offline_buffer_capacity=3")
    assert validate(file, *small, monkeypatch=monkeypatch) == 1
    printed = capsys.readouterr().out.partition("Everything to paste, as one configuration file:")[2].partition("Page with")[0]
    assert f"extends: {file}" in printed
    settled = tmp_path / "settled.yaml"
    settled.write_text(printed)
    assert validate(settled, monkeypatch=monkeypatch) == 0
    capsys.readouterr()
    assert validate(demos, *small, "--set", HELD[1], "--json", monkeypatch=monkeypatch) == 1
    settled.write_text(json.loads(capsys.readouterr().out)["paste"])
    assert validate(settled, monkeypatch=monkeypatch) == 0


def test_pages_of_two_configurations_do_not_overwrite_each_other(
    demos: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for _ in range(2):
        validate(demos, "--config", "lift", monkeypatch=monkeypatch)
        validate(demos, "--config", "reach_state", monkeypatch=monkeypatch)
    pages = sorted((own_home / "validation").iterdir())
    assert len(pages) == 2 and all(
        page.name in capsys_text for capsys_text in ["".join(capsys.readouterr().out.split("\n"))] for page in pages
    )
