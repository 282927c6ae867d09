"""LeRobot 0.6.1's actor-learner transport, called as its actor and its learner call it; for benchmarks/link.py.

What it unpickles is its own: this benchmark's child process sent it, over loopback.
"""

from __future__ import annotations

import logging
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from _link_common import CAMERAS, at_control_rate, weights_now
from _recorded_steps import Recorded


def lerobot_config(address: str) -> Any:
    """Return what LeRobot's functions read of their configuration, with its defaults."""
    from lerobot.policies.gaussian_actor.configuration_gaussian_actor import ActorLearnerConfig, ConcurrencyConfig

    host, _, port = address.rpartition(":")
    link = ActorLearnerConfig(learner_host=host, learner_port=int(port))
    return SimpleNamespace(policy=SimpleNamespace(actor_learner_config=link, concurrency=ConcurrencyConfig()))


def lerobot_learner(pipe: Connection, folder: str, steps: int, variant: str) -> None:
    """LeRobot's server, and its way from the queue into its replay buffer."""
    import torch
    from lerobot.rl.buffer import ReplayBuffer
    from lerobot.rl.learner import process_transitions, start_learner
    from lerobot.transport.utils import state_to_bytes
    from torch.multiprocessing import Queue

    from hilserl.services.processes import free_port

    config = lerobot_config(f"127.0.0.1:{free_port()}")
    transitions, interactions, parameters, stop = Queue(), Queue(), Queue(), threading.Event()
    threading.Thread(target=start_learner, args=(parameters, transitions, interactions, stop, config), daemon=True).start()
    keys = ["observation.state", *(f"observation.images.{camera}" for camera in CAMERAS)]
    buffer = ReplayBuffer(capacity=steps + 1, device="cpu", state_keys=keys, storage_device="cpu", optimize_memory=True)
    taken: list[float] = []
    add = buffer.add

    def noting(**transition: Any) -> None:
        add(**transition)
        taken.append(time.monotonic())

    buffer.add = noting
    pipe.send(f"127.0.0.1:{config.policy.actor_learner_config.learner_port}")
    next_push = 0.0
    while len(taken) < steps:
        if time.monotonic() >= next_push:
            next_push = time.monotonic() + config.policy.actor_learner_config.policy_parameters_push_frequency
            parameters.put(state_to_bytes({name: torch.from_numpy(array) for name, array in weights_now().items()}))
        process_transitions(transitions, buffer, None, None, stop)
        time.sleep(0.005)
    pipe.send((taken, taken))
    pipe.recv()
    stop.set()


def lerobot_actor(pipe: Connection, folder: str, steps_file: str, steps: int, address: str, variant: str) -> None:
    """What LeRobot's `act_with_policy` does with transitions and weights, with its own functions."""
    import torch
    from lerobot.rl import actor
    from lerobot.rl.queue import get_last_item_from_queue
    from lerobot.transport.utils import bytes_to_state_dict
    from lerobot.utils.transition import Transition
    from torch.multiprocessing import Queue

    config, recorded = lerobot_config(address), Recorded(Path(steps_file))
    parameters, transitions, stop = Queue(), Queue(), threading.Event()
    stub, channel = actor.learner_service_client(host=address.rpartition(":")[0], port=int(address.rpartition(":")[2]))
    if not actor.establish_learner_connection(stub, stop):
        raise SystemExit("LeRobot's learner did not answer")
    for target, queue in ((actor.receive_policy, parameters), (actor.send_transitions, transitions)):
        threading.Thread(target=target, args=(config, queue, stop, stub, channel), daemon=True).start()

    def see(number: int) -> dict[str, torch.Tensor]:
        """As LeRobot's processors leave an observation: float32 in [0, 1], channels first, a batch of one."""
        observation = recorded.observation(number)
        pictures = {name: value for name, value in observation.items() if value.ndim == 3}
        return {"observation.state": torch.from_numpy(observation["observation.state"])[None]} | {
            name: (torch.from_numpy(value).permute(2, 0, 1)[None].float() / 255.0).contiguous() for name, value in pictures.items()
        }

    def take_weights() -> None:
        nonlocal published_at
        if (message := get_last_item_from_queue(parameters, block=False)) is not None:
            published_at = float(bytes_to_state_dict(message)["published_at"][0])

    called, took, ages = [], [], []
    waiting: list[Any] = []
    published_at = float("nan")
    deadline = time.monotonic() + 30.0
    while published_at != published_at and time.monotonic() < deadline:
        take_weights()
        time.sleep(0.05)

    def work(number: int) -> None:
        nonlocal waiting
        ages.append(time.monotonic() - published_at)
        ended = recorded.ends(number) or number == steps - 1
        state, next_state, action = see(number), see(number + 1), torch.from_numpy(recorded.action(number))[None]
        begin = time.monotonic()
        waiting.append(
            Transition(
                state=state,
                action=action,
                reward=0.0,
                next_state=next_state,
                done=False,
                truncated=ended,
                complementary_info={"discrete_penalty": torch.tensor([0.0]), "is_intervention": False},
            )
        )
        if ended:
            actor.push_transitions_to_transport_queue(transitions=waiting, transitions_queue=transitions)
            waiting = []
        took.append(time.monotonic() - begin)
        called.append(begin)
        if ended:
            take_weights()

    at_control_rate(steps, work)
    pipe.send((called, took, ages))
    pipe.recv()
    logging.disable(logging.CRITICAL)  # its threads tell of the queue that ends with this process
    stop.set()
