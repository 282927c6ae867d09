"""Choose how updates are computed, by measuring: as written, compiled, or as CUDA graphs.

Compiling is only worth its half minute where many updates follow, and only right where the compiled
update gives the same numbers; both are found out at the start, on the agent itself, whose state is put
back afterwards.
"""

from __future__ import annotations

import logging
import shutil
import statistics
import time
from dataclasses import dataclass

import torch

from hilserl.config.models import LearnerConfig
from hilserl.errors import TrainingError
from hilserl.sac.agent import Execution, SacAgent
from hilserl.sac.batch import TensorBatch

logger = logging.getLogger(__name__)

_TIMED_UPDATES = 7
_COMPARED_UPDATES = 5
# Compiling took half a minute for small networks on two CPU cores, minutes when they were busy, and saved 20 to 30 % of an update.
_COMPILING_S = 60.0
_EXPECTED_SAVING = 0.25
_WORTH_CHANGING = 0.95  # a compiled update must take less than this share of an eager one
# Largest relative difference of the critics' parameters after the compared updates.
TOLERANCE = {"float32": 1e-3, "bfloat16": 3e-2}


@dataclass(frozen=True)
class ChosenExecution:
    """What was chosen, and why.

    Attributes:
        execution: How updates are computed from now on.
        update_ms: Median time of one update, by execution that was tried [ms].
        reason: A sentence for a person.
    """

    execution: Execution
    update_ms: dict[str, float]
    reason: str


def choose_execution(agent: SacAgent, batch: TensorBatch, config: LearnerConfig, *, updates: int) -> ChosenExecution:
    """Set `agent.execution` as configured, or to the fastest that gives the same numbers.

    Args:
        agent: To be trained; its state is the same afterwards.
        batch: Any batch of the training's size and shapes.
        config: `execution` and `precision`.
        updates: Critic updates that are still to be done.

    Raises:
        TrainingError: `execution` was asked for by name and is impossible here, or its numbers differ from the eager ones.
    """
    wanted = config.execution
    if wanted == "eager":
        return _set(agent, ChosenExecution("eager", {}, "as configured"))
    candidate: Execution = ("cuda_graphs" if agent.device.type == "cuda" else "compiled") if wanted == "auto" else wanted
    if (impossible := _impossible(candidate, agent)) and wanted != "auto":
        raise TrainingError(f"`learner.execution: {wanted}` is impossible: {impossible}. Set it to `auto` or `eager`.")
    eager_ms = _measure(agent, batch, "eager")
    times = {"eager": eager_ms}
    seconds = updates * eager_ms / 1000
    if wanted == "auto" and impossible:
        return _set(agent, ChosenExecution("eager", times, f"{eager_ms:.1f} ms an update; not compiled, {impossible}"))
    if wanted == "auto" and seconds * _EXPECTED_SAVING < _COMPILING_S:
        reason = f"{eager_ms:.1f} ms an update; compiling would not pay in the {seconds:.0f} s that {updates:,} updates take"
        return _set(agent, ChosenExecution("eager", times, reason))
    started = time.monotonic()
    try:
        difference = difference_to_eager(agent, batch, candidate)
    except Exception as error:  # the compiler's own, of many kinds: a damaged cache, no room for it, a compiler too old
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        if wanted != "auto":
            raise TrainingError(f"`learner.execution: {wanted}`: compiling failed ({cause}). Set it to `auto` or `eager`.") from error
        logger.warning("Compiling the update failed, so it stays as written (%s). Removing torch's compiler cache may help.", cause)
        return _set(agent, ChosenExecution("eager", times, f"{eager_ms:.1f} ms an update; compiling failed"))
    if not difference <= TOLERANCE[config.precision]:
        found = f"after {_COMPARED_UPDATES} updates the {candidate} critics differ from the eager ones by {difference:.1e}"
        if wanted != "auto":
            raise TrainingError(f"{found}, allowed {TOLERANCE[config.precision]:.0e}. Set `learner.execution: eager`.")
        return _set(agent, ChosenExecution("eager", times, f"{eager_ms:.1f} ms an update; {found}"))
    times[candidate] = _measure(agent, batch, candidate)
    reason = (
        f"{eager_ms:.1f} ms an update eager, {times[candidate]:.1f} ms {candidate} "
        f"(the same to {difference:.0e} after {_COMPARED_UPDATES} updates; compiling took {time.monotonic() - started:.0f} s)"
    )
    faster = times[candidate] < _WORTH_CHANGING * eager_ms
    return _set(agent, ChosenExecution(candidate if faster or wanted != "auto" else "eager", times, reason))


def difference_to_eager(agent: SacAgent, batch: TensorBatch, execution: Execution, *, updates: int = _COMPARED_UPDATES) -> float:
    """Return the largest relative difference of any critic tensor after some updates from the same state; the state is put back."""
    before, mode = agent.state_dict(), agent.execution
    results = []
    try:
        for tried in ("eager", execution):
            agent.load_state_dict(before)
            agent.execution = tried
            for number in range(updates):
                agent.update(batch, update_actor=number % 2 == 1)
            results.append([parameter.detach().float().clone() for parameter in agent.critic_ensemble.parameters()])
    finally:
        agent.load_state_dict(before)
        agent.execution = mode
    return max(float((a - b).abs().max() / (a.abs().max() + 1e-6)) for a, b in zip(*results, strict=True))


def _measure(agent: SacAgent, batch: TensorBatch, execution: Execution) -> float:
    """Return the median time of a critic update without the actor's [ms]; the state is put back."""
    before, mode = agent.state_dict(), agent.execution
    agent.execution = execution
    times = []
    for number in range(_TIMED_UPDATES + 2):
        _wait(agent)
        started = time.perf_counter()
        agent.update(batch, update_actor=number < 1)
        _wait(agent)
        times.append(time.perf_counter() - started)
    agent.load_state_dict(before)
    agent.execution = mode
    return 1000 * statistics.median(times[2:])


def _wait(agent: SacAgent) -> None:
    if agent.device.type == "cuda":
        torch.cuda.synchronize(agent.device)


def _impossible(execution: Execution, agent: SacAgent) -> str | None:
    if execution == "cuda_graphs" and agent.device.type != "cuda":
        return "CUDA graphs need `learner.device: cuda`"
    if agent.device.type == "cpu" and not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        return "compiling for the CPU needs a C++ compiler (Debian: `apt install g++`)"
    return None


def _set(agent: SacAgent, chosen: ChosenExecution) -> ChosenExecution:
    agent.execution = chosen.execution
    logger.info("Updates are computed %s: %s", chosen.execution, chosen.reason)
    return chosen
