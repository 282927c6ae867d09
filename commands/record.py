"""`hilserl record`: demonstrations by hand, into a dataset that the policy learns from as it is."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hilserl.config.models import TrainConfig
from hilserl.errors import ConfigError, DatasetError, RobotError
from hilserl.files import file_lock


def person_of_the_page(config: TrainConfig, overrides: Mapping[str, Any], say: Callable[[str], None]) -> TrainConfig:
    """With the console open, let the page's person record, where nobody else was named who is one.

    Args:
        config: The configuration, with the overrides in it.
        overrides: Those of the command line, with dotted keys: who is named there records, also the simulated human.
        say: Tells the person who records.
    """
    from hilserl.config.loader import expand_dotted

    before = config.actor.intervention
    named = ((expand_dotted(overrides).get("actor") or {}).get("intervention") or {}).get("type")
    if not config.console.enable or config.env is not None or named is not None:
        return config
    if before.type not in ("none", "console") and not before.is_simulated:
        say(f"The {before.type} records; the page may take over beside it.")
        return config
    instead = " The simulated human would with `--set actor.intervention.type=simulated`." if before.is_simulated else ""
    say(f"The page's person records (`actor.intervention.type: console`), from the first key on that moves the arm.{instead}")
    actor = config.actor.model_copy(update={"intervention": before.model_copy(update={"type": "console"})})
    return config.model_copy(update={"actor": actor})


def run_record(config: TrainConfig, into: Path | None, episodes: int, *, resume: bool, keep_failures: bool) -> None:
    """Record episodes, and make one dataset of them at the end, also after Ctrl-C.

    Raises:
        ConfigError: It is not said where to, or who moves the arm.
        DatasetError: There is a dataset already, and `resume` was not said.
    """
    from commands.console import console_announced
    from hilserl.actor.lease import robot_lease
    from hilserl.console.open import console_of
    from hilserl.data.writer import policy_features
    from hilserl.environments.make import make_environment
    from hilserl.teleop.make import make_human
    from hilserl.teleop.record import Recorder
    from hilserl.teleop.recording_folder import RecordingFolder

    root = into or config.dataset.root
    if config.env is not None:
        raise ConfigError("record: only the SO-101 is moved by hand; leave `env` out")
    if root is None:
        raise ConfigError("record: say where to with `--into FOLDER`, or with `dataset.root` in the configuration")
    if config.actor.intervention.type in ("none", "console") and not config.console.enable:
        raise ConfigError(
            f"actor.intervention.type is `{config.actor.intervention.type}`: nobody would move the arm. Add `--console` to move it on a "
            "web page; or set `leader`, `gamepad` or `keyboard`, in the file or with `--set actor.intervention.type=keyboard`"
        )
    root = root.expanduser().absolute()
    root.parent.mkdir(parents=True, exist_ok=True)
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    try:
        with file_lock(root.with_name(f".{root.name}.lock"), timeout_s=1.0):
            folder = RecordingFolder(root, policy_features(config), config.robot.control_hz, resume=resume)
            with (
                robot_lease(config.robot.id),
                console_announced(config, lambda text: print(text, flush=True)),
                console_of(config, mode="record", run=root.name) as operator,
            ):
                recorder: Recorder | None = None
                while True:
                    environment: Any = make_environment(config)
                    try:
                        person = operator.human(config, environment, make_human)
                        try:
                            recorder = Recorder(
                                config,
                                environment,
                                person,
                                folder,
                                keep_failures=keep_failures,
                                paced=config.actor.pace == "realtime"
                                or not config.actor.intervention.is_simulated,  # a hand knows one pace
                                say=lambda text: print(text, flush=True),
                                should_stop=lambda: bool(asked),
                                operator=operator if config.console.enable else None,
                                recorded=recorder.recorded if recorder else None,
                            )
                            recorder.record(episodes)
                            break
                        except RobotError as error:
                            if recorder is None or not operator.stands_by(error):
                                raise
                            print(f"{error} Waiting for a person who re-arms it.", flush=True)
                        finally:
                            person.close()
                    finally:
                        environment.close()
                    if operator.wait_for_rearming(lambda: "interrupted" if asked else None):
                        break
                recorded = recorder.recorded
            folder.finish()
    except TimeoutError:
        raise DatasetError(f"{root}: another recording goes on there. End it, or name another folder.") from None
    finally:
        signal.signal(signal.SIGINT, before)
    print(
        f"{recorded.saved} episodes kept, {recorded.failed} without success, {recorded.discarded} forgotten. "
        + (f"{root} has {folder.episodes} episodes." if folder.episodes else "There is no dataset yet.")
    )
