"""A success classifier of the simulated lift: how well it tells, how fast, and whether RL learns from it as from the truth.

    uv run python benchmarks/reward_classifier.py record            # 400 attempts, light and table anew in each (once, minutes)
    uv run python benchmarks/reward_classifier.py train             # on two cores; the time is measured
    uv run python benchmarks/reward_classifier.py ask               # 400 other attempts, in light and on tables never shown
    uv run python benchmarks/reward_classifier.py rl --workers 2    # lift, 3 seeds, judged by the classifier and by the simulator
    uv run python benchmarks/reward_classifier.py show              # the figures so far

Everything is under HILSERL_HOME/benchmarks/reward_classifier; figures in benchmarks/results/reward_classifier.json and
reward_classifier_rl.jsonl. Attempts are of seven kinds: lifted, nearly lifted (at least about 12 mm too low), dropped, missed,
empty jaws in the air, pushed, aimless. Frames count one by one, episodes as the arm gets them: debounced, online.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from _runs import ROOT, commit, read_results, run_all

CONFIG = "lift_classifier"
DATASETS, EPISODES = 5, 80
HELD_OUT, PART, HELD_OUT_SEED = 400, 40, 3000
RESULT = ROOT / "benchmarks" / "results" / "reward_classifier.json"
RL_RESULTS = ROOT / "benchmarks" / "results" / "reward_classifier_rl.jsonl"
SEEDS, STEPS, EVERY, FINAL_EPISODES = (0, 1, 2), 6000, 2000, 100
FINAL_SEED = 1_000_000


def folder() -> Path:
    from hilserl.files import home

    return home() / "benchmarks" / "reward_classifier"


def record() -> None:
    """Record what is learned from, as LeRobotDatasets."""
    from hilserl.config import load_config
    from hilserl.success_examples import record_examples

    for seed in range(DATASETS):
        root = folder() / f"varied-{seed}"
        if not root.exists():
            started = time.monotonic()
            found = record_examples(load_config(CONFIG), root, EPISODES, seed=seed, variation="varied")
            succeeded = sum(bool(episode.success.any()) for episode in found)
            print(f"{root}: {len(found)} attempts, {succeeded} with success, {time.monotonic() - started:.0f} s", flush=True)


def train() -> dict[str, Any]:
    """Train as the configuration says; from decoding to the page."""
    from hilserl.classifier_training import ClassifierRequest, train_into
    from hilserl.config import load_config
    from hilserl.progress import subscribed

    request = ClassifierRequest.of(
        load_config(CONFIG, {"tracking.enable": False, "classifier.validation_share": 0.1}),
        [folder() / f"varied-{seed}" for seed in range(DATASETS)],
    )

    def show(progress: Any) -> None:
        if progress.unit == "epochs":
            print(f"epoch {progress.done:.0f}: {progress.values}, {time.monotonic() - started:.0f} s", flush=True)

    started, cpu = time.monotonic(), time.process_time()
    with subscribed(show):
        figures = train_into(request, folder() / "trained")
    return {"seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - cpu, "load": os.getloadavg()[0], **figures}


def ask_part(first: int) -> list[tuple[str, np.ndarray, np.ndarray, list[float]]]:
    """Play some attempts that nothing was learned from, and ask the classifier frame by frame, as the arm would.

    Returns:
        Of each: its kind, what is true (T,), the probabilities (T,), and the seconds of this core that each answer took.
    """
    import torch

    from hilserl.classifier_training import ARTEFACT
    from hilserl.config import load_config
    from hilserl.reward.classifier import SuccessClassifier
    from hilserl.schema import policy_schema
    from hilserl.success_examples import play_examples

    torch.set_num_threads(1)
    classifier = SuccessClassifier.load(folder() / "trained" / ARTEFACT)
    config = load_config(CONFIG)
    names = policy_schema(config).observation["observation.state"].names
    read = [names.index(name) for name in classifier.state]
    told: list[float] = []
    seconds: list[float] = []

    def look(observation: dict[str, np.ndarray], action: np.ndarray, done: bool) -> None:
        frames = {camera: observation[f"observation.images.{camera}"][None] for camera in classifier.cameras}
        frames["observation.state"] = observation["observation.state"][None, read]
        before = time.thread_time()
        told.append(float(classifier.probabilities(frames)[0]))
        seconds.append(time.thread_time() - before)

    found = []
    for episode in play_examples(config, PART, HELD_OUT_SEED + first, "held_out", look):
        found.append((str(episode.kind), episode.success, np.array(told, np.float32), seconds.copy()))
        told.clear()
        seconds.clear()
    return found


def ask(workers: int, attempts: int) -> dict[str, Any]:
    """Judge attempts in light and on tables that were never shown."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from hilserl.classifier_training import ARTEFACT
    from hilserl.evaluation import wilson_interval
    from hilserl.reward.classifier import SuccessClassifier
    from hilserl.reward.metrics import measure

    classifier = SuccessClassifier.load(folder() / "trained" / ARTEFACT)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        played = [each for part in pool.map(ask_part, range(-(-attempts // PART))) for each in part]
    verdicts = [classifier.verdict(told) for _, _, told, _ in played]
    metrics = measure(verdicts, [truth for _, truth, _, _ in played], classifier.threshold)
    failed = [(kind, verdict) for (kind, truth, _, _), verdict in zip(played, verdicts, strict=True) if not truth.any()]
    rewarded = [kind for kind, verdict in failed if verdict.success.any()]
    return {
        "episodes": len(played),
        "frames": metrics.frames.total,
        "balanced_accuracy_frames": metrics.frames.balanced_accuracy,
        "recall_frames": metrics.frames.recall,
        "specificity_frames": metrics.frames.specificity,
        "balanced_accuracy_episodes": metrics.episodes.balanced_accuracy,
        "failed_episodes": len(failed),
        "failed_episodes_rewarded": len(rewarded),
        "failed_share_rewarded": len(rewarded) / len(failed),
        "failed_share_interval": wilson_interval(len(rewarded), len(failed)),
        "failed_rewarded_by_kind": dict(Counter(rewarded)),
        "failed_by_kind": dict(Counter(kind for kind, _ in failed)),
        "successes_missed": metrics.episodes.false_negatives,
        "successes": metrics.episodes.true_positives + metrics.episodes.false_negatives,
        "called_early": metrics.early,
        "flickers": metrics.flickers,
        "threshold": classifier.threshold,
        "hold_frames": classifier.hold_frames,
        "median_cpu_ms_a_step": 1000 * float(np.median([second for *_, seconds in played for second in seconds])),
        "cameras": len(classifier.cameras),
        "version": classifier.version,
    }


def rl_config(judge: str, seed: int, steps: int = STEPS) -> Any:
    """Build the configuration of one run: that of learning_curves.py, and who judges."""
    from hilserl.classifier_training import ARTEFACT
    from hilserl.config import load_config

    success = {"task.success.classifier": str(folder() / "trained" / ARTEFACT)} if judge == "classifier" else {}
    fixed = {
        "name": f"classifier-rl-{judge}",
        "seed": seed,
        "policy.online_steps": steps,
        "actor.evaluate_every_steps": 0,
        "actor.stop_at_success": None,
        "learner.execution": "eager",
        "learner.save_freq": 10**9,
        "tracking.enable": False,
    }
    return load_config(CONFIG, fixed | success)


def run_one(judge: str, seed: int, steps: int) -> dict[str, Any]:
    """Train once with one judge; success of the policy is the simulator's in any case."""
    from hilserl import training
    from hilserl.config.environment import SuccessConfig
    from hilserl.environments.make import make_environment
    from hilserl.evaluation import IN_TRAINING_SEED, play_episode
    from hilserl.policy import Policy

    config = rl_config(judge, seed, steps)
    kept: list[Any] = []

    def keep(*arguments: Any, **named: Any) -> Any:
        kept.append(make_environment(*arguments, **named))
        return kept[-1]

    task = config.task.model_copy(update={"success": SuccessConfig()})
    honest = make_environment(config.model_copy(update={"task": task}))
    curve: list[list[float]] = []
    tally: dict[str, int] = {}

    def success(policy: Any, first: int, count: int) -> float:
        return sum(play_episode(honest, policy, first + index).success for index in range(count)) / count

    def after_step(done: int, policy: Any) -> None:
        if judge == "classifier":
            tally.update(vars(kept[0].tally))
        if done and done % EVERY == 0:
            curve.append([done, success(policy, IN_TRAINING_SEED, 20)])

    training.make_environment = keep
    started = time.monotonic()
    result = training.train_in_process(config, after_step=after_step)
    seconds = time.monotonic() - started
    final = success(Policy.load(result.learned.policy), FINAL_SEED, FINAL_EPISODES)
    honest.close()
    return {
        "judge": judge, "seed": seed, "steps": steps, "commit": commit(), "seconds": round(seconds, 1), "curve": curve,
        "final_success": final,
        "final_episodes": FINAL_EPISODES, "training_episodes": result.acted.episodes, "tally": tally, "load": os.getloadavg()[0],
    }  # fmt: skip


def rl(workers: int, seeds: list[int], judges: list[str], steps: int) -> int:
    """Train what has no line yet."""
    from hilserl import training

    training.prepare(rl_config("simulator", 0))
    keys = [(judge, seed, steps) for seed in seeds for judge in judges]
    return run_all(Path(__file__), [(key, [str(part) for part in key]) for key in keys], RL_RESULTS, workers, ("judge", "seed", "steps"))


def show() -> None:
    """Print the figures, as Markdown."""
    if RESULT.exists():
        print(json.dumps(json.loads(RESULT.read_text()), indent=2))
    lines = read_results(RL_RESULTS)
    print("| judge | seed | steps | success, of 100 starts | wrongly rewarded | missed | training episodes | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for line in sorted(lines, key=lambda line: (line["judge"], line["seed"])):
        tally = line["tally"]
        wrong = f"{tally['wrongly_rewarded']} of {tally['rewarded']}" if tally else "–"
        print(
            f"| {line['judge']} | {line['seed']} | {line['steps']} | {line['final_success']:.0%} | {wrong} | {tally.get('missed', '–')} "
            f"| {line['training_episodes']} | {line['seconds']:.0f} |"
        )
    for judge in ("simulator", "classifier"):
        for steps in sorted({line["steps"] for line in lines}):
            found = [line["final_success"] for line in lines if (line["judge"], line["steps"]) == (judge, steps)]
            if found:
                print(f"{judge}, {steps} steps: mean {np.mean(found):.1%} over {len(found)} seeds")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", nargs="?", choices=["record", "train", "ask", "rl", "show"], default="show")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--attempts", type=int, default=HELD_OUT, help=f"of `ask`, in parts of {PART}")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--judges", nargs="+", choices=["classifier", "simulator"], default=["classifier", "simulator"])
    parser.add_argument("--steps", type=int, default=STEPS, help="of `rl`")
    parser.add_argument("--one", nargs=3, metavar=("JUDGE", "SEED", "STEPS"), help="one run of `rl`, in this process; prints its line")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(run_one(arguments.one[0], int(arguments.one[1]), int(arguments.one[2]))))
        return 0
    if arguments.stage == "record":
        record()
    elif arguments.stage in ("train", "ask"):
        known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        found = train() if arguments.stage == "train" else ask(arguments.workers, arguments.attempts)
        known[arguments.stage] = {"commit": commit(), **found}
        RESULT.write_text(json.dumps(known, indent=2) + "\n")
    elif arguments.stage == "rl" and rl(arguments.workers, arguments.seeds, arguments.judges, arguments.steps):
        return 1
    show()
    return 0


if __name__ == "__main__":
    sys.exit(main())
