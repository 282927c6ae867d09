"""Everything that bounds what a peer can make this side do; docs/link.md lists them for people."""

from __future__ import annotations

# Connections and calls, on the learner.
MAX_ACTORS = 32
MAX_CONNECTIONS = 4 * MAX_ACTORS  # also those that have not proved themselves yet
MAX_CALLS = 2 * MAX_ACTORS
MAX_CALLS_PER_CONNECTION = 16
MAX_WEIGHT_CALLS_PER_CONNECTION = 2
MAX_METADATA_BYTES = 8 << 10
HANDSHAKE_TIMEOUT_S = 10.0  # TLS and HTTP/2 together
HELLO_TIMEOUT_S = 10.0
SILENCE_S = 30.0  # of an actor's stream; a living actor speaks twice a second
IDLE_CONNECTION_S = 60.0  # without a call
MAX_JOURNALS = 4096  # of actors, in one run
MAX_REMEMBERED_ACTORS = 256  # that are not connected

# Messages.
ENVELOPE_BYTES = 64 << 10  # what a message holds besides its records
MAX_BATCH_RECORDS = 1024
MAX_OBSERVATION_TENSORS = 64
MAX_DIMENSIONS = 8
MAX_EXTENT = 2**31
MAX_TENSOR_NAME = 200
MAX_COUNT = 2**48  # episodes, steps, updates, versions
MAX_STATUS_TEXT = 4096
MAX_ALARMS = 20  # those that stand, in the status; with a text of 500 characters of 4 bytes each, an envelope holds them
MAX_ALARM_TEXT = 500
MAX_ALARM_NAME = 64
MAX_WEIGHT_TENSORS = 10_000
MAX_WEIGHTS_BYTES = 1 << 30
