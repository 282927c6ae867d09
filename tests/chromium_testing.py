"""A real headless Chromium, driven over its DevTools protocol: what a person sees, presses and touches."""

import base64
import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

PATIENCE_S = 60.0  # for a busy machine; nothing here measures time
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_CODES = {" ": "Space", "Enter": "Enter", "Escape": "Escape", "Tab": "Tab", "Shift": "ShiftLeft", "[": "BracketLeft", "]": "BracketRight"}
_VIRTUAL = {" ": 32, "Enter": 13, "Escape": 27, "Tab": 9, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}


def find_chromium() -> str:
    """Return the program, or skip the test with the reason."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    return found


class Page:
    """One tab. Whatever it complains about in its console is an error of the test that closes it."""

    def __init__(self, browser: "Browser", target: str, session: str) -> None:
        self._browser, self._target, self._session = browser, target, session
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **params)

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def eval(self, script: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"].get("exception", {}).get("description", answer["exceptionDetails"]["text"]))
        return answer["result"].get("value")

    def wait(self, script: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(AssertionError):  # the page is not there yet
                if self.eval(f"Boolean({script})"):
                    return
            if time.monotonic() > deadline:
                shown = self.eval("document.body.innerText")
                raise AssertionError(f"never true within {timeout_s} s: {script}\ncomplaints: {self.complaints}\nthe page says:\n{shown}")
            time.sleep(0.03)

    def text(self, selector: str) -> str:
        return str(self.eval(f"document.querySelector({json.dumps(selector)}).innerText.trim()"))

    def press(self, *keys: str) -> None:
        for key in keys:
            self.down(key)
            self.up(key)

    def down(self, key: str, *, repeat: bool = False) -> None:
        self._key("keyDown", key, autoRepeat=repeat)

    def up(self, key: str) -> None:
        self._key("keyUp", key)

    def _key(self, kind: str, key: str, **more: Any) -> None:
        code = _CODES.get(key, key if len(key) > 1 else f"Key{key.upper()}" if key.isalpha() else f"Digit{key}" if key.isdigit() else "")
        virtual = _VIRTUAL.get(key, ord(key.upper()) if len(key) == 1 else 0)
        text = {"text": "\r" if key == "Enter" else key} if kind == "keyDown" and (len(key) == 1 or key == "Enter") else {}
        self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code, windowsVirtualKeyCode=virtual, **text, **more)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def place(self, selector: str) -> tuple[float, float]:
        """Scroll an element into view and return its middle [px]."""
        script = (
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}}); "
            "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        x, y = self.eval(script)
        return x, y

    def click(self, selector: str) -> None:
        x, y = self.place(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def touch(self, kind: str, *points: tuple[float, float]) -> None:
        """Send `touchStart`, `touchMove` or `touchEnd`."""
        self.call("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": y} for x, y in points])

    def size(self, width: int, height: int, *, phone: bool = False, dark: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def offline(self, is_offline: bool) -> None:
        """Cut this page's network; a WebSocket that is open stays so, hence `drop`."""
        self.call("Network.enable")
        self.call("Network.emulateNetworkConditions", offline=is_offline, latency=0, downloadThroughput=-1, uploadThroughput=-1)

    def screenshot(self, file: Path, *, whole: bool = False) -> bytes:
        """Write a PNG of what is seen, or of the whole page; in few colours, so that it stays small."""
        import cv2
        import numpy as np
        from PIL import Image

        params: dict[str, Any] = {"format": "png", "captureBeyondViewport": whole}
        data = base64.b64decode(self.call("Page.captureScreenshot", **params)["data"])
        pixels = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
        return file.read_bytes()

    def has_sideways_scroll(self) -> bool:
        return bool(self.eval("document.documentElement.scrollWidth > document.documentElement.clientWidth"))

    def close(self) -> None:
        self._browser.call("Target.closeTarget", targetId=self._target)

    def require_quiet(self, *, but: Callable[[str], bool] = lambda complaint: False) -> None:
        """Fail for what the page complained about: exceptions, refused content, missing files."""
        heard = [complaint for complaint in self.complaints if not but(complaint)]
        assert not heard, heard

    def heard(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        if event["method"] == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details.get("text", "?")))
        elif event["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")


class Browser:
    """A Chromium of its own, with an empty profile."""

    def __init__(self) -> None:
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        flags = [
            "--headless=new",
            "--disable-gpu",
            "--no-first-run",
            "--disable-extensions",
            "--disable-background-networking",
            "--mute-audio",
        ]
        flags += ["--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-port=0", f"--user-data-dir={self._profile}"]
        flags += ["--no-sandbox"] if os.geteuid() == 0 else []
        self._process = subprocess.Popen(
            [find_chromium(), *flags, "about:blank"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True
        )
        assert self._process.stderr is not None
        address = next((found[1] for line in self._process.stderr if (found := re.search(r"listening on (ws://\S+)", line))), None)
        assert address, "Chromium did not start"
        self._socket = connect(address, max_size=None, open_timeout=PATIENCE_S)
        self._numbers, self._pages = itertools.count(1), dict[str, Page]()

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})))
        while True:
            answer = json.loads(self._socket.recv(timeout=PATIENCE_S))
            if answer.get("id") == number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return dict(answer["result"])
            if (page := self._pages.get(answer.get("sessionId", ""))) is not None:
                page.heard(answer)

    def page(self, url: str | None = None, width: int = 1280, height: int = 800) -> Page:
        """Open a tab."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, target, session)
        page.size(width, height)
        if url:
            page.open(url)
        return page

    def close(self) -> None:
        with contextlib.suppress(Exception):  # it may be gone already
            self.call("Browser.close")
        self._socket.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()
        shutil.rmtree(self._profile, ignore_errors=True)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Run a browser for the block."""
    browser = Browser()
    try:
        yield browser
    finally:
        browser.close()
