"""Where the actor's weights come from: the learner's newest, of which frozen tensors travel once."""

from __future__ import annotations

import logging

from hilserl.errors import TransportError
from hilserl.link import link_pb2, link_pb2_grpc
from hilserl.link.codec import decode_weights
from hilserl.link.limits import MAX_WEIGHTS_BYTES
from hilserl.link.messages import NOTHING_FROZEN, Handshake, Weights

logger = logging.getLogger(__name__)

_DEADLINE_S = 60.0


class WeightsSource:
    """Asks for what is newer than what it got last, and keeps the frozen tensors.

    Args:
        stub: Of the channel to the learner.
        metadata: Proves that this actor may ask.
        handshake: Of this actor.
        address: Of the learner, for errors.
    """

    def __init__(self, stub: link_pb2_grpc.LinkStub, metadata: tuple[tuple[str, str], ...], handshake: Handshake, address: str) -> None:
        self._stub = stub
        self._metadata = metadata
        self._handshake = handshake
        self._address = address
        self._forget()

    def _forget(self) -> None:
        self._version, self._content_hash, self._frozen = 0, "", NOTHING_FROZEN

    def fetch(self) -> Weights | None:
        """Return weights newer than those returned before; None when there are none.

        Raises:
            TransportError: They are not what the learner announced, also after it was asked for all of them.
            grpc.RpcError: The learner could not be asked.
        """
        try:
            return self._ask()
        except TransportError as error:
            if not self._frozen.content_hash:
                raise
            logger.warning("%s Asking the learner at %s for all of them, the frozen ones too.", error, self._address)
            self._forget()
            return self._ask()

    def _ask(self) -> Weights | None:
        request = link_pb2.WeightsRequest(
            known_version=self._version, known_hash=self._content_hash, known_frozen_hash=self._frozen.content_hash
        )
        payload = bytearray()
        for chunk in self._stub.GetWeights(request, metadata=self._metadata, timeout=_DEADLINE_S):
            payload += chunk.data
            if chunk.total_bytes > MAX_WEIGHTS_BYTES or len(payload) > chunk.total_bytes:
                raise TransportError(f"The learner at {self._address} sends weights of {chunk.total_bytes} bytes or more; refused.")
        if not payload:
            return None
        weights = decode_weights(bytes(payload), self._handshake, self._frozen)
        self._version, self._content_hash, self._frozen = weights.version, weights.content_hash, weights.frozen
        return weights
