"""Line charts as inline SVG, in the colours of the page around them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 480, 220, 52, 12, 10, 32
_MOST_POINTS = 500
COLORS = 6
"""Number of colours of the page: `c0`, `c1`, ..."""


@dataclass(frozen=True, eq=False)
class Curve:
    """One line.

    Attributes:
        name: In the legend.
        x: Environment steps, shape (n,).
        y: Values, shape (n,).
        color: Number of the page's colour.
        low, high: A band around it, shape (n,) each; None: no band.
        dots: Whether each point is marked.
    """

    name: str
    x: Array
    y: Array
    color: int = 0
    low: Array | None = None
    high: Array | None = None
    dots: bool = False


def line_chart(curves: Sequence[Curve], *, bounds: tuple[float, float] | None = None, log: bool = False) -> Markup:
    """Draw curves over environment steps.

    Args:
        curves: At least one with a point; others are left out.
        bounds: Range of y; None: that of the data.
        log: Logarithmic y; values at or below zero are left out.
    """
    drawn = [_usable(curve, log) for curve in curves]
    drawn = [curve for curve in drawn if len(curve.x)]
    if not drawn:
        return Markup('<p class="soft">Nothing was reported.</p>')
    log = log and _spans_a_decade(drawn)
    x_low, x_high = _range(np.concatenate([curve.x for curve in drawn]))
    values = np.concatenate([part for curve in drawn for part in (curve.y, curve.low, curve.high) if part is not None])
    y_low, y_high = bounds if bounds is not None else _range(np.log10(values) if log else values)

    def px(x: Any) -> Any:
        return _LEFT + (np.asarray(x) - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)

    def py(y: Any) -> Any:
        scaled = np.log10(y) if log else np.asarray(y)
        return _HEIGHT - _BOTTOM - (scaled - y_low) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">']
    for tick in _ticks(y_low, y_high, 4):
        y = float(py(10**tick if log else tick))
        parts.append(f'<path class="rule" d="M{_LEFT},{y:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(10**tick if log else tick)}</text>')
    for tick in _ticks(x_low, x_high, 5):
        parts.append(f'<text x="{float(px(tick)):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{_number(tick)}</text>')
    for curve in drawn:
        if curve.low is not None and curve.high is not None:
            edge = [*zip(px(curve.x), py(curve.high), strict=True), *reversed(list(zip(px(curve.x), py(curve.low), strict=True)))]
            parts.append(f'<polygon class="band c{curve.color}" points="{_points(edge)}"/>')
        points = list(zip(px(curve.x), py(curve.y), strict=True))
        parts.append(f'<polyline class="line c{curve.color}" points="{_points(points)}"/>')
        if curve.dots:
            parts += [f'<circle class="dot c{curve.color}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in points]
    parts.append("</svg>")
    keys = "".join(f'<span><i class="c{curve.color}"></i>{escape(curve.name)}</span>' for curve in drawn)
    return Markup("".join(parts) + f'<p class="legend">{keys}</p>')


def success_map(starts: Sequence[tuple[float, float, bool]]) -> Markup:
    """Draw where the object lay at the start of each episode, seen from above, the arm at the bottom: green succeeded, red failed.

    Args:
        starts: x and y in the arm's base frame [m], and whether the episode succeeded.
    """
    forward, left = (np.array([start[axis] for start in starts]) for axis in (0, 1))
    middle_x, middle_y = (forward.min() + forward.max()) / 2, (left.min() + left.max()) / 2
    reach_m = max(float(np.ptp(forward)), float(np.ptp(left)), 0.02) * 1.15
    size = _HEIGHT - 2 * _TOP
    scale = size / reach_m
    frame = f'<rect class="rule" x="{(_WIDTH - size) / 2}" y="{_TOP}" width="{size}" height="{size}"/>'
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{frame}']
    for x, y, success in starts:
        column, row = _WIDTH / 2 - (y - middle_y) * scale, _HEIGHT / 2 - (x - middle_x) * scale
        kind = "dot c2" if success else "dot c4"
        parts.append(f'<circle class="{kind}" cx="{column:.1f}" cy="{row:.1f}" r="4"><title>x {x:.3f} m, y {y:.3f} m</title></circle>')
    return Markup("".join([*parts, f'</svg><p class="legend">{100 * reach_m:.0f} cm wide; the arm\'s base is below, x points up</p>']))


def _usable(curve: Curve, log: bool) -> Curve:
    keep = np.isfinite(curve.y) & ((curve.y > 0) if log else True)
    step = max(1, math.ceil(int(keep.sum()) / _MOST_POINTS))
    chosen = np.flatnonzero(keep)[::step]
    low, high = (None if band is None else band[chosen] for band in (curve.low, curve.high))
    return Curve(curve.name, curve.x[chosen], curve.y[chosen], curve.color, low, high, curve.dots)


def _spans_a_decade(curves: Sequence[Curve]) -> bool:
    """Whether a logarithmic axis has a power of ten to show."""
    values = np.concatenate([curve.y for curve in curves])
    return bool(values.max() >= 10 * values.min())


def _range(values: Array) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-12 * max(1.0, abs(high)):
        return low - 0.5, high + 0.5
    margin = 0.04 * (high - low)
    return low - margin, high + margin


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Return round numbers between two."""
    step = 10 ** math.floor(math.log10((high - low) / about))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= about)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
