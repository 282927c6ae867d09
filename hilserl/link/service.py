"""The calls of `link.proto` on the learner's side, and what their threads share with its loop."""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, replace
from typing import Any

import grpc

from hilserl.errors import TransportError
from hilserl.link import link_pb2
from hilserl.link.codec import decode_actor_message, decode_handshake, decode_record, encode_status
from hilserl.link.conformity import Conformity
from hilserl.link.ingest import Ingest
from hilserl.link.leases import Lease, Leases
from hilserl.link.limits import MAX_WEIGHT_CALLS_PER_CONNECTION
from hilserl.link.messages import Handshake, LearnerStatus, Record, check_name
from hilserl.link.tls import host_of
from hilserl.link.watch import ConnectionWatch, Refusals, WatchedStream
from hilserl.schema import FeatureSchema
from hilserl.threads import background_thread

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_BUSY_ANSWER_S = 0.5
_VERDICT_S = 0.05  # gRPC ends the messages of a call that it has refused like those of one that is done, and says so a moment later


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


class LinkServicer:
    """The calls of `link.proto`, each in a thread of its own.

    Args:
        handshake: What an actor must have in common with this learner.
        schema: What its steps must be; None: anything.
        ingest: Takes the records.
        leases: Who holds which robot.
        board: What every actor may read.
        watch: Ends silent streams.
        refusals: Where refusals are logged.
        max_record_bytes: Told to the actors.
        tls: Whether peers have shown a certificate.
    """

    def __init__(
        self,
        handshake: Handshake,
        schema: FeatureSchema | None,
        ingest: Ingest,
        leases: Leases,
        board: Board,
        watch: ConnectionWatch,
        refusals: Refusals,
        *,
        max_record_bytes: int,
        tls: bool,
    ) -> None:
        self._handshake = handshake
        self._conformity = None if schema is None else Conformity(schema)
        self._ingest = ingest
        self._leases = leases
        self._board = board
        self._watch = watch
        self._refusals = refusals
        self._max_record_bytes = max_record_bytes
        self._tls = tls
        self._weights_lock = threading.Lock()
        self._weight_calls: Counter[str] = Counter()

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the calls for gRPC. A stream's messages stay bytes, so that they are looked at before they are parsed."""
        return grpc.method_handlers_generic_handler(
            link_pb2.DESCRIPTOR.services_by_name["Link"].full_name,
            {
                "Stream": grpc.stream_stream_rpc_method_handler(self.stream, None, link_pb2.LearnerMessage.SerializeToString),
                "GetWeights": grpc.unary_stream_rpc_method_handler(
                    self.get_weights, link_pb2.WeightsRequest.FromString, link_pb2.WeightsChunk.SerializeToString
                ),
                "GetStatus": grpc.unary_unary_rpc_method_handler(
                    self.get_status, link_pb2.StatusRequest.FromString, link_pb2.LearnerStatus.SerializeToString
                ),
            },
        )

    def stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[link_pb2.LearnerMessage]:
        """Take one actor's records in for as long as it stays."""
        host = self._admit(context)
        with self._watch.watched(context) as watched:
            lease = self._open(requests, host, context)
            watched.introduce(lease.actor_id)
            try:
                yield self._welcome(lease)
                for payload in requests:
                    _heard(lease, watched)
                    yield from self._take_in(lease, watched, self._decoded(payload, context), context)
                    yield self._acknowledge(lease)
                    if self._board.is_closing:
                        return
                self._leases.release(lease)
                time.sleep(_VERDICT_S)
                is_whole = context.is_active()
            except grpc.RpcError:
                is_whole = False
            finally:
                self._leases.release(lease)
            if not is_whole:
                logger.warning(
                    "The stream of actor `%s` broke off: its process or the network died, it was replaced, or it sent more than %d MiB.",
                    lease.actor_id, self._max_record_bytes >> 20,
                )  # fmt: skip

    def get_weights(self, request: link_pb2.WeightsRequest, context: grpc.ServicerContext) -> Iterator[link_pb2.WeightsChunk]:
        """Send what the caller lacks of the newest weights."""
        self._admit(context)
        peer = context.peer()
        with self._weights_lock:
            is_allowed = self._weight_calls[peer] < MAX_WEIGHT_CALLS_PER_CONNECTION
            self._weight_calls[peer] += is_allowed
        if not is_allowed:
            self._abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "it asks for weights while it is being sent some")
        try:
            with self._watch.watched(context, weights=True) as watched:
                weights = self._board.weights
                parts = weights.missing(request)
                total_bytes = sum(map(len, parts))
                for part in parts:
                    for start in range(0, len(part), _CHUNK_BYTES):
                        data = part[start : start + _CHUNK_BYTES]
                        yield link_pb2.WeightsChunk(version=weights.version, total_bytes=total_bytes, data=data)
                        watched.heard()
        finally:
            with self._weights_lock:
                self._weight_calls[peer] -= 1
                self._weight_calls += Counter()  # drops those at zero

    def get_status(self, request: link_pb2.StatusRequest, context: grpc.ServicerContext) -> link_pb2.LearnerStatus:
        """Tell how learning goes."""
        self._admit(context)
        return self._board.status_message

    def _admit(self, context: grpc.ServicerContext) -> str:
        """Return the robot host of the caller's certificate, empty without TLS; ends the call of one that is not an actor."""
        self._watch.saw_call(context.peer())
        try:
            return host_of(context.auth_context()) if self._tls else ""
        except TransportError as error:
            self._abort(context, grpc.StatusCode.PERMISSION_DENIED, str(error))
            raise

    def _open(self, requests: Iterator[bytes], host: str, context: grpc.ServicerContext) -> Lease:
        """Read the Hello, compare, and take the lease; ends the call where that fails."""
        try:
            first = self._decoded(next(requests, b""), context)
        except grpc.RpcError:
            self._refusals.log("A call of %s broke off before its Hello.", context.peer())
            raise
        hello = first.hello
        if first.WhichOneof("kind") != "hello" or len(hello.stream_id) != 16:
            self._abort(context, grpc.StatusCode.INVALID_ARGUMENT, "the first message must be a Hello")
        differences = decode_handshake(hello.handshake).differences(self._handshake)
        if differences:
            self._abort(context, grpc.StatusCode.FAILED_PRECONDITION, "; ".join(differences))
        lease = Lease(hello.actor_id, hello.robot_id, hello.stream_id, context.cancel, host)
        try:
            check_name(hello.actor_id, "actor_id")
            check_name(hello.robot_id, "robot_id")
        except TransportError as error:
            self._abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        try:
            self._leases.acquire(lease)
        except TransportError as error:
            self._abort(context, grpc.StatusCode.ALREADY_EXISTS, str(error))
        if not context.add_callback(lambda: self._leases.release(lease)):
            self._leases.release(lease)  # the peer left in between
        logger.info("Actor `%s` connected on robot `%s`, from %s.", lease.actor_id, lease.robot_id, host or context.peer())
        return lease

    def _decoded(self, payload: bytes, context: grpc.ServicerContext) -> link_pb2.ActorMessage:
        try:
            return decode_actor_message(payload)
        except TransportError as error:
            self._abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise

    def _take_in(
        self, lease: Lease, watched: WatchedStream, message: link_pb2.ActorMessage, context: grpc.ServicerContext
    ) -> Iterator[link_pb2.LearnerMessage]:
        """Journal and queue the message's records; answers with the status while the queue is full."""
        kind = message.WhichOneof("kind")
        if kind == "heartbeat":
            return
        if kind != "batch":
            self._abort(context, grpc.StatusCode.INVALID_ARGUMENT, f"after the Hello come batches and heartbeats, not {kind!r}")
        try:
            batch = [(envelope, self._checked(envelope.payload)) for envelope in message.batch.records]
        except TransportError as error:
            self._abort(context, grpc.StatusCode.INVALID_ARGUMENT, f"actor `{lease.actor_id}`: {error}")
        try:
            while not self._ingest.offer(lease.actor_id, lease.robot_id, lease.stream_id, batch, timeout_s=_BUSY_ANSWER_S):
                if not context.is_active():
                    return
                yield self._acknowledge(lease)
                _heard(lease, watched)  # it takes the answers, and may not be read: its silence is ours
        except TransportError as error:
            self._abort(context, grpc.StatusCode.OUT_OF_RANGE, str(error))
        except Exception as error:
            self._abort(context, grpc.StatusCode.UNAVAILABLE, f"the learner cannot write its journal: {error}")

    def _checked(self, payload: bytes) -> Record:
        record = decode_record(payload)
        if self._conformity is not None:
            self._conformity.check(record)
        return record

    def _abort(self, context: grpc.ServicerContext, code: grpc.StatusCode, details: str) -> None:
        """End the call; raises."""
        self._refusals.log("Refused a call of %s (%s): %s.", context.peer(), code.name, details[:1000])
        context.abort(code, details[:1000])

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


def _heard(lease: Lease, watched: WatchedStream) -> None:
    lease.heard()
    watched.heard()


class DaemonThreads(futures.Executor):
    """A thread per call (gRPC bounds their number), which does not hold up the end of the process.

    The threads of a `ThreadPoolExecutor` are joined at exit, so a learner that dies of an
    exception with an actor connected would hang instead of exiting non-zero.
    """

    def __init__(self) -> None:
        self._context = contextvars.copy_context()  # gRPC calls from threads of its own

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
        """Run `fn` in a thread of its own."""
        future: futures.Future[Any] = futures.Future()

        def run() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        self._context.copy().run(background_thread, run, "link-call").start()
        return future
