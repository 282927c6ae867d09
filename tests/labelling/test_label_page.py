"""`hilserl label` as a person uses it: the real page in a real Chromium, on real encoded video."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from chromium_testing import Browser, Page

from hilserl.config import load_config
from hilserl.data.dataset import Dataset
from hilserl.demonstrations import record_demonstrations
from hilserl.errors import DatasetError
from hilserl.labelling.app import disagreements_app, labelling_app
from hilserl.labelling.disagreements import DisagreementSession
from hilserl.labelling.session import LabellingSession
from hilserl.reward.disagreements import Disagreements
from hilserl.reward.labels import Labels, labels_file

# The number that a canvas shows, read from its own pixels.
SHOWN = """(() => { const c = document.querySelectorAll('canvas')[%d], g = c.getContext('2d'); let n = 0;
for (let bit = 0; bit < 8; bit++) n |= (g.getImageData(bit * 16 + 8, 48, 1, 1).data[0] > 125) << bit; return n; })()"""


class Served:
    """A page's server in a thread."""

    def __init__(self, app: object) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none", lifespan="off"))  # type: ignore[arg-type]
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]}, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def close(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(20)
        self._listener.close()


@pytest.fixture
def dataset(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "cups"))


@pytest.fixture
def served(dataset: Path) -> Iterator[Served]:
    server = Served(labelling_app(LabellingSession(dataset, by="anna")))
    yield server
    server.close()


@pytest.fixture
def page(served: Served, browser: Browser) -> Iterator[Page]:
    page = browser.page(served.url)
    page.wait("document.querySelector('#frame').textContent.startsWith('frame')")
    yield page
    page.require_quiet()
    page.close()


def written(dataset: Path) -> dict[int, list[list[int]]]:
    file = labels_file(dataset)
    return {row["episode"]: row["success"] for row in json.loads(file.read_text())["episodes"]} if file.exists() else {}


def at(page: Page, frame: int) -> None:
    """Wait until that frame is shown, by its own pixels, on both cameras."""
    page.wait(f"{SHOWN % 0} === {frame} && {SHOWN % 1} === {frame + 100}")


def saved(page: Page, dataset: Path, episode: int, ranges: list[list[int]]) -> None:
    deadline = time.monotonic() + 30
    while written(dataset).get(episode) != ranges:
        assert time.monotonic() < deadline, (written(dataset), page.text("#trouble"))
        time.sleep(0.02)


def test_a_person_labels_a_dataset_by_keyboard(page: Page, dataset: Path) -> None:
    files = {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()}
    page.press("Home")
    at(page, 0)
    page.press("ArrowRight", "ArrowRight", "ArrowRight")
    at(page, 3)  # exactly that frame, and the same one on both cameras
    page.press("s")
    saved(page, dataset, 0, [[3, 12]])
    page.press("ArrowRight", "ArrowRight", "d")
    saved(page, dataset, 0, [[3, 5]])
    page.press("z")
    saved(page, dataset, 0, [[3, 12]])
    page.press("Enter")
    page.wait("document.querySelector('#episode').textContent === 'Episode 1'")
    page.press("f")  # failed: and on to the next
    saved(page, dataset, 1, [])
    page.wait("document.querySelector('#episode').textContent === 'Episode 2'")
    page.press("End")
    at(page, 35)
    page.press("s")
    saved(page, dataset, 2, [[11, 12]])
    assert "3 of 4 labelled: 2 with success, 1 failed" in page.text("#progress")
    assert {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()} == files  # never into it
    labels = Labels.load(Dataset.open(dataset))
    np.testing.assert_array_equal(labels.success(0), np.arange(12) >= 3)
    assert labels.get(1).is_failure and labels.get(1).by == "anna" and labels.success(3) is None  # type: ignore[union-attr]


def test_it_goes_on_where_one_stopped(browser: Browser, dataset: Path) -> None:
    before = Labels.load(Dataset.open(dataset))
    before.set(0, [(2, 4)])
    before.set(1, [])
    before.save()
    server = Served(labelling_app(LabellingSession(dataset)))
    page = browser.page(server.url)
    page.wait("document.querySelector('#episode').textContent === 'Episode 2'")
    page.press("p", "p")
    page.wait("document.querySelector('#episode').textContent === 'Episode 0'")
    assert page.text("#state") == "success"
    page.press("x")
    deadline = time.monotonic() + 30
    while 0 in written(dataset):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    page.require_quiet()
    page.close()
    server.close()


def test_a_dataset_that_changed_while_it_is_labelled_is_refused(page: Page, dataset: Path) -> None:
    next(dataset.rglob("*.mp4")).touch()
    page.press("s")
    page.wait("document.querySelector('#trouble').textContent.includes('changed while it was labelled')")
    assert written(dataset) == {}
    assert page.text("#state") == "not labelled"  # the page does not claim what is not on disk
    page.complaints.clear()  # the browser notes the refusal


def test_a_damaged_video_is_said_and_the_other_episodes_go_on(browser: Browser, dataset: Path) -> None:
    session = LabellingSession(dataset)
    video = next((dataset / "videos" / "observation.images.front").rglob("*.mp4"))
    video.write_bytes(video.read_bytes()[:200])
    server = Served(labelling_app(session))
    page = browser.page(server.url)
    page.wait("document.querySelector('#trouble').textContent.includes('truncated or damaged')")
    page.close()
    server.close()


def test_strangers_are_turned_away(served: Served) -> None:
    change = {"method": "PUT", "url": f"{served.url}api/episodes/0", "json": {"success": [[0, 2]]}}
    elsewhere = {"Origin": "http://evil.example"}
    assert httpx.request(**change, headers=elsewhere).status_code == 403
    assert httpx.get(f"{served.url}api/dataset", headers={"Host": "evil.example"}).status_code == 403
    assert httpx.request(**change, headers={"Origin": served.url.rstrip("/")}).status_code == 200
    answer = httpx.get(served.url)
    assert "default-src 'self'" in answer.headers["content-security-policy"] and "unsafe" not in answer.headers["content-security-policy"]
    for wrong in ([[0, 99]], [[5, 5]], [[-1, 3]]):
        assert httpx.put(f"{served.url}api/episodes/0", json={"success": wrong}).status_code == 409
    assert httpx.put(f"{served.url}api/episodes/77", json={"success": []}).status_code == 409
    assert httpx.put(f"{served.url}api/episodes/0", json={"success": "all"}).status_code == 422


def test_only_one_person_labels_at_a_time_and_never_into_the_dataset(dataset: Path, own_home: Path) -> None:
    first, second = LabellingSession(dataset), LabellingSession(dataset)
    with first.alone(), pytest.raises(DatasetError, match="another `hilserl label`"), second.alone():
        pass
    with pytest.raises(DatasetError, match="never written into the dataset"):
        LabellingSession(dataset, dataset / "meta" / "labels.json")


def test_frames_on_which_human_and_classifier_disagreed(browser: Browser, tmp_path: Path) -> None:
    kept = Disagreements(tmp_path / "disagreed")
    for number in range(3):
        image = np.full((48, 64, 3), 60 * number, np.uint8)
        kept.add({"wrist": image}, 0.9, False, "lift-1", number, 7, threshold=0.8)
    kept.close()
    server = Served(disagreements_app(DisagreementSession(kept.folder, by="anna")))
    page = browser.page(server.url)
    page.wait("document.querySelector('figure img')?.naturalWidth === 64")
    assert "success (0.90, threshold 0.80)" in page.text(".pair") and "episode 0, step 7" in page.text("#place")
    page.press("s", "d", "u")
    page.wait("document.querySelector('#state').textContent === 'cannot tell'")
    page.press("z", "s")
    deadline, names = time.monotonic() + 30, [entry.id for entry in kept.entries()]
    while kept.labels() != {names[0]: True, names[1]: False, names[2]: True}:
        assert time.monotonic() < deadline, kept.labels()
        time.sleep(0.02)
    page.wait("document.querySelector('#progress').textContent.includes('3 of 3')")
    page.require_quiet()
    page.close()
    server.close()


@pytest.mark.slow
def test_the_page_in_a_picture(browser: Browser, tmp_path: Path) -> None:
    """`HILSERL_SCREENSHOTS=docs/images` writes the picture of docs/labelling.md."""
    cameras = {name: {"width": 240, "height": 180, "fovy_deg": view} for name, view in (("wrist", 75), ("front", 45))}
    changes = {"robot.cameras": cameras, "observation.images": {name: {"resize": [84, 84]} for name in cameras}}
    root = tmp_path / "monday"
    record_demonstrations(load_config("lift", {**changes, "dataset.record.episodes": 6}), root)
    labels = Labels.load(Dataset.open(root))
    labels.set(0, [(labels.frames[0] - 4, labels.frames[0])])
    labels.set(1, [])
    labels.save()
    server = Served(labelling_app(LabellingSession(root, by="anna")))
    page = browser.page(server.url, width=1180, height=800)
    page.wait("document.querySelector('#frame').textContent.startsWith('frame')")
    page.press("End", *["ArrowLeft"] * 4, "s", *["ArrowRight"] * 2)
    saved(page, root, 2, [[labels.frames[2] - 5, labels.frames[2]]])
    page.wait("document.querySelectorAll('canvas')[1].width === 240")
    folder = os.environ.get("HILSERL_SCREENSHOTS")
    assert len(page.screenshot((Path(folder) if folder else tmp_path) / "label.png")) < 200_000
    page.size(390, 844, phone=True)
    assert not page.has_sideways_scroll()
    page.close()
    server.close()


@pytest.mark.slow
def test_the_command_serves_until_ctrl_c_and_says_how_far_one_is(dataset: Path, own_home: Path) -> None:
    command = [sys.executable, "-m", "commands.main", "label", str(dataset), "--no-browser", "--port", "0", "--by", "anna"]
    child = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        url = next(line.split()[0] for line in child.stdout if line.startswith("http://127.0.0.1:"))
        assert httpx.put(f"{url}api/episodes/1", json={"success": [[4, 12]]}, timeout=60).json()["next"] == 0
        child.send_signal(signal.SIGINT)
        assert "1 of 4 episodes labelled, 1 with success, 0 failed" in child.stdout.read()
        assert child.wait(60) == 0
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    refused = subprocess.run([*command[:4]], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert refused.returncode == 1 and "--disagreements FOLDER: one of the two" in refused.stderr
