"""A robot loop and a learner's loop at the two ends of the link, in threads of their own, for tests of what lies between."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from link_testing import assert_same, make_client, make_server, make_step, wait_until

from hilserl.link import Record, Weights
from hilserl.link.outbox import UNSENT_BYTES, UNSENT_RECORDS, WINDOW_BYTES, WINDOW_RECORDS

_PERIOD_S = 0.004


def make_weights(version: int) -> Weights:
    """Return weights whose content follows from their version."""
    return Weights.create(version, {"actor.weight": np.full(2_500, version, np.float32)})


class RobotAndLearner:
    """Steps go up, weights come down; `finish` compares all that was sent with all that arrived.

    Args:
        folder: For the journals.
        between: Makes the address that the actor uses from the learner's.
        image_px: Makes the steps larger.
        server_options: Of `LinkServer`.
    """

    def __init__(self, folder: Path, between: Callable[[str], str], *, image_px: int = 8, **server_options: object) -> None:
        self._image_px = image_px
        self.server = make_server(folder, **server_options)
        self.address = between(self.server.start())
        self.client = make_client(folder, self.address)
        self.sent = 0
        self.received: list[Record] = []
        self.weights_version = 0  # applied by the robot loop
        self._published = 0
        self._is_paused = threading.Event()
        self._is_over = threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._guarded, args=(loop,)) for loop in (self._robot_loop, self._learner_loop)]

    def __enter__(self) -> "RobotAndLearner":
        self.client.connect(20)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()
        self.client.close()
        self.server.stop()

    def wait(self, condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
        """Wait; an error in one of the loops is raised here."""
        wait_until(lambda: bool(self._failures) or condition(), timeout_s)
        if self._failures:
            raise self._failures[0]

    def act(self, steps: int) -> None:
        """Return when the robot loop has made that many more steps: it does not wait for the network."""
        goal = self.sent + steps
        self.wait(lambda: self.sent >= goal)

    def wait_until_delivered(self) -> None:
        """Return when the learner has what was sent before this call."""
        goal = self.sent
        self.wait(lambda: len(self.received) >= goal, 60)

    def push_weights(self) -> None:
        """Publish new weights and wait until the robot loop has applied them."""
        self._published += 1
        self.server.publish_weights(make_weights(self._published))
        self.wait(lambda: self.weights_version == self._published)

    def require_bounded_memory(self) -> None:
        """Look at what either side holds, while nothing gets through."""
        outbox, ingest = self.client._outbox, self.server._ingest
        delivery = self.client._session.delivery
        assert len(outbox._unsent) <= UNSENT_RECORDS and outbox._unsent_bytes <= UNSENT_BYTES
        if delivery is not None:
            assert len(delivery.in_flight) <= 2 * WINDOW_RECORDS and delivery.in_flight_bytes <= 2 * WINDOW_BYTES
        assert ingest._queued_bytes <= 2 * ingest._max_bytes

    def finish(self) -> None:
        """Stop acting, deliver the rest, and compare."""
        self._is_paused.set()
        self.client.flush(60)
        self.wait(lambda: len(self.received) >= self.sent)
        time.sleep(0.2)  # for one too many
        assert len(self.received) == self.sent
        for number, step in enumerate(self.received):
            assert_same(step, make_step(number, image_px=self._image_px))

    def _guarded(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException as error:
            self._failures.append(error)

    def _robot_loop(self) -> None:
        while not self._is_over.wait(_PERIOD_S):
            if self._is_paused.is_set():
                continue
            weights = self.client.latest_weights()
            if weights is not None:
                np.testing.assert_array_equal(weights.tensors["actor.weight"], make_weights(weights.version).tensors["actor.weight"])
                self.weights_version = weights.version
            self.client.send_step(make_step(self.sent, image_px=self._image_px))
            self.sent += 1

    def _learner_loop(self) -> None:
        while not self._is_over.is_set():
            self.received += [received.record for received in self.server.poll(0.05)]
