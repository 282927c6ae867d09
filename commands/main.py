"""Entry point of the command `hilserl`. Imports what a command needs only when it runs."""

from __future__ import annotations

import os
import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from commands.certificates import app as certificates_app
from commands.classifier import app as classifier_app
from commands.dataset import app as dataset_app
from commands.policies import app as policies_app
from commands.virtual_arm import app as virtual_arm_app
from hilserl.errors import CacheError, HilserlError
from hilserl.files import disk_full_error, disk_is_full, home, is_disk_full
from hilserl.telemetry import disable_telemetry

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Teach an SO-101 arm a task, in an hour, with a little human help.",
)

app.add_typer(dataset_app, name="dataset")
app.add_typer(classifier_app, name="classifier")
app.add_typer(policies_app, name="policies")
app.add_typer(certificates_app, name="certificates")
app.add_typer(virtual_arm_app, name="virtual-arm")

Config = Annotated[str, typer.Argument(help="Configuration file, or the name of a shipped one: reach, lift, ...", show_default=True)]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value, such as policy.utd_ratio=4; may be repeated.")
]
Console = Annotated[
    bool,
    typer.Option("--console", help="Serve the operator's console, a web page to watch, drive and stop the arm; `console:` says where."),
]
Seed = Annotated[int | None, typer.Option(help="Seed of the run; short for --set seed=N.")]

_INTERRUPTED = 130  # 128 + SIGINT


class UiName(StrEnum):
    """The two user interfaces."""

    prefect = "prefect"
    mlflow = "mlflow"


class VideoCheck(StrEnum):
    """How much of the video is decoded."""

    sample = "sample"
    all = "all"


class JudgeName(StrEnum):
    """Who says that an episode succeeded."""

    simulator = "simulator"
    classifier = "classifier"
    human = "human"


class ExportFormat(StrEnum):
    """What a policy can be exported to."""

    lerobot = "lerobot"
    onnx = "onnx"


@app.command()
def demo(
    config: Config = "reach",
    seed: Seed = None,
    set_: Set = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew instead of continuing an interrupted run.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Lines of text instead of a live display.")] = False,
    console: Console = False,
) -> None:
    """Train the simulated SO-101 through the whole pipeline, on this machine, with no server started by hand."""
    from commands.demo import run_demo

    _require_home()
    run_demo(config, _with_console(_overrides(set_, seed), console), fresh=fresh, plain=plain)


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="Configuration file, or the name of a shipped one: reach, lift, pendulum, ...")],
    seed: Seed = None,
    set_: Set = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew instead of continuing an interrupted run.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Lines of text instead of a live display.")] = False,
    console: Console = False,
) -> None:
    """Train what a configuration describes, on this machine: the SO-101 in simulation, or any Gymnasium environment (`env: {id: ...}`)."""
    from commands.demo import run_demo

    _require_home()
    run_demo(config, _with_console(_overrides(set_, seed), console), fresh=fresh, plain=plain)


@app.command()
def up(
    prefect_port: Annotated[int, typer.Option(help="Port of the Prefect server and UI.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(help="Port of the MLflow UI.")] = 5000,
    robot_host: Annotated[str, typer.Option(help="Name of the robot's host in `robot.host` of the configuration.")] = "robot-host",
    bind: Annotated[
        str, typer.Option(help="Address of this machine under which other hosts reach the Prefect server; needs certificates and a secret.")
    ] = "127.0.0.1",
    learner_only: Annotated[
        bool, typer.Option("--learner-only", help="Everything but the robot's worker, which is on another host.")
    ] = False,
    robot_only: Annotated[
        bool, typer.Option("--robot-only", help="Only the robot's worker, for the Prefect server at PREFECT_API_URL on the learner's host.")
    ] = False,
    continue_: Annotated[bool, typer.Option("--continue", help="Start trainings again that a kill or a power cut interrupted.")] = False,
) -> None:
    """Run Prefect server, work pools, deployments, workers and the MLflow UI here, until Ctrl-C. Two hosts: see docs/two-hosts.md."""
    _require_home()
    if robot_only:
        if learner_only:
            raise typer.BadParameter("`--learner-only` and `--robot-only` are for two different hosts.")
        from hilserl.services.robot_worker import run_robot_worker

        run_robot_worker(robot_host)
        return
    from hilserl.services.up import run_up

    run_up(prefect_port, mlflow_port, robot_host, bind=bind, learner_only=learner_only, continue_trainings=continue_)


@app.command("check-link")
def check_link(config: Config = "reach", set_: Set = None) -> None:
    """On the robot's host: say what keeps it from its learner, a line for each step of the way, and how to fix it."""
    from commands.check_link import run_check_link

    if not run_check_link(config, _overrides(set_, None)):
        raise typer.Exit(1)


@app.command()
def doctor(
    config: Config = "reach",
    set_: Set = None,
    still: Annotated[bool, typer.Option("--still", help="Leave out what moves the arm; it may then not be driven unattended.")] = False,
) -> None:
    """On the robot's host: is this arm ready? Looks at it, moves it a little, and says what is wrong and how to fix it."""
    from commands.doctor import run_doctor

    _require_home()
    if not run_doctor(config, _overrides(set_, None), motion=not still):
        raise typer.Exit(1)


@app.command()
def ui(
    which: Annotated[UiName, typer.Argument(help="Which one.")],
    port: Annotated[int | None, typer.Option(help="Port; 4200 for Prefect and 5000 for MLflow.")] = None,
) -> None:
    """Open the Prefect UI or the MLflow UI on the runs made so far, until Ctrl-C."""
    from commands.ui import run_ui

    _require_home()
    run_ui(which.value, port)


@app.command()
def deliver(
    run: Annotated[Path | None, typer.Argument(help="Folder of one run; by default all runs under HILSERL_HOME.")] = None,
    uri: Annotated[str | None, typer.Option(help="MLflow store, where it is no longer the one of the run's configuration.")] = None,
) -> None:
    """Deliver to MLflow what it did not take while a run was training."""
    from commands.deliver import run_deliver

    run_deliver(run, uri)


@app.command()
def estop(
    robot: Annotated[str | None, typer.Option(help="Id of the arm (`robot.id`); without it, every arm of this machine.")] = None,
    wait_for_key: Annotated[
        bool, typer.Option("--wait-for-key", help="Wait, and stop when any key is pressed: a terminal as an emergency button.")
    ] = False,
) -> None:
    """Stop an arm now, whatever its process does; it stays stopped until `hilserl rearm`."""
    from commands.safety import run_estop

    run_estop(robot, wait_for_key=wait_for_key)


@app.command()
def rearm(
    robot: Annotated[str, typer.Option(help="Id of the arm (`robot.id`).")],
    port: Annotated[str | None, typer.Option(help="Of the arm, where it has another than when it was stopped.")] = None,
) -> None:
    """Release a stopped arm, after a look at it: asks a person, and is refused while the cause stands."""
    from commands.safety import run_rearm

    run_rearm(robot, port)


@app.command()
def record(
    config: Config = "lift",
    into: Annotated[
        Path | None, typer.Option("--into", help="Folder of the dataset; by default `dataset.root` of the configuration.")
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="How many to keep in this session.")] = 20,
    resume: Annotated[bool, typer.Option("--resume", help="Add to a recording that exists, or go on with an interrupted one.")] = False,
    keep_failures: Annotated[bool, typer.Option("--keep-failures", help="Keep episodes without success as well.")] = False,
    set_: Set = None,
    console: Console = False,
) -> None:
    """Record demonstrations by hand (page, leader arm, gamepad, keyboard), straight into a dataset to learn from. Ctrl-C ends it."""
    from commands.record import person_of_the_page, run_record
    from hilserl.config import load_config

    values = _with_console(_overrides(set_, None), console)
    settings = person_of_the_page(load_config(config, values), values, lambda text: print(text, flush=True))
    run_record(settings, into, episodes, resume=resume, keep_failures=keep_failures)


@app.command()
def keys(
    robot: Annotated[str | None, typer.Option(help="Id of the arm (`robot.id`); without it, the one whose actor listens.")] = None,
) -> None:
    """Type for an actor that has no terminal: move its arm, or say success and failure. On the robot's host; over ssh as well."""
    from commands.keys import run_keys

    run_keys(robot)


@app.command("console")
def show_console(
    robot: Annotated[str | None, typer.Option(help="Id of the arm (`robot.id`); without it, all of this machine.")] = None,
    browser: Annotated[bool, typer.Option("--browser", help="Open the page in a browser.")] = False,
) -> None:
    """Say where the operator's consoles of this machine are: the pages that trainings, recordings and robots serve with `--console`."""
    from commands.console import run_console

    run_console(robot, browser=browser)


@app.command()
def validate(
    target: Annotated[
        str, typer.Argument(help="A configuration (YAML, LeRobot's train JSON, or a shipped name), or the folder of a dataset.")
    ] = "reach",
    set_: Set = None,
    config: Annotated[
        str | None, typer.Option(help="Configuration to validate a dataset folder against; by default one is derived from the dataset.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Where to write the page with pictures; by default HILSERL_HOME/validation/<dataset>.html.")
    ] = None,
    videos: Annotated[VideoCheck | None, typer.Option(help="Decode a few frames of every video file, or all of them.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Say everything that is wrong with a dataset, what it means for learning, and how to fix it. Exit code 1: something stops training."""
    from commands.validate import run_validate

    overrides, chosen = _overrides(set_, None), None if videos is None else videos.value
    if not run_validate(target, overrides, config=config, report=report, videos=chosen, as_json=json):
        raise typer.Exit(1)


@app.command()
def label(
    dataset: Annotated[Path | None, typer.Argument(help="Folder of a dataset; it is never written to.")] = None,
    disagreements: Annotated[
        Path | None, typer.Option("--disagreements", metavar="FOLDER", help="Frames on which human and classifier disagreed, instead.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", metavar="FILE", help="By default FOLDER.labels.json, beside the dataset.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Who labels; by default the user of this machine.")] = None,
    port: Annotated[int, typer.Option(help="TCP port of the page, on this machine only; 0: any free one.")] = 8500,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
) -> None:
    """Say on a web page, by keyboard, which frames of a dataset show success; goes on where one stopped."""
    from commands.label import run_label

    _require_home()
    run_label(dataset, disagreements, labels, by, port, browser=browser)


@app.command("eval")
def evaluate(
    policy: Annotated[
        str,
        typer.Argument(
            help="Name of a run, such as `lift` (its newest policy); the folder of a run, a policy or a checkpoint; or "
            "models:/hilserl-lift@champion"
        ),
    ],
    config: Annotated[str | None, typer.Option(help="Configuration; by default the one that the policy was trained with.")] = None,
    episodes: Annotated[int | None, typer.Option(min=1, help="How many; by default as the configuration says (100).")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the first episode.")] = None,
    against: Annotated[str | None, typer.Option(help="Another policy to play the same starts, for a paired test.")] = None,
    judge: Annotated[
        JudgeName | None, typer.Option(help="Who says success; by default as in training. The simulator knows it only in a simulation.")
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Starts on an even grid over the object's range, not drawn by seeds.")] = False,
    video: Annotated[Path | None, typer.Option(help="Write a video of the first episodes here, side by side.")] = None,
    into: Annotated[
        Path | None, typer.Option("--into", help="Folder for a page with the map of successes, the numbers as JSON, and the video.")
    ] = None,
    set_: Set = None,
) -> None:
    """Play deterministic, seeded episodes with a trained policy, and state success with its confidence interval."""
    from commands.evaluate import run_eval

    overrides = _overrides(set_, None)
    if episodes is not None:
        overrides["evaluation.episodes"] = episodes
    if seed is not None:
        overrides["evaluation.seed"] = seed
    if judge is not None:
        overrides["task.success.by"] = judge.value
        if judge is not JudgeName.classifier:
            overrides["task.success.classifier"] = None
    if grid:
        overrides["evaluation.starts"] = "grid"
    run_eval(policy, config, overrides, against=against, video=video, into=into)


@app.command("run")
def run_policy(
    policy: Annotated[
        str, typer.Option("--policy", help="models:/hilserl-lift@champion, the name of a run, or the folder of a run or a policy")
    ],
    config: Annotated[str | None, typer.Option(help="Configuration; by default the one that the policy was trained with.")] = None,
    episodes: Annotated[int | None, typer.Option(min=1, help="How many; by default until Ctrl-C.")] = None,
    video: Annotated[Path | None, typer.Option(help="Write a video of the first episodes here, side by side.")] = None,
    set_: Set = None,
    console: Console = False,
) -> None:
    """Let a trained policy do its task, on the arm or in simulation, until Ctrl-C. A person may take over."""
    from commands.evaluate import run_policy_command

    _require_home()
    run_policy_command(policy, config, _with_console(_overrides(set_, None), console), episodes=episodes, video=video)


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="Name of a run, such as `lift` (its newest), a run's id, or its folder")],
    into: Annotated[Path | None, typer.Option("--into", help="HTML file; by default report.html in the run's folder.")] = None,
) -> None:
    """Write the page of a run: curves, evaluation, video, alarms, costs, every setting. Also while it trains."""
    from hilserl.report.page import write_report_page
    from hilserl.report.record import find_run

    print(write_report_page(find_run(run), into))


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Two to six runs: names, ids or folders.")],
    into: Annotated[Path, typer.Option("--into", help="HTML file.")] = Path("comparison.html"),
) -> None:
    """Put runs side by side: success with a paired test on the same starts, curves, and the settings in which they differ."""
    from commands.compare import run_compare

    run_compare(runs, into)


@app.command("export")
def export(
    policy: Annotated[str, typer.Argument(help="Name of a run, such as `lift` (its newest policy), or the folder of a run or a policy")],
    to: Annotated[ExportFormat, typer.Option("--to", help="For LeRobot's tools, or as an ONNX graph.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
) -> None:
    """Write a trained policy for LeRobot's tools or as ONNX, and check that it acts as the original does."""
    from commands.export import run_export

    run_export(policy, to.value, out, force=force)


@app.command("config")
def show_config(config: Config = "reach", set_: Set = None) -> None:
    """Print the complete configuration of a run; for a LeRobot JSON also what became of each of its fields."""
    import yaml

    from hilserl.config import load_config
    from hilserl.config.lerobot import describe_import, import_lerobot_config
    from hilserl.config.loader import find_config

    settings = load_config(config, _overrides(set_, None))
    file = find_config(config)
    if file.suffix == ".json":
        print("\n".join(f"# {line}" for line in describe_import(import_lerobot_config(file)).splitlines()))
    print(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), end="")


@app.command("import-config")
def import_config(
    file: Annotated[Path, typer.Argument(help="LeRobot's train configuration (JSON), of LeRobot 0.3 to 0.6.")],
    out: Annotated[Path | None, typer.Option("--out", help="Where to write ours; by default beside it, as .yaml.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Translate a LeRobot train configuration into ours, and say field by field what became of it."""
    from commands.import_config import run_import_config

    run_import_config(file, out, force=force)


def _require_home() -> None:
    """Refuse a folder in which nothing can be written, before anything is started."""
    folder = home()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CacheError(
            f"{folder}: nothing can be written there ({error.strerror}). "
            "Everything a run makes is kept in this folder; set HILSERL_HOME to one that you may write to."
        ) from None


def _with_console(values: dict[str, Any], console: bool) -> dict[str, Any]:
    return values | {"console.enable": True} if console else values


def _overrides(pairs: list[str] | None, seed: int | None) -> dict[str, Any]:
    from hilserl.config.loader import parse_override

    values = dict(parse_override(pair) for pair in pairs or [])
    return values if seed is None else values | {"seed": seed}


def main() -> None:
    """Run a command; an error that is the user's to fix is one message and exit code 1."""
    disable_telemetry()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        app(standalone_mode=True)
    except Exception as error:
        # A full disk comes in many disguises: a video encoder's error, a database's, an actor or server that died of it.
        full = disk_is_full(home()) or is_disk_full(error)
        if not full and not isinstance(error, HilserlError):
            raise  # a defect of ours keeps its traceback
        print(f"\nerror: {disk_full_error(home()) if full else error}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as ending:
        if ending.code == _INTERRUPTED:  # typer turns a KeyboardInterrupt into this code, without a word
            print("\nInterrupted. Nothing that was finished is lost: the same command continues.", file=sys.stderr)
        raise


if __name__ == "__main__":
    main()
