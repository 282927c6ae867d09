"""`hilserl demo`: the flow `hilserl` on this machine, with its own Prefect server and a display."""

from __future__ import annotations

import importlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel

from commands.console import console_announced
from commands.display import Display
from hilserl.config import TrainConfig, load_config
from hilserl.errors import ServiceError
from hilserl.files import home, require_free_space
from hilserl.robot.gl_probe import gl_advice
from hilserl.services.prefect_server import PrefectServer, RunningServer, find_running

_OWNER = "hilserl demo"
_NEEDED_BYTES = 100_000_000  # a run leaves 20-60 MB, most of it journal, checkpoints and databases
_GOOD = 0.5  # success rate from which the next task is worth trying


def run_demo(config: str, overrides: dict[str, Any], *, fresh: bool, plain: bool) -> None:
    """Run everything, then say what came out and where to look.

    Raises:
        HilserlError: Any of the tree, for the user to fix.
    """
    console = Console(highlight=False)
    settings = load_config(config, overrides)  # fail on a typing error before anything is started
    require_free_space(home(), _NEEDED_BYTES, "a demo")
    with Display(f"hilserl · {settings.name} · seed {settings.seed}", console, plain=plain) as display:
        _interrupt_by_signals(display)
        _advise(settings, display)
        display.begin("start-prefect")
        with _prefect_server(), console_announced(settings, display.note):
            summary = _run_flow(config, overrides, fresh, display)
            _advise(settings, display)
    _show_result(console, summary)


def _interrupt_by_signals(display: Display) -> None:
    """Make Ctrl-C and SIGTERM the same, and answer at once: putting everything away takes seconds."""

    def interrupt(number: int, frame: object) -> None:
        display.stopping()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)


def _advise(settings: TrainConfig, display: Display) -> None:
    """Say on the screen when pictures are made without GL: at the start if a library is missing, at the end if GL failed since."""
    if settings.observation.images and (advice := gl_advice()):
        display.note(advice)


@contextmanager
def _prefect_server() -> Iterator[None]:
    """Use the server that runs on our database, or run one for as long as the block lasts.

    Raises:
        ServiceError: The server belongs to another demo, which would take it away when it ends.
    """
    running = find_running(timeout_s=1.0)
    if running and running.owner == _OWNER:
        raise ServiceError(
            f"another `{_OWNER}` (process {running.pid}) is running in {home()}. Wait for it to end, "
            "or set HILSERL_HOME to another folder to run both."
        )
    server: PrefectServer | RunningServer = running or PrefectServer(owner=_OWNER)
    os.environ.update(server.environment())
    # The display is for people; Prefect's log lines go to its server, and to the run's page in the UI.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    if isinstance(server, RunningServer):
        try:
            yield
        except Exception as error:
            if find_running(timeout_s=1.0):
                raise
            raise ServiceError(
                f"the Prefect server at {server.ui_url} was run by `{server.owner}` (process {server.pid}), "
                "and ended while this demo used it. "
                "Nothing that was finished is lost: the same command continues."
            ) from error
        return
    server.launch()
    gave_up = threading.Event()
    importing = threading.Thread(target=_import_meanwhile, args=(gave_up,), name="imports", daemon=True)
    importing.start()
    try:
        server.wait_ready()
        importing.join()
        yield
    finally:
        gave_up.set()
        server.stop()
        importing.join()  # an interpreter that ends while a thread imports torch crashes


def _import_meanwhile(gave_up: threading.Event) -> None:
    """Import what the flow needs while the server starts; the flow imports it again, and so reports what fails."""
    for module in ("prefect", "torch", "polars", "flows.train"):
        if gave_up.is_set():
            return
        importlib.import_module(module)


def _run_flow(config: str, overrides: dict[str, Any], fresh: bool, display: Display) -> dict[str, Any]:
    from prefect.exceptions import CancelledRun
    from prefect.logging.handlers import APILogHandler

    from flows.train import hilserl
    from hilserl.config.loader import expand_dotted
    from hilserl.config.overrides import TrainOverrides

    display.end("start-prefect")
    try:
        summary: dict[str, Any] = hilserl(config, TrainOverrides.model_validate(expand_dotted(overrides)), fresh)  # type: ignore[assignment]
        return summary
    except CancelledRun as error:
        raise ServiceError(f"The run was cancelled in the Prefect UI: {error}. The same command continues.") from None
    finally:
        APILogHandler().flush()  # the server is about to end; what was logged belongs on the run's page


def _show_result(console: Console, summary: dict[str, Any]) -> None:
    """Print the outcome, and where to look."""
    good = summary["success_rate"] is None or summary["success_rate"] >= _GOOD
    outcome = (
        f"{_outcome(summary)}, {summary['mean_seconds']:.1f} s an episode\n"
        f"learned in {summary['environment_steps']} environment steps, {summary['updates']} updates, {summary['learning_seconds']:.0f} s\n"
        f"ended because {summary['ended_because']}"
    )
    console.print(Panel(outcome, title=summary["run_id"], border_style="green" if good else "yellow", padding=(1, 2)))
    lines = [
        f"report          {_short(summary['report'])}",
        f"video           {_short(summary['video'])}",
        f"learning curve  {_short(summary['learning_curve'])}",
        f"policy          {_short(summary['policy'])}",
        *([f"registered as   {summary['registered']}, the candidate"] if summary["registered"] else []),
        *([f"MLflow          {summary['mlflow_waiting']}"] if summary.get("mlflow_waiting") else []),
        "",
        "Look at these runs in your browser:",
        "  [cyan]uv run hilserl ui prefect[/]   every phase, its log, what was cached",
        "  [cyan]uv run hilserl ui mlflow[/]    metrics, pictures, video, policy",
        *([f"Let it work: [cyan]uv run hilserl run --policy {summary['registered']}[/]"] if summary["registered"] else []),
    ]
    if summary["task"] == "reach" and good:
        lines += ["", "Next: [cyan]uv run hilserl demo lift[/]"]
    # Outside of the box and never wrapped, so that a long path can be copied.
    console.print("\n".join(lines), soft_wrap=True)


def _outcome(summary: dict[str, Any]) -> str:
    """Say how good the policy is: by success, or by return where the environment knows no success."""
    if summary["success_rate"] is None:
        low, high = summary["return_interval"]
        return (
            f"[bold green]mean return {summary['mean_return']:.4g}[/] in {summary['episodes']} evaluation episodes\n"
            f"95 % interval {low:.4g} to {high:.4g}"
        )
    low, high = summary["interval"]
    color = "green" if summary["success_rate"] >= _GOOD else "yellow"
    return (
        f"[bold {color}]{summary['success_rate']:.0%} success[/] of {summary['episodes']} evaluation episodes\n"
        f"95 % interval {low:.0%} to {high:.0%}, judged by the {summary['judged_by']}"
    )


def _short(path: str | None) -> str:
    if path is None:
        return "–"
    absolute = Path(path)
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else path
