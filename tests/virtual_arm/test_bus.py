import pytest

from hilserl.robot.packets import BROADCAST, Instruction, Packet, PacketReader
from hilserl.virtual_arm.bus import Bus, Timing
from hilserl.virtual_arm.faults import FaultyWire
from hilserl.virtual_arm.motor import MOTORS
from hilserl.virtual_arm.servo import Servo

BAUD = 1_000_000


class Host:
    """A bus of servos 1 to 3, and who talks to it."""

    def __init__(self, ids=(1, 2, 3), timing: Timing | None = None) -> None:
        self.servos = [Servo(servo_id, MOTORS["12V"]) for servo_id in ids]
        for index, servo in enumerate(self.servos):
            servo.power_up(1000.0 + index, 12.0)
        self.bus = Bus(self.servos, timing or Timing(wire=False), FaultyWire(0))
        self.now_s = 0.0

    def ask(self, servo_id: int, code: int, *parameters: int, baud: int = BAUD) -> list[Packet]:
        self.now_s += 1.0
        self.bus.receive(Packet(servo_id, code, bytes(parameters)).encode(), self.now_s, baud)
        return PacketReader().feed(self.bus.due(self.now_s + 0.5))


@pytest.fixture
def host() -> Host:
    return Host()


def test_ping_is_answered_by_the_one_that_is_asked(host):
    assert host.ask(2, Instruction.PING) == [Packet(2, 0)]
    assert host.ask(9, Instruction.PING) == []


def test_a_broadcast_ping_is_answered_by_all_in_order():
    assert Host(ids=(3, 1, 2)).ask(BROADCAST, Instruction.PING) == [Packet(1, 0), Packet(2, 0), Packet(3, 0)]


def test_read_and_write(host):
    assert host.ask(1, Instruction.READ, 3, 2) == [Packet(1, 0, (777).to_bytes(2, "little"))]
    assert host.ask(1, Instruction.WRITE, 21, 16) == [Packet(1, 0)]
    assert host.ask(1, Instruction.READ, 21, 1) == [Packet(1, 0, b"\x10")]


def test_reg_write_waits_for_action_of_all(host):
    for servo_id in (1, 2):
        assert host.ask(servo_id, Instruction.REG_WRITE, 42, 0x34, 0x08) == [Packet(servo_id, 0)]
    assert host.servos[0].get("Goal_Position") == 0
    assert host.ask(BROADCAST, Instruction.ACTION) == []
    assert [servo.get("Goal_Position") for servo in host.servos] == [2100, 2100, 0]


def test_sync_read_is_answered_in_the_order_asked_and_skips_the_missing(host):
    answers = host.ask(BROADCAST, Instruction.SYNC_READ, 56, 2, 3, 7, 1)
    assert answers == [Packet(3, 0, (1002).to_bytes(2, "little")), Packet(1, 0, (1000).to_bytes(2, "little"))]


def test_sync_write_reaches_each_and_is_not_answered(host):
    assert host.ask(BROADCAST, Instruction.SYNC_WRITE, 42, 2, 1, 0x34, 0x08, 3, 0x35, 0x08) == []
    assert [servo.get("Goal_Position") for servo in host.servos] == [2100, 0, 2101]


def test_a_broadcast_write_reaches_all_and_is_not_answered(host):
    assert host.ask(BROADCAST, Instruction.WRITE, 41, 50) == []
    assert [servo.get("Acceleration") for servo in host.servos] == [50, 50, 50]


def test_an_id_is_changed_under_the_old_one(host):
    assert host.ask(1, Instruction.WRITE, 5, 9) == [Packet(1, 0)]
    assert host.ask(9, Instruction.PING) == [Packet(9, 0)]
    assert host.ask(1, Instruction.PING) == []


def test_status_level_zero_answers_only_ping_and_read(host):
    host.ask(1, Instruction.WRITE, 8, 0)
    assert host.ask(1, Instruction.WRITE, 21, 16) == []
    assert host.ask(1, Instruction.READ, 21, 1) == [Packet(1, 0, b"\x10")]


def test_reboot_and_factory_reset(host):
    host.ask(1, Instruction.WRITE, 55, 0)
    host.ask(1, Instruction.WRITE, 21, 16)
    host.ask(1, Instruction.WRITE, 41, 254)
    assert host.ask(1, Instruction.REBOOT) == [Packet(1, 0)]
    assert (host.servos[0].get("Acceleration"), host.servos[0].get("P_Coefficient")) == (0, 16)
    assert host.ask(1, Instruction.RECOVERY) == [Packet(1, 0)]
    assert host.servos[0].get("P_Coefficient") == 32


@pytest.mark.parametrize(
    "request_", [(1, 0x77), (1, Instruction.READ, 3), (BROADCAST, Instruction.READ, 3, 2), (1, Instruction.SYNC_READ, 56, 2, 1)]
)
def test_what_makes_no_sense_is_not_answered(host, request_):
    assert host.ask(*request_) == []
    assert host.bus.counts["unknown"] == 1


def test_a_servo_hears_only_its_baud_rate(host):
    host.ask(2, Instruction.WRITE, 6, 4)
    assert host.ask(2, Instruction.PING) == []
    assert host.ask(2, Instruction.PING, baud=115_200) == [Packet(2, 0)]
    assert host.ask(BROADCAST, Instruction.PING) == [Packet(1, 0), Packet(3, 0)]


def test_two_servos_of_one_id_talk_over_each_other():
    twins = Host(ids=(1, 1))
    assert twins.ask(1, Instruction.PING) == [Packet(1, 0)]  # alike, so they look like one
    twins.servos[1].power_up(1999.0, 12.0)
    assert twins.ask(1, Instruction.READ, 56, 2) == []  # not alike: the checksum is wrong


def test_the_error_byte_is_in_every_answer(host):
    host.servos[0].table.burn("Min_Voltage_Limit", 130)
    from hilserl.virtual_arm.motor import Measured

    host.servos[0].sense(Measured(1000.0, voltage_v=12.0), 0.005)
    assert [packet.code for packet in host.ask(BROADCAST, Instruction.SYNC_READ, 56, 2, 1, 2)] == [1, 0]
    assert [packet.code for packet in host.ask(1, Instruction.WRITE, 40, 0)] == [1]


# Time


def test_a_sync_read_takes_the_time_of_its_bytes():
    host = Host(timing=Timing(wire=True, usb_latency_s=0.001))
    for servo in host.servos:
        servo.table.burn("Return_Delay_Time", 0)
    host.bus.receive(Packet(BROADCAST, Instruction.SYNC_READ, bytes([56, 2, 1, 2, 3])).encode(), 10.0, BAUD)
    first_s, all_s = 10.0 + 11e-5 + 2e-6 + 8e-5 + 1e-3, 10.0 + 11e-5 + 3 * (2e-6 + 8e-5) + 1e-3
    assert host.bus.next_due_s() == pytest.approx(first_s, abs=1e-9)
    assert host.bus.due(first_s - 1e-6) == b""
    assert len(host.bus.due(first_s + 1e-6)) == 8
    assert len(host.bus.due(all_s + 1e-6)) == 16
    assert host.bus.next_due_s() is None


def test_the_return_delay_counts():
    host = Host(timing=Timing(wire=True))
    host.bus.receive(Packet(1, Instruction.PING).encode(), 10.0, BAUD)
    assert host.bus.next_due_s() == pytest.approx(10.0 + 6e-5 + 500e-6 + 6e-5, abs=1e-9)


def test_who_does_not_wait_for_the_answer_is_not_heard():
    host = Host(timing=Timing(wire=True))
    both = Packet(1, Instruction.WRITE, bytes([41, 9])).encode() + Packet(2, Instruction.WRITE, bytes([41, 9])).encode()
    host.bus.receive(both, 10.0, BAUD)
    assert host.bus.counts["collisions"] == 1
    assert [servo.get("Acceleration") for servo in host.servos] == [9, 0, 0]


def test_a_request_that_never_ends_does_not_swallow_the_next(host):
    host.bus.receive(bytes.fromhex("ffff01200102"), 0.0, BAUD)
    assert host.ask(1, Instruction.PING) == [Packet(1, 0)]
    assert host.bus.counts["damaged"] == 1


# Faults


def test_answers_are_dropped_flipped_and_late(host):
    faults = host.bus.faults.faults
    faults.drop_next = 1
    assert host.ask(1, Instruction.PING) == []
    assert host.ask(1, Instruction.PING) == [Packet(1, 0)]
    faults.flip = 1.0
    assert host.ask(1, Instruction.READ, 3, 2) == []
    faults.flip = 0.0
    faults.late_next, faults.late_s = 1, 0.8
    assert host.ask(1, Instruction.READ, 3, 2) == []  # it comes with the next one
    assert [packet.parameters for packet in host.ask(2, Instruction.READ, 0, 1)] == [(777).to_bytes(2, "little"), b"\x03"]
    assert host.bus.faults.counts == {"dropped": 1, "flipped": 1, "late": 1, "foreign": 0}


def test_requests_are_dropped_and_flipped(host):
    host.bus.faults.faults.drop_requests = 1.0
    host.ask(1, Instruction.WRITE, 41, 9)
    host.bus.faults.faults.drop_requests, host.bus.faults.faults.flip_requests = 0.0, 1.0
    for _ in range(20):
        host.ask(1, Instruction.WRITE, 41, 9)
    assert host.servos[0].get("Acceleration") == 0


def test_strangers_speak_first_and_unasked(host):
    host.bus.faults.faults.foreign = 1.0
    stranger, answer = host.ask(1, Instruction.PING)
    assert (stranger.servo_id, answer) == (42, Packet(1, 0))
    host.bus.faults.faults.foreign, host.bus.faults.faults.babble_hz = 0.0, 100.0
    assert [packet.servo_id for packet in PacketReader().feed(host.bus.due(50.0) + host.bus.due(50.02))] == [42, 42]


def test_an_echoing_interface_returns_the_request(host):
    host.bus.faults.faults.echo = True
    assert host.ask(1, Instruction.PING) == [Packet(1, Instruction.PING), Packet(1, 0)]


def test_faults_are_the_same_for_the_same_seed():
    def lost() -> list[int]:
        host = Host()
        host.bus.faults.faults.drop = 0.3
        return [len(host.ask(1, Instruction.PING)) for _ in range(50)]

    assert lost() == lost()
    assert 0 < sum(lost()) < 50
