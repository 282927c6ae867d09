"""A wall clock that is set, an hour forth or back, changes nothing that has a duration."""

import ast
import time
from pathlib import Path

import pytest
from link_testing import make_client, make_server, make_step, receive

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("learner/*.py", "actor/*.py", "link/*.py", "tracking/*.py", "data/row_file.py", "files.py")
# Where the time of day itself is meant: what is shown to a person, or stands in a certificate.
TIME_OF_DAY = {
    "hilserl/learner/loop.py": {"time.time"},  # when the first update was, in the summary
    "hilserl/tracking/spool.py": {"time.time_ns"},  # once per process; counted monotonically from there
    "hilserl/link/tls.py": {"dt.datetime.now"},
    "hilserl/link/certificates.py": {"dt.datetime.now"},
}
WALL = {"time.time", "time.time_ns", "time.ctime", "datetime.now", "dt.datetime.now", "datetime.datetime.now", "datetime.utcnow"}


def wall_clocks(source: str) -> set[str]:
    return {ast.unparse(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute) and ast.unparse(node) in WALL}


def test_nothing_that_waits_or_measures_reads_the_wall_clock() -> None:
    files = [file for room in ROOMS for file in sorted((ROOT / "hilserl").glob(room))]
    assert len(files) > 40
    found = {str(file.relative_to(ROOT)): wall for file in files if (wall := wall_clocks(file.read_text()))}
    assert found == {name: allowed for name, allowed in TIME_OF_DAY.items() if name in found}
    assert wall_clocks("import time\nstarted = time.time()") == {"time.time"}


@pytest.mark.failure("R17")
def test_a_clock_that_jumps_disturbs_no_stream_and_no_lease(tmp_path, monkeypatch) -> None:
    """While records flow; an actor would be cut off, or lose its robot, if leases and time-outs believed the wall clock."""
    jump_s, real, real_ns = [0.0], time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: real() + jump_s[0])
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + int(jump_s[0] * 1e9))
    with make_server(tmp_path) as server, make_client(tmp_path, server.start()) as client:
        client.connect(20)
        for number in range(60):
            jump_s[0] = (0.0, 3600.0, -3600.0)[number // 5 % 3]
            client.send_step(make_step(number, ended=number % 10 == 9))
            time.sleep(0.01)
            assert client.is_connected and server.live_actors() == ["actor-1"]
            assert 0 <= server.last_heard_s()["actor-1"] < 30
        client.flush(20)
        assert [record.reward for record in receive(server, 60)] == [float(number) for number in range(60)]
