from hypothesis import given
from hypothesis import strategies as st

from hilserl.robot.packets import Instruction, Packet, PacketReader

packets = st.builds(Packet, st.integers(0, 254), st.integers(0, 255), st.binary(max_size=40))


def test_packets_by_hand():
    assert Packet(1, Instruction.PING).encode() == bytes.fromhex("ffff010201fb")
    assert Packet(1, Instruction.READ, bytes([56, 2])).encode() == bytes.fromhex("ffff0104023802be")
    assert Packet(0xFE, Instruction.SYNC_READ, bytes([56, 2, 1, 2])).encode() == bytes.fromhex("fffffe0682") + bytes([56, 2, 1, 2, 0x3C])


@given(st.lists(packets, max_size=5), st.lists(st.integers(0, 60), max_size=8))
def test_packets_survive_any_split_of_the_stream(sent, cuts):
    stream = b"".join(packet.encode() for packet in sent)
    reader, received, start = PacketReader(), [], 0
    for end in [*sorted(cuts), len(stream)]:
        received += reader.feed(stream[start:end])
        start = max(start, end)
    assert received == sent
    assert reader.damaged == 0


@given(st.binary(max_size=300))
def test_noise_raises_nothing_and_ends(noise):
    PacketReader().feed(noise)


@given(packets, st.integers(0, 7), st.data())
def test_a_flipped_bit_never_gives_that_packet_again_changed(packet, bit, data):
    damaged = bytearray(packet.encode())
    where = data.draw(st.integers(2, len(damaged) - 1))
    damaged[where] ^= 1 << bit
    for received in PacketReader().feed(bytes(damaged)):
        assert received.encode() in bytes(damaged)  # only what is a valid packet by itself


def test_a_packet_after_noise_is_found():
    reader = PacketReader()
    ping = Packet(3, Instruction.PING)
    assert reader.feed(b"\xff\x00\xff\xff\xff" + ping.encode()) == [ping]
    assert reader.damaged


def test_a_packet_that_never_ends_can_be_forgotten():
    reader, ping = PacketReader(), Packet(3, Instruction.PING)
    assert reader.feed(bytes.fromhex("ffff03200102")) == []
    assert reader.waiting
    reader.forget()
    assert reader.feed(ping.encode()) == [ping]
