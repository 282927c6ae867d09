"""The actor's end of the link.

`send_step` returns as soon as the record is in the actor's journal. Background threads hold the
stream to the learner and re-open it, fetch weights, and cut a stream that has gone silent.
Memory is bounded: a learner that is away costs disk.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal, Self

import grpc

from hilserl.errors import HilserlError, TransportError
from hilserl.link import link_pb2, link_pb2_grpc
from hilserl.link.auth import check_token, credentials
from hilserl.link.channel import COMPRESSION, open_channel
from hilserl.link.codec import decode_status, encode_handshake, encode_record
from hilserl.link.conformity import Conformity
from hilserl.link.journal import Journal
from hilserl.link.messages import EpisodeReport, Handshake, LearnerStatus, Record, Step, Weights, check_name
from hilserl.link.outbox import Delivery, Outbox
from hilserl.link.tls import explain, load_identity
from hilserl.link.weights_source import WeightsSource
from hilserl.schema import FeatureSchema
from hilserl.threads import background_thread

logger = logging.getLogger(__name__)

_REOPEN_GAP = 1 << 20
_HEARTBEAT_S = 0.5
_PEER_TIMEOUT_S = 15.0
_LINGER_S = 0.02  # records of this time share a message: at 400 steps/s, 50 messages/s
_REPORT_EVERY_S = 30.0
_FIRST_BACKOFF_S, _LAST_BACKOFF_S = 0.1, 2.0
_FATAL = {
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
}


class _Session:
    """One stream to the learner, from its Hello to its end."""

    def __init__(self) -> None:
        self.delivery: Delivery | None = None  # from the learner's welcome on
        self.call: grpc.Call | None = None
        self.ended = threading.Event()
        self.last_heard = time.monotonic()


class LinkClient:
    """Sends records, each exactly once whatever dies in between; receives weights and status.

    Args:
        address: `host:port` of the learner.
        token: The learner's token; not needed with TLS.
        actor_id: Name of this actor; the same after a restart.
        robot_id: The robot it holds; one live actor per robot.
        handshake: Run, schema and architecture; compared with the learner's.
        journal_folder: Records are written to `<journal_folder>/<run_id>/<actor_id>` first.
        schema: What every step must be; None: any step is sent.
        max_message_mb: Largest record [MiB].
        tls: Both sides show a certificate, this one that of `certificates_folder()`.
        compression: Of what is sent: `none`, `deflate` or `gzip`.
        keep_journal: Keep in the journal what the learner has acknowledged, too.

    Raises:
        TransportError: A name or the token is malformed, the journal is in use, or this host's certificate is missing or of no use.
        CacheError: The disk is full.
    """

    def __init__(
        self,
        address: str,
        *,
        actor_id: str,
        robot_id: str,
        handshake: Handshake,
        journal_folder: Path,
        token: str | None = None,
        schema: FeatureSchema | None = None,
        max_message_mb: int = 32,
        tls: bool = False,
        compression: Literal["none", "deflate", "gzip"] = "none",
        keep_journal: bool = False,
    ) -> None:
        self._address = address
        self._identity = load_identity("actor") if tls else None
        self._metadata = () if tls else credentials(check_token(token or "", "The actor's link"))
        self._compression = COMPRESSION[compression]
        self._conformity = None if schema is None else Conformity(schema)
        self._actor_id, self._robot_id = check_name(actor_id, "actor_id"), check_name(robot_id, "robot_id")
        self._handshake = handshake
        self._max_record_bytes = max_message_mb << 20
        run_id = check_name(handshake.run_id, "run_id")
        journal = Journal(journal_folder / run_id / actor_id, label=run_id, reopen_gap=_REOPEN_GAP)
        self._outbox = Outbox(journal, keep=keep_journal)
        self._changed = threading.Condition()  # guards everything below
        self._status = LearnerStatus()
        self._was_welcome = False
        self._weights: Weights | None = None
        self._fetched_version = 0  # of the newest weights received
        self._must_ask_for_weights = False
        self._session: _Session | None = None
        self._failure: BaseException | None = None
        self._closing = threading.Event()
        self._channel: grpc.Channel | None = None
        self._threads: list[threading.Thread] = []

    # ----------------------------------------------------------------------------- interface

    def connect(self, timeout_s: float = 30.0) -> None:
        """Start the background threads and wait for the learner's welcome.

        Raises:
            TransportError: The learner refused this actor, or did not answer in time.
        """
        if self._channel is None:
            self._channel = open_channel(self._address, self._identity, self._max_record_bytes)
            self._stub = link_pb2_grpc.LinkStub(self._channel)
            self._weights_source = WeightsSource(self._stub, self._metadata, self._handshake, self._address)
            for name, work in (
                ("link-stream", self._hold_stream),
                ("link-weights", self._follow_weights),
                ("link-watchdog", self._watch),
            ):
                thread = background_thread(partial(self._guarded, work), name)
                self._threads.append(thread)
                thread.start()
        if not self._wait(lambda: self.is_connected, timeout_s):
            raise TransportError(
                f"The learner at {self._address} did not answer within {timeout_s:g} s. Check that it is running, that the address is "
                "the one it printed, and that the port can be reached from this host."
            )

    @property
    def is_connected(self) -> bool:
        """Whether a stream to the learner is open at this moment."""
        session = self._session
        return session is not None and session.delivery is not None and not session.ended.is_set()

    @property
    def status(self) -> LearnerStatus:
        """The learner's last status; at most half a second old while connected."""
        self._raise_if_failed()
        return self._status

    @property
    def last_status(self) -> LearnerStatus:
        """The learner's last status, also when the link has failed: for showing it."""
        return self._status

    @property
    def waiting(self) -> tuple[int, int]:
        """Records that the learner has not acknowledged, and the size of the journal [bytes]."""
        return self._outbox.waiting

    def send_step(self, step: Step) -> None:
        """Journal one control step; it is sent in the background.

        Raises:
            TransportError: The step is malformed or too large, or the learner refused this actor.
            CacheError: The disk is full.
        """
        self._send(step)

    def send_episode(self, report: EpisodeReport) -> None:
        """Journal the report of one finished episode; see `send_step`."""
        self._send(report)

    def latest_weights(self) -> Weights | None:
        """Return the newest weights if they have not been taken yet; never waits."""
        self._raise_if_failed()
        with self._changed:
            weights, self._weights = self._weights, None
            return weights

    def wait_for_weights(self, timeout_s: float) -> Weights:
        """Take the newest weights not taken yet, waiting for them.

        Raises:
            TransportError: None came in time.
        """
        if not self._wait(lambda: self._weights is not None, timeout_s):
            raise TransportError(
                f"The learner at {self._address} published no new weights within {timeout_s:g} s. It is "
                f"{'connected' if self.is_connected else 'not connected'}, phase `{self._status.phase}`. {self._status.message}".rstrip()
            )
        weights = self.latest_weights()
        assert weights is not None
        return weights

    def flush(self, timeout_s: float) -> None:
        """Wait until the learner has acknowledged everything sent.

        Raises:
            TransportError: It has not in time; what is missing stays in the journal.
        """
        if not self._wait(lambda: self._outbox.is_flushed, timeout_s):
            journal = self._outbox.journal
            raise TransportError(
                f"The learner at {self._address} acknowledged records up to {self._outbox.acked_seq} of {journal.last_seq} within "
                f"{timeout_s:g} s. The rest stays in {journal.folder} and is sent when actor `{self._actor_id}` connects again."
            )

    def close(self) -> None:
        """End the stream and give the robot back; again is nothing.

        The journal's content goes if all of it was acknowledged, and stays otherwise.
        """
        if self._closing.is_set():
            return
        self._closing.set()
        self._wake()
        for thread in self._threads:
            thread.join(2.0)
        if self._channel is not None:
            self._channel.close()  # ends a call that has not ended by itself
        for thread in self._threads:
            thread.join()
        self._outbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ----------------------------------------------------------------------- in the caller's

    def _send(self, record: Record) -> None:
        self._raise_if_failed()
        if self._conformity is not None:
            self._conformity.check(record)
        payload = encode_record(record)
        if len(payload) > self._max_record_bytes:
            raise TransportError(
                f"A record of {len(payload) / 2**20:.1f} MiB is larger than the {self._max_record_bytes / 2**20:g} MiB that may be sent. "
                "Lower the image size, or raise `link.max_message_mb` on both sides."
            )
        self._outbox.add(payload)

    def _wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._failure is not None or condition(), timeout_s)
        self._raise_if_failed()
        return condition()

    def _raise_if_failed(self) -> None:
        failure = self._failure
        if isinstance(failure, HilserlError):
            raise type(failure)(str(failure)) from failure
        if failure is not None:
            raise RuntimeError(f"the link's background thread died: {failure!r}") from failure
        if self._closing.is_set():
            raise TransportError("The link is closed.")

    # ------------------------------------------------------------------ in background threads

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            if self._failure is None and not self._closing.is_set():
                logger.error("The link to %s has ended: %s", self._address, error)
                self._failure = error
            self._changed.notify_all()

    def _hold_stream(self) -> None:
        """Keep a stream to the learner open; returns when the client closes."""
        backoff_s, next_report = _FIRST_BACKOFF_S, 0.0
        while not self._closing.is_set() and self._failure is None:
            session = _Session()
            reason = "it ended the stream"
            try:
                self._converse(session)
            except grpc.RpcError as error:
                self._raise_if_fatal(error)
                reason = f"{error.code().name}: {error.details()}"
            finally:
                session.ended.set()
                self._wake()
            if session.delivery is not None:
                backoff_s, next_report = _FIRST_BACKOFF_S, 0.0
            if not self._closing.is_set() and time.monotonic() >= next_report:
                reason = self._explained(reason)
                logger.warning("No stream to the learner at %s (%s). Records wait on disk; trying again.", self._address, reason)
                next_report = time.monotonic() + _REPORT_EVERY_S
            # Half of the wait is random, so that actors do not come back all at once.
            self._closing.wait(backoff_s * random.uniform(0.5, 1.0))
            backoff_s = min(2 * backoff_s, _LAST_BACKOFF_S)

    def _explained(self, reason: str) -> str:
        """Say it better where certificates are the reason; before the first welcome that is final, because it never gets better alone.

        Raises:
            TransportError: It is final.
        """
        if self._identity is None or not (why := explain(self._address, self._identity)):
            return reason
        if not self._was_welcome:
            raise TransportError(f"The actor cannot connect to the learner at {self._address}: {why}.")
        return why

    def _converse(self, session: _Session) -> None:
        session.call = self._stub.Stream(self._outgoing(session), metadata=self._metadata, compression=self._compression)
        with self._changed:
            self._session = session
        for message in session.call:
            session.last_heard = time.monotonic()
            if message.WhichOneof("kind") == "welcome" and session.delivery is None:
                welcome, self._was_welcome = message.welcome, True
                self._max_record_bytes = min(self._max_record_bytes, welcome.max_message_bytes)
                session.delivery = self._outbox.begin(welcome.durable_seq)
                logger.info("Connected to the learner at %s; it has records up to %d.", self._address, welcome.durable_seq)
                self._note_status(welcome.status, must_ask_for_weights=True)
            elif session.delivery is not None:
                self._outbox.acknowledge(session.delivery, message.ack.durable_seq)
                self._note_status(message.ack.status)

    def _wake(self) -> None:
        """Make every waiter look again at what it waits for."""
        self._outbox.wake()
        with self._changed:
            self._changed.notify_all()

    def _note_status(self, message: link_pb2.LearnerStatus, *, must_ask_for_weights: bool = False) -> None:
        status = decode_status(message)
        with self._changed:
            self._status = status
            self._must_ask_for_weights |= must_ask_for_weights or status.weights_version not in (0, self._fetched_version)
            self._changed.notify_all()

    def _raise_if_fatal(self, error: grpc.RpcError) -> None:
        if error.code() in _FATAL:
            raise TransportError(f"The learner at {self._address} refused actor `{self._actor_id}`: {error.details()}.") from error

    def _outgoing(self, session: _Session) -> Iterator[link_pb2.ActorMessage]:
        """Yield what the stream sends; runs in a thread of gRPC."""
        try:
            yield link_pb2.ActorMessage(
                hello=link_pb2.Hello(
                    handshake=encode_handshake(self._handshake),
                    actor_id=self._actor_id,
                    robot_id=self._robot_id,
                    stream_id=self._outbox.journal.stream_id,
                )
            )
            with self._changed:
                self._changed.wait_for(lambda: session.delivery is not None or self._is_over(session), _PEER_TIMEOUT_S)
            delivery = session.delivery
            while delivery is not None and not self._is_over(session):
                if self._outbox.wait(delivery, _HEARTBEAT_S, interrupted=lambda: self._is_over(session)):
                    yield link_pb2.ActorMessage(batch=link_pb2.Batch(records=self._outbox.next_batch(delivery)))
                    session.ended.wait(_LINGER_S)
                elif not self._is_over(session):
                    yield link_pb2.ActorMessage(heartbeat=link_pb2.Heartbeat())
        except GeneratorExit:
            raise
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            if session.delivery is not None:
                session.delivery.reader.close()

    def _is_over(self, session: _Session) -> bool:
        return session.ended.is_set() or self._closing.is_set()

    def _watch(self) -> None:
        """Cut a stream whose learner has gone silent, such as behind a half-open connection."""
        while not self._closing.wait(_HEARTBEAT_S) and self._failure is None:
            session = self._session
            if session is not None and session.call is not None and not session.ended.is_set():
                silent_s = time.monotonic() - session.last_heard
                if silent_s > _PEER_TIMEOUT_S:
                    logger.warning("The learner at %s has been silent for %.0f s; connecting again.", self._address, silent_s)
                    session.call.cancel()

    def _follow_weights(self) -> None:
        """Fetch weights whenever there are new ones."""
        while not self._closing.is_set() and self._failure is None:
            with self._changed:
                self._changed.wait_for(lambda: self._closing.is_set() or self._failure is not None or self._must_ask_for_weights)
                self._must_ask_for_weights = False
            if not self._closing.is_set() and self._failure is None:
                self._fetch_weights()

    def _fetch_weights(self) -> None:
        try:
            weights = self._weights_source.fetch()
        except grpc.RpcError as error:
            self._raise_if_fatal(error)
            logger.warning("No weights from the learner at %s (%s); asking again.", self._address, error.code().name)
            self._closing.wait(_HEARTBEAT_S)
            with self._changed:
                self._must_ask_for_weights |= self.is_connected  # else the next welcome asks
            return
        if weights is None:
            return
        with self._changed:
            self._weights, self._fetched_version = weights, weights.version
            self._changed.notify_all()
