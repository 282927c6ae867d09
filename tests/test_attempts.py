"""A run that crashes again and again without getting anywhere fails; anything else may be tried for ever."""

import pytest

from hilserl.attempts import attempt, note_updates
from hilserl.config.models import TrainConfig
from hilserl.errors import TrainingError
from hilserl.runs import RunFolder


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the process comes after it. (`attempt` leaves its mark as it is.)"""


@pytest.fixture
def run(own_home, tiny_config: TrainConfig) -> RunFolder:
    return RunFolder.open(tiny_config)[0]


def crash(run: RunFolder, updates: int = 0) -> None:
    with pytest.raises(Killed), attempt(run):
        if updates:
            note_updates(run, updates)
        raise Killed


def test_three_crashes_without_a_new_update_fail_with_the_reason_and_a_person_may_try_again(run: RunFolder) -> None:
    for _ in range(3):
        crash(run)
    with pytest.raises(TrainingError, match=r"crashed 3 times in a row without one new critic update \(it had 0\)"), attempt(run):
        pass
    for _ in range(3):
        crash(run)
    with pytest.raises(TrainingError, match="crashed 3 times"), attempt(run):
        pass


def test_a_new_update_begins_the_count_anew_and_repeating_old_ones_does_not(run: RunFolder) -> None:
    for updates in (10, 20, 30, 40, 50):
        crash(run, updates)
    crash(run, 45)  # resumed from a checkpoint, and crashed before it was where it had been
    crash(run, 50)
    with pytest.raises(TrainingError, match=r"it had 50"), attempt(run):
        pass


@pytest.mark.parametrize("ending", [ValueError, KeyboardInterrupt, None])
def test_an_error_or_a_persons_wish_is_no_crash(run: RunFolder, ending: type[BaseException] | None) -> None:
    for _ in range(5):
        if ending is None:
            with attempt(run):
                pass
        else:
            with pytest.raises(ending), attempt(run):
                raise ending
    with pytest.raises(Killed), attempt(run, is_cancelled=lambda: True):
        raise Killed
    crash(run)
    crash(run)
    with attempt(run):
        pass
