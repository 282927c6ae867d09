"""`hilserl demo`: the flow `hilserl` on this machine, with its own Prefect server and a display."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel

from commands.display import Display
from hilserl.config import load_config
from hilserl.services.prefect_server import PrefectServer, RunningServer, find_running


def run_demo(config: str, overrides: dict[str, Any], *, fresh: bool, plain: bool) -> None:
    """Run everything, then say what came out and where to look.

    Raises:
        HilserlError: Any of the tree, for the user to fix.
    """
    console = Console()
    settings = load_config(config, overrides)  # fail on a typing error before anything is started
    signal.signal(signal.SIGTERM, _terminate)
    with Display(f"hilserl · {settings.name} · seed {settings.seed}", console, plain=plain) as display:
        display.begin("start-prefect")
        with _prefect_server(display):
            summary = _run_flow(config, overrides, fresh, display)
    _show_result(console, summary)


def _terminate(number: int, frame: object) -> None:
    raise KeyboardInterrupt


@contextmanager
def _prefect_server(display: Display) -> Iterator[None]:
    """Use the server that runs on our database, or run one for as long as the block lasts."""
    running = find_running(timeout_s=1.0)
    server: PrefectServer | RunningServer = running or PrefectServer(owner="hilserl demo")
    os.environ.update(server.environment())
    # The display is for people; Prefect's log lines go to its server, and to the run's page in the UI.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    if isinstance(server, RunningServer):
        yield
        return
    server.launch()
    try:
        importing = threading.Thread(target=_import_meanwhile, name="imports", daemon=True)
        importing.start()
        server.wait_ready()
        importing.join()
        yield
    finally:
        server.stop()


def _import_meanwhile() -> None:
    """Import what the flow needs while the server starts; the flow imports it again, and so reports what fails."""
    import flows.train  # noqa: F401


def _run_flow(config: str, overrides: dict[str, Any], fresh: bool, display: Display) -> dict[str, Any]:
    from prefect.logging.handlers import APILogHandler

    from flows.train import hilserl
    from hilserl.config.loader import expand_dotted
    from hilserl.config.overrides import TrainOverrides

    display.end("start-prefect")
    try:
        return hilserl(config, TrainOverrides.model_validate(expand_dotted(overrides)), fresh)
    finally:
        APILogHandler().flush()  # the server is about to end; what was logged belongs on the run's page


def _show_result(console: Console, summary: dict[str, Any]) -> None:
    """Print the outcome, and where to look."""
    low, high = summary["interval"]
    lines = [
        f"[bold green]{summary['success_rate']:.0%} success[/] of {summary['episodes']} evaluation episodes "
        f"(95 % interval {low:.0%} to {high:.0%}), judged by the {summary['judged_by']}; {summary['mean_seconds']:.1f} s an episode",
        f"learned in {summary['environment_steps']} environment steps, {summary['updates']} updates, "
        f"{summary['learning_seconds']:.0f} s: {summary['ended_because']}",
        "",
        f"video           {_short(summary['video'])}",
        f"learning curve  {_short(summary['learning_curve'])}",
        f"policy          {_short(summary['policy'])}",
        "",
        "Look at these runs in your browser:",
        "  [cyan]uv run hilserl ui prefect[/]   every phase, its log, what was cached",
        "  [cyan]uv run hilserl ui mlflow[/]    metrics, pictures, video, policy",
    ]
    if summary["task"] == "reach":
        lines += ["", "Next: [cyan]uv run hilserl demo lift[/]"]
    console.print(Panel("\n".join(lines), title=summary["run_id"], border_style="green", padding=(1, 2)))


def _short(path: str | None) -> str:
    if path is None:
        return "–"
    absolute = Path(path)
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else path
