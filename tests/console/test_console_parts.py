"""The console's small machines by themselves: the dead-man, the hand-over, rates, lateness, the wire, replays, questions."""

import json
import subprocess
import time
from types import SimpleNamespace

import numpy as np
import pytest
from console_testing import FakeLink, make_config

from hilserl.console.commands import Commands, Refused
from hilserl.console.drive import Drive, dead_man_s
from hilserl.console.serving import asks
from hilserl.console.serving.handover import Handover
from hilserl.console.serving.rates import Bucket, Lateness
from hilserl.console.serving.replays import Replays
from hilserl.console.tally import Tally
from hilserl.console.telemetry import Telemetry
from hilserl.console.wire import Wire
from hilserl.link.messages import LearnerAlarm, LearnerStatus
from hilserl.teleop.operator import Moment, Wish


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.failure("R21")
@pytest.mark.parametrize("hz", [4.0, 5.0, 10.0, 30.0, 50.0])
def test_with_the_step_that_is_under_way_the_arm_stands_within_300_ms(hz) -> None:
    assert dead_man_s(hz) >= 0.1  # two messages of a page may be lost
    if hz > 5:
        assert dead_man_s(hz) + 1.0 / hz <= 0.3 + 1e-9


def test_a_drive_counts_when_it_is_fresh_in_order_and_whole() -> None:
    drive = Drive(3, 10.0)
    assert not drive.hear(1, [1.0, 0.0, 0.0], at_s=9.0, now_s=10.0) and not drive.taken  # late
    assert not drive.hear(1, [1.0], at_s=10.0, now_s=10.0)
    assert drive.hear(2, [5.0, 0.0, 0.0, 0.7], at_s=10.0, now_s=10.0) and drive.taken
    assert drive.action.tolist() == [1.0, 0.0, 0.0]
    assert not drive.hear(2, [0.0, 0.0, 0.0], at_s=10.1, now_s=10.1)  # overtaken
    assert not drive.is_silent(10.15) and drive.is_silent(10.25)
    drive.release()
    assert not drive.action.any() and not drive.is_silent(99.0)


def test_a_key_that_stays_down_takes_over_only_once() -> None:
    drive = Drive(3, 10.0)
    assert drive.hear(1, [1, 0, 0], 10.0, 10.0, may_take=False) and not drive.taken
    drive.hear(2, [1, 0, 0], 10.1, 10.1)
    assert not drive.taken
    drive.hear(3, [0, 0, 0], 10.2, 10.2)
    drive.hear(4, [1, 0, 0], 10.3, 10.3)
    assert drive.taken
    drive.release()
    drive.hear(5, [1, 0, 0], 10.4, 10.4)
    assert not drive.taken
    drive.hear(6, [1, 0, 0], 11.0, 11.0)  # after silence
    assert drive.taken


def test_the_first_motion_of_a_page_takes_over_however_soon_after_another_page_drove() -> None:
    drive = Drive(3, 10.0)
    assert drive.hear(40, [1.0, 0.0, 0.0], at_s=10.0, now_s=10.0) and drive.taken
    drive.release()
    assert drive.hear(41, [1.0, 0.0, 0.0], at_s=10.04, now_s=10.04) and not drive.taken  # the same key, still down
    drive.new_page()
    assert drive.hear(1, [0.4, 0.0, 0.0], at_s=10.1, now_s=10.1) and drive.taken


def test_a_page_that_loses_control_while_it_drives_leaves_a_held_arm() -> None:
    commands = Commands(Drive(3, 10.0), source="console", waits_for_start=False, may_drive=True)
    commands.in_episode = True
    commands.drive.take(0.0)
    commands.take({"kind": "driver"})
    assert commands.wish() is Wish.HOLD and not commands.drive.taken
    commands.take({"kind": "driver"})  # nobody drives: nothing to hold
    with pytest.raises(Refused, match="is no command"):
        commands.take({"kind": "command", "name": "dance", "sent": 1e12})


def test_control_goes_from_one_page_to_the_next_by_asking() -> None:
    clock = Clock()
    handover = Handover(10.0, clock)
    assert handover.request("a") == "" and handover.controller == "a"
    assert handover.request("b") == "" and handover.controller == "a"
    assert "already" in handover.request("c")
    assert "10 s left" in handover.take("b") and "ask for control first" in handover.take("c")
    assert handover.deny("b") and handover.deny("a") == "" and handover.asking is None
    handover.request("b")
    clock.now += 9.97
    told = handover.message("b", driving=False)["request"]["may_take_in_s"]
    clock.now += told
    assert handover.take("b") == "", "who takes it when the page says so is not refused"
    assert handover.controller == "b" and handover.asking is None
    handover.request("c")
    handover.leave("b")  # it has gone: who asked gets it
    assert handover.controller == "c"
    handover.request("a")
    handover.leave("a")
    assert handover.asking is None and handover.release("c") == "" and handover.controller is None
    assert handover.release("c")


def test_a_bucket_lets_bursts_through_and_floods_not() -> None:
    clock = Clock()
    bucket = Bucket(10.0, 5.0, clock)
    assert [bucket.take() for _ in range(7)] == [True] * 5 + [False] * 2
    clock.now += 0.2
    assert [bucket.take() for _ in range(3)] == [True, True, False]


def test_lateness_compares_clocks_that_agree_in_nothing_but_their_pace() -> None:
    clock = Clock()
    lateness = Lateness(clock)
    sent = 5e6
    for _ in range(1000):  # 100 s with a page whose clock is slow by a thousandth
        clock.now += 0.1
        sent += 99.9
        assert lateness.of(sent) < 0.1
    clock.now += 0.8
    assert 0.7 < lateness.of(sent) < 0.9


def test_what_learning_complains_about_is_shown_with_its_remedy() -> None:
    link = FakeLink()
    text = "The last evaluation is 12% worse, at 0.5 of the best: no noise. Stop it, or roll it back. Look at the page."
    link.status = link.last_status = LearnerStatus(phase="training", alarms=(LearnerAlarm("regressed", text),))
    telemetry = Telemetry(make_config())
    telemetry.client = link
    state = {"arm": None, "timing": None, "episode": None, "learner": telemetry.learner(), "link": telemetry.link()}
    (alarm,) = telemetry.alarms(state)
    assert alarm["text"] == "Learning, `regressed`: The last evaluation is 12% worse, at 0.5 of the best: no noise."
    assert alarm["remedy"] == "Stop it, or roll it back. Look at the page." and alarm["level"] == "warning"
    link.last_status = LearnerStatus(phase="training")
    assert telemetry.alarms(state) == []


def test_an_arm_that_stands_is_no_reason_to_ask_for_new_weights(monkeypatch) -> None:
    clock = Clock()
    monkeypatch.setattr("hilserl.console.telemetry.time", SimpleNamespace(monotonic=clock))
    link = FakeLink()
    link.status = link.last_status = LearnerStatus(phase="training")
    telemetry = Telemetry(make_config())
    telemetry.client = link

    def said(**state) -> list[str]:
        parts = {"arm": None, "timing": None, "episode": None, "learner": telemetry.learner(), "link": telemetry.link()}
        return [alarm["text"] for alarm in telemetry.alarms(parts | state)]

    clock.now += 40.0
    assert said(phase="episode", control="held") == [] and said(phase="waiting", control="nobody") == []
    clock.now += 20.0
    assert said(phase="episode", control="policy") == []
    clock.now += 20.0
    assert "no new weights" in said(phase="episode", control="policy")[0]


@pytest.mark.parametrize(("wrong", "alarms"), [(2, 0), (3, 1)])
def test_a_classifier_that_the_simulator_contradicts_is_said(wrong, alarms) -> None:
    tally = Tally(6.0, 10.0)
    for number in range(10):
        info = {"is_success": True, "judged_by": "classifier", "success_probability": 0.9, "true_success": number >= wrong}
        tally.step(Moment(number, 1, {}, info, reward=1.0, success=True), None)
        tally.end("success", "none")
    session = tally.session()
    assert session["success_rate"] == 1.0 and session["judged_by"] == "classifier"
    assert (session["truth_agrees"], session["truth_known"]) == (10 - wrong, 10)
    state = {"arm": None, "timing": None, "episode": None, "learner": None, "link": None, "session": session}
    assert len(Telemetry(make_config()).alarms(state)) == alarms


def test_a_drive_command_that_is_late_is_refused_in_words() -> None:
    commands = Commands(Drive(3, 10.0), source="console", waits_for_start=False, may_drive=True)
    with pytest.raises(Refused, match="ms late; they are dropped"):
        commands.take({"kind": "drive", "seq": 1, "action": [1.0, 0.0, 0.0], "sent": time.monotonic() - 0.5})


def test_the_wire_never_waits_and_tells_when_the_other_side_has_gone() -> None:
    ours, theirs = Wire.pair()
    other = Wire(theirs)
    assert ours.receive() is None
    assert ours.send({"kind": "a"}) and other.receive() == {"kind": "a"}
    sent = sum(ours.send({"kind": "x" * 10_000}) for _ in range(500))
    assert 5 < sent < 500  # the rest was lost, and nobody waited
    while other.receive() is not None:
        pass
    assert not ours.send({"kind": "x" * (1 << 17)}) and not ours.is_closed and other.receive() is None  # never half of a message
    other.close()
    while ours.receive() is not None:
        pass
    assert ours.is_closed and not ours.send({"kind": "b"})
    ours.close()


def test_a_replay_has_one_picture_of_the_time_before_the_first_step(tmp_path) -> None:
    replays = Replays(tmp_path, keep=2)
    for number in range(2000):  # minutes in which nobody moved
        if replays.wants("wrist"):
            replays.add("wrist", 0, f"before-{number}".encode())
            replays._last_s.clear()
    for step in range(3):
        replays.add("wrist", step + 1, f"{step}".encode())
    replays.end({"number": 0, "success": True})
    assert replays.episodes[0]["steps_of_frames"] == [0, 1, 2, 3]
    assert replays.picture(replays.episodes[0]["id"], "wrist", 0) == b"before-1999"


def test_replays_keep_the_last_episodes_across_a_restart(tmp_path) -> None:
    replays = Replays(tmp_path, keep=2)
    for number in range(4):
        for step in range(3):
            replays.add("wrist", step, f"{number}-{step}".encode())
        replays.end({"number": number, "success": True})
    again = Replays(tmp_path, keep=2)
    assert [one["number"] for one in again.episodes] == [2, 3] and again.episodes[0]["frames"] == {"wrist": 3}
    name = again.episodes[-1]["id"]
    assert again.picture(name, "wrist", 2) == b"3-2"
    assert (
        again.picture(name, "wrist", 3) is None and again.picture("../..", "wrist", 0) is None and again.picture(name, "front", 0) is None
    )
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / name / "episode.json").write_text("{")
    assert [one["number"] for one in Replays(tmp_path, keep=2).episodes] == [2]
    assert not Replays(tmp_path, keep=2, run="another").episodes and not list(tmp_path.iterdir())
    assert not Replays(tmp_path / "none", keep=0).wants("wrist")


def test_questions_of_other_processes_are_answered_once(tmp_path) -> None:
    (tmp_path / "promote-lift-3.json").write_text(json.dumps({"kind": "promotion", "text": "Make version 3 the champion?"}))
    (tmp_path / "half.json").write_text("{")
    assert asks.waiting(tmp_path) == [{"ask": "promote-lift-3", "kind": "promotion", "text": "Make version 3 the champion?"}]
    assert not asks.answer(tmp_path, "../../etc/passwd", True, "me")
    assert asks.answer(tmp_path, "promote-lift-3", True, "me") and asks.waiting(tmp_path) == []
    assert json.loads((tmp_path / "promote-lift-3.answer.json").read_text()) == {"value": True, "by": "me"}
    assert asks.answered(tmp_path, "promote-lift-3") == (True, "me")
    asks.take_back(tmp_path, "promote-lift-3")
    asks.put(tmp_path, "mine", "promotion", "Now?")
    assert [one["ask"] for one in asks.waiting(tmp_path)] == ["mine"] and asks.answered(tmp_path, "mine") is None
    ended = subprocess.Popen(["true"])
    ended.wait()
    (tmp_path / "mine.json").write_text(json.dumps({"kind": "promotion", "text": "Now?", "pid": ended.pid}))
    assert asks.waiting(tmp_path) == [], "who asked has gone"


def test_pictures_are_encoded_small_enough_and_in_their_colours() -> None:
    import cv2

    from hilserl.console.serving.encoder import encode

    red = np.zeros((480, 640, 3), np.uint8)
    red[..., 0] = 250
    jpeg, width, height = encode(red, 320)
    decoded = cv2.cvtColor(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert (width, height) == (320, 240) == decoded.shape[1::-1] and decoded[100, 100, 0] > 240 and decoded[100, 100, 2] < 10
