"""The episode and the session in numbers, as the loop tells them."""

from __future__ import annotations

import datetime as dt
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from hilserl.teleop.operator import Moment

OF_LAST = 20
_LONGEST_PATH = 200
_CHECKED = 10


@dataclass(frozen=True)
class _Ended:
    success: bool
    length: int
    interventions: int
    called: bool  # success, by the judge that is no person
    judged_by: str | None
    truth: bool | None  # None: nobody knows it


class Tally:
    """Counts.

    Attributes:
        episode: The one that is on, as the state message has it; None: none is.
        judge: What said success at the last step; None: nobody said anything but yes and no.
    """

    def __init__(self, episode_limit_s: float, control_hz: float) -> None:
        self.episode: dict[str, Any] | None = None
        self.judge: dict[str, Any] | None = None
        self._limit_s, self._hz = episode_limit_s, control_hz
        self._last: deque[_Ended] = deque(maxlen=OF_LAST)
        self._episodes = self._steps = self._discarded = 0
        self._bouts: list[list[int]] = []
        self._path: list[list[float]] = []
        self._cube: list[float] | None = None
        self._began_s = 0.0
        self._done_before = 0
        self._called = False
        self._truth: bool | None = None

    def begin(self, moment: Moment) -> None:
        """An episode begins, or goes on after a hold."""
        if self.episode is not None:  # it was held
            return
        self._bouts, self._path, self._began_s = [], [], time.monotonic()
        cube = moment.info.get("cube_pos_m")
        self._cube = None if cube is None else [round(float(value), 4) for value in np.asarray(cube)]
        self.judge, self._called, self._truth = None, False, None
        self.episode = {
            "number": moment.episode, "evaluation": moment.evaluation, "step": 0, "clock_s": 0.0, "limit_s": self._limit_s,
            "reward": 0.0, "return": 0.0, "success": False, "intervention_steps": 0,
            "bouts": 0, "bout_steps": 0, "action": None, "clips": 0,
        }  # fmt: skip

    def step(self, moment: Moment, tool_m: list[float] | None) -> None:
        """A step was done."""
        if self.episode is None:
            self.begin(moment)
        assert self.episode is not None
        episode = dict(self.episode)  # a new one: another thread may be writing the old one out
        if moment.is_intervention:
            if self._bouts and self._bouts[-1][1] == moment.step - 1:
                self._bouts[-1][1] = moment.step
            else:
                self._bouts.append([moment.step - 1, moment.step])
        acts = moment.is_intervention
        episode |= {
            "step": moment.step,
            "clock_s": round(moment.step / self._hz, 2),
            "reward": moment.reward,
            "return": moment.return_,
            "success": moment.success,
            "intervention_steps": episode["intervention_steps"] + acts,
            "bouts": len(self._bouts),
            "bout_steps": self._bouts[-1][1] - self._bouts[-1][0] if acts else 0,
            "action": None if moment.action is None else [round(float(value), 3) for value in moment.action],
            "clips": episode["clips"] + sum(moment.info.get("clips", {}).values()),
        }
        self.episode = episode
        self._steps += not moment.evaluation
        if tool_m is not None and len(self._path) < _LONGEST_PATH:
            self._path.append(tool_m)
        info = moment.info
        self._called |= bool(info.get("is_success"))
        if info.get("true_success") is not None:
            self._truth = bool(self._truth) or bool(info["true_success"])
        if "success_probability" in info or "judged_by" in info:
            self.judge = {
                "probability": _number(info.get("success_probability")),
                "threshold": _number(info.get("success_threshold")),
                "judged_by": info.get("judged_by"),
                "true_success": None if info.get("true_success") is None else bool(info["true_success"]),
            }

    def end(self, how: str, source: str) -> dict[str, Any] | None:
        """The episode ended; return it for the list of episodes, None where none was on or nothing was done in it."""
        episode, self.episode = self.episode, None
        if episode is None or episode["step"] == 0:
            return None
        if how == "discarded":
            self._discarded += 1
        if not episode["evaluation"]:
            self._episodes += 1
            if how not in ("discarded", "cut"):
                judged_by = (self.judge or {}).get("judged_by")
                success, done = how == "success", (episode["step"], episode["intervention_steps"])
                self._last.append(_Ended(success, *done, self._called, judged_by, self._truth))
        return {
            "number": episode["number"], "evaluation": episode["evaluation"], "ended": how, "success": how == "success",
            "length": episode["step"], "return": episode["return"], "seconds": round(time.monotonic() - self._began_s, 2),
            "intervention_steps": episode["intervention_steps"], "bouts": self._bouts, "source": source, "cube_m": self._cube,
            "path_m": self._path, "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), "hz": self._hz,
        }  # fmt: skip

    def session(self) -> dict[str, Any]:
        """Return the session so far; rates are over the last episodes, and null before the first."""
        steps = sum(one.length for one in self._last)
        known = [one for one in self._last if one.truth is not None and one.judged_by == "classifier"]
        differ = [one.called != one.truth for one in known]
        return {
            "episodes": self._episodes,
            "steps": self._steps,
            "success_rate": sum(one.success for one in self._last) / len(self._last) if self._last else None,
            "intervention_rate": sum(one.interventions for one in self._last) / steps if steps else None,
            "of_last": len(self._last),
            "judged_by": self._last[-1].judged_by if self._last else None,
            "truth_known": len(known),
            "truth_agrees": len(known) - sum(differ),
            "differ_of_last_10": sum(differ[-_CHECKED:]),
            "wanted": None,
            "saved": None,
            "failed": None,
            "discarded": self._discarded,
        }


def _number(value: Any) -> float | None:
    return None if value is None else round(float(value), 4)
