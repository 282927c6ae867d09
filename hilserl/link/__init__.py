"""The link: what crosses between an actor and the learner, journaled and acknowledged."""

from hilserl.link.auth import TOKEN_VARIABLE, create_token, read_token
from hilserl.link.client import LinkClient
from hilserl.link.ingest import ReceivedRecord
from hilserl.link.journal import Journal
from hilserl.link.messages import (
    PROTOCOL_VERSION,
    EpisodeReport,
    FrozenTensors,
    Handshake,
    LearnerStatus,
    Record,
    Step,
    Weights,
    weights_hash,
)
from hilserl.link.server import LinkServer

__all__ = [
    "PROTOCOL_VERSION",
    "TOKEN_VARIABLE",
    "EpisodeReport",
    "FrozenTensors",
    "Handshake",
    "Journal",
    "LearnerStatus",
    "LinkClient",
    "LinkServer",
    "ReceivedRecord",
    "Record",
    "Step",
    "Weights",
    "create_token",
    "read_token",
    "weights_hash",
]
