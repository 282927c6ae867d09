"""A log line that nobody reads any more must not end a training."""

from __future__ import annotations

import subprocess
import sys

import pytest

_FLOW = """
import logging, sys
from prefect.logging import get_logger
from prefect.logging.configuration import setup_logging
from tasks.orphaned import outlive_the_reader
setup_logging()
if sys.argv[1] == "protected":
    outlive_the_reader()
sys.stdin.readline()  # until the reader is gone
for number in range(3):
    get_logger("hilserl").warning("nobody reads this")
print("nor this", flush=True)
sys.exit(7)
"""


@pytest.mark.failure("R19")
@pytest.mark.parametrize(("mode", "code"), [("protected", 7), ("as it comes", 1)])
def test_a_process_whose_reader_died_goes_on(mode: str, code: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", _FLOW, mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdin and process.stdout
    process.stdout.close()
    process.stdin.write(b"gone\n")
    process.stdin.close()
    assert process.wait(60) == code
