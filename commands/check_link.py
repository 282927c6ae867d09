"""`hilserl check-link`: from the robot's host, everything that must hold before an actor can reach its learner, a line each."""

from __future__ import annotations

import datetime as dt
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from hilserl.config import load_config
from hilserl.config.models import LinkConfig, TrainConfig
from hilserl.errors import HilserlError, ServiceAwayError, ServiceError, ServiceRefusedError
from hilserl.services import rest
from hilserl.services.access import AUTH_VARIABLE
from hilserl.services.deployments import ROBOT_POOL
from hilserl.services.robot_worker import require_actor, server_url

_TIMEOUT_S = 3.0
_BEHIND_S = 5.0  # Prefect's worker looks for runs up to 10 s ahead of its own clock
_AHEAD_S = 1800.0

Verdict = Literal["ok", "note", "FAIL"]


@dataclass(frozen=True)
class Line:
    """One check."""

    verdict: Verdict
    what: str
    text: str


def run_check_link(config: str, overrides: dict[str, Any], show: Callable[[str], None] = print) -> bool:
    """Check the way from here to the learner of a configuration; return whether nothing is wrong.

    Args:
        config: As for `prefect deployment run hilserl/train`.
        overrides: Likewise; `link.*` and `robot.host` matter here.
        show: Prints one line for a person.
    """
    settings = load_config(config, overrides)
    lines = []
    for line in _checks(settings):
        lines.append(line)
        show(f"{line.verdict:<5} {line.what:<13} {line.text}")
    return all(line.verdict != "FAIL" for line in lines)


def _checks(config: TrainConfig) -> Iterator[Line]:
    yield _certificate(config)
    yield from _link(config.link)
    yield from _prefect(config.robot.host)


def _certificate(config: TrainConfig) -> Line:
    if not config.link.tls:
        return Line("FAIL", "certificate", "`link.tls` is false: the link stays on the learner's own machine. Set `link.tls: true`.")
    from hilserl.link.tls import load_identity

    try:
        identity = load_identity("actor")
    except HilserlError as error:
        return Line("FAIL", "certificate", str(error))
    if identity.host != config.robot.host:
        return Line(
            "note", "certificate", f"{identity.certificate} is that of `{identity.host}`, and `robot.host` is `{config.robot.host}`"
        )
    return Line("ok", "certificate", f"{identity.certificate} of robot host `{identity.host}`")


def _link(link: LinkConfig) -> Iterator[Line]:
    host = link.advertise or link.host
    try:
        address = socket.getaddrinfo(host, link.port or None, type=socket.SOCK_STREAM)[0][4][0]
    except OSError as error:
        yield Line("FAIL", "name", f"`{host}` (link.advertise, else link.host) is not known here: {error.strerror}. Add it to the DNS.")
        return
    yield Line("ok", "name", f"{host} is {address}")
    if link.port == 0:
        yield Line("note", "learner", "`link.port` is 0, a free port each time: set one that the learner's firewall lets in, such as 50051")
        return
    where = f"{f'[{host}]' if ':' in host else host}:{link.port}"
    try:
        socket.create_connection((host, link.port), _TIMEOUT_S).close()
    except ConnectionRefusedError:
        yield Line("note", "learner", f"{where}: the host answers and nobody listens, as it is while nothing trains")
        return
    except OSError as error:
        yield Line(
            "FAIL", "learner", f"{where}: no answer ({error}). Is the learner's host up, and does its firewall let port {link.port} in?"
        )
        return
    yield Line("ok", "learner", f"{where}: a learner listens")
    if link.tls:
        from hilserl.link.tls import explain, load_identity

        try:
            problem = explain(where, load_identity("actor"))
        except HilserlError:
            return  # said above
        yield Line("FAIL", "TLS", problem) if problem else Line("ok", "TLS", "learner and this host accept each other's certificates")


def _prefect(robot_host: str) -> Iterator[Line]:
    try:
        api = server_url()
        require_actor(api, robot_host)
    except ServiceAwayError as error:
        yield Line("FAIL", "Prefect", f"{error} Is `hilserl up --learner-only --bind ADDRESS` running there?")
        return
    except ServiceRefusedError as error:
        remedy = f"Set {AUTH_VARIABLE} here to the one of the learner's host." if error.code == 401 else ""
        yield Line("FAIL", "Prefect", f"{error} {remedy}".strip())
        return
    except ServiceError as error:
        yield Line("FAIL", "Prefect", str(error))
        return
    yield Line("ok", "Prefect", f"{api} lets this host in, and has its deployment actor/{robot_host}")
    yield _clock(api)
    yield _worker(api, robot_host)


def _clock(api: str) -> Line:
    ahead_s = (dt.datetime.now(dt.UTC) - rest.server_time(f"{api}/health")).total_seconds()
    if ahead_s < -_BEHIND_S:
        return Line(
            "FAIL",
            "clock",
            f"this host is {-ahead_s:.0f} s behind the learner's: its worker sees a run so much later. Set both clocks (NTP).",
        )
    if ahead_s > _AHEAD_S:
        return Line(
            "FAIL", "clock", f"this host is {ahead_s:.0f} s ahead of the learner's: certificates expire early. Set both clocks (NTP)."
        )
    return Line("ok", "clock", f"{ahead_s:+.0f} s to the learner's host")


def _worker(api: str, robot_host: str) -> Line:
    queues = [queue["name"] for queue in rest.call("POST", f"{api}/work_pools/{ROBOT_POOL}/queues/filter", {})]
    if robot_host not in queues:
        return Line("FAIL", "worker", f"pool `{ROBOT_POOL}` has no queue `{robot_host}`; it has {', '.join(queues)}")
    workers = rest.call("POST", f"{api}/work_pools/{ROBOT_POOL}/workers/filter", {})
    online = [worker["name"] for worker in workers if worker["status"] == "ONLINE"]
    if not any(name.endswith(f"@{robot_host}") for name in online):
        others = f" Online are {', '.join(online)}." if online else ""
        return Line(
            "FAIL", "worker", f"no worker of this host is online. Start `hilserl up --robot-only --robot-host {robot_host}` here.{others}"
        )
    return Line("ok", "worker", f"online: {', '.join(online)}")
