"""Make whoever may take over, as a configuration names it."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hilserl.config.models import TrainConfig
from hilserl.errors import ConfigError
from hilserl.teleop.device import Person
from hilserl.teleop.events import NO_EVENTS, TeleopEvent

if TYPE_CHECKING:
    from hilserl.teleop.played_leader import PlayedLeader

logger = logging.getLogger(__name__)

_VIRTUAL_TIMEOUT_S = 10.0  # in lock step nothing moves while its process is late


def make_human(config: TrainConfig, environment: Any) -> Person | SimulatedPerson | None:
    """Return who may take over in this environment, connected; None where nobody does.

    Raises:
        ConfigError: This environment cannot be moved by people.
        RobotError: The device is not there.
    """
    settings = config.actor.intervention
    if settings.type in ("none", "console"):  # the page is in front of whoever this returns
        return None
    if config.env is not None:
        raise ConfigError("actor.intervention: people and the simulated human know the SO-101 only; with `env` set `type: none`")
    if settings.type == "simulated":
        return SimulatedPerson(config, environment)
    if settings.type == "leader" and settings.leader.virtual:
        return _played_leader(config, environment)
    return _person(config, environment)


def _person(config: TrainConfig, environment: Any) -> Person:
    from hilserl.teleop import gamepad, keyboard, leader
    from hilserl.teleop.remote_keys import AllKeys, RemoteKeys
    from hilserl.teleop.terminal_keys import TerminalKeys

    settings = config.actor.intervention
    terminal = TerminalKeys.if_there_are()
    keys = AllKeys(terminal, RemoteKeys.if_possible(config.robot.id))
    try:
        if settings.type == "keyboard":
            person, told = Person(config, keyboard.Keyboard(config, keys)), keyboard.HELP
        elif settings.type == "gamepad":
            person, told = Person(config, gamepad.Gamepad(config, keyboard.EventKeys(keys))), gamepad.HELP
        else:
            from hilserl.robot.kinematics import Kinematics
            from hilserl.teleop.leader_arm import LeaderArm

            limits = Kinematics()
            assert settings.leader.port is not None
            arm = LeaderArm(settings.leader, settings.leader.port, limits.lower_rad, limits.upper_rad)
            person, told = Person(config, leader.Leader(config, environment, arm, keyboard.EventKeys(keys))), leader.HELP
    except BaseException:
        keys.close()
        raise
    where = "here, or with" if terminal is not None else "with"
    logger.info("The %s is connected: %s. Keys are typed %s `hilserl keys` on this host.", settings.type, told, where)
    return person


def _played_leader(config: TrainConfig, environment: Any) -> PlayedLeader:
    from hilserl.robot.kinematics import Kinematics
    from hilserl.teleop.keyboard import EventKeys
    from hilserl.teleop.leader import Leader
    from hilserl.teleop.leader_arm import LeaderArm
    from hilserl.teleop.played_leader import PlayedLeader
    from hilserl.virtual_arm.arm import ArmOptions
    from hilserl.virtual_arm.bus import Timing
    from hilserl.virtual_arm.client import VirtualArmProcess
    from hilserl.virtual_arm.server import ServerOptions

    lock_step = config.actor.pace == "unthrottled"
    arm_options = ArmOptions(
        motor="7.4V",
        seed=config.seed + 1,
        timing=Timing(wire=not lock_step),
        lock_step_hz=config.robot.control_hz if lock_step else None,
    )
    folder = tempfile.TemporaryDirectory(prefix="hilserl-leader-")
    process = VirtualArmProcess(ServerOptions(Path(folder.name), name="leader", arm=arm_options, until_stdin_ends=True))
    try:
        process.start()
        settings = config.actor.intervention.leader.model_copy(
            update={"id": "leader", "calibration_dir": process.calibration.parent, "timeout_s": _VIRTUAL_TIMEOUT_S}
        )
        limits = Kinematics()
        arm = LeaderArm(settings, str(process.port), limits.lower_rad, limits.upper_rad)

        def pass_time(seconds: float) -> None:
            process.ask("advance", seconds=seconds)

        leader = Leader(config, environment, arm, EventKeys(None), pass_time if lock_step else None)
        return PlayedLeader(config, environment, leader, process, np.random.default_rng([config.seed, 1]), folder.cleanup)
    except BaseException:
        process.stop()
        folder.cleanup()
        raise


class SimulatedPerson:
    """The simulated human, looking at this environment."""

    def __init__(self, config: TrainConfig, environment: Any) -> None:
        from hilserl.sim.human import SimulatedHuman

        self._environment = environment
        self._human = SimulatedHuman(config, np.random.default_rng([config.seed, 1]))

    def reset(self) -> None:
        """An episode starts."""
        self._human.reset()

    def intervene(self) -> np.ndarray | None:
        """Return its action while in control, else None."""
        return self._human.intervene(self._environment.privileged_state)

    def events(self) -> frozenset[TeleopEvent]:
        """Return nothing: the simulation judges."""
        return NO_EVENTS

    def observe_outcome(self, success: bool) -> None:
        """Remember how the policy does."""
        self._human.observe_outcome(success)

    def close(self) -> None:
        """Nothing to let go of."""
