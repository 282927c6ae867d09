"""LeRobot's three dialects: the same user, the same run, whichever LeRobot wrote the file."""

import ast
import copy
import dataclasses
import importlib
import importlib.util
import json
import typing
from pathlib import Path

import pytest

from hilserl.config import TrainConfig, load_config
from hilserl.config.lerobot import describe_import, import_lerobot_config, rule_of
from hilserl.config.lerobot_fields import DEFAULTS, RULES
from hilserl.config.lerobot_yaml import to_yaml
from hilserl.errors import ConfigError

DATA = Path(__file__).parent / "data"
FILES = {"0.6": "user_0.6.json", "0.5": "user_0.5.json", "0.3.3": "user_0.3.3.json"}


@pytest.fixture(params=FILES)
def dialect(request):
    return request.param


@pytest.fixture
def raw(dialect):
    return json.loads((DATA / FILES[dialect]).read_text())


@pytest.fixture
def load(tmp_path):
    """Import a configuration given as a dictionary."""

    def load(raw):
        file = tmp_path / "train_config.json"
        file.write_text(json.dumps(raw))
        return import_lerobot_config(file)

    return load


def change(raw, path, value):
    changed = copy.deepcopy(raw)
    *sections, name = path.split(".")
    place = changed
    for section in sections:
        place = place.setdefault(section, {})
    place[name] = value
    return changed


def notes_of(imported):
    return {note.key: note for note in imported.notes}


def leaves(value, prefix=""):
    for key, item in value.items():
        path = f"{prefix}{key}"
        if rule_of(path) is None and isinstance(item, dict):
            yield from leaves(item, f"{path}.")
        else:
            yield path


@pytest.mark.failure("D21")
def test_the_users_settings_arrive_from_every_dialect(dialect):
    config = load_config(DATA / FILES[dialect])

    assert import_lerobot_config(DATA / FILES[dialect]).dialect == dialect
    assert (config.name, config.seed) == ("hilserl_so101", 1000)
    assert (config.robot.type, config.robot.id, config.robot.control_hz) == ("so101_sim", "so101_follower", 10)
    assert (config.robot.action_scale_m, config.robot.max_gripper_step_pct) == (0.02, 50)
    assert config.robot.workspace_min_m == (0.10, -0.15, -0.02)
    assert config.robot.workspace_max_m == (0.35, 0.15, 0.25)
    assert (config.robot.reset_ee_pos_m, config.robot.reset_noise_m) == ((0.25, 0.0, 0.07), 0.01)
    camera = config.robot.cameras["gripper_cam"]
    assert (camera.width, camera.height) == (640, 480)
    image = config.observation.images["gripper_cam"]
    assert (image.crop, image.resize) == ((0, 80, 480, 480), (128, 128))
    assert config.observation.state == ("joint_pos", "joint_vel", "ee_pos", "ee_euler")
    assert (config.task.type, config.task.control_time_s) == ("lift", 10)
    assert config.action_names == ("delta_x", "delta_y", "delta_z", "gripper")
    assert (config.dataset.repo_id, config.dataset.root, config.dataset.record) == ("user/so101_demos", Path("datasets/so101_demos"), None)
    assert (config.encoder.type, config.encoder.model, config.encoder.revision) == ("pretrained", "helper2424/resnet10", None)
    assert config.encoder.freeze and config.encoder.stored_views == 2
    assert (config.policy.gripper, config.policy.gripper_penalty) == ("continuous", 0)
    assert (config.learner.execution, config.learner.precision, config.learner.storage_device) == ("auto", "float32", "cuda")
    policy = config.policy
    assert (policy.batch_size, policy.utd_ratio, policy.discount) == (256, 20, 0.97)
    assert (policy.actor_lr, policy.critic_lr, policy.temperature_lr) == (3e-4, 3e-4, 3e-4)
    assert (policy.temperature_init, policy.target_entropy, policy.use_backup_entropy) == (0.01, -2, False)
    assert (policy.num_critics, policy.num_subsample_critics, policy.critic_target_update_weight) == (2, None, 0.005)
    assert (policy.latent_dim, policy.hidden_dims, policy.grad_clip_norm) == (256, (256, 256), 40)
    assert (policy.online_buffer_capacity, policy.offline_buffer_capacity) == (200_000, 5_000)
    assert (policy.online_step_before_learning, policy.online_steps) == (100, 100_000)
    assert (config.learner.save_freq, config.learner.policy_parameters_push_frequency, config.learner.device) == (500, 2, "cuda")
    assert (config.link.host, config.link.port) == ("127.0.0.1", 50051)


def test_the_dialects_agree():
    imported = [import_lerobot_config(DATA / name).values for name in FILES.values()]
    half_and_half = {"online_ratio": 0.5}  # only LeRobot 0.6 has a key for it
    assert imported[1] == imported[2]
    assert imported[0] == imported[1] | {"policy": imported[1]["policy"] | half_and_half}


@pytest.mark.failure("D21")
def test_every_key_of_the_file_has_exactly_one_note(raw, load):
    keys = [note.key for note in load(raw).notes]
    for path in leaves(raw):
        assert keys.count(path) == 1, path


def test_what_cannot_be_done_yet_is_said(dialect):
    notes = notes_of(import_lerobot_config(DATA / FILES[dialect]))
    assert "SIMULATED" in notes["env.robot.type"].reason
    assert notes["policy.vision_encoder_name"].target == "encoder.model"
    assert "SET `encoder.revision`" in notes["policy.vision_encoder_name"].reason
    assert notes["env.robot.port"].target == "robot.port"
    assert notes["policy.storage_device"].target == "learner.storage_device"
    assert notes["dataset.video_backend"].status == "no effect"
    classifier = "env.reward_classifier_pretrained_path" if dialect == "0.3.3" else "env.processor.reward_classifier.pretrained_path"
    assert notes[classifier].status == "unsupported"


def test_the_table_names_every_key_and_its_fate(raw, load):
    table = describe_import(load(raw))
    for path in leaves(raw):
        assert f"  {path} " in table
    assert "Not available here (yet)" in table
    assert "-> policy.utd_ratio" in table


@pytest.mark.failure("D20")
@pytest.mark.parametrize(
    ("path", "suggestion"),
    [
        ("policy.utd_ration", "`policy.utd_ratio`"),
        ("policy.control_time_s", "control_time_s`; did you mean that?"),
        ("batchsize", "`batch_size`"),
        ("env.robot.end_effector_site_name", "`env.robot.end_effector_site`"),
        ("env.robot.cameras.gripper_cam.heigth", "`env.robot.cameras.gripper_cam.height`"),
        ("wandb.enabled", "`wandb.enable`"),
        ("something_else_entirely", "Known beside it"),
    ],
)
def test_an_unknown_key_stops_with_the_nearest_one(raw, load, path, suggestion):
    with pytest.raises(ConfigError) as error:
        load(change(raw, path, 7))
    assert f"`{path}` is in no LeRobot (got 7" in str(error.value)
    assert suggestion in str(error.value)


def test_all_unknown_keys_are_reported_together(raw, load):
    with pytest.raises(ConfigError) as error:
        load(change(change(raw, "policy.utd_ration", 7), "batchsize", 8))
    assert "utd_ration" in str(error.value)
    assert "batchsize" in str(error.value)


@pytest.mark.failure("D21")
@pytest.mark.parametrize("kind", ["drqv2", "act", "diffusion", "tdmpc", "reward_classifier", "pi0", "my_own"])
def test_another_algorithm_is_refused_with_the_reason(raw, load, kind):
    # What belongs to the other algorithm is not reported as a misspelling.
    with pytest.raises(ConfigError, match="HIL-SERL is SAC") as error:
        load(change(change(raw, "policy.type", kind), "policy.stddev_schedule", "linear(1.0,0.1,500000)"))
    assert f'`policy.type` is "{kind}"' in str(error.value)
    assert "stddev_schedule" not in str(error.value)


def test_another_rl_algorithm_of_lerobot_0_6_is_refused(load):
    raw = json.loads((DATA / "user_0.6.json").read_text())
    with pytest.raises(ConfigError, match=r'`algorithm.type` is "ppo"'):
        load(change(raw, "algorithm.type", "ppo"))


def test_a_recording_configuration_is_told_apart(load):
    with pytest.raises(ConfigError, match="recording configuration"):
        load({"env": {"type": "gym_manipulator"}, "dataset": {"repo_id": "u/d"}, "mode": "record", "device": "cpu"})


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"policy": ', "not valid JSON.*line 1"), ("[1]", "must hold a JSON object"), ('{"policy": "sac"}', "`policy` must be an object")],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path, text, message):
    file = tmp_path / "broken.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        import_lerobot_config(file)


@pytest.mark.failure("L10")
def test_a_frozen_random_encoder_is_refused(raw, load):
    with pytest.raises(ConfigError, match="freezes a \\*random\\* network"):
        load(change(raw, "policy.vision_encoder_name", None))
    trained = load(change(change(raw, "policy.vision_encoder_name", None), "policy.freeze_vision_encoder", False))
    assert TrainConfig.model_validate(trained.values).encoder.type == "lerobot_cnn"


@pytest.mark.failure("D01")
def test_an_image_without_a_camera_is_refused(raw, load):
    features = {"observation.image": {"type": "VISUAL", "shape": [3, 128, 128]}}
    with pytest.raises(ConfigError, match="Name the camera"):
        load(change(raw, "policy.input_features", features))


@pytest.mark.failure("D04")
@pytest.mark.parametrize(
    ("size", "state"), [(6, ("joint_pos",)), (12, ("joint_pos", "joint_vel")), (18, None), (21, "stops"), (63, "stops")]
)
def test_a_state_vector_gets_names_or_stops(load, size, state):
    raw = json.loads((DATA / "user_0.5.json").read_text())
    raw["env"]["processor"]["observation"]["add_full_proprioception"] = False
    raw["policy"]["input_features"]["observation.state"]["shape"] = [size]
    if state == "stops":
        with pytest.raises(ConfigError, match="known by name"):
            load(raw)
        return
    assert tuple(load(raw).values["observation"]["state"]) == (state or ("joint_pos", "joint_vel", "ee_pos", "ee_euler"))


@pytest.mark.failure("D04")
def test_eighteen_numbers_with_motor_current_are_not_taken_for_the_tool_pose(load):
    raw = json.loads((DATA / "user_0.5.json").read_text())
    switches = raw["env"]["processor"]["observation"]
    switches.update(add_full_proprioception=False, add_joint_velocity_to_observation=True, add_current_to_observation=True)
    imported = load(raw)
    assert imported.values["observation"]["state"] == ["joint_pos", "joint_vel"]
    assert notes_of(imported)["env.processor.observation.add_current_to_observation"].status == "unsupported"


def test_two_keys_that_disagree_stop(load):
    raw = json.loads((DATA / "user_0.6.json").read_text())
    cases = {
        "env.robot.action_scale": (0.01, "robot.action_scale_m"),
        "policy.discount": (0.9, "policy.discount"),
        "policy.actor_network_kwargs.hidden_dims": ([64, 64], "policy.hidden_dims"),
        "env.robot.end_effector_bounds": ({"min": [0, 0, 0], "max": [1, 1, 1]}, "end_effector_bounds"),
        "env.processor.image_preprocessing.resize_size": ([84, 84], "shape"),
        "env.processor.gripper.use_gripper": (False, "use_gripper"),
    }
    for path, (value, named) in cases.items():
        with pytest.raises(ConfigError) as error:
            load(change(raw, path, value))
        assert path.split(".")[-1] in str(error.value)
        assert named in str(error.value)


def test_unequal_steps_of_the_axes_are_refused(load):
    raw = json.loads((DATA / "user_0.6.json").read_text())
    path = "env.processor.inverse_kinematics.end_effector_step_sizes"
    with pytest.raises(ConfigError, match="share one step size"):
        load(change(raw, path, {"x": 0.02, "y": 0.02, "z": 0.01}))


def test_a_short_file_is_valid_and_says_which_defaults_differ(load):
    raw = {"policy": {"type": "sac"}, "env": {"type": "gym_manipulator"}}
    imported = load(raw)
    config = TrainConfig.model_validate(imported.values)
    assert config.dataset.record is not None
    defaults = {note.key: note for note in imported.notes if note.status == "default"}
    assert (defaults["utd_ratio"].value, defaults["utd_ratio"].target) == (1, "policy.utd_ratio")
    assert set(DEFAULTS) <= set(defaults)


def test_bounds_without_a_reset_pose_reset_to_their_centre(load):
    raw = json.loads((DATA / "user_0.3.3.json").read_text())
    raw["env"]["robot"]["end_effector_bounds"] = {"min": [0.1657, -0.0345, -0.0026], "max": [0.185, 0.0051, 0.0096]}
    for key in ("ik_reset_ee_pos", "random_ee_reset", "random_ee_range_xy", "random_ee_range_z"):
        del raw["env"]["wrapper"][key]
    config = TrainConfig.model_validate(load(raw).values)
    assert config.robot.reset_ee_pos_m == pytest.approx((0.17535, -0.0147, 0.0035))


def test_a_dataset_without_a_folder_is_looked_for_where_lerobot_keeps_it(raw, load, monkeypatch):
    monkeypatch.setenv("HF_LEROBOT_HOME", "/data/lerobot")
    assert load(change(raw, "dataset.root", None)).values["dataset"]["root"] == "/data/lerobot/user/so101_demos"


def test_overrides_win_over_an_imported_file(dialect):
    config = load_config(DATA / FILES[dialect], {"policy.utd_ratio": 4, "learner.device": "cpu"})
    assert (config.policy.utd_ratio, config.learner.device) == (4, "cpu")


def test_every_target_exists_in_our_configuration():
    known = TrainConfig()
    for key, rule in RULES.items():
        place = known
        for part in rule.target.split(".") if rule.target else ():
            assert hasattr(place, part), f"{key} -> {rule.target}"
            place = getattr(place, part)


LEROBOT_CLASSES = {
    "": ("rl/train_rl.py:TrainRLServerPipelineConfig", "configs/train.py:TrainPipelineConfig"),
    "policy.": (
        "policies/gaussian_actor/configuration_gaussian_actor.py:GaussianActorConfig",
        "configs/policies.py:PreTrainedConfig",
    ),
    "policy.actor_learner_config.": ("policies/gaussian_actor/configuration_gaussian_actor.py:ActorLearnerConfig",),
    "policy.concurrency.": ("policies/gaussian_actor/configuration_gaussian_actor.py:ConcurrencyConfig",),
    "policy.policy_kwargs.": ("policies/gaussian_actor/configuration_gaussian_actor.py:PolicyConfig",),
    "algorithm.": ("rl/algorithms/sac/configuration_sac.py:SACAlgorithmConfig",),
    "dataset.": ("configs/default.py:DatasetConfig",),
    "wandb.": ("configs/default.py:WandBConfig",),
    "eval.": ("configs/default.py:EvalConfig",),
    "job.": ("configs/default.py:JobConfig",),
    "env.": ("envs/configs.py:HILSerlRobotEnvConfig", "envs/configs.py:EnvConfig"),
    "env.processor.": ("envs/configs.py:HILSerlProcessorConfig",),
    "env.processor.reset.": ("envs/configs.py:ResetConfig",),
    "env.processor.gripper.": ("envs/configs.py:GripperConfig",),
    "env.processor.observation.": ("envs/configs.py:ObservationConfig",),
    "env.processor.image_preprocessing.": ("envs/configs.py:ImagePreprocessingConfig",),
    "env.processor.inverse_kinematics.": ("envs/configs.py:InverseKinematicsConfig",),
    "env.processor.reward_classifier.": ("envs/configs.py:RewardClassifierConfig",),
    "env.robot.": ("robots/so_follower/config_so_follower.py:SOFollowerConfig", "robots/config.py:RobotConfig"),
    "env.teleop.": (
        "teleoperators/so_leader/config_so_leader.py:SOLeaderConfig",
        "teleoperators/gamepad/configuration_gamepad.py:GamepadTeleopConfig",
        "teleoperators/keyboard/configuration_keyboard.py:KeyboardRoverTeleopConfig",
        "teleoperators/config.py:TeleoperatorConfig",
    ),
    "env.robot.cameras.any.": (
        "cameras/opencv/configuration_opencv.py:OpenCVCameraConfig",
        "cameras/realsense/configuration_realsense.py:RealSenseCameraConfig",
        "cameras/configs.py:CameraConfig",
    ),
}


@pytest.mark.parametrize("prefix", LEROBOT_CLASSES)
def test_the_installed_lerobot_has_no_key_that_the_table_lacks(prefix):
    """LeRobot's own dataclasses, read from its source, are the oracle for the newest dialect."""
    package = Path(importlib.util.find_spec("lerobot").origin).parent
    for place in LEROBOT_CLASSES[prefix]:
        file, name = place.split(":")
        (found,) = [node for node in ast.parse((package / file).read_text()).body if isinstance(node, ast.ClassDef) and node.name == name]
        fields = [node.target.id for node in found.body if isinstance(node, ast.AnnAssign)]
        assert fields
        for field in fields:
            path = f"{prefix}{field}"
            assert rule_of(path) or any(key.startswith(f"{path}.") for key in RULES), path


@pytest.mark.failure("D21")
@pytest.mark.parametrize("version", ["0.3.3", "0.5"])
def test_every_key_of_the_older_lerobots_is_mapped_or_named_with_the_reason(version, load):
    """The lists hold every field of the published configuration classes, with a value; each is put into the user's file."""
    keys = json.loads((DATA / f"keys_{version}.json").read_text())
    raw = json.loads((DATA / FILES[version]).read_text())
    assert len(keys) > 120
    for path, value in keys.items():
        rule = rule_of(path)
        assert rule is not None, path
        assert rule.target or rule.is_part or rule.reason, path
        try:
            notes = load(change(raw, path, value)).notes
        except ConfigError as error:  # it contradicts the rest of the file, and that is said by name
            assert path.split(".")[-1] in str(error), path
            continue
        exact = [note for note in notes if note.key == path]
        (note,) = exact or [note for note in notes if path.startswith(f"{note.key}.")]
        assert note.target or note.reason or note.status == "mapped", path


def _choices(annotation):
    """The classes that a field can hold: of a registry of LeRobot's, those that HIL-SERL on this arm can have."""
    from lerobot.cameras.configs import CameraConfig
    from lerobot.configs.policies import PreTrainedConfig
    from lerobot.envs.configs import EnvConfig, HILSerlRobotEnvConfig
    from lerobot.policies.gaussian_actor.configuration_gaussian_actor import GaussianActorConfig
    from lerobot.rl.algorithms.sac.configuration_sac import SACAlgorithmConfig
    from lerobot.robots.config import RobotConfig
    from lerobot.teleoperators.config import TeleoperatorConfig

    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        if annotation in (CameraConfig, TeleoperatorConfig):
            return list(annotation.get_known_choices().values())
        if annotation is RobotConfig:
            return [choice for name, choice in RobotConfig.get_known_choices().items() if name.startswith("so10")]
        chosen = {PreTrainedConfig: GaussianActorConfig, EnvConfig: HILSerlRobotEnvConfig}.get(annotation, annotation)
        return [SACAlgorithmConfig if issubclass(SACAlgorithmConfig, chosen) else chosen]
    return [choice for argument in typing.get_args(annotation) for choice in _choices(argument)]


def _keys(cls, prefix=""):
    for name, annotation in typing.get_type_hints(cls).items():
        path = f"{prefix}{name}"
        if name not in {field.name for field in dataclasses.fields(cls)}:
            continue
        choices = [] if rule_of(path) else [choice for choice in _choices(annotation) if choice is not cls]
        for choice in choices:
            yield from _keys(choice, f"{path}.any." if "dict[" in str(annotation) else f"{path}.")
        if not choices:
            yield path


@pytest.mark.slow  # imports all of LeRobot; the test above reads the same classes from their source
@pytest.mark.failure("D21")
def test_every_key_of_the_installed_lerobot_is_mapped_or_named_with_the_reason():
    """Walks LeRobot 0.6.1's own classes from the root of a train configuration, as its parser does."""
    for module in ("cameras.opencv.configuration_opencv", "cameras.realsense.configuration_realsense", "robots.so_follower",
                   "teleoperators.so_leader.config_so_leader", "teleoperators.gamepad.configuration_gamepad",
                   "teleoperators.keyboard.configuration_keyboard"):  # fmt: skip
        importlib.import_module(f"lerobot.{module}")
    from lerobot.rl.train_rl import TrainRLServerPipelineConfig

    keys = set(_keys(TrainRLServerPipelineConfig))
    assert len(keys) > 180
    assert {"policy.online_steps", "algorithm.utd_ratio", "env.processor.reset.control_time_s", "env.robot.cameras.any.use_depth"} <= keys
    missing = sorted(key for key in keys if rule_of(key) is None)
    assert not missing
    for key in keys:
        rule = rule_of(key)
        assert rule.target or rule.is_part or rule.reason, key


@pytest.mark.failure("D21")
def test_the_written_yaml_is_the_same_configuration(dialect, tmp_path):
    file = DATA / FILES[dialect]
    imported = import_lerobot_config(file)
    text = to_yaml(imported, file)
    (tmp_path / "mine.yaml").write_text(text)
    assert load_config(tmp_path / "mine.yaml") == load_config(file)
    assert "utd_ratio: 20" in text and ".utd_ratio: here it is owed per environment step" in text
    for note in imported.notes:
        if note.status == "unsupported":
            assert f"#   {note.key} = " in text
    assert "workspace_min_m: [0.1, -0.15, -0.02]" in text and "end_effector_bounds" in text


def make_dataset(root, **info):
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps({"codebase_version": "v3.0", "features": {}} | info))
    return str(root)


@pytest.mark.failure("D18")
def test_a_faster_recording_is_converted(raw, load, tmp_path):
    fast = load(change(raw, "dataset.root", make_dataset(tmp_path / "fast", fps=30, total_episodes=4)))
    assert TrainConfig.model_validate(fast.values).dataset.frame_rate == "convert"
    (note,) = [note for note in fast.notes if note.target == "dataset.frame_rate"]
    assert "30 frames per second" in note.reason and "10 Hz" in note.reason
    same = load(change(raw, "dataset.root", make_dataset(tmp_path / "same", fps=10)))
    assert "frame_rate" not in same.values["dataset"]


def test_chosen_episodes_become_excluded_ones(raw, load, tmp_path):
    there = change(raw, "dataset.root", make_dataset(tmp_path / "there", fps=10, total_episodes=6))
    imported = load(change(there, "dataset.episodes", [0, 2, 3]))
    assert TrainConfig.model_validate(imported.values).dataset.exclude_episodes == (1, 4, 5)
    assert notes_of(imported)["dataset.episodes"].reason == "the other 3 of 6 are left out"
    with pytest.raises(ConfigError, match=r"names episodes \[6\], the dataset has 6: 0 to 5"):
        load(change(there, "dataset.episodes", [0, 6]))
    absent = notes_of(load(change(raw, "dataset.episodes", [0, 2])))["dataset.episodes"]
    assert absent.status == "unsupported" and "ALL WILL BE USED" in absent.reason
    with pytest.raises(ConfigError, match="give a list of episode numbers"):
        load(change(raw, "dataset.episodes", "0-3"))


@pytest.mark.failure("D07")
def test_a_gripper_in_three_classes_is_read_as_such_and_learned_as_such(raw, load):
    imported = load(change(raw, "policy.num_discrete_actions", 3))
    config = TrainConfig.model_validate(imported.values)
    assert (config.dataset.gripper, config.policy.gripper, config.task.type) == ("discrete", "discrete", "lift")
    note = notes_of(imported)["policy.num_discrete_actions"]
    assert (note.status, note.target) == ("adapted", "policy.gripper")
    assert "0, 1, 2" in note.reason
    assert notes_of(load(change(raw, "policy.num_discrete_actions", 5)))["policy.num_discrete_actions"].status == "unsupported"
    alone = load({"policy": {"type": "sac", "num_discrete_actions": 3}, "env": {"type": "gym_manipulator"}})
    assert notes_of(alone)["policy.num_discrete_actions"].target == "policy.gripper"
    assert "gripper" not in alone.values["dataset"]


@pytest.mark.failure("L06")
def test_the_gripper_penalty_changes_its_sign(load):
    for file, section in (("user_0.3.3.json", "wrapper"), ("user_0.5.json", "processor.gripper"), ("user_0.6.json", "processor.gripper")):
        raw = json.loads((DATA / file).read_text())
        path = f"env.{section}.gripper_penalty"
        imported = load(change(raw, path, -0.02))
        assert TrainConfig.model_validate(imported.values).policy.gripper_cost == 0.02
        assert notes_of(imported)[path].value == -0.02 and "as a cost" in notes_of(imported)[path].reason
        for value in (0.02, -3, "little"):
            with pytest.raises(ConfigError, match="give a number from -1 to 0"):
                load(change(raw, path, value))


@pytest.mark.failure("L07")
def test_compiling_precision_and_storage_arrive(raw, load, dialect):
    section = "algorithm" if dialect == "0.6" else "policy"
    imported = load(change(change(raw, f"{section}.use_torch_compile", True), "policy.use_amp", True))
    learner = TrainConfig.model_validate(imported.values).learner
    assert (learner.execution, learner.precision) == ("auto", "bfloat16")
    note = notes_of(imported)[f"{section}.use_torch_compile"]
    assert note.target == "learner.execution" and "checked against eager" in note.reason
    devices = {"cpu": "cpu", "cuda:1": "cuda", "mps": None}
    for theirs, ours in devices.items():
        imported = load(change(raw, "policy.storage_device", theirs))
        assert imported.values["learner"].get("storage_device") == ours
        assert (notes_of(imported)["policy.storage_device"].status == "unsupported") == (ours is None)


def test_sizes_that_are_fixed_here_are_said_where_the_file_has_others(raw, load):
    for name, ours in {"image_encoder_hidden_dim": 32, "image_embedding_pooling_dim": 8, "shared_encoder": True}.items():
        other = False if ours is True else 2 * ours
        assert notes_of(load(change(raw, f"policy.{name}", ours)))[f"policy.{name}"].status == "no effect"
        assert notes_of(load(change(raw, f"policy.{name}", other)))[f"policy.{name}"].status == "unsupported"


def test_a_folder_as_encoder_needs_no_revision(raw, load):
    encoder = TrainConfig.model_validate(load(change(raw, "policy.vision_encoder_name", "/models/resnet18")).values).encoder
    assert (encoder.type, encoder.model, encoder.is_repository) == ("pretrained", "/models/resnet18", False)
    pinned = load_config(DATA / "user_0.6.json", {"encoder.revision": "0" * 40}).encoder
    assert (pinned.is_repository, pinned.revision) == (True, "0" * 40)
