"""One live actor per robot.

A lease lasts as long as the actor's stream. The stream ends when the actor closes it, dies
(the kernel closes the connection) or is cut off (gRPC's keep-alive notices).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hilserl.errors import TransportError
from hilserl.link.limits import MAX_ACTORS, MAX_REMEMBERED_ACTORS

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Lease:
    """One actor's hold on one robot.

    Attributes:
        actor_id: Who holds it.
        robot_id: What is held.
        stream_id: Identity of the actor's journal. Its owner holds a lock on that, so a second
            claim with the same id, from the same host, is the same actor come back.
        end_call: Cuts the stream that the lease belongs to.
        host: Robot host that its certificate names; empty without TLS.
        last_heard: `time.monotonic()` of the last message [s].
    """

    actor_id: str
    robot_id: str
    stream_id: bytes
    end_call: Callable[[], object]
    host: str = ""
    last_heard: float = field(default_factory=time.monotonic)

    def heard(self) -> None:
        """Note that the actor spoke just now."""
        self.last_heard = time.monotonic()


class Leases:
    """Who holds which robot, and when each actor was last heard.

    Args:
        timeout_s: An actor silent for longer loses its lease to the next one who asks [s].
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._live: list[Lease] = []
        self._last_by_actor: dict[str, Lease] = {}

    def acquire(self, lease: Lease) -> None:
        """Enter `lease`; ends an older one of the same actor, or one gone silent.

        Raises:
            TransportError: Another live actor holds the robot, or goes by the same name.
        """
        with self._lock:
            rivals = [held for held in self._live if lease.robot_id == held.robot_id or lease.actor_id == held.actor_id]
            for held in rivals:
                silent_s = time.monotonic() - held.last_heard
                is_same = (held.stream_id, held.host) == (lease.stream_id, lease.host)
                if not is_same and silent_s <= self._timeout_s:
                    where = f" from {held.host}" if held.host else ""
                    raise TransportError(
                        f"actor `{held.actor_id}`{where} holds robot `{held.robot_id}` (heard {silent_s:.1f} s ago) and actor "
                        f"`{lease.actor_id}` asked for `{lease.robot_id}`: one actor per robot, one robot per actor. Stop that actor "
                        f"first; if it is gone, its hold ends within {self._timeout_s:.0f} s"
                    )
            if len(self._live) - len(rivals) >= MAX_ACTORS:
                raise TransportError(f"{MAX_ACTORS} actors are connected, which is the most that one learner serves")
            for held in rivals:
                logger.warning(
                    "The earlier stream of actor `%s` on robot `%s` is replaced by a new one of `%s`.",
                    held.actor_id, held.robot_id, lease.actor_id,
                )  # fmt: skip
                self._live.remove(held)
                held.end_call()
            self._live.append(lease)
            self._last_by_actor.pop(lease.actor_id, None)  # to the end: the newest is forgotten last
            self._last_by_actor[lease.actor_id] = lease
            if len(self._last_by_actor) > MAX_ACTORS + MAX_REMEMBERED_ACTORS:
                live = {held.actor_id for held in self._live}
                del self._last_by_actor[next(actor_id for actor_id in self._last_by_actor if actor_id not in live)]

    def release(self, lease: Lease) -> None:
        """Give the robot back; again, or after a replacement, is nothing."""
        with self._lock:
            if lease in self._live:
                self._live.remove(lease)

    def last_heard_s(self) -> dict[str, float]:
        """Return for the actors seen, the last few hundred, how long ago it spoke [s]."""
        now = time.monotonic()
        with self._lock:
            return {actor_id: now - lease.last_heard for actor_id, lease in self._last_by_actor.items()}

    def live_actors(self) -> list[str]:
        """Return the actors whose stream is open."""
        with self._lock:
            return [lease.actor_id for lease in self._live]
