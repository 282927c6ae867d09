"""What the page says to its server while a person drives: the real page in a real Chromium, a stand-in for the server.

What the actor makes of it is tested beside, with the real server; here it is what leaves the page, and when.
"""

import time
from collections.abc import Iterator

import pytest
from chromium_testing import Browser, Page, chromium
from fake_console import FakeConsole

SEEN = "document.querySelector('canvas')?.dataset.number"
PAD = """(() => {
    const buttons = Array.from({length: 17}, () => ({pressed: false, value: 0}));
    window.pad = {connected: true, id: 'Test pad', axes: [0, 0, 0, 0], buttons};
    navigator.getGamepads = () => [pad];
})()"""
HIDE = "Object.defineProperty(document, 'hidden', {value: true}); document.dispatchEvent(new Event('visibilitychange'))"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


@pytest.fixture
def console() -> Iterator[FakeConsole]:
    with FakeConsole() as one:
        yield one


@pytest.fixture
def page(browser: Browser, console: FakeConsole) -> Iterator[Page]:
    page = browser.page(console.url)
    page.wait(SEEN)
    yield page
    page.require_quiet()
    page.close()


def drives(console: FakeConsole) -> list[list[float]]:
    return [message["action"] for message in console.said("drive")]


def test_a_key_drives_until_it_is_let_go_and_then_hands_back(page: Page, console: FakeConsole) -> None:
    page.down("ArrowUp")
    console.wait(lambda: len(drives(console)) > 5)
    assert console.controller == "v1" and drives(console)[0] == [1, 0, 0, 0]
    page.down("e")
    console.wait(lambda: [1, 0, 1, 0] in drives(console))
    page.wait("document.body.dataset.control === 'human' && document.querySelector('#who').textContent === 'You drive'")
    page.up("ArrowUp")
    page.up("e")
    console.wait(lambda: drives(console)[-1] == [0, 0, 0, 0])  # zero is said as well: the dead-man hears it
    console.wait(lambda: "hand_back" in console.commands())
    count = len(drives(console))
    time.sleep(0.3)
    assert len(drives(console)) <= count + 1
    numbers = [message["seq"] for message in console.said("drive")]
    assert numbers == sorted(set(numbers))


@pytest.mark.failure("R21")
def test_leaving_the_window_lets_go_of_the_keys(page: Page, console: FakeConsole) -> None:
    page.down("ArrowUp")
    console.wait(lambda: len(drives(console)) > 3)
    page.eval("window.dispatchEvent(new Event('blur'))")  # the key is still down, and its `keyup` goes elsewhere
    console.wait(lambda: drives(console)[-1] == [0, 0, 0, 0])


@pytest.mark.failure("R21")
def test_a_tab_that_is_hidden_holds_the_arm_and_says_nothing_more(page: Page, console: FakeConsole) -> None:
    page.down("ArrowUp")
    console.wait(lambda: len(drives(console)) > 3)
    page.eval(HIDE)
    console.wait(lambda: "hold" in console.commands())
    count = len(drives(console))
    time.sleep(0.3)
    assert len(drives(console)) == count


def test_space_stops_wherever_the_focus_is_but_not_in_a_field(page: Page, console: FakeConsole) -> None:
    for selector in ("#let-go", "#source", "#view", "#estop", "summary"):
        page.eval(f"document.querySelector('{selector}').focus()")
        before = len(console.said("estop"))
        page.press(" ")
        console.wait(lambda before=before: len(console.said("estop")) == before + 1)
    assert page.eval("document.querySelector('#let-go').checked") is True  # and did nothing else
    console.state |= {"control": "stopped", "phase": "stopped"}
    console.state["stopped"] = {"rule": "estop", "text": "A person pressed it.", "at": "", "may_rearm": True, "problem": ""}
    page.wait("!document.querySelector('#stopped').hidden")
    before = len(console.said("estop"))
    page.press("m")
    page.type("so101")
    page.press(" ")
    page.type("left")
    assert page.eval("document.querySelector('#rearm-name').value") == "so101 left" and len(console.said("estop")) == before
    page.press("Enter")
    console.wait(lambda: console.said("rearm", robot="so101 left"))


def test_a_stop_that_could_not_be_sent_is_said_and_sent_when_it_can_be(page: Page, console: FakeConsole) -> None:
    page.eval("window.WebSocket = class extends WebSocket { constructor(...a) { super(...a); if (!window.later) this.close(); } }")
    console.hang_up()
    page.wait("document.body.classList.contains('disconnected')")
    page.press(" ")
    page.wait("document.querySelector('#notes').textContent.includes('hilserl estop')")
    page.eval("window.later = true")
    console.wait(lambda: console.said("estop"))
    page.complaints.clear()  # of the connections that were refused


def test_a_connection_that_breaks_while_driving_is_said_and_nothing_goes_on_by_itself(page: Page, console: FakeConsole) -> None:
    page.down("ArrowUp")
    console.wait(lambda: len(drives(console)) > 3)
    console.state["control"] = "held"
    console.hang_up()
    page.wait("document.querySelector('#lost').hidden === false && document.querySelector('#lost').textContent.includes('the arm holds')")
    page.wait("document.querySelector('#lost').hidden === true")
    console.state["control"] = "policy"
    count = len(drives(console))
    page.down("ArrowUp", repeat=True)  # still held down: it takes nothing until it was up once
    time.sleep(0.4)
    assert len(drives(console)) == count
    page.up("ArrowUp")
    page.down("ArrowUp")
    console.wait(lambda: len(drives(console)) > count)
    page.complaints.clear()


def test_a_run_that_has_ended_is_no_connection_that_broke(page: Page, console: FakeConsole) -> None:
    text = "This run has ended: the learner finished. Nothing moves."
    link, learner = console.state["link"] | {"connected": False}, console.state["learner"] | {"connected": False, "owed_updates": 120}
    console.state |= {"phase": "ended", "control": "nobody", "text": text, "alive": False, "link": link, "learner": learner}
    page.wait("document.querySelector('#who').textContent === 'The run has ended'")
    page.eval("window.WebSocket = class extends WebSocket { constructor(...a) { super(...a); if (!window.later) this.close(); } }")
    console.hang_up()
    page.wait("!document.querySelector('#over').hidden && document.querySelector('#over').textContent.includes('looks for a new run')")
    assert page.eval("document.querySelector('#lost').hidden && !document.body.classList.contains('disconnected')")
    page.wait("document.body.innerText.includes('the learner finished')")
    page.wait("document.querySelector('figcaption').innerText.includes('the last picture')")
    assert not page.eval("document.querySelectorAll('#learner .stop, #learner .warn, #cameras .stale').length")  # nothing of it is an alarm
    console.state |= {"phase": "episode", "control": "policy", "text": "Episode 0", "alive": True}
    page.eval("window.later = true")
    page.wait("document.querySelector('#over').hidden && document.body.dataset.control === 'policy'")  # the next run
    page.complaints.clear()  # of the connections that were refused


def test_a_hand_that_moves_nothing_is_told_why(page: Page, console: FakeConsole) -> None:
    console.controller = "v99"
    page.wait("document.querySelector('#seat').textContent.includes('v99')")
    page.down("ArrowUp")
    page.wait("document.querySelector('#notes').textContent.includes('Not now: another page is in control')")
    page.up("ArrowUp")
    assert not drives(console)


def test_a_gamepad_drives_while_its_shoulder_button_is_held(page: Page, console: FakeConsole) -> None:
    page.eval(PAD)
    page.eval("pad.axes[1] = -0.8; pad.axes[0] = 0.05")
    time.sleep(0.3)
    assert not drives(console)  # a stick alone is no wish
    page.eval("pad.buttons[5] = {pressed: true, value: 1}")
    console.wait(lambda: [0.8, 0, 0, 0] in drives(console))
    page.eval("pad.buttons[7] = {pressed: true, value: 1}")
    console.wait(lambda: [0.8, 0, 0, 1] in drives(console))
    page.eval("pad.buttons[3] = {pressed: true, value: 1}")
    console.wait(lambda: "success" in console.commands())
    page.eval("pad.buttons[5] = pad.buttons[7] = {pressed: false, value: 0}")
    console.wait(lambda: "hand_back" in console.commands())


def test_sticks_under_fingers(browser: Browser, console: FakeConsole) -> None:
    page = browser.page()
    page.size(390, 844, phone=True)
    page.open(console.url)
    page.wait(SEEN)
    assert not page.has_sideways_scroll()
    x, y = page.place("#stick-move")
    page.touch("touchStart", (x, y))
    page.touch("touchMove", (x, y - 60))
    console.wait(lambda: any(action[0] > 0.5 and action[1] == 0 for action in drives(console)))
    page.touch("touchEnd")
    console.wait(lambda: drives(console)[-1] == [0, 0, 0, 0])
    top = page.eval("document.querySelector('#estop').getBoundingClientRect().bottom <= innerHeight")
    assert top  # the stop is in sight wherever one has scrolled to
    page.close()


def test_every_action_has_its_key_and_every_button_shows_it(page: Page, console: FakeConsole) -> None:
    page.press("q")
    console.wait(lambda: console.controller == "v1")
    console.state["paused"] = True
    page.wait("!document.querySelector('#motion-buttons button.main').disabled")
    for key, name in {
        "h": "hold",
        "p": "",
        "g": "home",
        "s": "success",
        "f": "failure",
        "t": "end",
        "x": "discard",
        "i": "take_over",
        "Enter": "start",
    }.items():
        page.press(key)
        if name:
            console.wait(lambda name=name: name in console.commands())
    missing = page.eval("[...document.querySelectorAll('.buttons button')].filter((b) => !b.hidden && !b.querySelector('kbd')).length")
    assert missing == 0
    console.state["asks"] = [{"ask": "evaluation-2000", "kind": "evaluation", "text": "Evaluate now, 20 episodes?"}]
    page.wait("document.querySelector('#asks .ask')")
    page.press("y")
    console.wait(lambda: console.said("command", name="answer", ask="evaluation-2000", value=True))
    page.press("1")
    page.wait("document.querySelector('#replay').open && document.querySelector('#replay canvas').dataset.frame >= 0")
    page.press("Escape")
    page.wait("!document.querySelector('#replay').open")
    console.refuse = "the actor hangs"
    page.press("h")
    page.wait("document.querySelector('#notes').textContent.includes('the actor hangs')")
