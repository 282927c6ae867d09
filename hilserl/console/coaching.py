"""When to intervene, and when to let go: advice from the numbers. It never does anything.

Short corrections where the policy is stuck, none where it would succeed by itself, many at first and ever fewer, and work
where it is weak: how HIL-SERL is meant to be taught (Luo et al. 2024, arXiv 2410.21845). The figures are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SHORTEST_BOUT, LONGEST_BOUT = 10, 30
_STUCK_S = 3.0
_LATE = 0.6
_RECENT = 20
_FEW = 6
_NEAR_SUCCESS = 0.6
_GOOD = 0.75
_MUCH_HELP = 0.25
_LITTLE_HELP = 0.05
_WEAK = 0.35
_WORSE_BY = 0.3
_CELLS = 3
_FEW_HERE = 4


@dataclass(frozen=True)
class Advice:
    """One thing to say.

    Attributes:
        kind: `intervene`, `release`, `taper` or `place`.
        text: The sentence.
    """

    kind: str
    text: str


def advise(state: Mapping[str, Any], episodes: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Say what a person does best now, the most urgent first; at most two things.

    Args:
        state: The console's newest `state` message; parts that are not there are no reason to say anything.
        episodes: The last episodes, as in the `episodes` message, the newest last.
    """
    trained = [episode for episode in episodes if not episode.get("evaluation") and episode.get("ended") not in ("discarded", "cut")]
    said = _now(state, trained) or _before_the_next(state, trained)
    said += _between(state, trained[-_RECENT:])
    return [{"kind": advice.kind, "text": advice.text} for advice in said[:2]]


def _now(state: Mapping[str, Any], episodes: Sequence[Mapping[str, Any]]) -> list[Advice]:
    """Judge the episode that is on: too long a bout, success that is near, a policy that is stuck."""
    episode, judge = state.get("episode"), state.get("judge") or {}
    if state.get("phase") != "episode" or episode is None or _records(state):
        return []
    if state.get("control") == "human":
        length, probability, threshold = episode.get("bout_steps") or 0, judge.get("probability"), judge.get("threshold")
        if probability is not None and threshold and probability >= _NEAR_SUCCESS * threshold and length >= SHORTEST_BOUT:
            return [Advice("release", "Success is near: let go now, so that the policy learns to finish by itself.")]
        if length > LONGEST_BOUT:
            return [
                Advice("release", f"{length} steps at a stretch: let go and see what it does. {SHORTEST_BOUT} to {LONGEST_BOUT} are best.")
            ]
        return []
    if state.get("control") == "policy" and _is_stuck(state, episodes) and not _needs_none(episodes):
        return [Advice("intervene", f"It makes no headway: take over for {SHORTEST_BOUT} to {LONGEST_BOUT} steps, then let go.")]
    return []


def _before_the_next(state: Mapping[str, Any], episodes: Sequence[Mapping[str, Any]]) -> list[Advice]:
    """Say, between episodes, what the last one taught: it was driven to its end."""
    if state.get("phase") not in ("resetting", "waiting") or not episodes or _records(state):
        return []
    last = episodes[-1]
    bouts, length = last.get("bouts") or [], last.get("length") or 0
    if last.get("success") and bouts and bouts[-1][1] >= length and bouts[-1][1] - bouts[-1][0] >= SHORTEST_BOUT:
        return [Advice("release", "The last success was driven to its end: let go a little earlier, so that the policy earns the reward.")]
    return []


def _between(state: Mapping[str, Any], episodes: Sequence[Mapping[str, Any]]) -> list[Advice]:
    """Compare success with help over the last episodes, and look at the map."""
    if len(episodes) < _FEW or _records(state):
        return []
    success, help_share = _success(episodes), _help(episodes)
    said = []
    if success >= _GOOD and help_share > _MUCH_HELP:
        said.append(
            Advice(
                "taper",
                f"{100 * success:.0f} % succeed, {100 * help_share:.0f} % of the steps are by hand: help less, where it would fail.",
            )
        )
    elif success < _WEAK and help_share < _LITTLE_HELP:
        said.append(
            Advice(
                "intervene",
                f"Only {100 * success:.0f} % succeed, and hardly anybody helps: take over in every episode, in short bouts, for now.",
            )
        )
    place = _weak_place(episodes)
    if place is not None:
        where, right, of = place
        said.append(Advice("place", f"Place the cube {where}: {right} of {of} succeeded there, elsewhere it is better."))
    return said


def _is_stuck(state: Mapping[str, Any], episodes: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether the episode takes longer than successes do, or its time is nearly over."""
    episode = state["episode"]
    clock_s, limit_s = episode.get("clock_s") or 0.0, episode.get("limit_s") or 0.0
    wins = [one["length"] / one["hz"] for one in episodes if one.get("success") and one.get("hz")]
    expected_s = float(np.quantile(wins, 0.9)) if len(wins) >= _FEW else _LATE * limit_s
    return clock_s > max(_STUCK_S, expected_s) and not episode.get("success") and clock_s < limit_s


def _needs_none(episodes: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether the policy does so well alone that its failures are worth more than help."""
    recent = episodes[-_RECENT:]
    return len(recent) >= _RECENT and _success(recent) >= 0.9 and _help(recent) < _LITTLE_HELP


def _weak_place(episodes: Sequence[Mapping[str, Any]]) -> tuple[str, int, int] | None:
    """Find the part of the table where success is clearly lowest: where, successes and episodes there."""
    with_cube = [episode for episode in episodes if episode.get("cube_m")]
    if len(with_cube) < 2 * _FEW:
        return None
    cubes = np.array([episode["cube_m"][:2] for episode in with_cube], np.float64)
    won = np.array([bool(episode.get("success")) for episode in with_cube])
    low, span = cubes.min(axis=0), np.ptp(cubes, axis=0)
    if (span < 0.02).any():
        return None
    cells = np.minimum((_CELLS * (cubes - low) / span).astype(int), _CELLS - 1)
    weakest: tuple[float, str, int, int] | None = None
    for row, column in sorted({tuple(cell) for cell in cells.tolist()}):
        here = (cells == (row, column)).all(axis=1)
        gap = float(won[here].mean() - won[~here].mean())
        if here.sum() >= _FEW_HERE and gap <= -_WORSE_BY and (weakest is None or gap < weakest[0]):
            middle = 1000 * cubes[here].mean(axis=0)
            where = " ".join(filter(None, (("near", "", "far")[row], ("right", "", "left")[column]))) or "in the middle"
            weakest = gap, f"{where} (x {middle[0]:.0f}, y {middle[1]:+.0f} mm)", int(won[here].sum()), int(here.sum())
    return None if weakest is None else weakest[1:]


def _success(episodes: Sequence[Mapping[str, Any]]) -> float:
    return sum(bool(episode.get("success")) for episode in episodes) / len(episodes)


def _help(episodes: Sequence[Mapping[str, Any]]) -> float:
    steps = sum(episode.get("length") or 0 for episode in episodes)
    return sum(episode.get("intervention_steps") or 0 for episode in episodes) / steps if steps else 0.0


def _records(state: Mapping[str, Any]) -> bool:
    """Tell whether demonstrations are recorded: there is no policy to help."""
    return (state.get("session") or {}).get("wanted") is not None
