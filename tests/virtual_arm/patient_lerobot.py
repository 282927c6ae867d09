"""Run one of LeRobot's commands as it is, but for its 50 ms: a busy test machine can stand still for longer.

python patient_lerobot.py lerobot-teleoperate --robot.type=...
"""

import importlib
import sys

import lerobot.motors.feetech.feetech as feetech


def wait_two_seconds(handler, packet_length):
    handler.packet_start_time = handler.getCurrentTime()
    handler.packet_timeout = 2000.0


if __name__ == "__main__":
    feetech.patch_setPacketTimeout = wait_two_seconds
    sys.argv = sys.argv[1:]
    importlib.import_module(f"lerobot.scripts.{sys.argv[0].replace('-', '_')}").main()
