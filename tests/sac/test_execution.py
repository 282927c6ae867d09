"""Eager and compiled updates give the same numbers, and the choice between them leaves no trace."""

import functools
import logging
import shutil

import pytest
import torch
from test_objectives import make_batch

from hilserl.config.models import LearnerConfig, PolicyConfig
from hilserl.errors import TrainingError
from hilserl.sac.agent import SacAgent
from hilserl.sac.execution import TOLERANCE, choose_execution, difference_to_eager
from hilserl.sac.networks import InputSpec, StateScaling
from hilserl.vision.small_cnn import SmallCnn

real_compile = torch.compile
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="torch compiles for the CPU with a C++ compiler: apt install g++")


def make_agent(device: str = "cpu", precision: str = "float32", **overrides) -> SacAgent:
    config = PolicyConfig(**{"hidden_dims": (32, 32), "latent_dim": 16, "num_critics": 4, "num_subsample_critics": 2, **overrides})
    spec = InputSpec(5, {"wrist": (7,), "front": (3, 2, 2)}, 3)
    return SacAgent(config, spec, StateScaling(torch.zeros(5), torch.ones(5)), {}, seed=3, device=device, precision=precision)


# Single-precision rounding, amplified by Adam's division where gradients are tiny: 1e-6 to 2e-5 was measured.
@needs_compiler
@pytest.mark.slow
@pytest.mark.failure("L07")
@pytest.mark.parametrize("gripper", ["continuous", "discrete"])
def test_a_hundred_compiled_updates_equal_the_eager_ones(gripper: str) -> None:
    agent, batch = make_agent(gripper=gripper), make_batch(discrete_gripper=True)
    assert difference_to_eager(agent, batch, "compiled", updates=100) < TOLERANCE["float32"]


@pytest.mark.failure("L07")
def test_a_hundred_traced_updates_equal_the_eager_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of compilation but the C++ code at its end, which takes a minute: the slow test above has that too."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: functools.partial(real_compile, backend="aot_eager")(function))
    agent, batch = make_agent(gripper="discrete"), make_batch(discrete_gripper=True)
    assert 0 <= difference_to_eager(agent, batch, "compiled", updates=100) < TOLERANCE["float32"]
    assert agent._execution._compiled.keys() == {("compiled", "critic"), ("compiled", "actor")}


@pytest.mark.failure("L07")
def test_a_compiled_update_that_differs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, batch = make_agent(), make_batch()
    real = agent._execution.critic

    def wrong(objectives):
        function = real(objectives)
        if agent.execution == "eager":
            return function
        return lambda batch, noise, *rest: function(batch, noise.neg(), *rest)

    monkeypatch.setattr(agent._execution, "critic", wrong)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    assert difference_to_eager(agent, batch, "compiled") > TOLERANCE["float32"]
    with pytest.raises(TrainingError, match=r"differ from the eager ones.*learner.execution: eager"):
        choose_execution(agent, batch, LearnerConfig(execution="compiled"), updates=10)
    chosen = choose_execution(agent, batch, LearnerConfig(), updates=10**9)
    assert chosen.execution == agent.execution == "eager" and "differ" in chosen.reason


def test_choosing_leaves_the_agent_as_it_was_and_says_what_it_chose(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hilserl")
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/g++")
    agent, batch = make_agent(), make_batch()
    agent.update(batch, update_actor=True)
    before = {name: tensor.clone() for name, tensor in agent.state_dict().items()}
    chosen = choose_execution(agent, batch, LearnerConfig(), updates=10**9)
    assert set(chosen.update_ms) == {"eager", "compiled"} and chosen.execution == agent.execution
    assert f"Updates are computed {chosen.execution}" in caplog.text and "ms an update eager" in caplog.text
    assert agent.state_dict().keys() == before.keys()
    for name, tensor in agent.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("objective", ["critic", "actor"])
def test_a_compiler_that_fails_leaves_the_training_eager_and_says_so(
    objective: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(function, **_):
        if function.__name__ != objective:
            return function

        def run(*_):
            raise ImportError("main.so: file too short")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/g++")
    agent, batch = make_agent(), make_batch()
    before = agent.state_dict()
    chosen = choose_execution(agent, batch, LearnerConfig(), updates=10**9)
    assert chosen.execution == agent.execution == "eager" and "file too short" in caplog.text
    with pytest.raises(TrainingError, match=r"compiling failed .*file too short"):
        choose_execution(agent, batch, LearnerConfig(execution="compiled"), updates=10)
    assert all(torch.equal(tensor, before[name]) for name, tensor in agent.state_dict().items())
    assert all(parameter.requires_grad for parameter in agent.critic_ensemble.parameters())


def test_short_trainings_are_not_compiled() -> None:
    agent = make_agent()
    chosen = choose_execution(agent, make_batch(), LearnerConfig(), updates=100)
    assert chosen.execution == agent.execution == "eager" and "would not pay" in chosen.reason


def test_without_a_compiler_auto_is_eager_and_compiled_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert choose_execution(make_agent(), make_batch(), LearnerConfig(), updates=10**9).execution == "eager"
    with pytest.raises(TrainingError, match="apt install g\\+\\+"):
        choose_execution(make_agent(), make_batch(), LearnerConfig(execution="compiled"), updates=10)
    with pytest.raises(TrainingError, match=r"learner\.device: cuda"):
        choose_execution(make_agent(), make_batch(), LearnerConfig(execution="cuda_graphs"), updates=10)


def test_bfloat16_products_stay_near_and_parameters_stay_float32() -> None:
    exact, rounded, batch = make_agent(), make_agent(precision="bfloat16"), make_batch()
    a, b = exact.update(batch, update_actor=True), rounded.update(batch, update_actor=True)
    assert a["loss/critic"].item() != b["loss/critic"].item()  # otherwise nothing was rounded
    assert b["loss/critic"].item() == pytest.approx(a["loss/critic"].item(), rel=0.02)
    tensors = rounded.state_dict()
    assert {tensor.dtype for name, tensor in tensors.items() if tensor.is_floating_point()} == {torch.float32}


def test_bfloat16_learns_to_predict_a_fixed_target_as_float32_does() -> None:
    batch = make_batch()
    batch.terminated[:] = 1.0  # the target is the reward
    ends = {}
    for precision in ("float32", "bfloat16"):
        agent = make_agent(precision=precision, critic_lr=3e-3)
        for _ in range(300):
            loss = agent.update(batch, update_actor=False)["loss/critic"].item()
        ends[precision] = loss
    assert ends["float32"] < 1e-3 and ends["bfloat16"] < 3e-3


@pytest.mark.gpu
@pytest.mark.failure("L07")
@pytest.mark.parametrize("execution", ["compiled", "cuda_graphs"])
def test_a_hundred_updates_on_a_gpu_equal_the_eager_ones(execution: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    spec = InputSpec(5, {"wrist": SmallCnn(32, 32).feature_shape}, 3)
    agent = SacAgent(PolicyConfig(), spec, StateScaling(torch.zeros(5), torch.ones(5)), {"wrist": SmallCnn(32, 32)}, seed=0, device="cuda")
    size = 64
    g = torch.Generator("cuda").manual_seed(0)

    def images() -> dict[str, torch.Tensor]:
        return {"wrist": torch.randint(0, 255, (size, 32, 32, 3), dtype=torch.uint8, generator=g, device="cuda")}

    from hilserl.sac.batch import TensorBatch

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=g, device="cuda")

    batch = TensorBatch(
        normal(size, 5), normal(size, 5), images(), images(), normal(size, 3).tanh(), normal(size).abs(), torch.zeros(size, device="cuda"),
        torch.full((size,), 0.97, device="cuda"),
    )  # fmt: skip
    assert difference_to_eager(agent, batch, execution, updates=100) < 1e-2
