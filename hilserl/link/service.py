"""The calls of `link.proto` on the learner's side, and what their threads share with its loop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, replace
from typing import Any

import grpc

from hilserl.errors import TransportError
from hilserl.link import link_pb2, link_pb2_grpc
from hilserl.link.codec import decode_handshake, decode_record, encode_status
from hilserl.link.ingest import Ingest
from hilserl.link.leases import Lease, Leases
from hilserl.link.messages import Handshake, LearnerStatus, check_name

logger = logging.getLogger(__name__)

MAX_ACTORS = 32
_CHUNK_BYTES = 1 << 20
_BUSY_ANSWER_S = 0.5


@dataclass(frozen=True)
class PublishedWeights:
    """Weights in wire form.

    Attributes:
        version: Of the weights; 0: there are none yet.
        content_hash: Of the weights.
        frozen_hash: Of their frozen part; empty: there is none.
        payload: All but the frozen part.
        frozen_payload: The frozen part; behind `payload` it makes the whole message.
    """

    version: int = 0
    content_hash: str = ""
    frozen_hash: str = ""
    payload: bytes = b""
    frozen_payload: bytes = b""

    def missing(self, request: link_pb2.WeightsRequest) -> tuple[bytes, ...]:
        """Return the parts of the message that the caller does not have."""
        if (request.known_version, request.known_hash) == (self.version, self.content_hash):
            return ()
        return (self.payload,) if request.known_frozen_hash == self.frozen_hash else (self.payload, self.frozen_payload)


class Board:
    """What every actor may read: the learner's status and its newest weights, in wire form."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._status = LearnerStatus()
        self.status_message = encode_status(self._status)
        self.is_closing = False
        self.weights = PublishedWeights()

    def set_status(self, status: LearnerStatus) -> None:
        """Replace the status; its weights version is the published one."""
        with self._lock:
            self._status = status
            self.status_message = encode_status(replace(status, weights_version=self.weights.version))

    def publish(self, weights: PublishedWeights) -> None:
        """Replace the weights."""
        with self._lock:
            self.weights = weights
            self.status_message = encode_status(replace(self._status, weights_version=weights.version))


class LinkServicer(link_pb2_grpc.LinkServicer):
    """The calls of `link.proto`, each in a thread of gRPC's pool."""

    def __init__(self, handshake: Handshake, ingest: Ingest, leases: Leases, board: Board, max_record_bytes: int) -> None:
        self._handshake = handshake
        self._ingest = ingest
        self._leases = leases
        self._board = board
        self._max_record_bytes = max_record_bytes

    def Stream(self, requests: Iterator[link_pb2.ActorMessage], context: grpc.ServicerContext) -> Iterator[link_pb2.LearnerMessage]:
        """Take one actor's records in for as long as it stays."""
        lease = self._open(requests, context)
        try:
            yield self._welcome(lease)
            for message in requests:
                lease.heard()
                yield from self._take_in(lease, message, context)
                yield self._acknowledge(lease)
                if self._board.is_closing:
                    return
        except grpc.RpcError:
            logger.info("Actor `%s` disconnected.", lease.actor_id)
        finally:
            self._leases.release(lease)

    def GetWeights(self, request: link_pb2.WeightsRequest, context: grpc.ServicerContext) -> Iterator[link_pb2.WeightsChunk]:
        """Send what the caller lacks of the newest weights."""
        weights = self._board.weights
        parts = weights.missing(request)
        total_bytes = sum(len(part) for part in parts)
        for part in parts:
            for start in range(0, len(part), _CHUNK_BYTES):
                yield link_pb2.WeightsChunk(version=weights.version, total_bytes=total_bytes, data=part[start : start + _CHUNK_BYTES])

    def GetStatus(self, request: link_pb2.StatusRequest, context: grpc.ServicerContext) -> link_pb2.LearnerStatus:
        """Tell how learning goes."""
        return self._board.status_message

    def _open(self, requests: Iterator[link_pb2.ActorMessage], context: grpc.ServicerContext) -> Lease:
        """Read the Hello, compare, and take the lease; ends the call where that fails."""
        first = next(requests, link_pb2.ActorMessage())
        hello = first.hello
        if first.WhichOneof("kind") != "hello" or len(hello.stream_id) != 16:
            _abort(context, grpc.StatusCode.INVALID_ARGUMENT, "the first message must be a Hello")
        differences = decode_handshake(hello.handshake).differences(self._handshake)
        if differences:
            _abort(context, grpc.StatusCode.FAILED_PRECONDITION, "; ".join(differences))
        lease = Lease(hello.actor_id, hello.robot_id, hello.stream_id, context.cancel)
        try:
            check_name(hello.actor_id, "actor_id")
            check_name(hello.robot_id, "robot_id")
        except TransportError as error:
            _abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        try:
            self._leases.acquire(lease)
        except TransportError as error:
            _abort(context, grpc.StatusCode.ALREADY_EXISTS, str(error))
        if not context.add_callback(lambda: self._leases.release(lease)):
            self._leases.release(lease)  # the peer left in between
        logger.info("Actor `%s` connected on robot `%s`.", lease.actor_id, lease.robot_id)
        return lease

    def _take_in(self, lease: Lease, message: link_pb2.ActorMessage, context: grpc.ServicerContext) -> Iterator[link_pb2.LearnerMessage]:
        """Journal and queue the message's records; answers with the status while the queue is full."""
        kind = message.WhichOneof("kind")
        if kind == "heartbeat":
            return
        if kind != "batch":
            _abort(context, grpc.StatusCode.INVALID_ARGUMENT, f"after the Hello come batches and heartbeats, not {kind!r}")
        try:
            batch = [(envelope, decode_record(envelope.payload)) for envelope in message.batch.records]
        except TransportError as error:
            _abort(context, grpc.StatusCode.INVALID_ARGUMENT, f"actor `{lease.actor_id}`: {error}")
        try:
            while not self._ingest.offer(lease.actor_id, lease.robot_id, lease.stream_id, batch, timeout_s=_BUSY_ANSWER_S):
                if not context.is_active():
                    return
                lease.heard()
                yield self._acknowledge(lease)
        except TransportError as error:
            _abort(context, grpc.StatusCode.OUT_OF_RANGE, str(error))
        except Exception as error:
            _abort(context, grpc.StatusCode.UNAVAILABLE, f"the learner cannot write its journal: {error}")

    def _welcome(self, lease: Lease) -> link_pb2.LearnerMessage:
        return link_pb2.LearnerMessage(
            welcome=link_pb2.Welcome(
                durable_seq=self._ingest.durable_seq(lease.actor_id, lease.stream_id),
                status=self._board.status_message,
                max_message_bytes=self._max_record_bytes,
            )
        )

    def _acknowledge(self, lease: Lease) -> link_pb2.LearnerMessage:
        durable_seq = self._ingest.durable_seq(lease.actor_id, lease.stream_id)
        return link_pb2.LearnerMessage(ack=link_pb2.Ack(durable_seq=durable_seq, status=self._board.status_message))


def _abort(context: grpc.ServicerContext, code: grpc.StatusCode, details: str) -> None:
    """End the call; raises."""
    logger.warning("Refused a call of %s (%s): %s.", context.peer(), code.name, details[:1000])
    context.abort(code, details[:1000])


class DaemonThreads(futures.Executor):
    """A thread per call (gRPC bounds their number), which does not hold up the end of the process.

    The threads of a `ThreadPoolExecutor` are joined at exit, so a learner that dies of an
    exception with an actor connected would hang instead of exiting non-zero.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
        """Run `fn` in a thread of its own."""
        future: futures.Future[Any] = futures.Future()

        def run() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=run, name="link-call", daemon=True).start()
        return future
