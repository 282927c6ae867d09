"""Errors of a configuration file name the file, the key, the value and the remedy."""

from pathlib import Path

import pytest

from hilserl.config import load_config
from hilserl.config.loader import SHIPPED_CONFIGS, expand_dotted, merge, parse_override
from hilserl.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    def write(text, name="task.yaml"):
        file = tmp_path / name
        file.write_text(text)
        return file

    return write


@pytest.mark.parametrize("name", [file.stem for file in SHIPPED_CONFIGS.glob("*.yaml")])
def test_shipped_configurations_load(name):
    assert load_config(name) == load_config(f"configs/{name}.yaml")


@pytest.mark.failure("D20")
def test_an_unknown_key_stops_with_the_nearest_one(write):
    file = write("policy: {utd_ration: 20}")
    with pytest.raises(ConfigError) as error:
        load_config(file)
    assert str(error.value).startswith(f"{file}: `policy.utd_ration` is unknown (got 20). Did you mean `utd_ratio`?")


@pytest.mark.failure("D20")
@pytest.mark.parametrize(
    ("text", "where", "suggestion"),
    [
        ("polisy: {}", "polisy", "policy"),
        ("robot: {cameras: {wrist: {widht: 84}}}", "robot.cameras.wrist.widht", "width"),
        ("dataset: {record: {episode: 3}}", "dataset.record.episode", "episodes"),
        ("actor: {intervention: {delay: 3}}", "actor.intervention.delay", "delay_steps"),
    ],
)
def test_the_suggestion_comes_from_the_right_section(write, text, where, suggestion):
    with pytest.raises(ConfigError) as error:
        load_config(write(text))
    assert f"`{where}` is unknown" in str(error.value)
    assert f"Did you mean `{suggestion}`?" in str(error.value)


def test_an_error_in_an_override_is_not_blamed_on_the_file(write):
    file = write("name: mine\npolicy: {utd_ratio: 4}\nlearner: {save_freq: 0}\n")
    with pytest.raises(ConfigError) as error:
        load_config(file, {"policy.utd_ratio": 0, "learner.device": "gpu"})
    lines = {line.split("`")[1]: line for line in str(error.value).splitlines()}
    assert lines["policy.utd_ratio"].startswith("override: ")
    assert lines["learner.device"].startswith("override: ") and "`cuda:1`" in lines["learner.device"]
    assert lines["learner.save_freq"].startswith(f"{file}: ")


@pytest.mark.failure("D20")
def test_an_unknown_override_stops_too(write):
    with pytest.raises(ConfigError, match="Did you mean `utd_ratio`"):
        load_config("reach", {"policy.utd_ration": 4})


def test_all_errors_are_reported_together(write):
    with pytest.raises(ConfigError) as error:
        load_config(write("seed: -1\npolicy: {discount: 1.5}\nnom: x"))
    assert [word in str(error.value) for word in ("`seed`", "`policy.discount`", "`nom`")] == [True] * 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("policy: {utd_ratio: 0}", "`policy.utd_ratio`: Input should be greater than or equal to 1 (got 0)"),
        ("policy: {discount: 1.0}", "`policy.discount`"),
        ("task: {type: stack}", "'reach' or 'lift'"),
        ("robot: {reset_ee_pos_m: [0.5, 0, 0.1]}", "outside the workspace"),
        ("robot: {workspace_min_m: [0.4, -0.15, 0]}", "must be below workspace_max_m on x"),
        ("observation: {images: {side: {}}}", "the robot has no such camera; it has ['wrist']"),
        ("observation: {images: {wrist: {crop: [0, 80, 480, 480]}}}", "leaves the 84x84"),
        ("observation: {images: {wrist: {resize: [128, 128]}}}", "upscaling adds no information"),
        ("observation: {state: [joint_pos, cube_pos]}", "unknown component 'cube_pos'"),
        ("dataset: {root: /data/demos, record: {}}", "exactly one of `root`"),
        ("encoder: {type: cnn}", "must be a pretrained one"),
        ("policy: {num_critics: 2, num_subsample_critics: 3}", "num_subsample_critics (3) exceeds num_critics (2)"),
    ],
)
def test_a_value_out_of_bounds_is_refused_with_the_place(write, text, expected):
    with pytest.raises(ConfigError) as error:
        load_config(write(text))
    assert expected in str(error.value)


def test_extends_merges_key_by_key(write):
    write("name: parent\nseed: 5\npolicy: {utd_ratio: 3, discount: 0.9}", "parent.yaml")
    config = load_config(write("extends: parent.yaml\nname: child\npolicy: {utd_ratio: 4}"))
    assert (config.name, config.seed, config.policy.utd_ratio, config.policy.discount) == ("child", 5, 4, 0.9)


def test_extends_in_a_circle_is_named(write):
    write("extends: b.yaml", "a.yaml")
    with pytest.raises(ConfigError, match=r"goes in a circle: a\.yaml -> b\.yaml -> a\.yaml"):
        load_config(write("extends: a.yaml", "b.yaml").with_name("a.yaml"))


def test_extends_of_a_missing_file_is_named(write):
    with pytest.raises(ConfigError, match="names no file"):
        load_config(write("extends: nowhere.yaml"))


@pytest.mark.parametrize(("text", "message"), [("- 1\n- 2", "must hold `key: value` lines"), ("a: [", "not valid YAML")])
def test_a_file_that_is_no_mapping_is_refused(write, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(text))


def test_a_misspelt_shipped_name_is_suggested():
    with pytest.raises(ConfigError, match="Did you mean `reach`"):
        load_config("reahc")


def test_overrides_win_nested_or_dotted(write):
    file = write("policy: {utd_ratio: 3}")
    assert load_config(file, {"policy.utd_ratio": 4}).policy.utd_ratio == 4
    assert load_config(file, {"policy": {"utd_ratio": 5}}).policy.utd_ratio == 5
    assert load_config(file).policy.utd_ratio == 3


def test_none_clears_a_section():
    assert load_config("reach", {"dataset.record": None, "dataset.root": "/data/demos"}).dataset.record is None


def test_merging_leaves_its_arguments_alone():
    base, top = {"a": {"b": 1}}, {"a": {"c": 2}}
    assert merge(base, top) == {"a": {"b": 1, "c": 2}}
    assert (base, top) == ({"a": {"b": 1}}, {"a": {"c": 2}})


def test_dotted_keys_expand():
    assert expand_dotted({"a.b": 1, "a": {"c.d": 2}}) == {"a": {"b": 1, "c.d": 2}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("policy.utd_ratio=4", ("policy.utd_ratio", 4)),
        ("dataset.root=null", ("dataset.root", None)),
        ("a=[1, 2]", ("a", [1, 2])),
        ("a=x=y", ("a", "x=y")),
    ],
)
def test_a_command_line_override_is_yaml(text, expected):
    assert parse_override(text) == expected


@pytest.mark.parametrize("text", ["policy.utd_ratio", "=4", "a=[1"])
def test_a_broken_override_is_refused(text):
    with pytest.raises(ConfigError, match="override"):
        parse_override(text)


@pytest.mark.failure("D20")
def test_a_key_that_stands_twice_stops_and_names_both_lines(tmp_path: Path) -> None:
    """YAML keeps the last one: pasting two `dataset:` blocks would lose the first with its `root`."""
    file = tmp_path / "mine.yaml"
    file.write_text("extends: lift\ndataset: {root: data/demos}\nname: mine\ndataset: {frame_rate: convert}\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml(?s:.)*`dataset` stands twice, in lines 2 and 4"):
        load_config(file)
    file.write_text("dataset:\n  root: data/demos\n  root: data/others\n")
    with pytest.raises(ConfigError, match=r"`root` stands twice, in lines 2 and 3"):
        load_config(file)


@pytest.mark.parametrize(
    "text",
    ["dataset: {root: data/demos}", "dataset: {sources: [{root: data/demos}, {root: data/others}]}", "dataset: {record: {episodes: 3}}"],
)
def test_demonstrations_that_a_file_names_replace_inherited_ones(tmp_path: Path, text: str) -> None:
    for parent in ("lift", "other.yaml"):
        (tmp_path / "other.yaml").write_text("extends: lift\ndataset: {root: data/parent, reward_from: none}\n")
        (tmp_path / "mine.yaml").write_text(f"extends: {parent}\n{text}\n")
        dataset = load_config(tmp_path / "mine.yaml").dataset
        assert (dataset.root is not None) + (dataset.record is not None) + bool(dataset.sources) == 1
        assert dataset.reward_from == ("none" if parent == "other.yaml" else load_config("lift").dataset.reward_from)
    (tmp_path / "fewer.yaml").write_text("extends: lift_teleop\ndataset: {record: {episodes: 3}}\n")
    record = load_config(tmp_path / "fewer.yaml").dataset.record
    assert record is not None and (record.episodes, record.flavour) == (3, "teleop")  # of the same kind: key by key
    assert load_config("lift", {"dataset.root": "data/demos"}).dataset.record is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy.gripper": "discrete", "policy.n_step": 3}, r"penalty is known for the first alone.*gripper_penalty: 0"),
        ({"policy.gripper_penalty": 0.1, "policy.n_step": 2}, r"penalty is known for the first alone"),
        ({"policy.hidden_dims": []}, r"policy\.hidden_dims"),
        ({"policy.online_steps": 100}, r"online_steps \(100\) ends before the first update"),
        ({"learner.execution": "cuda_graphs"}, r"needs `learner\.device: cuda`"),
        ({"policy.num_critics": 2, "policy.num_subsample_critics": 3}, r"num_subsample_critics \(3\) exceeds num_critics \(2\)"),
    ],
)
def test_settings_of_the_algorithm_that_contradict_each_other_stop(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("lift", settings)


@pytest.mark.parametrize("settings", [{"policy.gripper": "discrete"}, {"policy.gripper_penalty": 0.1}])
def test_a_gripper_that_the_task_does_not_move_stops(settings: dict) -> None:
    with pytest.raises(ConfigError, match=r"task `reach` does not move the gripper.*task.type: lift"):
        load_config("reach", settings)
    load_config("lift", settings)
