"""The page: complete, self-contained, safe with hostile names, and there even for a wreck of a dataset."""

import base64
import html
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from data_helpers import LENGTHS, NATIVE, ToyArm, drop_feature, edit_info, make_config, number_in, set_column, update

from hilserl.config.models import TrainConfig
from hilserl.data.dataset import Dataset
from hilserl.data.preprocess import Preprocessor
from hilserl.data.sources import Source
from hilserl.data.validation.findings import Alignment, Drift, Finding, ValidationReport
from hilserl.data.validation.page import write_sources_page, write_validation_page
from hilserl.data.validation.page_markdown import validation_markdown
from hilserl.data.validation.page_material import Material
from hilserl.progress import Progress, subscribed

VOID = {"meta", "img", "br", "hr", "link", "input"}
HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&amp;{{ 7*7 }}"


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and the text of each."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.source = file.read_text()
        self.feed(self.source)
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    @property
    def text(self) -> str:
        return " ".join("".join(data for tag, data in self.texts if tag != "style").split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def within(self, tag: str) -> list[str]:
        return [data for name, data in self.texts if name == tag]


def picture(uri: str | None) -> np.ndarray:
    assert uri is not None and uri.startswith("data:image/")
    image = cv2.imdecode(np.frombuffer(base64.b64decode(uri.partition(",")[2]), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    return image


def report_of(root: Path, *findings: Finding, **more: object) -> ValidationReport:
    return ValidationReport(str(root), findings, sum(map(bool, LENGTHS)), sum(LENGTHS), 10.0, **more)  # type: ignore[arg-type]


def test_the_page_needs_nothing_but_itself(config: TrainConfig, demos: Path, tmp_path: Path) -> None:
    page = Page(write_validation_page(config, demos, report_of(demos), tmp_path / "page.html"))
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            assert (attributes.get(name) or "#").startswith(("data:image/", "#")), attributes
        assert not any(name.startswith("on") for name in attributes)
    assert not page.of("script") + page.of("link") + page.of("iframe") + page.of("object")
    assert "url(" not in page.source and "@import" not in page.source and "http" not in page.source


@pytest.mark.failure("D14")
def test_pictures_show_the_first_frame_raw_and_as_the_policy_sees_it(config: TrainConfig, demos: Path, tmp_path: Path) -> None:
    page = Page(write_validation_page(config, demos, report_of(demos), tmp_path / "page.html"))
    images = page.of("img")
    native = [picture(image["src"]) for image in images if "as recorded" in (image["alt"] or "")]
    seen = [picture(image["src"]) for image in images if "policy" in (image["alt"] or "")]
    assert [number_in(frame) for frame in native] == [0, *np.cumsum(LENGTHS)[:-1]]
    assert all(frame.shape == (*NATIVE, 3) for frame in native) and all(frame.shape == (48, 48, 3) for frame in seen)
    for raw, view in zip(native, seen, strict=True):  # raw went through JPEG, the view did not
        assert np.abs(Preprocessor.from_config(config).image("wrist", raw).astype(int) - view).mean() < 4
    crops = [attributes["style"] for attributes in page.of("i") if "width" in (attributes.get("style") or "")]
    assert crops == ["left:12.50%;top:0.00%;width:75.00%;height:100.00%"] * len(LENGTHS)


@pytest.mark.parametrize(("stops", "headline"), [(0, "This can train"), (1, "One thing stops training"), (3, "3 things stop training")])
def test_every_finding_is_there_with_its_remedy_to_copy(
    config: TrainConfig, demos: Path, tmp_path: Path, stops: int, headline: str
) -> None:
    findings = [Finding("D02", "stops", f"`next.reward` {i}", f"reason {i} < {i + 1}", f"dataset:\n  number: {i}") for i in range(stops)]
    findings += [Finding("D16", "warns", "observation.state", "constant", ""), Finding("Z99", "informs", "nowhere", "of an unknown kind")]
    page = Page(write_validation_page(config, demos, report_of(demos, *findings), tmp_path / "page.html"))
    assert page.within("h1") == [headline]
    for finding in findings:
        assert finding.message in page.text and finding.code in page.text and finding.place.replace("`", "") in page.text
    assert page.within("pre")[:stops] == [finding.remedy for finding in findings[:stops]]
    assert "Where the reward comes from" in page.text or not stops
    assert len(page.of("article")) == stops + 2


def test_a_kind_of_finding_that_comes_in_thousands_does_not_bury_the_others(config: TrainConfig, demos: Path, tmp_path: Path) -> None:
    many = [Finding("D18", "stops", f"episode {i}", f"damaged number {i}.") for i in range(5000)]
    report = report_of(demos, *many, Finding("D02", "stops", "reward", "the only one of its kind"))
    page = Page(write_validation_page(config, demos, report, tmp_path / "page.html"))
    assert page.within("h1") == ["5001 things stop training"]
    assert "damaged number 24." in page.text and "damaged number 25." not in page.text
    assert "4975 more of this kind are not shown" in page.text and "the only one of its kind" in page.text
    summary = validation_markdown([(Source(config, demos), report)], tmp_path / "page.html")
    assert "and 4990 more of this kind" in summary and "the only one of its kind" in summary
    assert summary.count("data:image/png") == 3, "and pictures"


def test_markdown_of_hostile_names_is_text(config: TrainConfig, demos: Path) -> None:
    report = report_of(demos, Finding("D01", "stops", "`open", "<b>bold</b> [link](javascript:x) `<i>code</i>`", "a: <b>"))
    summary = validation_markdown([(Source(config, demos), report)], None)
    assert "<b>bold" not in summary and "&lt;b&gt;bold" in summary and "\\[link\\](" in summary
    assert "`<i>code</i>`" in summary and "'open" in summary


def test_hostile_names_stay_text(demos: Path, tmp_path: Path) -> None:
    folder = demos.rename(tmp_path / "x<img src=x onerror=alert(1)>")
    names = Dataset.open(folder).names("observation.state")
    assert names is not None
    edit_info(folder, lambda info: info["features"]["observation.state"].update(names=[HOSTILE, *names[1:]]))
    edit_info(folder, lambda info: info["features"]["action"].update(names=[HOSTILE] * 3))
    finding = Finding("D01", "stops", HOSTILE, f"`{HOSTILE}` {HOSTILE}", HOSTILE)
    report = report_of(folder, finding, drift=(Drift(HOSTILE, HOSTILE, HOSTILE),))
    page = Page(write_validation_page(make_config(folder), folder, report, tmp_path / "page.html"))
    assert not page.of("script")
    assert all((image["src"] or "").startswith("data:image/") and "onerror" not in image for image in page.of("img"))
    assert HOSTILE in page.within("pre") and HOSTILE in page.within("figcaption") and page.within("td").count(HOSTILE) == 2
    assert HOSTILE not in page.source and html.escape("<script>") in page.source


def cut_video(root: Path) -> None:
    (video,) = (root / "videos").rglob("*.mp4")
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])


def scramble(root: Path, pattern: str) -> None:
    for file in root.glob(pattern):
        file.write_bytes(b"PAR1" + bytes(200) + b"PAR1")


def no_numbers(root: Path) -> None:
    for key, size in (("observation.state", 18), ("action", 3)):
        set_column(root, key, np.full((sum(LENGTHS), size), np.nan, np.float32))


WRECKS: dict[str, tuple[Callable[[Path], object], bool, bool]] = {
    # name: (damage, whether the charts, whether some pictures can still be drawn)
    "no such folder": (shutil.rmtree, False, False),
    "no metadata": (lambda root: (root / "meta/info.json").unlink(), False, False),
    "metadata that say nothing": (lambda root: (root / "meta/info.json").write_text("[]"), False, False),
    "features that say nothing": (lambda root: edit_info(root, lambda info: info.update(features={"action": {}})), True, False),
    "frames not readable": (lambda root: scramble(root, "data/*/*.parquet"), False, False),
    "episodes not readable": (lambda root: scramble(root, "meta/episodes/*/*.parquet"), True, False),
    "video missing": (lambda root: shutil.rmtree(root / "videos"), True, False),
    "video cut": (cut_video, True, True),
    "not a number anywhere": (no_numbers, True, True),
    "no state": (lambda root: drop_feature(root, "observation.state"), True, True),
    "no action": (lambda root: drop_feature(root, "action"), True, True),
    "no reward": (lambda root: drop_feature(root, "next.reward"), True, True),
    "no camera": (lambda root: edit_info(root, lambda info: info["features"].pop("observation.images.wrist")), True, False),
    "another size": (lambda root: edit_info(root, lambda info: info["features"]["action"].update(shape=[7])), True, True),
}


@pytest.mark.failure("D18")
@pytest.mark.parametrize("name", WRECKS)
def test_a_wreck_still_gives_a_page_that_says_what_is_missing(name: str, demos: Path, tmp_path: Path) -> None:
    damage, charts, pictures = WRECKS[name]
    damage(demos)
    report = report_of(demos, Finding("D18", "stops", "somewhere", "broken"))
    page = Page(write_validation_page(make_config(demos), demos, report, tmp_path / "page.html", ToyArm(make_config(demos))))
    assert page.within("h1") == ["One thing stops training"] and "broken" in page.text
    assert "Not drawn: " in page.text or "Not complete: " in page.text or not (charts and pictures)
    assert bool(page.of("svg")) == charts
    assert bool(page.of("img")) == pictures
    assert "Traceback" not in page.text


def test_the_dataset_is_only_read(config: TrainConfig, demos: Path, tmp_path: Path) -> None:
    def state() -> dict[Path, tuple[int, int, bytes]]:
        files = (file for file in demos.rglob("*") if file.is_file())
        return {file: (file.stat().st_mtime_ns, file.stat().st_ino, file.read_bytes()) for file in files}

    before = state()
    for file in before:
        file.chmod(0o444)
    write_validation_page(config, demos, report_of(demos), tmp_path / "page.html")
    assert state() == before


def test_the_tool_path_is_computed_where_it_was_not_recorded(
    teleop_config: TrainConfig, teleop: Path, config: TrainConfig, demos: Path
) -> None:
    arm = ToyArm(teleop_config)
    dataset = Dataset.open(teleop)
    joints = dataset.column("observation.state").astype(float)
    paths = Material(teleop_config, teleop, arm).tool_paths()
    assert len(paths) == len(dataset.episodes)
    for path, episode in zip(paths, dataset.episodes, strict=True):
        np.testing.assert_allclose(path, joints[episode.start : episode.stop, :3] * 0.01, rtol=1e-6)  # 1 cm a degree
    recorded = Material(config, demos).tool_paths()  # no kinematics needed where it was recorded
    assert [len(path) for path in recorded] == list(LENGTHS)
    np.testing.assert_array_equal(np.concatenate(recorded), Dataset.open(demos).column("observation.state")[:, 12:15])


def test_positions_outside_the_workspace_are_counted(config: TrainConfig, demos: Path, tmp_path: Path) -> None:
    tool = Dataset.open(demos).column("observation.state")[:, 12:15].astype(float)
    low, high = np.array(config.robot.workspace_min_m), np.array(config.robot.workspace_max_m)
    outside = sum(bool((row < low).any() or (row > high).any()) for row in tool)
    page = Page(write_validation_page(config, demos, report_of(demos), tmp_path / "page.html"))
    assert 0 < outside < len(tool)
    assert f"{outside} of {len(tool)} positions are outside the bounds" in page.text


def test_alignment_and_drift_are_shown(config: TrainConfig, demos: Path, tmp_path: Path) -> None:
    alignment = Alignment((-2, -1, 0, 1, 2), (0.1, 0.3, 0.5, 0.9, 0.4), 1)
    report = report_of(demos, alignment=alignment, drift=(Drift("robot.control_hz", "30", "10"),))
    page = Page(write_validation_page(config, demos, report, tmp_path / "page.html"))
    assert "best at 1 frames, which the findings judge" in page.text and "Replay alignment" in page.text
    late = report_of(demos, alignment=Alignment((-2, -1, 0, 1, 2), (0.1, 0.9, 0.5, 0.3, 0.4), -1))
    told = Page(write_validation_page(config, demos, late, tmp_path / "late.html")).text
    assert "best at -1 frames, so the motion comes before its command" in told
    assert page.within("td") == ["30", "10"] and "robot.control_hz" in page.text
    without = Page(write_validation_page(config, demos, report_of(demos), tmp_path / "page.html"))
    assert "holds no measured motion" in without.text and not without.of("table")


def test_several_datasets_have_a_part_each(demos: Path, teleop: Path, tmp_path: Path) -> None:
    base = make_config(demos)
    other = make_config(teleop, action_from="joints", reward_from="success_at_end")
    parts = [
        (Source(base, demos), report_of(demos, Finding("D02", "stops", "here", "first problem"))),
        (Source(other, teleop, 2.5, "correction"), report_of(teleop, Finding("D03", "warns", "there", "second problem"))),
    ]
    page = Page(write_sources_page(base, parts, tmp_path / "page.html", ToyArm))
    links = [attributes["href"] for attributes in page.of("a")]
    assert links == ["#source-1", "#source-2"]
    assert [attributes["id"] for attributes in page.of("section")] == ["source-1", "source-2"]
    assert "first problem" in page.text and "second problem" in page.text and "correction, weight 2.5" in page.text
    assert page.within("h1") == ["One thing stops training"]
    assert "Actions as the policy learns them" in page.text, "the second one is converted by its own kinematics"


def test_a_gripper_is_traced_as_commanded_and_measured(teleop_config: TrainConfig, teleop: Path, tmp_path: Path) -> None:
    page = Page(write_validation_page(teleop_config, teleop, report_of(teleop), tmp_path / "page.html", ToyArm(teleop_config)))
    assert "commanded (% open)" in page.text and "measured" in page.text


def test_discrete_grippers_and_step_sizes_are_named_with_their_unit(config: TrainConfig, demos: Path) -> None:
    lift = update(config, task={"type": "lift"}, dataset={"gripper": "discrete", "action_scale_m": 0.015})
    scalars = Material(lift, demos).policy_action_scalars()
    assert scalars[0].unit == "1 is 15 mm a step" and scalars[0].limits == (-1.0, 1.0)
    assert scalars[3].unit == "0 closes, 1 stays, 2 opens" and scalars[3].limits == (0.0, 2.0)


def test_progress_is_published(config: TrainConfig, demos: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    with subscribed(seen.append):
        write_validation_page(config, demos, report_of(demos), tmp_path / "page.html")
    assert {progress.stage for progress in seen} == {"validate-dataset"}
    assert any("first frames" in progress.message for progress in seen)
    assert all(progress.total is not None and progress.done <= progress.total for progress in seen)


def test_a_large_dataset_is_thinned(config: TrainConfig, demos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hilserl.data.validation import page, page_material

    monkeypatch.setattr(page, "_PICTURED_EPISODES", 2)
    monkeypatch.setattr(page_material, "_MAX_CONVERTED_FRAMES", 16)
    thinned = Page(write_validation_page(config, demos, report_of(demos), tmp_path / "page.html"))
    assert [text for text in thinned.within("figcaption") if text.startswith("Episode")][:2] == ["Episode 0", "Episode 3"]
    assert "2 of 4 episodes" in thinned.text and "2 episodes against the configured workspace" in thinned.text


def test_everything_to_paste_is_one_block(config: TrainConfig, demos: Path, tmp_path: Path) -> None:
    findings = [
        Finding("D02", "stops", "a", "m", "dataset: {reward_from: success_at_end}  # if all succeed"),
        Finding("D18", "stops", "b", "m", "dataset: {exclude_episodes: [1]}  # to train without\n# or restore the file"),
        Finding("D18", "warns", "c", "m", "dataset: {exclude_episodes: [2]}"),
    ]
    page = Page(write_validation_page(config, demos, report_of(demos, *findings), tmp_path / "page.html"))
    assert yaml.safe_load(page.within("pre")[0]) == {"dataset": {"reward_from": "success_at_end", "exclude_episodes": [1, 2]}}
    assert "Everything to paste" in page.text
    summary = validation_markdown([(Source(config, demos), report_of(demos, *findings))], None, config)
    assert "Everything to paste:" in summary and "  exclude_episodes: [1, 2]" in summary
    without = Page(write_validation_page(config, demos, report_of(demos), tmp_path / "page.html"))
    assert "Everything to paste" not in without.text


def test_actions_and_state_are_drawn_without_rewards(teleop: Path, tmp_path: Path) -> None:
    config = make_config(teleop, action_from="joints")
    page = Page(write_validation_page(config, teleop, report_of(teleop), tmp_path / "page.html", ToyArm(config)))
    assert "After conversion, clipped to" in page.text and "Computed from the recorded joints." in page.text
    assert "Which episodes succeeded is not known" in page.text
