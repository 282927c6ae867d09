"""The actor's connection: what it proves itself with, and how often it tries."""

from __future__ import annotations

import grpc

from hilserl.link.limits import ENVELOPE_BYTES
from hilserl.link.tls import Identity, channel_credentials

_OPTIONS = (
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # time that one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own, also beside another actor in this process
)
COMPRESSION = {"none": grpc.Compression.NoCompression, "deflate": grpc.Compression.Deflate, "gzip": grpc.Compression.Gzip}


def open_channel(address: str, identity: Identity | None, max_record_bytes: int) -> grpc.Channel:
    """Return a channel to the learner; it connects by itself, again and again.

    Args:
        address: `host:port`.
        identity: This host's certificate; None: without TLS.
        max_record_bytes: Largest record that may come or go.
    """
    limit = max_record_bytes + ENVELOPE_BYTES
    options = (*_OPTIONS, ("grpc.max_receive_message_length", limit), ("grpc.max_send_message_length", limit))
    if identity is None:
        return grpc.insecure_channel(address, options=options)
    return grpc.secure_channel(address, channel_credentials(identity), options=options)
