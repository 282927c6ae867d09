"""A client of our own making, which can say whatever it wants."""

import threading
from queue import SimpleQueue

import grpc
import pytest
from link_testing import HANDSHAKE, TOKEN, make_step

from hilserl.link import Handshake, link_pb2, link_pb2_grpc
from hilserl.link.auth import credentials
from hilserl.link.codec import encode_handshake, encode_record

METHOD = "/hilserl.link.v1.Link/Stream"


class Peer:
    def __init__(self, address: str, token: str = TOKEN, tls: grpc.ChannelCredentials | None = None) -> None:
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.secure_channel(address, tls, options) if tls else grpc.insecure_channel(address, options)
        self.stub = link_pb2_grpc.LinkStub(self.channel)
        self._closed = threading.Event()
        self._outgoing: SimpleQueue[link_pb2.ActorMessage | None] = SimpleQueue()
        self.stream = self.stub.Stream(iter(self._outgoing.get, None), metadata=credentials(token), timeout=20)

    def say(self, **kind: object) -> None:
        self._outgoing.put(link_pb2.ActorMessage(**kind))

    def hello(self, *, actor_id: str = "peer", robot_id: str = "arm-9", stream: int = 7, handshake: Handshake = HANDSHAKE) -> "Peer":
        self.say(
            hello=link_pb2.Hello(
                handshake=encode_handshake(handshake), actor_id=actor_id, robot_id=robot_id, stream_id=bytes([stream]) * 16
            )
        )
        return self

    def send(self, *numbers: int, previous: int | None = None) -> None:
        """Send steps numbered from 1; `previous` is what the first one claims to follow."""
        records = [link_pb2.Envelope(seq=number, previous_seq=number - 1, payload=encode_record(make_step(number))) for number in numbers]
        if previous is not None:
            records[0].previous_seq = previous
        self.say(batch=link_pb2.Batch(records=records))

    def wait_for_ever(self) -> None:
        """Say nothing, until closed."""
        self._closed.wait()

    def answer(self) -> link_pb2.LearnerMessage:
        return next(self.stream)

    def refusal(self) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as error:
            while True:
                self.answer()
        return error.value.code(), error.value.details()

    def close(self) -> None:
        self._closed.set()
        self._outgoing.put(None)
        self.channel.close()
