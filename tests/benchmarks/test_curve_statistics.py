"""The aggregates of the learning curves, against numbers computed by hand."""

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


statistics, runs = load("_aggregate"), load("_runs")


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 2.0, 6.0], 3.0),  # a quarter of three, rounded down, is none
        ([0.0, 9.0, 1.0, 2.0], 1.5),  # 0 and 9 are cut
        ([5.0, 100.0, 4.0, 3.0, -100.0], 4.0),  # one of five at either end
        ([8.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 4.5),  # 3, 4, 5, 6 are left
    ],
)
def test_interquartile_mean(scores: list[float], expected: float) -> None:
    assert statistics.interquartile_mean(np.array(scores)) == pytest.approx(expected)


def test_the_bootstrap_interval_is_that_of_all_resamples_listed_one_by_one() -> None:
    scores = [0.1, 0.4, 0.9]
    means = sorted(np.mean(drawn) for drawn in itertools.product(scores, repeat=3))  # 27 equally likely resamples
    # 1/27 of them is the smallest possible: it covers 3.7 % > 2.5 %, so the bounds are the extremes of the data.
    assert statistics.bootstrap_interval(np.array(scores)[:, None], statistics.mean) == (pytest.approx(means[0]), pytest.approx(means[-1]))


def test_the_bootstrap_interval_of_many_runs_is_the_normal_one() -> None:
    scores = np.random.default_rng(1).normal(3.0, 2.0, (400, 1))
    low, high = statistics.bootstrap_interval(scores, statistics.mean)
    half = 1.96 * scores.std() / np.sqrt(400)
    assert (low, high) == (pytest.approx(scores.mean() - half, abs=0.02), pytest.approx(scores.mean() + half, abs=0.02))


def test_runs_are_drawn_within_their_task() -> None:
    """Two tasks whose runs agree: however runs are drawn, the mean is that of the tasks. Drawn across tasks it would vary."""
    scores = np.array([[0.0, 1.0]] * 5)
    assert statistics.bootstrap_interval(scores, statistics.mean) == (0.5, 0.5)


def test_a_finished_run_is_not_made_again_and_a_cut_line_is_not_taken_for_one(tmp_path, capsys) -> None:
    script, results = tmp_path / "child.py", tmp_path / "results.jsonl"
    script.write_text(
        "import json, sys, pathlib\n"
        f"with pathlib.Path({str(tmp_path / 'made')!r}).open('a') as file: file.write(sys.argv[2] + ' ')\n"
        "print('noise')\nprint(json.dumps({'seed': int(sys.argv[2])}))\nsys.exit(sys.argv[2] == '3')\n"
    )
    results.write_text('{"seed": 0}\n{"seed": 1, "cur')
    results.write_text(results.read_text() + "\n")
    assert runs.run_all(script, [((seed,), [str(seed)]) for seed in range(4)], results, 1, ("seed",)) == 1  # 3 failed
    assert (tmp_path / "made").read_text() == "1 2 3 "
    assert [line["seed"] for line in runs.read_results(results)] == [0, 1, 2]
    assert "a damaged line" in capsys.readouterr().err
