"""Whether weights survive the way from learner to actor: encoded, decoded, loaded, the same action."""

from __future__ import annotations

import numpy as np
import torch

from hilserl.config.models import TrainConfig
from hilserl.data.preprocess import Preprocessor
from hilserl.doctor.findings import Finding
from hilserl.errors import HilserlError
from hilserl.link.codec import decode_weights, encode_frozen, encode_weights
from hilserl.link.messages import Handshake, Weights
from hilserl.policy import Policy, PolicyArchitecture
from hilserl.schema import IMAGE_PREFIX, STATE_KEY, state_components


def examine_weights(config: TrainConfig) -> Finding:
    """Send the weights of a new policy through the link's own form, and let both copies act on one observation.

    Done before an arm is connected: importing torch holds up the thread that watches it, and its guardian takes that for a hang.
    """
    try:
        return _compared(config, _some_observation(config))
    except HilserlError as error:
        return Finding("FAIL", "weights", str(error))


def _compared(config: TrainConfig, observation: dict[str, np.ndarray]) -> Finding:
    policies = [Policy(PolicyArchitecture.from_config(config), Preprocessor.from_config(config)) for _ in range(2)]
    sent, received = policies
    sent.load_tensors(sent.tensors(), 1)
    handshake = Handshake(run_id="doctor", schema_hash=sent.schema_hash, architecture_hash=sent.architecture_hash)
    weights = Weights.create(1, {name: tensor.detach().numpy().copy() for name, tensor in sent.tensors().items()})
    arrived = decode_weights(encode_weights(weights, handshake) + encode_frozen(weights.frozen), handshake)
    received.load_tensors({name: torch.tensor(array) for name, array in arrived.tensors.items()}, 1)
    if not np.array_equal(sent.act(observation), received.act(observation)):
        return Finding("FAIL", "weights", "a policy acts otherwise after its weights were sent.", "Install the same versions everywhere.")
    size = sum(array.nbytes for array in arrived.tensors.values())
    return Finding("ok", "weights", f"{size / 1e6:.1f} MB there and back, the same action")


def _some_observation(config: TrainConfig) -> dict[str, np.ndarray]:
    """Make up native frames and a state."""
    generator = np.random.default_rng(0)
    size = sum(len(component.labels) for component in state_components(config))
    frames = {
        IMAGE_PREFIX + name: generator.integers(0, 256, (config.robot.cameras[name].height, config.robot.cameras[name].width, 3), np.uint8)
        for name in config.observation.images
    }
    return {STATE_KEY: generator.standard_normal(size).astype(np.float32), **frames}
