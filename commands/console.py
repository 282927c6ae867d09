"""`hilserl console`: where the operator's consoles of this machine are; and `--console`, which says where its own is."""

from __future__ import annotations

import os
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hilserl.config import TrainConfig
from hilserl.errors import ServiceError


def run_console(robot: str | None, *, browser: bool) -> None:
    """Print the address of each console, with its token where it has one.

    Raises:
        ServiceError: There is none.
    """
    from hilserl.console.process import page_address, running_consoles

    found = [entry for entry in running_consoles() if robot in (None, entry["robot"])]
    if not found:
        raise ServiceError(
            f"no console{f' of robot `{robot}`' if robot else ''} runs here. `hilserl demo --console`, `hilserl train ... --console` and "
            "`hilserl record ... --console` serve one, a training from the moment its robot starts, after the data phases; with "
            "`hilserl up`, set `console.enable: true` in the run's configuration."
        )
    for entry in found:
        print(f"{entry['robot']:20}  {entry['mode']:8}  {entry['run']:40}  {page_address(entry)}")
        if browser:
            webbrowser.open(page_address(entry))


@contextmanager
def console_announced(config: TrainConfig, say: Callable[[str], None]) -> Iterator[None]:
    """In the block, say where the console of this configuration is as soon as an actor serves it, and open it on a desktop.

    Args:
        config: The run's configuration; without `console.enable` there is nothing to say.
        say: Shows a line to the person.
    """
    if not config.console.enable:
        yield
        return
    from hilserl.console.process import page_address, running_consoles

    say("Operator's console: its address comes here when the robot starts; a training prepares its data before that.")
    over = threading.Event()
    since = time.time()

    def look() -> None:
        while not over.wait(0.5):
            for entry in running_consoles():
                if entry["robot"] == config.robot.id and entry["since"] >= since:
                    say(f"Operator's console: {page_address(entry)}")
                    if _has_screen():
                        webbrowser.open(page_address(entry))
                    return

    looking = threading.Thread(target=look, name="console", daemon=True)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()


def _has_screen() -> bool:
    """Tell whether a browser would be seen: on a desktop, and not over ssh."""
    screen = sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return screen and not os.environ.get("SSH_CONNECTION") and sys.stdout.isatty()
