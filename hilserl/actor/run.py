"""Composition root of the actor process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from hilserl.actor.lease import robot_lease
from hilserl.actor.loop import Actor, ActorResult, Human, as_tensors
from hilserl.actor.pace import Pace
from hilserl.actor.priority import RealtimePriority
from hilserl.config.models import TrainConfig
from hilserl.data.preprocess import Preprocessor
from hilserl.environments.make import make_environment
from hilserl.errors import RobotError
from hilserl.link.client import LinkClient
from hilserl.link.messages import Handshake
from hilserl.policy import Policy, PolicyArchitecture
from hilserl.schema import policy_schema
from hilserl.teleop.make import make_human
from hilserl.teleop.operator import NoOperator, Operator

logger = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 180.0
_FIRST_WEIGHTS_TIMEOUT_S = 120.0


def run_actor(
    config: TrainConfig,
    *,
    address: str,
    token: str | None,
    run_id: str,
    journal_folder: Path,
    should_stop: Callable[[], str | None] = lambda: None,
    handover_s: float = 0.0,
    operator: Operator | None = None,
) -> ActorResult:
    """Drive the robot of `config` until the learner at `address` has finished.

    Args:
        config: The run's configuration, the same as the learner's.
        address: `host:port` of the learner.
        token: Secret that the learner expects; None with `link.tls`, where this host's certificate is shown.
        run_id: The run to take part in.
        journal_folder: Where steps are kept until the learner has acknowledged them.
        should_stop: Asked every step; a text ends the actor in good order.
        handover_s: Time for a process that is about to let go of the robot [s].
        operator: Whoever watches and commands; None: nobody.

    Raises:
        RobotError: Another actor drives this robot.
        TransportError: The learner cannot be reached, refuses this actor, or failed.
    """
    torch.set_num_threads(1)
    operator = operator or NoOperator()
    with robot_lease(config.robot.id, wait_s=handover_s) if config.env is None else nullcontext():
        policy = Policy(PolicyArchitecture.from_config(config), Preprocessor.from_config(config))
        environment: Any = make_environment(config)
        client = LinkClient(
            address,
            token=token,
            actor_id=config.robot.id,
            robot_id=config.robot.id,
            handshake=Handshake(run_id=run_id, schema_hash=policy.schema_hash, architecture_hash=policy.architecture_hash),
            journal_folder=journal_folder,
            schema=policy_schema(config),
            max_message_mb=config.link.max_message_mb,
            tls=config.link.tls,
            compression=config.link.compression,
            keep_journal=config.link.keep_journals,
        )
        operator.linked(client)
        try:
            client.connect(timeout_s=_CONNECT_TIMEOUT_S)
            weights = client.wait_for_weights(timeout_s=_FIRST_WEIGHTS_TIMEOUT_S)
            policy.load_tensors(as_tensors(weights.tensors), weights.version)
            operator.told(weights_version=weights.version)
            logger.info("Actor of %s connected to %s, weights version %d", config.robot.id, address, weights.version)
            actor = Actor(config, environment, None, policy, client, should_stop, operator=operator)
            while (result := _drive(config, actor, environment, operator)) is None:
                environment.close()
                if reason := operator.wait_for_rearming(actor.stop_reason):
                    result = actor.result(reason)
                    break
                environment = make_environment(config)
            operator.told(ended=result.reason)
            client.flush(timeout_s=10.0)
            logger.info("Actor ended: %s", result.reason)
            return result
        finally:
            environment.close()
            client.close()


def _drive(config: TrainConfig, actor: Actor, environment: Any, operator: Operator) -> ActorResult | None:
    """Act to the end; None: the robot was stopped, and a person is there who may re-arm it."""
    is_paced = config.actor.pace == "realtime"
    with (
        human_of(config, environment, operator) as human,
        RealtimePriority(config.actor.realtime_priority if is_paced else None) as priority,
    ):
        actor.go_on_with(environment, human, Pace(config.robot.control_hz, on_hopeless=priority.give_back) if is_paced else None)
        try:
            return actor.run()
        except RobotError as error:
            if not operator.stands_by(error):
                raise
            logger.error("%s It waits for a person who re-arms it.", error)
            return None


@contextmanager
def human_of(config: TrainConfig, environment: Any, operator: Operator | None = None) -> Iterator[Human | None]:
    """Connect who may take over in this environment, and let go of the device at the end; None where nobody does."""
    human = (operator or NoOperator()).human(config, environment, make_human)
    try:
        yield human
    finally:
        if human is not None:
            human.close()
