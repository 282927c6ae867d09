"""Critic updates per second, beside LeRobot 0.6.1's own `SACAlgorithm`, same shapes, batch 256.

    uv run python benchmarks/learner.py                       # every row on the CPU, one thread
    uv run python benchmarks/learner.py --rows state --repeats 3
    uv run python benchmarks/learner.py --device cuda         # the GPU rows

Every measurement is a process of its own: ours and LeRobot's in turn within every repeat, so that whatever else
the machine does meets them alike. An update is all of it: drawing the batch from the replay buffer (theirs with
its random shift where images are trained on), the critics, targets and, once in UTD updates, actor and temperature.
Both learn at the same UTD (20; 5 from pixels, to keep the benchmark short), with the same hidden widths, two
critics or ten with a minimum over two, on random data.

| row | LeRobot | ours |
|---|---|---|
| `resnet` (128x128, state 18, action 4) | frozen ResNet-10, run on every batch | its features of `encoder.views` shifts, stored once |
| `pixels84`, `pixels128` | its four convolutions, trained | `alike`: the same four convolutions; `default`: our small CNN |
| `state` (10 critics) | | `alike`: the same widths; `default`: our 64-wide input projection |

The ResNet has random weights, which changes nothing about its time. `encoding` is what our stored features cost at
every environment step, and is part of `ours` (one environment step in UTD updates).

Limits (exit 1 when missed): resnet 20 (GPU 10), pixels 2 (GPU 5), state 5 and on a GPU 2,000 updates/s; sampling at
most 10 % of an update.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BATCH, STATE, ACTION = 256, 18, 4
UTD = {"resnet": 20, "pixels84": 5, "pixels128": 5, "state": 20}
FILLED = {"resnet": 120, "pixels84": 600, "pixels128": 600, "state": 2000}  # transitions in the buffers
SIZES = {"resnet": 128, "pixels84": 84, "pixels128": 128}
LIMITS = {
    "cpu": {"resnet": 20.0, "pixels84": 2.0, "pixels128": 2.0, "state": 5.0},
    "cuda": {"resnet": 10.0, "pixels84": 5.0, "pixels128": 5.0},
}
GPU_STATE_UPDATES_PER_S = 2000.0
SAMPLING_SHARE = 0.10
OURS: dict[str, list[dict[str, str]]] = {
    "resnet": [{"like": "alike"}],
    "pixels84": [{"like": "alike"}, {"like": "default"}],
    "pixels128": [{"like": "alike"}, {"like": "default"}],
    "state": [
        {"like": "alike"},
        {"like": "alike", "execution": "compiled"},
        {"like": "alike", "execution": "compiled", "precision": "bfloat16"},
        {"like": "default", "execution": "compiled"},
        {"like": "default", "execution": "compiled", "precision": "bfloat16"},
    ],
}


def make_resnet(folder: Path) -> None:
    """Write a ResNet-10 with random weights as a Hugging Face model folder."""
    from transformers import ResNetConfig, ResNetModel

    sizes = {"embedding_size": 64, "hidden_sizes": [64, 128, 256, 512], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    ResNetModel(ResNetConfig(**sizes)).save_pretrained(folder, safe_serialization=True)


def lerobots(row: str, resnet: Path, device: str) -> Callable[[], int]:
    """Return LeRobot's update: UTD critic updates with their sampling, and one of the actor."""
    import torch
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.gaussian_actor.configuration_gaussian_actor import GaussianActorConfig
    from lerobot.policies.gaussian_actor.modeling_gaussian_actor import GaussianActorPolicy
    from lerobot.rl.algorithms.sac.configuration_sac import SACAlgorithmConfig
    from lerobot.rl.algorithms.sac.sac_algorithm import SACAlgorithm
    from lerobot.rl.buffer import ReplayBuffer

    features = {"observation.state": PolicyFeature(FeatureType.STATE, (STATE,))}
    if row != "state":
        features["observation.images.wrist"] = PolicyFeature(FeatureType.VISUAL, (3, SIZES[row], SIZES[row]))
    policy_config = GaussianActorConfig(
        input_features=features,
        output_features={"action": PolicyFeature(FeatureType.ACTION, (ACTION,))},
        device=device,
        vision_encoder_name=str(resnet) if row == "resnet" else None,
        freeze_vision_encoder=row == "resnet",
    )
    config = SACAlgorithmConfig.from_policy_config(policy_config)
    config.discount, config.use_backup_entropy, config.temperature_init = 0.97, False, 0.01
    if row == "state":
        config.num_critics, config.num_subsample_critics = 10, 2
    algorithm = SACAlgorithm(GaussianActorPolicy(policy_config), config)
    algorithm.make_optimizers_and_scheduler()
    buffer = ReplayBuffer(
        capacity=FILLED[row] + 1,
        device=device,
        state_keys=list(features),
        storage_device="cpu",
        optimize_memory=True,
        use_drq=row != "state",
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(FILLED[row]):
        observation = {key: torch.rand((1, *feature.shape), generator=generator) for key, feature in features.items()}
        buffer.add(observation, torch.rand((1, ACTION), generator=generator) * 2 - 1, 0.0, observation, False, False)

    def batches() -> Iterator[Any]:
        while True:
            yield buffer.sample(BATCH)

    source = batches()

    config.utd_ratio = 1
    algorithm.update(source)  # warm, without paying for a whole round
    config.utd_ratio = UTD[row]

    def update() -> int:
        algorithm.update(source)
        return UTD[row]

    return update


def ours(row: str, resnet: Path, device: str, like: str, execution: str, precision: str) -> tuple[Callable[[], int], Any]:
    """Return our update: one environment step taken in, and the UTD updates that it owes; and the experience."""
    import numpy as np
    import torch

    from hilserl.config.loader import load_config
    from hilserl.learner.experience import Experience
    from hilserl.link.messages import Step
    from hilserl.policy import PolicyArchitecture
    from hilserl.pretraining import resolve_encoder
    from hilserl.sac.agent import SacAgent
    from hilserl.sac.networks import StateScaling
    from hilserl.vision.encoder import Vision

    size = SIZES.get(row, 84)
    settings: dict[str, Any] = {
        "policy.batch_size": BATCH,
        "policy.utd_ratio": UTD[row],
        "policy.latent_dim": 256 if like == "alike" else 64,
        "policy.online_buffer_capacity": FILLED[row] * 4,
        "policy.offline_buffer_capacity": 100,
        "robot.cameras": {"wrist": {"width": size, "height": size}},
        "observation.images": {} if row == "state" else {"wrist": {"resize": [size, size]}},
        "learner.device": device,
        "learner.precision": precision,
        "tracking.enable": False,
    }
    if row == "resnet":
        settings["encoder"] = {"type": "pretrained", "model": str(resnet), "freeze": True}
    elif row != "state":
        settings["encoder"] = {"type": "lerobot_cnn" if like == "alike" else "cnn", "freeze": False}
    if row == "state":
        settings |= {"policy.num_critics": 10, "policy.num_subsample_critics": 2}
    config = resolve_encoder(load_config("lift", settings))
    architecture = PolicyArchitecture.from_config(config)
    networks = architecture.encoders()
    if row == "resnet":
        from hilserl.learner.run import _encoders

        networks = _encoders(config, architecture, None)
    frozen = Vision(networks if config.encoder.freeze else {}).requires_grad_(False)
    scaling = StateScaling(torch.zeros(STATE), torch.ones(STATE))
    trained = {} if config.encoder.freeze else networks
    agent = SacAgent(config.policy, architecture.input_spec(), scaling, trained, seed=0, device=device, precision=precision)  # type: ignore[arg-type]
    agent.execution = execution  # type: ignore[assignment]
    experience = Experience(config, architecture, frozen, seed=0)
    generator = np.random.default_rng(0)
    taken = 0

    def observation() -> dict[str, np.ndarray]:
        seen = {"observation.state": generator.uniform(-1, 1, STATE).astype(np.float32)}
        if row != "state":
            seen["observation.images.wrist"] = generator.integers(0, 256, (size, size, 3), dtype=np.uint8)
        return seen

    def step() -> None:
        nonlocal taken
        action = generator.uniform(-1, 1, ACTION).astype(np.float32)
        experience.add("actor", Step(0, taken, observation(), action, 0.0, False, False, False, None))
        taken += 1

    for _ in range(FILLED[row]):
        step()

    def update() -> int:
        step()
        for number in range(UTD[row]):
            agent.update(experience.sample(BATCH), update_actor=number == UTD[row] - 1)
        return UTD[row]

    update.step = step  # type: ignore[attr-defined]
    return update, experience


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Time one side in this process."""
    import torch

    torch.set_num_threads(arguments.threads)

    def wait() -> None:
        if arguments.device == "cuda":
            torch.cuda.synchronize()

    result: dict[str, float] = {}
    if arguments.child == "lerobot":
        update = lerobots(arguments.row, arguments.resnet, arguments.device)
    else:
        update, experience = ours(
            arguments.row, arguments.resnet, arguments.device, arguments.like, arguments.execution, arguments.precision
        )
    if arguments.child == "ours":
        update()  # compiles, allocates
    wait()
    started, done = time.perf_counter(), 0
    while done == 0 or time.perf_counter() - started < arguments.seconds:
        done += update()
        wait()
    seconds = time.perf_counter() - started
    result["updates_per_s"] = done / seconds
    if arguments.child == "ours":
        times = []
        for _ in range(20):
            begun = time.perf_counter()
            experience.sample(BATCH)
            wait()
            times.append(time.perf_counter() - begun)
        result["sampling_share"] = statistics.median(times) * done / seconds
        begun = time.perf_counter()
        for _ in range(10):
            update.step()  # type: ignore[attr-defined]
        wait()
        result["encoding_ms_per_step"] = (time.perf_counter() - begun) * 100
    return result


def run_child(arguments: argparse.Namespace, row: str, resnet: Path, side: str, variant: dict[str, str]) -> dict[str, float]:
    """Measure one side in a fresh process."""
    command = [sys.executable, __file__, "--child", side, "--row", row, "--resnet", str(resnet), "--device", arguments.device]
    command += ["--threads", str(arguments.threads), "--seconds", str(arguments.seconds)]
    for name, value in variant.items():
        command += [f"--{name}", value]
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(resnet.parent / "compiled")}  # shared by the repeats of this benchmark alone
    environment = os.environ | cache | {"OMP_NUM_THREADS": str(arguments.threads), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{row}, {side} {variant} failed:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def report(rows: dict[str, dict[str, list[dict[str, float]]]], device: str) -> bool:
    """Print the table; returns whether every limit is kept."""
    kept = True
    print("\n| row | who | updates/s | ratio | sampling | encoding a step |\n|---|---|---|---|---|---|")
    for row, sides in rows.items():
        theirs = [found["updates_per_s"] for found in sides["LeRobot"]]
        best = 0.0
        for name, found in sides.items():
            rate = statistics.median(one["updates_per_s"] for one in found)
            if name == "LeRobot":
                print(f"| {row} | LeRobot 0.6.1 | {rate:.2f} | 1 | | |")
                continue
            ratios = [one["updates_per_s"] / their for one, their in zip(found, theirs, strict=True)]
            ratio = statistics.median(ratios)
            best = max(best, ratio)
            share = statistics.median(one["sampling_share"] for one in found)
            encoding = statistics.median(one["encoding_ms_per_step"] for one in found)
            spread = f"{min(ratios):.1f}–{max(ratios):.1f}" if len(ratios) > 1 else ""
            print(f"| {row} | {name} | {rate:.1f} | {ratio:.1f} ({spread}) | {share:.1%} | {encoding:.1f} ms |")
            if device == "cuda" and row == "state":
                kept &= rate >= GPU_STATE_UPDATES_PER_S or "eager" in name
        limit = LIMITS[device].get(row)
        if limit:
            print(f"  {row}: best {best:.1f} times LeRobot, limit {limit:g}: {'passed' if best >= limit else 'MISSED'}")
            kept &= best >= limit
    return kept


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=list(OURS), default=list(OURS))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of measuring, at least one round of UTD updates")
    parser.add_argument("--json", type=Path)
    for hidden in ("--child", "--row", "--like", "--execution", "--precision"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--resnet", type=Path, help=argparse.SUPPRESS)
    parser.set_defaults(like="alike", execution="eager", precision="float32")
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments)))
        return
    rows: dict[str, dict[str, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        resnet = Path(folder) / "resnet-10"
        if "resnet" in arguments.rows:
            make_resnet(resnet)
        for row in arguments.rows:
            sides = rows[row] = {}
            for repeat in range(arguments.repeats):
                sides.setdefault("LeRobot", []).append(run_child(arguments, row, resnet, "lerobot", {}))
                for variant in OURS[row]:
                    if arguments.device == "cuda" and variant.get("execution") == "compiled":
                        variant = variant | {"execution": "cuda_graphs"}
                    name = f"ours, {variant['like']}, {variant.get('execution', 'eager')}, {variant.get('precision', 'float32')}"
                    sides.setdefault(name, []).append(run_child(arguments, row, resnet, "ours", variant))
                print(row, repeat + 1, {name: round(found[-1]["updates_per_s"], 2) for name, found in sides.items()}, flush=True)
    kept = report(rows, arguments.device)
    if arguments.json:
        facts = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "threads": arguments.threads, "device": arguments.device}
        arguments.json.write_text(json.dumps(facts | {"rows": rows}, indent=1))
    raise SystemExit(0 if kept else 1)


if __name__ == "__main__":
    main()
