"""An HTTP/2 peer down to its frames: it can send a message byte by byte, and leave answers unread."""

import socket
import struct

import h2.config
import h2.connection
import h2.events
from h2.settings import SettingCodes, Settings
from link_peer import METHOD
from link_testing import TOKEN

from hilserl.link import link_pb2


class RawStream:
    """One call of `Stream` on a connection of its own.

    Args:
        address: Of the learner.
        reads: False: this side grants the learner no window to send anything in.
    """

    def __init__(self, address: str, *, reads: bool = True) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.settimeout(0.05)
        self._http2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self._reads = reads
        if not reads:
            self._http2.local_settings = Settings(client=True, initial_values={SettingCodes.INITIAL_WINDOW_SIZE: 0})
        self._http2.initiate_connection()
        self._http2.send_headers(
            1,
            [
                (":method", "POST"), (":scheme", "http"), (":path", METHOD), (":authority", host), ("te", "trailers"),
                ("content-type", "application/grpc"), ("authorization", f"Bearer {TOKEN}"),
            ],
        )  # fmt: skip
        self.was_ended = False
        self.pump()

    def send(self, data: bytes) -> None:
        """Send bytes of the call's body, whatever they are.

        Raises:
            h2.exceptions.FlowControlError: The learner has not made room for them.
        """
        self._http2.send_data(1, data)
        self.pump()

    def send_message(self, message: link_pb2.ActorMessage) -> None:
        """Send one message, framed as gRPC frames it."""
        payload = message.SerializeToString()
        self.send(struct.pack(">BI", 0, len(payload)) + payload)

    def pump(self) -> None:
        """Send what waits, and take what came."""
        try:
            self.socket.sendall(self._http2.data_to_send())
            data = self.socket.recv(1 << 16)
        except TimeoutError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self.was_ended = True
            return
        for event in self._http2.receive_data(data):
            if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset | h2.events.ConnectionTerminated):
                self.was_ended = True
            elif isinstance(event, h2.events.DataReceived) and self._reads:
                self._http2.acknowledge_received_data(event.flow_controlled_length, 1)
        self.socket.sendall(self._http2.data_to_send())

    def __enter__(self) -> "RawStream":
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()
