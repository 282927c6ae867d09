"""The learner's end of the link.

gRPC's threads take records in, journal and acknowledge them; the learner's loop takes them off
a bounded queue with `poll`, and hands out weights and its status.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import grpc

from hilserl.config.models import LinkConfig
from hilserl.errors import TransportError
from hilserl.link import limits
from hilserl.link.auth import TokenInterceptor, check_token
from hilserl.link.codec import encode_frozen, encode_weights
from hilserl.link.ingest import Ingest, LinkLoad, ReceivedRecord
from hilserl.link.leases import Leases
from hilserl.link.messages import FrozenTensors, Handshake, LearnerStatus, Weights, check_name, weights_hash
from hilserl.link.service import Board, DaemonThreads, LinkServicer, PublishedWeights
from hilserl.link.tls import Identity, load_identity, require_name, server_credentials
from hilserl.link.watch import ConnectionWatch, Refusals
from hilserl.schema import FeatureSchema

_KEEPALIVE_MS = 5_000
_EVERYWHERE = ("0.0.0.0", "::")
_LIMITS = (
    ("grpc.max_allowed_incoming_connections", limits.MAX_CONNECTIONS),
    ("grpc.max_concurrent_streams", limits.MAX_CALLS_PER_CONNECTION),
    ("grpc.max_metadata_size", limits.MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", limits.MAX_METADATA_BYTES),
    ("grpc.server_handshake_timeout_ms", int(1e3 * limits.HANDSHAKE_TIMEOUT_S)),
    ("grpc.max_connection_idle_ms", int(1e3 * limits.IDLE_CONNECTION_S)),
)


class LinkServer:
    """Receives records, exactly once; publishes weights and the learner's status.

    Opening it opens the journal: a restarted learner first rebuilds its state from
    `replay_journal`, then calls `start`.

    Args:
        config: Where to listen, with or without TLS, and the largest message.
        token: What an actor must show; not needed with TLS.
        handshake: What an actor must have in common with this learner.
        schema: What its steps must be; None: any step is taken.
        journal_folder: The learner's durable log of everything it acknowledged.
        max_queued_records: Back-pressure starts here; records wait on the actors' disks.
        max_queued_bytes: Or here.
        lease_timeout_s: An actor silent for longer gives way to another on its robot [s].

    Raises:
        TransportError: The journal is in use, or belongs to another run; the token or this host's certificate is missing or of no use.
        CacheError: The disk is full.
    """

    def __init__(
        self,
        config: LinkConfig,
        *,
        handshake: Handshake,
        token: str | None = None,
        schema: FeatureSchema | None = None,
        journal_folder: Path,
        max_queued_records: int = 2048,
        max_queued_bytes: int = 128 << 20,
        lease_timeout_s: float = 15.0,
    ) -> None:
        check_name(handshake.run_id, "run_id")
        self._config = config
        self._identity = load_identity("learner") if config.tls else None
        self._token = "" if config.tls else check_token(token or "", "The learner's link")
        self._ingest = Ingest(journal_folder, label=handshake.run_id, max_records=max_queued_records, max_bytes=max_queued_bytes)
        self._leases = Leases(lease_timeout_s)
        self._board = Board()
        self._handshake, self._schema = handshake, schema
        self._server: grpc.Server | None = None
        self._watch: ConnectionWatch | None = None

    def start(self, port: int | None = None) -> str:
        """Listen, and return the address that an actor is to be given, as `host:port`.

        Args:
            port: In place of the configuration's.

        Raises:
            TransportError: The address is not on this machine's loopback, and there is no TLS; the certificate does not
                vouch for the address that actors are given; or the port is taken.
        """
        host, port = self._config.host, self._config.port if port is None else port
        advertised = advertised_name(self._config, self._identity)
        _refuse_taken_port(host, port)
        refusals = Refusals()
        watch = ConnectionWatch(refusals)
        max_record_bytes = self._config.max_message_mb << 20
        server = grpc.server(
            DaemonThreads(),
            interceptors=() if self._identity else (TokenInterceptor(self._token, watch.refused_token),),
            maximum_concurrent_rpcs=limits.MAX_CALLS,
            options=(
                *_LIMITS,
                ("grpc.so_reuseport", 0),  # else a second learner would bind the same port and share the calls
                ("grpc.max_receive_message_length", max_record_bytes + limits.ENVELOPE_BYTES),
                ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
                ("grpc.keepalive_timeout_ms", _KEEPALIVE_MS),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.max_pings_without_data", 0),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
            ),
        )
        where = f"{_bracketed(host)}:{port}"
        try:
            if self._identity:
                bound_port = server.add_secure_port(where, server_credentials(self._identity))
            else:
                bound_port = server.add_insecure_port(where)
        except RuntimeError as error:
            raise _taken(host, port) from error
        servicer = LinkServicer(
            self._handshake, self._schema, self._ingest, self._leases, self._board, watch, refusals,
            max_record_bytes=max_record_bytes, tls=self._identity is not None,
        )  # fmt: skip
        server.add_generic_rpc_handlers((servicer.handlers(),))
        server.start()
        watch.start(bound_port)
        self._server, self._watch = server, watch
        return f"{_bracketed(advertised)}:{bound_port}"

    def poll(self, timeout_s: float) -> list[ReceivedRecord]:
        """Return everything received since the last call, waiting up to `timeout_s` for the first.

        Raises:
            CacheError: The disk is full: nothing more can be acknowledged.
        """
        return self._ingest.take(timeout_s)

    def replay_journal(self, after: int = 0) -> Iterator[ReceivedRecord]:
        """Yield the records that an earlier process of this run acknowledged, in order.

        Together with what `poll` returns afterwards that is every record exactly once, whether
        or not the server has been started.

        Args:
            after: `log_seq` of the last record that the caller's checkpoint covers.
        """
        return self._ingest.replay(after)

    def sync_journal(self) -> None:
        """Make everything acknowledged survive a power cut: before a checkpoint says that it covers it."""
        self._ingest.sync()

    def trim_journal(self, through: int) -> None:
        """Drop what no checkpoint needs any more, up to place `through`; nothing with `link.keep_journals`.

        Raises:
            CacheError: The disk is full; nothing was dropped.
        """
        if not self._config.keep_journals:
            self._ingest.drop_through(through)

    def load(self) -> LinkLoad:
        """Return how much waits for `poll`."""
        return self._ingest.load()

    def publish_weights(self, weights: Weights) -> None:
        """Offer new weights to every actor; copies them, so the trained tensors may change afterwards.

        Raises:
            ValueError: Not newer than the last ones, or the content is not what the hash says.
        """
        last, frozen = self._board.weights, weights.frozen
        if weights.version <= last.version:
            raise ValueError(f"weights version {weights.version} follows {last.version}; versions only grow")
        if weights_hash(weights.trained, frozen.content_hash) != weights.content_hash:
            raise ValueError(f"weights version {weights.version} do not have the content hash {weights.content_hash}")
        # Looked at and encoded when they come first, not at every push.
        is_known = frozen.content_hash == last.frozen_hash
        if not is_known and FrozenTensors.create(frozen.tensors).content_hash != frozen.content_hash:
            raise ValueError(f"the frozen tensors of weights version {weights.version} do not have the content hash {frozen.content_hash}")
        self._board.publish(
            PublishedWeights(
                version=weights.version,
                content_hash=weights.content_hash,
                frozen_hash=frozen.content_hash,
                payload=encode_weights(weights, self._handshake),
                frozen_payload=last.frozen_payload if is_known else encode_frozen(frozen),
            )
        )

    def set_status(self, status: LearnerStatus) -> None:
        """Tell the actors how learning goes; travels with every acknowledgement, twice a second at least."""
        self._board.set_status(status)

    def last_heard_s(self) -> dict[str, float]:
        """Return, for every actor seen since the start, how long ago it was last heard [s]."""
        return self._leases.last_heard_s()

    def live_actors(self) -> list[str]:
        """Return the actors that are connected."""
        return self._leases.live_actors()

    def stop(self, grace_s: float = 1.0) -> None:
        """Refuse new calls, end each stream behind its next message or after `grace_s`, close the journal.

        Actors speak twice a second at least: with a grace of a second they all get the last status.
        """
        self._board.is_closing = True
        if self._server is not None:
            self._server.stop(grace_s).wait()
            self._server = None
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        self._ingest.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


def require_listenable(config: LinkConfig) -> None:
    """Check, before anything is started, what `LinkServer.start` would refuse about addresses and certificates.

    Raises:
        TransportError: A certificate is of no use, or the address needs one.
    """
    advertised_name(config, load_identity("learner") if config.tls else None)


def advertised_name(config: LinkConfig, identity: Identity | None) -> str:
    """Return the name under which actors reach a learner.

    Raises:
        TransportError: Nobody would reach it under that name, or anybody would reach it without TLS.
    """
    advertised = config.advertise or config.host
    if identity is None:
        for setting, name in (("link.host", config.host), ("link.advertise", advertised)):
            _refuse_beyond_loopback(setting, name)
    elif advertised in _EVERYWHERE:
        raise TransportError(
            f"`link.host` is {config.host}, every address of this machine. Set `link.advertise` to the one that robot hosts connect to: "
            f"its certificate is for {', '.join(identity.names)}."
        )
    else:
        require_name(identity, advertised)
    return advertised


def _refuse_beyond_loopback(setting: str, host: str) -> None:
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise TransportError(
            f"`{setting}` is {host!r}: without TLS the link stays on loopback (127.0.0.1, ::1, localhost), because anybody on the network "
            "could read and change what crosses it. Run `hilserl certificates create` and set `link.tls: true`; docs/link.md says how."
        )


def _refuse_taken_port(host: str, port: int) -> None:
    """Look with a plain socket first: gRPC's own failure comes with lines of C++ on stderr."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        raise _taken(host, port) from error


def _taken(host: str, port: int) -> TransportError:
    return TransportError(
        f"The learner cannot listen on {_bracketed(host)}:{port}: another process has the port, or this one may not use it. "
        f"Stop that process (`ss -ltnp 'sport = :{port}'` names it), or set `link.port` to another port, or to 0 for any free one."
    )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
