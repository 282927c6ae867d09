"""The table of alarms on the run's page."""

import pytest

from hilserl.learner.alarms import Alarm
from tasks import alarms as module

STANDING = Alarm("q_above_bound", 1200, 0.31, "Q is 0.31 too high. Raise `policy.num_critics`.")
OVER = Alarm("temperature_high", 300, 1.4, "The temperature is 1.4. Lower `policy.target_entropy`.", cleared_step=420)


def test_the_newest_alarm_stands_first_with_its_step_value_and_remedy() -> None:
    lines = module.alarms_markdown([OVER, STANDING]).splitlines()
    assert lines[2] == "| `q_above_bound` | 1,200 | stands | 0.31 | Q is 0.31 too high. Raise `policy.num_critics`. |"
    assert lines[3] == "| `temperature_high` | 300 | until 420 | 1.4 | The temperature is 1.4. Lower `policy.target_entropy`. |"


def test_without_a_page_alarms_cost_nothing() -> None:
    with module.alarms_artifact() as show:
        show([OVER])


def test_every_change_is_posted_in_order_from_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    posted: list[tuple[str, str]] = []
    monkeypatch.setattr(module, "has_page", lambda: True)
    monkeypatch.setattr(module, "publish_markdown", lambda key, text, description: posted.append((key, text)))
    with module.alarms_artifact() as show:
        show([OVER])
        show([OVER, STANDING])
    assert [key for key, _ in posted] == ["alarms", "alarms"]
    assert "q_above_bound" not in posted[0][1] and "q_above_bound" in posted[1][1]
