"""From one opinion a frame to a verdict that does not flicker."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a classifier says of one episode of T frames.

    Attributes:
        probability: Of success, by frame alone, float32, shape (T,).
        success: The task is done, after debouncing, bool, shape (T,).
        flickers: Changes of opinion that did not last and were ignored.
    """

    probability: np.ndarray
    success: np.ndarray
    flickers: int

    @property
    def first_success(self) -> int | None:
        """Frame at which success is first established; None if it never is."""
        return int(self.success.argmax()) if self.success.any() else None


class Debouncer:
    """Change the verdict only when `hold_frames` frames in a row agree that it changed; frame by frame, as the arm sees them.

    Attributes:
        done: The verdict; an episode begins as not done.
        flickers: Changes of opinion that did not last and were ignored.
    """

    def __init__(self, hold_frames: int) -> None:
        self._hold_frames = hold_frames
        self.done, self.flickers, self._row = False, 0, 0

    def see(self, opinion: bool) -> bool:
        """Take the opinion of one frame; returns the verdict."""
        if opinion == self.done:
            self.flickers += self._row > 0
            self._row = 0
        else:
            self._row += 1
            if self._row == self._hold_frames:
                self.done, self._row = not self.done, 0
        return self.done

    def end(self) -> int:
        """End the episode; returns how many shorter rows were ignored."""
        return self.flickers + (self._row > 0)


def debounce(above: np.ndarray, hold_frames: int) -> tuple[np.ndarray, int]:
    """Debounce an episode whose opinions are known.

    Looks back only, so that the arm, which sees one frame after the other, gets the same verdicts. The frame that completes
    the row is the first with the new verdict.

    Args:
        above: The frame's probability reaches the threshold, bool, shape (T,).
        hold_frames: At least 1; with 1 nothing is debounced.

    Returns:
        The verdict, bool, shape (T,), and how many shorter rows were ignored.
    """
    debouncer = Debouncer(hold_frames)
    success = np.array([debouncer.see(bool(opinion)) for opinion in above], bool)
    return success, debouncer.end()
