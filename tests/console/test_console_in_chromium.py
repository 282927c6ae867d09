"""The console end to end: a real headless Chromium, the real server, a real actor on the simulation.

`HILSERL_SCREENSHOTS=docs/images pytest -m slow tests/console/test_console_in_chromium.py` makes the pictures of docs/console.md.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium_testing import Browser, Page, chromium
from console_testing import Playing, make_config, playing, until
from pipeline_testing import Session, make_tiny_config, open_run, train

from hilserl.actor import run as actor_run
from hilserl.config import TrainConfig, load_config
from hilserl.console.operator import ConsoleOperator
from hilserl.console.process import running_consoles
from hilserl.data.dataset import Dataset
from hilserl.files import home
from hilserl.link.auth import read_token
from hilserl.robot.latch import latched
from hilserl.runs import token_file
from hilserl.services.processes import free_port

CONTROL = "document.body.dataset.control"
STEP = "(Number(document.querySelectorAll('#episode b')[1].textContent) || 0)"
IN_EPISODE = f"['policy', 'human'].includes({CONTROL})"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = os.environ.get("HILSERL_SCREENSHOTS")
    return Path(folder) if folder else tmp_path


def seen_config(**overrides: Any) -> TrainConfig:
    """Two cameras, as an arm has them, and time to look."""
    settings = {
        "robot.cameras.wrist": {"width": 240, "height": 180, "fovy_deg": 75},
        "robot.cameras.front": {"width": 240, "height": 180, "fovy_deg": 45},
        "observation.images": {"wrist": {"resize": [84, 84]}, "front": {"resize": [84, 84]}},
        "task.control_time_s": 60,
        "console.enable": True,
        "console.port": 0,
        "actor.intervention.type": "none",
        "actor.evaluate_every_steps": 0,
        "tracking.enable": False,
    }
    return load_config("lift", settings | overrides)


def opened(browser: Browser, game: Playing, **size: int) -> Page:
    page = browser.page(game.url, **size)
    page.wait(f"{IN_EPISODE} || {CONTROL} === 'nobody'")
    return page


def take_over(page: Page, *keys: str) -> None:
    """Press keys until this page drives, as a person does who sees that it did not take, or that the arm holds."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not page.eval("document.querySelector('#motion-buttons button.main').disabled"):
            page.press("Enter")
        for key in keys:
            page.down(key)
        with contextlib.suppress(AssertionError):
            page.wait("document.querySelector('#who').textContent === 'You drive'", 2)
            return
        for key in keys:
            page.up(key)
        time.sleep(0.1)
    raise AssertionError(page.text("body"))


def drive(page: Page, key: str, steps: int) -> None:
    """Drive until the episode has so many steps; a busy machine makes the dead-man hold the arm now and then, and one goes on."""
    deadline = time.monotonic() + 90
    while page.eval(STEP) < steps:
        assert time.monotonic() < deadline, page.text("body")
        take_over(page, key)
        with contextlib.suppress(AssertionError):
            page.wait(f"{STEP} >= {steps} || {CONTROL} !== 'human'", 10)
        page.up(key)


def test_a_person_takes_over_marks_success_and_stops_the_arm(browser: Browser, own_home: Path) -> None:
    with playing(make_config(actor__intervention__type="console")) as game:
        page = opened(browser, game)
        page.wait(f"{CONTROL} === 'policy'")
        take_over(page, "ArrowUp")
        game.until(lambda: sum(step.is_intervention and step.action[0] > 0.9 for step in game.link.steps) > 3)
        page.up("ArrowUp")
        page.wait(f"{CONTROL} === 'policy'")  # let go: handed back
        page.press("s")
        game.until(lambda: any(report.is_success for report in game.link.reports))
        page.wait("document.querySelector('#episodes .chip.success')")
        page.press(" ")
        page.wait(f"{CONTROL} === 'stopped' && !document.querySelector('#stopped').hidden")
        assert latched(game.config.robot.id) is not None
        count = len(game.link.steps)
        page.press("Enter")  # starts nothing
        page.wait("document.querySelector('#rearm').hidden === false")
        page.press("m")
        page.type(game.config.robot.id)
        page.press("Enter")
        page.wait(f"{CONTROL} === 'nobody' && document.querySelector('#who').textContent === 'Waits for start'")
        assert len(game.link.steps) == count and latched(game.config.robot.id) is None
        page.press("Enter")
        game.until(lambda: len(game.link.steps) > count)
        page.require_quiet()
        page.close()


@pytest.mark.slow
def test_the_page_from_start_to_evaluation_in_pictures(browser: Browser, own_home: Path, pictures: Path) -> None:
    config = seen_config(**{"actor.intervention.type": "console"})
    with playing(config) as game:
        page = opened(browser, game, width=1360, height=860)
        page.wait("[...document.querySelectorAll('#cameras canvas')].every((canvas) => canvas.dataset.number)")
        for number in range(6):  # a few episodes, some of which a person calls a success
            drive(page, "ArrowUp" if number % 2 else "ArrowLeft", 12)
            page.press("f" if number % 3 == 0 else "s")
            game.until(lambda number=number: len(game.link.reports) > number)
            page.wait(f"{STEP} < 8")  # the next one is on
        page.wait(f"document.querySelectorAll('#episodes .chip').length >= 5 && {CONTROL} === 'policy'")
        game.until(lambda: game.link.steps[-1].step > 15)
        assert page.eval("document.querySelector('#map .path').getAttribute('d').length") > 20
        save(page, pictures / "console.png")
        take_over(page, "ArrowDown", "d")
        page.size(1360, 860, dark=True)
        save(page, pictures / "console-driving-dark.png")
        page.up("ArrowDown")
        page.up("d")
        page.size(1200, 740)
        page.press("2")
        page.wait("[...document.querySelectorAll('#replay canvas')].filter((picture) => picture.dataset.frame > 0).length === 2")
        page.wait("Number(document.querySelector('#replay-at').value) >= 8")
        save(page, pictures / "console-replay.png")
        page.press("Escape")
        page.press("l")
        page.wait("document.querySelector('canvas.policy')?.width === 84")  # what the policy sees, at its own size
        page.press("l", "h")
        page.wait(f"{CONTROL} === 'held'")
        page.size(390, 844, phone=True)
        page.open(game.url)  # as a phone would
        page.wait(f"{CONTROL} === 'held' && document.querySelector('canvas')?.dataset.number")
        assert not page.has_sideways_scroll()
        x, y = page.place("#stick-move")
        page.eval("scrollTo(0, 0)")
        save(page, pictures / "console-phone.png")
        page.click("#motion-buttons button.main")
        page.wait(f"{CONTROL} === 'policy'")
        x, y = page.place("#stick-move")
        page.touch("touchStart", (x, y))
        page.touch("touchMove", (x, y - 50))
        page.wait("document.querySelector('#who').textContent === 'You drive'")
        page.touch("touchEnd")
        page.size(1360, 860)
        page.press(" ")
        page.wait("!document.querySelector('#stopped').hidden && !document.querySelector('#rearm').hidden")
        save(page, pictures / "console-stopped.png")
        page.require_quiet()
        page.close()


@pytest.mark.slow
def test_a_demonstration_is_recorded_from_the_page_by_keyboard_alone(
    browser: Browser, own_home: Path, tmp_path: Path, pictures: Path
) -> None:
    overrides = ["console.port=0", "actor.intervention.type=console", "robot.cameras.wrist={width: 240, height: 180, fovy_deg: 75}"]
    command = [sys.executable, "-m", "commands.main", "record", "lift", "--into", str(tmp_path / "demos"), "--episodes", "2", "--console"]
    recorder = subprocess.Popen([*command, *(part for setting in overrides for part in ("--set", setting))], cwd=Path(__file__).parents[2])
    try:
        entry = until(lambda: next(iter(running_consoles()), None), what="the console of `hilserl record`", seconds=120)
        page = browser.page(entry["url"])
        page.wait("document.querySelector('#run-robot').textContent.includes('record')")
        page.wait(f"{CONTROL} !== 'unknown'")
        for kept in range(2):
            page.wait("document.querySelector('#recording b')?.textContent === " + repr(f"{kept} of 2 demonstrations saved"))
            page.wait("document.querySelector('#episode b').textContent !== '–'")
            take_over(page, "ArrowUp")
            page.wait(f"{STEP} > 5")
            if not kept:
                save(page, pictures / "console-recording.png")
                page.press("r")  # that was nothing: again
                page.wait(f"{STEP} < 5")
                page.up("ArrowUp")
                take_over(page, "ArrowUp")
                page.wait(f"{STEP} > 5")
            page.up("ArrowUp")
            page.press("s")
        assert recorder.wait(120) == 0
        page.close()
    finally:
        if recorder.poll() is None:
            recorder.send_signal(signal.SIGINT)
            recorder.wait(60)
    dataset = Dataset.open(tmp_path / "demos")
    assert len(dataset.episodes) == 2
    for episode in dataset.episodes:
        rows = slice(episode.start, episode.stop)
        assert dataset.column("next.reward")[rows][-1] == 1.0 and dataset.column("action")[rows][:, 0].max() > 0.9


@pytest.mark.slow
def test_training_takes_in_what_was_driven_from_the_page(browser: Browser, own_home: Path, tiny_buffer: Path) -> None:
    settings = {"actor__intervention__type": "console", "actor__evaluate_every_steps": 0, "policy__online_steps": 400}
    config = make_tiny_config(
        console__enable=True, console__port=0, console__wait_for_start=True, task__control_time_s=3, robot__control_hz=20, **settings
    )
    run, session, addresses = open_run(config), Session(), list[str]()
    learner = threading.Thread(target=lambda: train(config, run, tiny_buffer, on_listening=addresses.append, session=session), daemon=True)
    learner.start()
    until(lambda: addresses, what="the learner")
    operator = ConsoleOperator(config, mode="train", run=run.run_id)
    finished: list[Any] = []

    def act() -> None:
        token = read_token(token_file(run.run_id))
        settings = {"token": token, "run_id": run.run_id, "journal_folder": home() / "actors", "should_stop": lambda: None}
        finished.append(actor_run.run_actor(config, address=addresses[0], operator=operator, **settings))

    actor = threading.Thread(target=act, daemon=True)
    actor.start()
    page = browser.page(until(lambda: operator.url, what="the console"))
    page.wait("document.querySelector('#who').textContent === 'Waits for start'")
    page.press("q")
    page.click("#real-time")  # an unthrottled simulation is faster than anybody's eyes
    page.wait("document.querySelector('#real-time').checked")
    page.press("Enter")
    page.wait(f"{CONTROL} === 'policy'")
    drive(page, "ArrowUp", 25)
    page.wait("document.querySelector('#learner b').textContent === 'on'")
    page.click("#real-time")
    until(lambda: finished, what="the end of the training", seconds=240)
    learner.join(60)
    actor.join(20)
    operator.close()
    page.close()
    assert session.result is not None
    rates = [values["intervention/rate"] for values in session.metrics.values if "intervention/rate" in values]
    assert max(rates) > 0  # and nobody but the page could take over


@pytest.mark.slow
@pytest.mark.failure("R21")
def test_the_arm_holds_when_the_page_that_drives_is_gone(browser: Browser, own_home: Path, pictures: Path) -> None:
    with playing(make_config(actor__intervention__type="console", console__port=free_port())) as game:
        driver, onlooker = opened(browser, game), opened(browser, game)
        driver.wait(f"{CONTROL} === 'policy'")
        take_over(driver, "ArrowUp")
        driver.close()  # the tab is closed with the key down
        onlooker.wait(f"{CONTROL} === 'held'")
        count = len(game.link.steps)
        assert np.abs(game.link.steps[-1].action).max() < 1e-6 or game.link.steps[-1].truncated
        onlooker.wait("document.querySelector('#seat').textContent.includes('No page is in control')")
        onlooker.press("Enter")
        onlooker.wait(f"{CONTROL} === 'policy'")
        game.until(lambda: len(game.link.steps) > count)
        onlooker.press("q")
        take_over(onlooker, "ArrowLeft")
        game.operator._process._process.kill()  # type: ignore[union-attr]  # the whole server dies, while the key is down
        onlooker.wait("!document.querySelector('#lost').hidden")
        save(onlooker, pictures / "console-lost.png")
        game.until(lambda: game.operator._commands.held_because)
        onlooker.wait(f"document.querySelector('#lost').hidden && {CONTROL} === 'held'")  # it is back, and so is the page
        onlooker.close()


@pytest.mark.slow
def test_two_pages_want_control(browser: Browser, own_home: Path) -> None:
    with playing(make_config(actor__intervention__type="console")) as game:
        first, second = opened(browser, game), opened(browser, game)
        first.press("q")
        first.wait("document.querySelector('#seat').textContent.includes('This page is in control')")
        second.wait("document.querySelector('#seat').textContent.includes('is in control. This one looks')")
        second.press("h")  # it may not
        second.wait("document.querySelector('#notes').textContent.includes('another page is in control')")
        second.down("ArrowUp")  # nor drive
        second.up("ArrowUp")
        assert not any(step.is_intervention for step in game.link.steps)
        second.press("q")
        first.wait("document.querySelector('#seat').textContent.includes('asks for control')")
        first.press("n")
        first.wait("document.querySelector('#seat').textContent.includes('This page is in control')")
        second.wait("document.querySelector('#seat-buttons').textContent.includes('Ask for control')")
        second.press("q")
        first.wait("document.querySelector('#seat').textContent.includes('asks for control')")
        first.press("y")
        second.wait("document.querySelector('#seat').textContent.includes('This page is in control')")
        first.wait("document.querySelector('#seat').textContent.includes('This one looks')")
        first.press("q")  # and now the other way, without an answer: after a while it may be taken
        first.wait("document.querySelector('#seat-buttons').textContent.includes('Take it now')")
        first.press("q")
        first.wait("document.querySelector('#seat').textContent.includes('This page is in control')")
        second.press(" ")  # whoever looks may stop
        first.wait(f"{CONTROL} === 'stopped'")
        first.close()
        second.close()


@pytest.mark.slow
def test_without_the_token_there_is_only_a_door(browser: Browser, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HILSERL_CONSOLE_TOKEN", "a-token-of-the-lab-that-is-long-enough")
    with playing(make_config()) as game:
        page = browser.page(re.sub(r"\?.*", "", game.url))
        page.wait("document.querySelector('input[name=token]')")
        page.type("wrong")
        page.press("Enter")
        page.wait("document.readyState === 'complete' && document.querySelector('input[name=token]').value === ''")
        page.type("a-token-of-the-lab-that-is-long-enough")
        page.press("Enter")
        page.wait(f"document.querySelector('#who') && {CONTROL} === 'policy'")
        assert "token" not in page.eval("location.href") and page.eval("document.cookie") == ""
        page.close()


def save(page: Page, file: Path) -> None:
    assert len(page.screenshot(file)) < 200_000, f"{file} is too large for the docs"
