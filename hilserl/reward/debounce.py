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


def debounce(above: np.ndarray, hold_frames: int) -> tuple[np.ndarray, int]:
    """Change the verdict only when `hold_frames` frames in a row agree that it changed.

    Looks back only, so that the arm, which sees one frame after the other, gets the same verdicts. An episode
    begins as not done. The frame that completes the row is the first with the new verdict.

    Args:
        above: The frame's probability reaches the threshold, bool, shape (T,).
        hold_frames: At least 1; with 1 nothing is debounced.

    Returns:
        The verdict, bool, shape (T,), and how many shorter rows were ignored.
    """
    success = np.zeros(len(above), bool)
    done, row, flickers = False, 0, 0
    for frame, opinion in enumerate(above):
        if bool(opinion) == done:
            flickers += row > 0
            row = 0
        else:
            row += 1
            if row == hold_frames:
                done, row = not done, 0
        success[frame] = done
    return success, flickers + (row > 0)
