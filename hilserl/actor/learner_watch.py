"""The learner as the actor sees it: how much it owes, whether it is there, and when the actor ends because of it."""

from __future__ import annotations

import time
from collections.abc import Callable

from hilserl.config.models import TrainConfig
from hilserl.errors import LearnerAwayError
from hilserl.link.interfaces import ActorEnd

_THROTTLE_POLL_S = 0.002
_LEARNER_SILENCE_S = 120.0  # a learner that is started again needs 20 to 60 s of it


class LearnerWatch:
    """Says why the actor ends, and lets a simulated robot wait for the learner."""

    def __init__(self, config: TrainConfig, client: ActorEnd, should_stop: Callable[[], str | None]) -> None:
        """Watch the learner behind `client`; `should_stop` returns why somebody wants the actor to end."""
        self._config, self._client, self._should_stop = config, client, should_stop
        self._connected_at = time.monotonic()

    def stop_reason(self) -> str | None:
        """Return why the actor ends now; None: it does not.

        Raises:
            LearnerAwayError: The learner failed, or was away for too long.
        """
        if reason := self._should_stop():
            return reason
        status = self._client.status
        if status.phase == "finished":
            return f"the learner finished: {status.message}"
        if status.phase == "failed":
            raise LearnerAwayError(f"the learner failed: {status.message}")
        self._require_learner()
        return None

    def wait(self, environment_steps: int, rests: Callable[[], None]) -> bool:
        """Let a simulated robot wait for the learner; a real one never waits.

        Args:
            environment_steps: That were done in the whole run.
            rests: Called again and again meanwhile.

        Returns:
            Whether there is a reason to stop.
        """
        while self._config.actor.pace == "unthrottled" and self._owed_updates(environment_steps) > self._config.learner.max_owed_updates:
            if self.stop_reason():
                return True
            rests()
            time.sleep(_THROTTLE_POLL_S)
        return self.stop_reason() is not None

    def _owed_updates(self, environment_steps: int) -> int:
        """Estimate what the learner owes now: what it said, and what the steps that it had not seen then add."""
        status, policy = self._client.status, self._config.policy
        learned_from = max(0, environment_steps - policy.online_step_before_learning)
        seen = max(0, status.environment_steps - policy.online_step_before_learning)
        return status.owed_updates + policy.utd_ratio * max(0, learned_from - seen)

    def _require_learner(self) -> None:
        """Give a learner that is away time to come back, but do not act for nobody."""
        now = time.monotonic()
        if self._client.is_connected:
            self._connected_at = now
        elif now - self._connected_at > _LEARNER_SILENCE_S:
            raise LearnerAwayError(
                f"the learner was away for {_LEARNER_SILENCE_S:.0f} s, so the actor stopped. What it did is in its journal. "
                "Start the run again to continue from the last checkpoint."
            )
