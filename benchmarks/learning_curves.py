"""Learning curves of the simulated tasks: with and without demonstrations and interventions, over seeds.

    uv run python benchmarks/learning_curves.py --workers 2                 # all that is missing, then the picture
    uv run python benchmarks/learning_curves.py --tasks reach --arms full   # a part
    uv run python benchmarks/learning_curves.py --plot                      # the picture from the results so far

Every run trains in one process (`hilserl.training`), with one thread, for a fixed number of environment
steps and without an early stop. At fixed steps the policy alone, deterministic, plays the same 20 starts in
an environment of its own. Results are lines of `benchmarks/results/learning_curves.jsonl`: an interrupted
benchmark goes on where it was. All runs share the 20 recorded demonstrations and the pretrained encoder.

`no demonstrations`: every batch is online only (`policy.online_ratio: 1`); what is left of the demonstrations
is the scaling of the state, which the declared limits of the joints would give about as well.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from _aggregate import bootstrap_interval, interquartile_mean
from _runs import ROOT, commit, read_results, run_all

TASKS: dict[str, dict[str, Any]] = {
    "reach": {"config": "reach", "steps": 2000, "every": 200},
    "lift": {"config": "lift", "steps": 6000, "every": 500},
    "reach_pixels": {"config": "reach", "steps": 1500, "every": 250, "encoder.type": "cnn", "encoder.freeze": False},
}
TITLES = {
    "reach": "reach (encoder pretrained in simulation)",
    "lift": "lift (encoder pretrained in simulation)",
    "reach_pixels": "reach, end to end from pixels",
}
ARMS: dict[str, dict[str, Any]] = {
    "full": {},
    "no interventions": {"actor.intervention.type": "none"},
    "no demonstrations": {"policy.online_ratio": 1.0},
    "neither": {"actor.intervention.type": "none", "policy.online_ratio": 1.0},
    "targets not clipped": {"policy.clip_target": False},
}
COLORS = {
    "full": "tab:blue",
    "no interventions": "tab:orange",
    "no demonstrations": "tab:green",
    "neither": "tab:red",
    "targets not clipped": "tab:purple",
}
EPISODES = 20
RESULTS = ROOT / "benchmarks" / "results" / "learning_curves.jsonl"
PICTURE = ROOT / "docs" / "images" / "learning-curves.png"
KEY = ("task", "arm", "seed")


def configure(task: str, arm: str, seed: int) -> Any:
    """Build the configuration of one run."""
    from hilserl.config.loader import load_config

    settings = dict(TASKS[task])
    name, steps, _ = settings.pop("config"), settings.pop("steps"), settings.pop("every")
    fixed = {
        "name": f"curve-{task}",
        "seed": seed,
        "policy.online_steps": steps,
        "actor.evaluate_every_steps": 0,
        "actor.stop_at_success": None,
        "learner.execution": "eager",  # the same arithmetic on every machine
        "learner.save_freq": 10**9,  # only at the end
        "tracking.enable": False,
    }
    return load_config(name, fixed | settings | ARMS[arm])


def run_one(task: str, arm: str, seed: int) -> dict[str, Any]:
    """Train once; returns the line of the results."""
    from hilserl.environments.make import make_environment
    from hilserl.evaluation import IN_TRAINING_SEED, play_episode
    from hilserl.training import train_in_process

    config, every = configure(task, arm, seed), TASKS[task]["every"]
    environment = make_environment(config)
    curve: list[dict[str, float]] = []
    evaluation_s = 0.0

    def evaluate(steps: int, policy: Any) -> None:
        nonlocal evaluation_s
        if steps % every:
            return
        started = time.monotonic()
        played = [play_episode(environment, policy, IN_TRAINING_SEED + index) for index in range(EPISODES)]
        evaluation_s += time.monotonic() - started
        curve.append(
            {
                "steps": steps,
                "success": sum(episode.success for episode in played) / EPISODES,
                "mean_steps": float(np.mean([episode.steps for episode in played])),
                "seconds": time.monotonic() - began,  # wall time since the start, evaluations included
            }
        )

    began = time.monotonic()
    result = train_in_process(config, after_step=evaluate)
    environment.close()
    return {
        "task": task,
        "arm": arm,
        "seed": seed,
        "commit": commit(),
        "seconds": round(time.monotonic() - began, 1),
        "evaluation_seconds": round(evaluation_s, 1),
        "updates": result.learned.updates,
        "episodes": result.acted.episodes,
        "intervention_steps": result.acted.intervention_steps,
        "curve": curve,
        "config": config.model_dump(mode="json"),
    }


def curves(lines: list[dict[str, Any]], task: str, arm: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps (P,) and the success rates (runs, P) of one task and arm."""
    runs = [line["curve"] for line in lines if (line["task"], line["arm"]) == (task, arm)]
    points = min((len(run) for run in runs), default=0)
    return np.array([p["steps"] for p in runs[0][:points]] if runs else []), np.array(
        [[p["success"] for p in run[:points]] for run in runs]
    )


def print_table(lines: list[dict[str, Any]]) -> None:
    """Print the success at the end, and the first evaluation whose IQM is at least 90 %, as Markdown."""
    print("| task | arm | runs | IQM of success at the end | 95 % interval | IQM ≥ 90 % from step | seconds a run |")
    print("|---|---|---|---|---|---|---|")
    for task in TASKS:
        for arm in ARMS:
            steps, success = curves(lines, task, arm)
            if not len(success):
                continue
            low, high = bootstrap_interval(success[:, -1:])
            good = np.flatnonzero(interquartile_mean(success.T) >= 0.9)
            seconds = np.median([line["seconds"] for line in lines if (line["task"], line["arm"]) == (task, arm)])
            print(
                f"| {task} | {arm} | {len(success)} | {interquartile_mean(success[:, -1]):.2f} | {low:.2f} – {high:.2f} "
                f"| {steps[good[0]] if len(good) else '–'} | {seconds:.0f} |"
            )


def draw(lines: list[dict[str, Any]], file: Path) -> None:
    """Draw IQM and 95 % interval over environment steps, a panel a task."""
    from matplotlib.figure import Figure

    tasks = [task for task in TASKS if any(line["task"] == task for line in lines)]
    figure = Figure(figsize=(4.6 * len(tasks), 3.6), layout="constrained")
    for axis, task in zip(np.atleast_1d(figure.subplots(1, len(tasks), sharey=True)), tasks, strict=True):
        for arm, color in COLORS.items():
            steps, success = curves(lines, task, arm)
            if not len(success):
                continue
            bounds = np.array([bootstrap_interval(success[:, [point]]) for point in range(len(steps))])
            axis.fill_between(steps, bounds[:, 0], bounds[:, 1], color=color, alpha=0.15, linewidth=0)
            axis.plot(steps, interquartile_mean(success.T), "o-", markersize=3, color=color, label=arm)
        axis.set(title=TITLES[task], xlabel="environment steps", ylim=(-0.03, 1.03))
        axis.grid(alpha=0.3)
    labelled = {label: line for axis in figure.axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(labelled.values(), labelled.keys(), loc="outside lower center", ncols=len(labelled), fontsize=8)
    figure.axes[0].set_ylabel("success of the policy alone\nIQM and 95 % interval")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    print(f"drew {file}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--plot", action="store_true", help="only the table and the picture")
    parser.add_argument("--one", nargs=3, metavar=("TASK", "ARM", "SEED"), help="one run, in this process; prints its line")
    arguments = parser.parse_args()
    if arguments.one:
        task, arm, seed = arguments.one
        print(json.dumps(run_one(task, arm, int(seed))))
        return 0
    failed = 0
    if not arguments.plot:
        prepare_tasks(arguments.tasks)
        # Seed by seed, so that every arm has something to show early.
        keys = [(task, arm, seed) for task in arguments.tasks for seed in arguments.seeds for arm in arguments.arms]
        failed = run_all(Path(__file__), [(key, [str(part) for part in key]) for key in keys], arguments.results, arguments.workers, KEY)
    lines = read_results(arguments.results)
    if lines:
        print_table(lines)
        draw(lines, arguments.picture)
    return 1 if failed else 0


def prepare_tasks(tasks: list[str]) -> None:
    """Record demonstrations and pretrain encoders once, before several processes want them."""
    from hilserl.training import prepare

    for task in tasks:
        started = time.monotonic()
        prepare(configure(task, "full", 0))
        print(f"{task}: demonstrations, encoder and buffer are ready after {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
