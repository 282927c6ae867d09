"""Charts: numbers where they belong, whatever the data."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilserl.data.validation.page_charts import Frame, Line, bars, histogram, lines, plane, range_scale, ticks

finite = st.floats(-1e6, 1e6, allow_nan=False)


@given(low=finite, span=st.floats(1e-6, 1e6), about=st.integers(2, 8), whole=st.booleans())
def test_ticks_are_round_and_inside(low: float, span: float, about: int, whole: bool) -> None:
    found = ticks(low, low + span, about, whole=whole)
    slack = 1e-6 * max(1.0, abs(low), span)
    assert all(low - slack <= value <= low + span + slack for value in found)
    assert found == sorted(found) and len(found) <= 2 * about + 2
    if whole:
        assert all(math.isclose(value, round(value), abs_tol=1e-6) for value in found)


@pytest.mark.parametrize(
    "values", [np.zeros(5), np.array([1e-9, 2e-9]), np.array([-3.0]), np.array([1e7, 1e7 + 1]), np.random.default_rng(0).normal(size=1000)]
)
def test_a_histogram_of_anything_is_drawn_without_a_nan(values: np.ndarray) -> None:
    drawn = histogram(values, "name", "rad", (-1.0, 1.0))
    assert "nan" not in drawn and "inf" not in drawn.replace("info", "")
    assert drawn.count("<svg") == drawn.count("</svg>") == 2


def test_bars_of_a_histogram_add_up_to_all_frames() -> None:
    values = np.random.default_rng(1).uniform(-1, 1, 5000)
    drawn = histogram(values, "name", "", None)
    path = re.search(r'class="s0 bar" d="([^"]*)"', drawn)
    assert path is not None
    heights = np.array(
        [[float(number) for number in re.findall(r"[MVH](-?[\d.]+),?(-?[\d.]+)?", bar)[1][:1]] for bar in path[1].split("Z")[:-1]]
    )
    frame_top, base = 8.0, 132.0 - 34.0
    tallest = (
        100
        * np.histogram(values, bins=41, range=(values.min() - 0.02 * np.ptp(values), values.max() + 0.02 * np.ptp(values)))[0].max()
        / 5000
    )
    shares = (base - heights[:, 0]) / (base - frame_top) * tallest * 1.05
    assert shares.sum() == pytest.approx(100, abs=1.0)


def test_a_range_beyond_its_limits_is_red() -> None:
    assert 'class="bad bar"' in range_scale(-57.0, 57.0, (-3.2, 3.2)) and "beyond the limits" in range_scale(-57.0, 57.0, (-3.2, 3.2))
    assert 'class="bad bar"' not in range_scale(-3.25, 3.0, (-3.2, 3.2)), "an end stop is a little soft"


def test_many_episodes_share_bars() -> None:
    drawn, together = bars([2.0] * 1000, [True] * 999 + [False], "episode", "length")
    assert together == 7 and len(drawn) < 40_000
    assert 'class="miss bar"' in drawn and 'class="good bar"' in drawn
    assert bars([1.0, 2.0], [True, True], "episode", "length")[1] == 1


def test_bars_go_down_for_costs() -> None:
    drawn = bars([-2.0, 1.0, 0.0], [False, True, False], "episode", "sum of rewards")[0]
    (cost,) = re.findall(r'class="miss bar" d="M[\d.]+,([\d.]+)V([\d.]+)', drawn)
    (gain,) = re.findall(r'class="good bar" d="M[\d.]+,([\d.]+)V([\d.]+)', drawn)
    assert float(cost[1]) > float(cost[0]) == float(gain[0]) > float(gain[1])
    assert "nan" not in bars([0.0], [False], "episode", "x")[0] + bars([], [], "episode", "x")[0]


def test_a_plane_is_to_scale() -> None:
    drawn = plane([np.array([[0.1, 0.0], [0.3, 0.1]])], ((0.1, -0.15), (0.35, 0.15)), (0.2, 0.0), ("x", "y"))
    box = re.search(r'class="bounds" x="[\d.]+" y="[\d.]+" width="([\d.]+)" height="([\d.]+)"', drawn)
    assert box is not None
    assert float(box[1]) / float(box[2]) == pytest.approx(0.25 / 0.30, rel=0.01)


def test_a_gap_in_a_curve_stays_a_gap() -> None:
    y = np.array([1.0, 2.0, np.nan, 3.0, 4.0])
    drawn = lines([Line("a", np.arange(5.0), y)], "time", "value")
    path = re.search(r'class="s0 line" d="([^"]*)"', drawn)
    assert path is not None and path[1].count("M") == 2


def test_texts_of_charts_are_escaped() -> None:
    for drawn in (histogram(np.arange(3.0), "<b>", "<i>", None), lines([Line("a", np.arange(2.0), np.arange(2.0))], "<i>", "<b>")):
        assert "<b>" not in drawn and "<i>" not in drawn


def test_pixels_follow_the_ranges() -> None:
    frame = Frame((0.0, 10.0), (0.0, 1.0))
    assert frame.px(0) < frame.px(5) < frame.px(10) <= frame.width
    assert frame.height >= frame.py(0) > frame.py(0.5) > frame.py(1) >= 0
    assert frame.px(5) == pytest.approx((frame.px(0) + frame.px(10)) / 2)
