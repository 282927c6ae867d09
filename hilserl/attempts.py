"""How often a run was started without getting anywhere.

A crashed training is started again by itself. One that crashes again and again before its first new
update would do so for ever, so after three such attempts it fails, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hilserl.errors import TrainingError
from hilserl.runs import RunFolder

MAX_CRASHES = 3


@contextmanager
def attempt(run: RunFolder, *, is_cancelled: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Count the block as one attempt at `run`; one that neither returns nor raises an error has crashed.

    Args:
        run: The run's folder; the count is in its `run.json`.
        is_cancelled: Asked when the process is told to end: whether a person wanted that.

    Raises:
        TrainingError: The run crashed three times in a row without one new critic update.
    """
    facts = run.facts()
    crashes, seen = int(facts.get("crashes", 0)), int(facts.get("updates_seen", 0))
    if facts.get("attempt") == "open":  # nobody closed it
        crashes = 1 if seen > int(facts.get("updates_before", 0)) else crashes + 1
    if crashes >= MAX_CRASHES:
        run.update(attempt="closed", crashes=0)  # a person who tries again gets as many attempts
        raise TrainingError(
            f"{run.run_id} crashed {crashes} times in a row without one new critic update (it had {seen}), so it is not started again "
            "by itself. The log of the last attempt, and the system's (`dmesg`: out of memory?), say why. "
            "When that is mended, start the run again: it continues from the last checkpoint."
        )
    run.update(attempt="open", crashes=crashes, updates_before=seen)
    try:
        yield
    except (Exception, KeyboardInterrupt):
        run.update(attempt="closed", crashes=0)
        raise
    except BaseException:
        if is_cancelled():
            run.update(attempt="closed", crashes=0)
        raise
    run.update(attempt="closed", crashes=0)


def note_updates(run: RunFolder, updates: int) -> None:
    """Remember how far the run has ever got; a resumed one counts from its checkpoint again."""
    if updates > int(run.facts().get("updates_seen", 0)):
        run.update(updates_seen=updates)
