"""Two policies on the same starts: is one better?"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from math import comb


@dataclass(frozen=True)
class PairedTest:
    """Two policies on the same starts: the exact McNemar test.

    Attributes:
        pairs: Starts that both played.
        only_first: Starts at which only the first succeeded.
        only_second: Starts at which only the second succeeded.
        p: Two-sided probability of a difference at least this large, if they were equally good.
    """

    pairs: int
    only_first: int
    only_second: int
    p: float

    def __str__(self) -> str:
        """One sentence."""
        better = "the first" if self.only_first > self.only_second else "this one"
        said = "no difference can be told" if self.p >= 0.05 else f"{better} is better"
        return (
            f"{said}: {self.pairs} same starts, {self.only_first} only by the first, {self.only_second} only by this one, p = {self.p:.2g}"
        )


def paired_test[Key: Hashable](first: Mapping[Key, bool], second: Mapping[Key, bool]) -> PairedTest | None:
    """Compare successes by start; None where no start is shared.

    The exact test counts only the starts where the two differ (McNemar 1947); among those, each is equally likely to win.
    """
    shared = first.keys() & second.keys()
    if not shared:
        return None
    only_first = sum(first[start] and not second[start] for start in shared)
    only_second = sum(second[start] and not first[start] for start in shared)
    differing, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(comb(differing, count) for count in range(fewer + 1)) / 2**differing
    return PairedTest(len(shared), only_first, only_second, min(1.0, 2 * tail))
