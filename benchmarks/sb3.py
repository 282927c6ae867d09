"""Our learner beside Stable-Baselines3's SAC on standard Gymnasium tasks with state observations.

    uv run python benchmarks/sb3.py --workers 2              # all that is missing, then table and picture
    uv run python benchmarks/sb3.py --tasks Pendulum-v1      # a part
    uv run python benchmarks/sb3.py --plot                   # table and picture from the results so far

Both learn for the same number of environment steps with the same discount, learning rates, batch size, target
update, one critic and one actor update per step, two critics, hidden layers 2 x 256, automatic temperature
towards -dim(A) from 1, entropy in the target, and 100 steps before the first update. `hilserl` is plain SAC as far as
our configuration goes: no LayerNorm in the critics, no clipping of gradients. Different stay SiLU, the actor's LayerNorm, the bounded
projection of the state (tanh of `latent_dim` numbers) and the state scaled from its bounds where it has both; SB3 explores its
first 100 steps uniformly. `rlpd` has our defaults in their place, which are made for rewards of 0 and 1: LayerNorm in the
critics (RLPD), gradients clipped at norm 40. At fixed steps each policy plays, deterministic, the same 10 starts. Each run is
a process with one thread; results are lines of `benchmarks/results/sb3.jsonl`, and an interrupted benchmark goes on where it was.

`stable-baselines3` must be installed. The MuJoCo tasks of Gymnasium import `imageio`, for a window that is
never opened; where it is missing an empty module takes its place.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
from _aggregate import bootstrap_interval, mean
from _runs import ROOT, commit, read_results, run_all

TASKS: dict[str, dict[str, int]] = {
    "Pendulum-v1": {"steps": 6_000, "every": 1_000},
    "InvertedDoublePendulum-v5": {"steps": 8_000, "every": 1_000},
    "HalfCheetah-v5": {"steps": 30_000, "every": 3_000},
}
METHODS = {"hilserl": "tab:blue", "rlpd": "tab:green", "sb3": "tab:orange"}
LABELS = {"hilserl": "hilserl, plain SAC", "rlpd": "hilserl, RLPD's critics", "sb3": "Stable-Baselines3 SAC"}
POLICIES: dict[str, dict[str, Any]] = {"hilserl": {"critic_layer_norm": False, "grad_clip_norm": None}, "rlpd": {}}
EPISODES = 10
SHARED = {"discount": 0.99, "learning_rate": 3e-4, "batch_size": 256, "tau": 0.005, "hidden": [256, 256], "before_learning": 100}
RESULTS = ROOT / "benchmarks" / "results" / "sb3.jsonl"
PICTURE = ROOT / "docs" / "images" / "sb3.png"
KEY = ("task", "method", "seed")


def configure(task: str, method: str, seed: int) -> Any:
    """Build our configuration of one run."""
    from hilserl.config.gymnasium_spaces import resolve_environment
    from hilserl.config.models import TrainConfig

    learning_rate, actions = SHARED["learning_rate"], _action_dim(task)
    policy = {
        "discount": SHARED["discount"],
        "actor_lr": learning_rate,
        "critic_lr": learning_rate,
        "temperature_lr": learning_rate,
        "temperature_init": 1.0,
        "target_entropy": -float(actions),
        "use_backup_entropy": True,
        "num_critics": 2,
        "critic_target_update_weight": SHARED["tau"],
        "hidden_dims": SHARED["hidden"],
        "batch_size": SHARED["batch_size"],
        "utd_ratio": 1,
        "online_steps": TASKS[task]["steps"],
        "online_step_before_learning": SHARED["before_learning"],
        **POLICIES[method],
    }
    values = {
        "name": f"sb3-{task}",
        "seed": seed,
        "env": {"id": task},
        "policy": policy,
        "learner": {"execution": "eager", "save_freq": 10**9},
        "actor": {"evaluate_every_steps": 0},
        "tracking": {"enable": False},
    }
    return resolve_environment(TrainConfig.model_validate(values))


def run_ours(task: str, method: str, seed: int) -> dict[str, Any]:
    from hilserl.environments.make import make_environment
    from hilserl.evaluation import IN_TRAINING_SEED, play_episode
    from hilserl.training import train_in_process

    config = configure(task, method, seed)
    environment = make_environment(config)
    curve: list[dict[str, float]] = []

    def evaluate(steps: int, policy: Any) -> None:
        if steps % TASKS[task]["every"] == 0:
            returns = [play_episode(environment, policy, IN_TRAINING_SEED + index).return_ for index in range(EPISODES)]
            curve.append({"steps": steps, "return": float(np.mean(returns))})

    result = train_in_process(config, after_step=evaluate)
    environment.close()
    return {"curve": curve, "updates": result.learned.updates, "settings": config.policy.model_dump(mode="json")}


def run_sb3(task: str, seed: int) -> dict[str, Any]:
    import gymnasium
    import torch
    from stable_baselines3 import SAC
    from stable_baselines3.common.callbacks import BaseCallback

    from hilserl.evaluation import IN_TRAINING_SEED

    torch.set_num_threads(1)
    environment = gymnasium.make(task)
    curve: list[dict[str, float]] = []

    def evaluate(steps: int, model: Any) -> None:
        returns = []
        for index in range(EPISODES):
            observation, _ = environment.reset(seed=IN_TRAINING_SEED + index)
            total, ended = 0.0, False
            while not ended:
                observation, reward, terminated, truncated, _ = environment.step(model.predict(observation, deterministic=True)[0])
                total, ended = total + float(reward), terminated or truncated
            returns.append(total)
        curve.append({"steps": steps, "return": float(np.mean(returns))})

    class Evaluate(BaseCallback):
        def _on_step(self) -> bool:
            # Called before the updates of the step: what acts now has learned from the steps before it.
            if self.num_timesteps % TASKS[task]["every"] == 0 and self.num_timesteps < TASKS[task]["steps"]:
                evaluate(self.num_timesteps, self.model)
            return True

    model = SAC(
        "MlpPolicy",
        gymnasium.make(task),
        learning_rate=SHARED["learning_rate"],
        buffer_size=100_000,
        learning_starts=SHARED["before_learning"],
        batch_size=SHARED["batch_size"],
        tau=SHARED["tau"],
        gamma=SHARED["discount"],
        train_freq=1,
        gradient_steps=1,
        ent_coef="auto",
        target_entropy="auto",
        policy_kwargs={"net_arch": SHARED["hidden"]},
        seed=seed,
        device="cpu",
    )
    evaluate(0, model)
    model.learn(TASKS[task]["steps"], callback=Evaluate())
    evaluate(TASKS[task]["steps"], model)
    environment.close()
    return {"curve": curve, "updates": model._n_updates, "settings": {"target_entropy": float(model.target_entropy)}}


def run_one(task: str, method: str, seed: int) -> dict[str, Any]:
    """Train once; returns the line of the results."""
    began = time.monotonic()
    found = run_sb3(task, seed) if method == "sb3" else run_ours(task, method, seed)
    return {"task": task, "method": method, "seed": seed, "commit": commit(), "seconds": round(time.monotonic() - began, 1), **found}


def curves(lines: list[dict[str, Any]], task: str, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps (P,) and the mean returns (runs, P)."""
    runs = [line["curve"] for line in lines if (line["task"], line["method"]) == (task, method)]
    points = min((len(run) for run in runs), default=0)
    return np.array([p["steps"] for p in runs[0][:points]] if runs else []), np.array([[p["return"] for p in run[:points]] for run in runs])


def print_table(lines: list[dict[str, Any]]) -> bool:
    """Print the returns at half of the steps and at the end, as Markdown; True if plain SAC's intervals at the end overlap."""
    print("| task | ours | steps | ours: mean return [95 %] | SB3 SAC: mean return [95 %] | intervals | seconds a run |")
    print("|---|---|---|---|---|---|---|")
    overlap_at_end = True
    for task, method in itertools.product(TASKS, POLICIES):
        (steps, ours), (_, theirs) = curves(lines, task, method), curves(lines, task, "sb3")
        if not len(ours) or not len(theirs):
            continue
        seconds = [np.median([line["seconds"] for line in lines if (line["task"], line["method"]) == (task, m)]) for m in (method, "sb3")]
        for point in (len(steps) // 2, len(steps) - 1):
            (low, high), (their_low, their_high) = (bootstrap_interval(runs[:, [point]], mean) for runs in (ours, theirs))
            overlap = low <= their_high and their_low <= high
            overlap_at_end &= overlap or point < len(steps) - 1 or method != "hilserl"
            verdict = "overlap" if overlap else "ours above" if low > their_high else "ours below"
            print(
                f"| {task} | {LABELS[method]} | {steps[point]:,} | {ours[:, point].mean():.1f} [{low:.1f}, {high:.1f}] ({len(ours)} seeds) "
                f"| {theirs[:, point].mean():.1f} [{their_low:.1f}, {their_high:.1f}] ({len(theirs)} seeds) "
                f"| {verdict} | {seconds[0]:.0f} / {seconds[1]:.0f} |"
            )
    return overlap_at_end


def draw(lines: list[dict[str, Any]], file: Path) -> None:
    """Draw mean return and 95 % interval over environment steps, a panel a task."""
    from matplotlib.figure import Figure

    tasks = [task for task in TASKS if any(line["task"] == task for line in lines)]
    figure = Figure(figsize=(4.6 * len(tasks), 3.6), layout="constrained")
    for axis, task in zip(np.atleast_1d(figure.subplots(1, len(tasks))), tasks, strict=True):
        for method, color in METHODS.items():
            steps, returns = curves(lines, task, method)
            if not len(returns):
                continue
            bounds = np.array([bootstrap_interval(returns[:, [point]], mean) for point in range(len(steps))])
            axis.fill_between(steps, bounds[:, 0], bounds[:, 1], color=color, alpha=0.15, linewidth=0)
            axis.plot(steps, returns.mean(0), "o-", markersize=3, color=color, label=f"{LABELS[method]} ({len(returns)} seeds)")
        axis.set(title=task, xlabel="environment steps")
        axis.grid(alpha=0.3)
        axis.legend(loc="lower right", fontsize=8)
    figure.axes[0].set_ylabel("return of the policy, deterministic\nmean and 95 % interval")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    print(f"drew {file}")


def _action_dim(task: str) -> int:
    import gymnasium

    environment = gymnasium.make(task)
    environment.close()
    return int(environment.action_space.shape[0])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["hilserl", "sb3"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--plot", action="store_true", help="only the table and the picture")
    parser.add_argument("--one", nargs=3, metavar=("TASK", "METHOD", "SEED"), help="one run, in this process; prints its line")
    arguments = parser.parse_args()
    if importlib.util.find_spec("imageio") is None:
        sys.modules["imageio"] = types.ModuleType("imageio")
    if arguments.one:
        task, method, seed = arguments.one
        print(json.dumps(run_one(task, method, int(seed))))
        return 0
    failed = 0
    if not arguments.plot:
        keys = [(task, method, seed) for task in arguments.tasks for seed in arguments.seeds for method in arguments.methods]
        failed = run_all(Path(__file__), [(key, [str(part) for part in key]) for key in keys], arguments.results, arguments.workers, KEY)
    lines = read_results(arguments.results)
    overlap = print_table(lines) if lines else True
    if lines:
        draw(lines, arguments.picture)
    return 1 if failed or not overlap else 0


if __name__ == "__main__":
    sys.exit(main())
