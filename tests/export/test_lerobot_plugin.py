import json
import os
import shutil
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from export_helpers import RESIZED, RESNET, TRAINED, make_source_in

from hilserl.errors import TrainingError
from hilserl.export.lerobot_folder import export_lerobot
from hilserl.export.lerobot_policy import PLUGIN, LeRobotPolicy
from hilserl.export.probe import probe_observations

ROOT = Path(__file__).resolve().parents[2]
DISCRETE = {"policy.gripper": "discrete", "encoder.type": "cnn", **TRAINED, **RESIZED}
TWO_CAMERAS = {
    "encoder.type": "lerobot_cnn",
    **TRAINED,
    "robot.cameras.front": {"width": 70, "height": 62, "fovy_deg": 60},
    "observation.images.front": {"resize": [48, 50]},
}


def actions(act, observations) -> np.ndarray:
    return np.stack([act(observation) for observation in observations])


@pytest.mark.parametrize(
    ("config", "overrides"),
    [("lift", DISCRETE), ("reach", TWO_CAMERAS), ("reach", RESNET)],
    ids=["discrete gripper", "two cameras", "resnet"],
)
def test_lerobot_acts_exactly_as_the_policy_does(make_source, tmp_path, config, overrides) -> None:
    source = make_source(config, **overrides)
    written = export_lerobot(source, tmp_path / "out")
    assert written.policy_type == "hilserl" and written.reason
    observations = probe_observations(source.policy, 20, seed=9)
    ours = actions(source.policy.act, observations)
    assert np.abs(ours - actions(LeRobotPolicy(tmp_path / "out").act, observations)).max() <= 1e-6
    assert ours.std(axis=0).min() > 0.05
    if overrides is DISCRETE:
        assert set(ours[:, -1]) <= {-1.0, 0.0, 1.0} and len(set(ours[:, -1])) > 1


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    source = make_source_in(folder / "policy", "lift", **DISCRETE)
    export_lerobot(source, folder / "out")
    return source, folder / "out"


@pytest.fixture(scope="module")
def loaded(exported):
    return exported[0], LeRobotPolicy(exported[1])._policy


def as_batch(observations) -> dict[str, torch.Tensor]:
    """Batch native observations as LeRobot does: images float32 (B, 3, H, W) in [0, 1]."""
    batch = {key: torch.from_numpy(np.stack([each[key] for each in observations])) for key in observations[0]}
    return {key: value.permute(0, 3, 1, 2).float() / 255 if value.ndim == 4 else value for key, value in batch.items()}


def test_a_batch_is_its_rows_and_other_keys_are_ignored(loaded) -> None:
    source, policy = loaded
    observations = probe_observations(source.policy, 5, seed=4)
    batch = as_batch(observations)
    extra = batch | {
        "action": None,
        "task": "lift",
        "observation.environment_state": torch.zeros(5, 2),
        "observation.images.side": torch.ones(5),
    }
    got = policy.select_action(extra).numpy()
    assert np.abs(got - actions(source.policy.act, observations)).max() <= 1e-6
    assert (policy.predict_action_chunk(batch).numpy()[:, 0] == got).all()
    as_uint8 = batch | {"observation.images.wrist": batch["observation.images.wrist"].mul(255).round().to(torch.uint8)}
    assert (policy.select_action(as_uint8).numpy() == got).all()


def test_every_pixel_value_survives_lerobots_division_by_255(loaded) -> None:
    from lerobot.policies.utils import prepare_observation_for_inference

    native = np.random.default_rng(0).permutation(np.arange(256 * 3) % 256).astype(np.uint8).reshape(16, 16, 3)
    batch = prepare_observation_for_inference({"observation.images.wrist": native.copy()}, torch.device("cpu"))
    key = "observation.images.wrist"
    restore = sys.modules[type(loaded[1]).__module__]._native
    assert (restore(key, batch[key])[0] == native).all()
    assert (restore(key, batch[key].half())[0] == native).all()  # mixed precision; without rounding, this loses values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda batch: batch | {"observation.images.wrist": batch["observation.images.wrist"] * 255}, "0 to 1, not normalised"),
        (lambda batch: batch | {"observation.images.wrist": batch["observation.images.wrist"] - 0.5}, "0 to 1, not normalised"),
        (lambda batch: batch | {"observation.images.wrist": batch["observation.images.wrist"][..., :-1]}, "expects uint8"),
        (lambda batch: batch | {"observation.images.wrist": batch["observation.images.wrist"][0]}, "a batch of images is"),
        (lambda batch: batch | {"observation.state": batch["observation.state"][:, :-1]}, "has shape"),
        (lambda batch: batch | {"observation.state": batch["observation.state"][:1]}, "rows, depending on the key"),
        (lambda batch: batch | {"observation.state": batch["observation.state"] * float("nan")}, "not finite"),
        (lambda batch: {"observation.images.wrist": batch["observation.images.wrist"]}, "lacks"),
        (lambda batch: {}, "lacks"),
    ],
)
def test_what_it_was_not_trained_on_is_refused(loaded, change, message) -> None:
    source, policy = loaded
    with pytest.raises(TrainingError, match=message):
        policy.select_action(change(as_batch(probe_observations(source.policy, 2))))


def test_an_export_of_another_format_is_refused(exported, tmp_path) -> None:
    shutil.copytree(exported[1], tmp_path / "out")
    file = tmp_path / "out" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format_version": 99}))
    with pytest.raises(ValueError, match="exported in format 99"):
        LeRobotPolicy(tmp_path / "out")


def test_the_distribution_has_the_name_that_lerobot_imports() -> None:
    folder = ROOT / "plugins" / PLUGIN
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == PLUGIN and project["name"].startswith("lerobot_policy_")
    assert (folder / "src" / PLUGIN / "__init__.py").is_file()
    assert f"hilserl=={ours['version']}" in project["dependencies"]
    assert project["requires-python"] == ours["requires-python"]


@pytest.mark.slow  # imports LeRobot again, in a process of its own
def test_a_fresh_process_finds_the_plugin_by_its_distribution(exported, tmp_path) -> None:
    source, folder = exported
    observations = probe_observations(source.policy, 4, seed=5)
    np.savez(tmp_path / "seen.npz", **{f"{index}/{key}": value for index, each in enumerate(observations) for key, value in each.items()})
    installed = tmp_path / "site" / f"{PLUGIN}-0.1.0.dist-info"  # what `pip install` leaves, besides the package
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PLUGIN}\nVersion: 0.1.0\n")
    program = f"""
        import sys
        import numpy as np, torch
        from lerobot.utils.import_utils import register_third_party_plugins
        register_third_party_plugins()  # the first line of every LeRobot command
        from lerobot.configs import PreTrainedConfig
        from lerobot.policies import get_policy_class, make_pre_post_processors
        from lerobot.policies.utils import prepare_observation_for_inference
        folder = {str(folder)!r}
        config = PreTrainedConfig.from_pretrained(folder)
        policy = get_policy_class(config.type).from_pretrained(folder, config=config)
        preprocessor, postprocessor = make_pre_post_processors(config, pretrained_path=folder)
        stored = np.load({str(tmp_path / "seen.npz")!r})
        actions = []
        for index in range(4):
            seen = {{key.partition("/")[2]: stored[key] for key in stored.files if key.startswith(f"{{index}}/")}}
            batch = preprocessor(prepare_observation_for_inference(seen, torch.device("cpu")))
            actions.append(postprocessor(policy.select_action(batch))[0].numpy())
        np.save({str(tmp_path / "actions.npy")!r}, np.stack(actions))
        heavy = sorted({{"prefect", "mlflow", "mujoco"}} & set(sys.modules))
        assert not heavy, heavy
    """
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT / "plugins" / PLUGIN / "src"), str(ROOT)])
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, env={**os.environ, "PYTHONPATH": path}, timeout=280)
    assert np.abs(np.load(tmp_path / "actions.npy") - actions(source.policy.act, observations)).max() <= 1e-6
