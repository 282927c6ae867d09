"""What a long phase tells whoever is watching, inside one process.

The library publishes; the terminal display and the Prefect tasks subscribe. Publishing is a
few microseconds and never blocks on a subscriber's network.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """One report of one phase.

    Attributes:
        stage: Name of the phase, such as `build-offline-buffer`.
        done: Work done so far, in `unit`.
        total: Work to do, or None where it is not known.
        unit: What is counted: frames, images, environment steps.
        message: One line for a person.
        values: Numbers worth showing, by name.
        cached: The phase is over, and an earlier result was used.
        skipped: The phase is left out; `message` says why.
    """

    stage: str
    done: float = 0.0
    total: float | None = None
    unit: str = ""
    message: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    cached: bool = False
    skipped: bool = False


Subscriber = Callable[[Progress], None]
_subscribers: list[Subscriber] = []
_lock = threading.Lock()


def publish(progress: Progress) -> None:
    """Hand one report to every subscriber."""
    with _lock:
        subscribers = tuple(_subscribers)
    for subscriber in subscribers:
        subscriber(progress)


@contextmanager
def subscribed(subscriber: Subscriber) -> Iterator[None]:
    """Receive every report published in this process while the block runs."""
    with _lock:
        _subscribers.append(subscriber)
    try:
        yield
    finally:
        with _lock:
            _subscribers.remove(subscriber)
