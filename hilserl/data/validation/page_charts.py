"""Small charts as inline SVG: no image files, sharp in print, and in the colours of the page around them.

Every chart is drawn for a width of about 360 px and never stretched far, so its text stays readable on a
telephone. Colours are the CSS classes `s0`, `s1`, ... of the page, so they follow light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 14.0, 8.0, 34.0
_MAX_BARS = 160
_MAX_POINTS = 400
_BINS = 41
# A motor at its end stop measures a little beyond it; another unit is far beyond.
_LIMIT_SLACK = 0.02


@dataclass(frozen=True)
class Line:
    """One curve: its name, x and y of equal length, the number of its colour, and whether it is drawn in steps."""

    name: str
    x: np.ndarray
    y: np.ndarray
    color: int = 0
    steps: bool = False


@dataclass(frozen=True)
class Frame:
    """Maps data to pixels: ranges of x and y, and the size of the whole picture [px]."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: float = 360.0
    height: float = 210.0

    def px(self, x: float) -> float:
        """Return the pixel column of `x`."""
        return _LEFT + (x - self.x[0]) / (self.x[1] - self.x[0]) * (self.width - _LEFT - _RIGHT)

    def py(self, y: float) -> float:
        """Return the pixel row of `y`."""
        return self.height - _BOTTOM - (y - self.y[0]) / (self.y[1] - self.y[0]) * (self.height - _TOP - _BOTTOM)

    def axes(self, x_label: str, y_label: str, *, y_ticks: int = 4, x_ticks: int = 6, whole: bool = False) -> str:
        """Draw grid, numbers and labels; `whole` where x counts something."""
        low, high, right = self.height - _BOTTOM, _TOP, self.width - _RIGHT
        parts = []
        for value in ticks(*self.y, y_ticks):
            parts.append(f'<path class="grid" d="M{_LEFT},{self.py(value):.1f}H{right}"/>')
            parts.append(f'<text class="tick" x="{_LEFT - 5}" y="{self.py(value) + 3.5:.1f}" text-anchor="end">{_number(value)}</text>')
        for value in ticks(*self.x, x_ticks, whole=whole):
            parts.append(f'<path class="grid" d="M{self.px(value):.1f},{high}V{low}"/>')
            parts.append(f'<text class="tick" x="{self.px(value):.1f}" y="{low + 13}" text-anchor="middle">{_number(value)}</text>')
        middle = (_LEFT + right) / 2
        parts.append(f'<text class="label" x="{middle}" y="{self.height - 5}" text-anchor="middle">{escape(x_label)}</text>')
        upright = f'transform="rotate(-90)" x="{-(high + low) / 2}" y="11" text-anchor="middle"'
        parts.append(f'<text class="label" {upright}>{escape(y_label)}</text>')
        return "".join(parts)

    def svg(self, body: str, title: str) -> Markup:
        """Close the picture; `title` is what a screen reader says."""
        head = f'<svg viewBox="0 0 {self.width:g} {self.height:g}" role="img" aria-label="{escape(title)}">'
        return Markup(f"{head}{body}</svg>")


def histogram(values: np.ndarray, name: str, unit: str, limits: tuple[float, float] | None) -> Markup:
    """Draw how often each value occurs, with a scale of the allowed range below.

    Args:
        values: Shape (N,), finite.
        name: Of the scalar, for a screen reader.
        unit: Of the scalar.
        limits: Allowed range, in `unit`; None where it is not known.
    """
    low, high = float(values.min()), float(values.max())
    span = _padded(low, high)
    counts, _ = np.histogram(values, bins=_BINS, range=span)
    shares = 100 * counts / max(1, len(values))
    frame = Frame(span, (0.0, float(shares.max()) * 1.05 or 1.0), 240.0, 132.0)
    width = (span[1] - span[0]) / _BINS
    path = "".join(_bar(frame, span[0] + i * width, span[0] + (i + 1) * width, float(share)) for i, share in enumerate(shares) if share)
    body = frame.axes(unit, "% of frames", y_ticks=3, x_ticks=4) + f'<path class="s0 bar" d="{path}"/>'
    return frame.svg(body, f"{name}: {_number(low)} to {_number(high)} {unit}") + (range_scale(low, high, limits) if limits else Markup())


def range_scale(low: float, high: float, limits: tuple[float, float]) -> Markup:
    """Draw the used part of an allowed range; red where it leaves it."""
    start, end = min(limits[0], low), max(limits[1], high)
    frame = Frame((start, end), (0, 1), 240.0, 30.0)
    slack = _LIMIT_SLACK * (limits[1] - limits[0])
    outside = low < limits[0] - slack or high > limits[1] + slack
    text = f"{'beyond the limits' if outside else 'limits'} {_number(limits[0])} to {_number(limits[1])}"
    left, right = frame.px(limits[0]), frame.px(limits[1])
    used = max(frame.px(high) - frame.px(low), 2.0)
    body = (
        f'<rect class="track" x="{left:.1f}" y="4" width="{right - left:.1f}" height="6" rx="3"/>'
        f'<rect class="{"bad" if outside else "s0"} bar" x="{frame.px(low):.1f}" y="4" width="{used:.1f}" height="6" rx="3"/>'
        f'<path class="limit" d="M{left:.1f},1V13M{right:.1f},1V13"/>'
        f'<text class="tick" x="{(_LEFT + 240 - _RIGHT) / 2}" y="24" text-anchor="middle">{text}</text>'
    )
    return frame.svg(body, f"allowed {limits[0]:g} to {limits[1]:g}")


def bars(values: Sequence[float], marked: Sequence[bool], x_label: str, y_label: str) -> tuple[Markup, int]:
    """Draw one bar an item, in the good colour where `marked`.

    Returns:
        The picture, and how many items share a bar (their mean; marked if all are).
    """
    together = math.ceil(len(values) / _MAX_BARS) or 1
    heights = [float(np.mean(values[i : i + together])) for i in range(0, len(values), together)]
    good = [all(marked[i : i + together]) for i in range(0, len(values), together)]
    low, high = min([0.0, *heights]), max([0.0, *heights])
    margin = 0.08 * (high - low)
    frame = Frame((-0.5, len(values) - 0.5), (low - margin if low < 0 else 0.0, high + margin if high > 0 else margin or 1.0))
    gap = 0.1 * together
    paths = {True: "", False: ""}
    for index, (height, mark) in enumerate(zip(heights, good, strict=True)):
        start = index * together - 0.5
        paths[mark] += _bar(frame, start + gap, min(start + together, len(values) - 0.5) - gap, height)
    body = "".join(f'<path class="{"good" if mark else "miss"} bar" d="{path}"/>' for mark, path in paths.items() if path)
    return frame.svg(frame.axes(x_label, y_label, whole=True) + body, y_label), together


def lines(
    curves: Sequence[Line], x_label: str, y_label: str, *, marks: Sequence[float] = (), height: float = 210.0, whole: bool = False
) -> Markup:
    """Draw curves over one axis; `marks` are upright lines, `whole` says that x counts something."""
    x = np.concatenate([curve.x for curve in curves])
    y = np.concatenate([curve.y for curve in curves])
    frame = Frame(_padded(float(x.min()), float(x.max()), 0.0), _padded(float(np.nanmin(y)), float(np.nanmax(y)), 0.06), height=height)
    body = frame.axes(x_label, y_label, whole=whole)
    body += "".join(f'<path class="limit" d="M{frame.px(mark):.1f},{_TOP}V{height - _BOTTOM}"/>' for mark in marks)
    body += "".join(f'<path class="s{curve.color} line" d="{_curve(frame, curve)}"/>' for curve in curves)
    return frame.svg(body, y_label)


def plane(
    paths: Sequence[np.ndarray],
    bounds: tuple[tuple[float, float], tuple[float, float]],
    reset: tuple[float, float],
    labels: tuple[str, str],
) -> Markup:
    """Draw paths in a plane, to scale, with a box and a point.

    Args:
        paths: Each of shape (T, 2).
        bounds: Lower and upper corner of the box.
        reset: The point.
        labels: Of the two axes.
    """
    points = np.concatenate([*paths, np.array(bounds), np.array([reset])])
    points = points[np.isfinite(points).all(axis=1)]
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.05 * max(high - low)
    low, high = low - margin, high + margin
    width = 360.0
    scale = (width - _LEFT - _RIGHT) / (high[0] - low[0])
    height = scale * (high[1] - low[1]) + _TOP + _BOTTOM
    if height > 430:  # a tall plane: the x axis gets room instead, so that it stays to scale
        extra = (high[1] - low[1]) * (width - _LEFT - _RIGHT) / (430 - _TOP - _BOTTOM) - (high[0] - low[0])
        low[0], high[0], height = low[0] - extra / 2, high[0] + extra / 2, 430.0
    frame = Frame((low[0], high[0]), (low[1], high[1]), width, height)
    (x0, y0), (x1, y1) = bounds
    left, top = frame.px(x0), frame.py(y1)
    box = f'x="{left:.1f}" y="{top:.1f}" width="{frame.px(x1) - left:.1f}" height="{frame.py(y0) - top:.1f}"'
    body = frame.axes(*labels) + f'<rect class="bounds" {box}/>'
    for path in paths:
        body += f'<path class="s0 line thin" d="{_curve(frame, Line("", path[:, 0], path[:, 1]))}"/>'
    for path in paths:
        body += f'<circle class="s1 dot" cx="{frame.px(path[0, 0]):.1f}" cy="{frame.py(path[0, 1]):.1f}" r="2"/>'
        body += f'<circle class="s2 dot" cx="{frame.px(path[-1, 0]):.1f}" cy="{frame.py(path[-1, 1]):.1f}" r="2"/>'
    x, y = frame.px(reset[0]), frame.py(reset[1])
    body += f'<path class="reset" d="M{x - 6:.1f},{y:.1f}h12M{x:.1f},{y - 6:.1f}v12"/>'
    return frame.svg(body, f"tool path, {labels[0]} against {labels[1]}")


def legend(entries: Sequence[tuple[str, str]]) -> Markup:
    """Explain colours: (CSS class, text) each."""
    items = "".join(f'<span><i class="key {css}"></i>{escape(text)}</span>' for css, text in entries)
    return Markup(f'<p class="legend">{items}</p>')


def ticks(low: float, high: float, about: int, *, whole: bool = False) -> list[float]:
    """Return round numbers between `low` and `high`, about as many as asked for; `whole` ones only, if need be."""
    raw = max((high - low) / max(1, about), 1.0 if whole else 0.0)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in ((1, 2, 5, 10) if whole else (1, 2, 2.5, 5, 10)) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _bar(frame: Frame, x0: float, x1: float, height: float) -> str:
    base = frame.py(0)
    return f"M{frame.px(x0):.1f},{base:.1f}V{frame.py(height):.1f}H{frame.px(x1):.1f}V{base:.1f}Z"


def _curve(frame: Frame, curve: Line) -> str:
    every = math.ceil(len(curve.x) / _MAX_POINTS)
    commands, pen = [], "M"
    for x, y in zip(curve.x[::every], curve.y[::every], strict=True):
        if not (math.isfinite(x) and math.isfinite(y)):
            pen = "M"  # a gap, not a line across it
            continue
        px, py = frame.px(float(x)), frame.py(float(y))
        commands.append(f"M{px:.1f},{py:.1f}" if pen == "M" else f"H{px:.1f}V{py:.1f}" if curve.steps else f"L{px:.1f},{py:.1f}")
        pen = "L"
    return "".join(commands)


def _padded(low: float, high: float, share: float = 0.02) -> tuple[float, float]:
    """Return a range that is never empty."""
    if high - low < 1e-9 * max(1.0, abs(low), abs(high)):
        half = 0.5 if low == 0 else abs(low) * 0.05
        return low - half, high + half
    margin = share * (high - low)
    return low - margin, high + margin


def _number(value: float) -> str:
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}"
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"
