"""Every key of LeRobot's HIL-SERL train configurations, and what becomes of it here.

Read from LeRobot 0.6.1's source, from 0.3.3's and 0.5's as published, and from a real project on a
fork that added MuJoCo kinematics and a reset by inverse kinematics (marked "fork"). The dialects
differ in where a key stands, so one table serves them all: a file that mixes them is understood.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Dialect = Literal["0.6", "0.5", "0.3.3"]
DIALECT_TEXT: dict[Dialect, str] = {
    "0.6": "0.6 (`algorithm` and `policy.type: gaussian_actor`)",
    "0.5": "0.3.4 to 0.5 (`policy.type: sac` with `env.processor`)",
    "0.3.3": "up to 0.3.3 (`policy.type: sac` with `env.wrapper`)",
}


@dataclass(frozen=True)
class Rule:
    """What becomes of one key.

    Attributes:
        target: Our key that takes the value as it is; None if there is none.
        reason: Why there is none, or what differs.
        unless: Values that ask for nothing; any other value asks for what we do not have. None: no
            value changes anything here.
        is_part: Taken together with others by `lerobot_parts`, which notes it.
    """

    target: str | None = None
    reason: str = ""
    unless: tuple[Any, ...] | None = None
    is_part: bool = False


def _to(target: str, reason: str = "") -> Rule:
    return Rule(target, reason)


def _ignored(reason: str) -> Rule:
    return Rule(None, reason)


def _missing(reason: str, *unless: Any) -> Rule:
    return Rule(None, reason, unless)


_PART = Rule(is_part=True)

OTHER_ALGORITHMS = {
    "drqv2": "DrQ-v2 is another algorithm (a deterministic actor with scheduled noise and no entropy term)",
    "reward_classifier": "that trains a success classifier, not a policy",
    "tdmpc": "TD-MPC plans with a learned model",
    **dict.fromkeys(
        ("act", "diffusion", "multi_task_dit", "vqbet", "pi0", "pi05", "pi0_fast", "smolvla", "groot", "xvla", "wall_x", "rtc"),
        "that is imitation learning, without reward",
    ),
}

_HUB = _ignored("nothing is sent to the Hub")
_STATS = _ignored("normalisation is computed from the demonstrations and saved in every checkpoint")
_IMITATION = _ignored("only for imitation learning; LeRobot's RL learner does not read it either")
_REAL_ARM = _missing("the simulated arm has none; used when the real arm is driven", None)
_WHEELS = _ignored("drives a robot on wheels")
_CLASSIFIER = _missing(
    "a LeRobot classifier cannot be loaded: train one with `hilserl classifier train`; the simulation itself judges success", None
)
_WANDB = _ignored("runs are tracked with MLflow")
_PROCESSES = _ignored("actor and learner are processes of their own")
_GRIPPER_CRITIC = _ignored("the critic of a discrete gripper has the hidden layers of the others, `policy.hidden_dims`")
_PREFETCH = _ignored("how batches are prepared is the learner's own matter")

# Fields of the algorithm: in `policy` up to 0.5, in `algorithm` since 0.6.
_SAC: dict[str, Rule] = {
    "actor_lr": _to("policy.actor_lr"),
    "critic_lr": _to("policy.critic_lr"),
    "temperature_lr": _to("policy.temperature_lr"),
    "discount": _to("policy.discount"),
    "use_backup_entropy": _to("policy.use_backup_entropy"),
    "critic_target_update_weight": _to("policy.critic_target_update_weight"),
    "num_critics": _to("policy.num_critics"),
    "num_subsample_critics": _to("policy.num_subsample_critics"),
    "temperature_init": _to("policy.temperature_init"),
    "target_entropy": _to("policy.target_entropy"),
    "utd_ratio": _to("policy.utd_ratio", "here it is owed per environment step, exactly; LeRobot's learner runs freely"),
    "grad_clip_norm": _to("policy.grad_clip_norm"),
    "policy_update_freq": _missing("the actor is updated once per environment step, after its critic updates", 1),
    "use_torch_compile": _PART,
    "critic_network_kwargs.hidden_dims": _PART,
    "critic_network_kwargs.activate_final": _missing("hidden layers end with an activation", True),
    "critic_network_kwargs.final_activation": _missing("no activation after the last layer", None),
    "discrete_critic_network_kwargs.hidden_dims": _GRIPPER_CRITIC,
    "discrete_critic_network_kwargs.activate_final": _GRIPPER_CRITIC,
    "discrete_critic_network_kwargs.final_activation": _GRIPPER_CRITIC,
    "use_augmentation": _ignored(  # fork
        "images are always shifted at random: at sampling for a trained encoder, as `encoder.views` stored ones for a frozen one"
    ),
    "augmentation_pad": _missing("images are shifted by up to 4 pixels", 4),  # fork
}

_POLICY: dict[str, Rule] = {
    "type": _ignored("SAC"),
    "n_obs_steps": _missing("one observation per step", 1),
    "device": _to("learner.device"),
    "use_amp": _PART,
    "use_peft": _missing("no adapters", False),
    "push_to_hub": _HUB,
    "repo_id": _HUB,
    "private": _HUB,
    "tags": _HUB,
    "license": _HUB,
    "pretrained_path": _missing("training starts from its own checkpoints only", None),
    "pretrained_revision": _missing("training starts from its own checkpoints only", None),
    "input_features": _PART,
    "output_features": _PART,
    "normalization_mapping": _STATS,
    "dataset_stats": _STATS,
    "storage_device": _PART,
    "vision_encoder_name": _PART,
    "freeze_vision_encoder": _PART,
    "image_encoder_hidden_dim": _missing("LeRobot's CNN is here with its default width", 32),
    "image_embedding_pooling_dim": _missing("the spatial embedding has LeRobot's default number of masks", 8),
    "shared_encoder": _missing("actor and critic share the encoder", True),
    "num_discrete_actions": _PART,
    "state_encoder_hidden_dim": _ignored("LeRobot does not read it either"),
    "latent_dim": _to("policy.latent_dim"),
    "online_steps": _to("policy.online_steps"),
    "online_env_seed": _ignored("the environment is seeded from `seed`"),
    "online_buffer_capacity": _to("policy.online_buffer_capacity"),
    "offline_buffer_capacity": _to("policy.offline_buffer_capacity"),
    "online_step_before_learning": _to("policy.online_step_before_learning"),
    "async_prefetch": _PREFETCH,
    "actor_learner_config.learner_host": _to("link.host"),
    "actor_learner_config.learner_port": _to("link.port"),
    "actor_learner_config.policy_parameters_push_frequency": _to(
        "learner.policy_parameters_push_frequency", "seconds between weight updates"
    ),
    "actor_learner_config.queue_get_timeout": _ignored("the link has its own deadlines"),
    "concurrency.actor": _PROCESSES,
    "concurrency.learner": _PROCESSES,
    "concurrency.multiprocessing_context": _PROCESSES,
    "actor_network_kwargs.hidden_dims": _PART,
    "actor_network_kwargs.activate_final": _missing("hidden layers end with an activation", True),
    "policy_kwargs.use_tanh_squash": _missing("actions are always squashed into [-1, 1]; LeRobot ignores this key", True),
    "policy_kwargs.std_min": _ignored("here the logarithm of the deviation is bounded, to [-5, 2]; LeRobot applies this to a variance"),
    "policy_kwargs.std_max": _ignored("here the logarithm of the deviation is bounded, to [-5, 2]; LeRobot applies this to a variance"),
    "policy_kwargs.init_final": _ignored("the last layers have their own initialisation"),
}

# Fields of the episode: flat in `env.wrapper` up to 0.3.3, in groups of `env.processor` since.
_OBSERVATION: dict[str, Rule] = {
    "add_joint_velocity_to_observation": _PART,
    "add_current_to_observation": _PART,
    "add_ee_pose_to_observation": _PART,
    "add_full_proprioception": _PART,  # fork
    "display_cameras": _ignored("no windows are opened"),
    "use_radians": _missing("angles are in radians", True),  # fork
    "normalize_images": _ignored("images are uint8 until they are on the training device"),  # fork
    "display_reward_preview": _ignored("no windows are opened"),  # fork
}
_IMAGES: dict[str, Rule] = {"crop_params_dict": _PART, "resize_size": _PART}
_GRIPPER: dict[str, Rule] = {
    "use_gripper": _PART,
    "gripper_penalty": _PART,
    "gripper_penalty_in_reward": _missing("the penalty is taken in the loss, and never in the recorded reward", False),
    "gripper_quantization_threshold": _missing("a gripper with classes is `policy.num_discrete_actions: 3`", None),
}
_RESET: dict[str, Rule] = {
    "control_time_s": _to("task.control_time_s"),
    "fixed_reset_joint_positions": _missing("the reset pose is a tool position, `robot.reset_ee_pos_m`", None),
    "reset_time_s": _ignored("the simulation resets at once; LeRobot 0.6 does not read it either"),
    "reset_delay_s": _ignored("the simulation resets at once"),  # fork
    "terminate_on_success": _missing("success ends the episode", True),
    "use_ik_reset": _missing("the reset goes to a tool position", True),  # fork
    "ik_reset_ee_pos": _PART,  # fork
    "random_ee_reset": _PART,  # fork
    "random_ee_range_xy": _PART,  # fork
    "random_ee_range_z": _PART,  # fork
}
_CONTROL_MODE = {"control_mode": _PART}
_MODEL = _ignored("the kinematics of the SO-101 is built in")
# In the robot up to 0.3.3, in `processor.inverse_kinematics` since.
_KINEMATICS: dict[str, Rule] = {
    "urdf_path": _MODEL,
    "target_frame_name": _MODEL,
    "end_effector_bounds": _PART,
    "end_effector_step_sizes": _PART,
}

_ENV: dict[str, Rule] = {
    "type": _missing("only `gym_manipulator`, LeRobot's real arm", "gym_manipulator"),
    "name": _ignored("a label"),
    "task": _ignored("a label; the simulated task follows from the action (3 dimensions: `reach`, 4: `lift`)"),
    "fps": _to("robot.control_hz"),
    "features": _ignored("follows from `policy.input_features`"),
    "features_map": _ignored("cameras keep their names"),
    "max_parallel_tasks": _ignored("one arm"),
    "disable_env_checker": _ignored("a switch of gymnasium"),
    "robot.type": _PART,
    "robot.id": _to("robot.id"),
    "robot.port": _to("robot.port"),
    "robot.calibration_dir": _to("robot.calibration_dir"),
    "robot.disable_torque_on_disconnect": _missing("the simulated arm has no torque to switch off", True),
    "robot.max_relative_target": _REAL_ARM,
    "robot.use_degrees": _missing("LeRobot's unit on the wire; angles are radians here", True),
    "robot.position_p_coefficient": _REAL_ARM,
    "robot.position_i_coefficient": _REAL_ARM,
    "robot.position_d_coefficient": _REAL_ARM,
    "robot.num_read_retries": _REAL_ARM,
    "robot.max_gripper_pos": _PART,
    "robot.action_scale": _PART,  # fork
    "robot.mujoco_model_path": _MODEL,  # fork
    "robot.end_effector_site": _MODEL,  # fork
    "robot.ik_damping": _ignored("the kinematics has its own damping; 0.1 delivers only 50-80 % of a commanded step"),  # fork
    "robot.ik_max_dq": _ignored("the kinematics has its own limit per step"),  # fork
    "robot.locked_joints": _missing("no joint can be locked yet", None, []),  # fork
    "robot.locked_joint_positions": _missing("no joint can be locked yet", None, {}),  # fork
    "robot.cameras.*.type": _REAL_ARM,
    "robot.cameras.*.index_or_path": _REAL_ARM,
    "robot.cameras.*.fps": _ignored("a simulated camera renders on demand"),
    "robot.cameras.*.color_mode": _missing("images are RGB", "rgb"),
    "robot.cameras.*.rotation": _missing("frames are not rotated", 0, None),
    "robot.cameras.*.warmup_s": _REAL_ARM,
    "robot.cameras.*.fourcc": _REAL_ARM,
    "robot.cameras.*.backend": _REAL_ARM,
    "robot.cameras.*.serial_number_or_name": _REAL_ARM,
    "robot.cameras.*.use_rgb": _missing("images are RGB", True),
    "robot.cameras.*.use_depth": _missing("no depth images", False),
    "robot.cameras.*.exposure": _REAL_ARM,
    "robot.cameras.*.gain": _REAL_ARM,
    "robot.cameras.*.white_balance": _REAL_ARM,
    "robot.cameras.*.width": _PART,
    "robot.cameras.*.height": _PART,
    "teleop.type": _PART,
    "teleop.id": _REAL_ARM,
    "teleop.port": _REAL_ARM,
    "teleop.calibration_dir": _REAL_ARM,
    "teleop.use_degrees": _missing("LeRobot's unit on the wire; angles are radians here", True),
    "teleop.num_read_retries": _REAL_ARM,
    "teleop.use_gripper": _REAL_ARM,
    "teleop.hidapi_fallback": _REAL_ARM,
    "teleop.mock": _ignored("a switch of LeRobot's own tests"),
    **{f"teleop.{key}": _WHEELS for key in ("linear_speed", "angular_speed", "speed_increment", "turn_assist_ratio")},
    **{f"teleop.{key}": _WHEELS for key in ("angular_speed_ratio", "min_linear_speed", "min_angular_speed")},
    "processor.max_gripper_pos": _PART,
    "processor.reward_classifier.pretrained_path": _CLASSIFIER,
    "processor.reward_classifier.repo_id": _CLASSIFIER,  # fork
    "wrapper.reward_classifier.repo_id": _CLASSIFIER,  # fork
    "reward_classifier.repo_id": _CLASSIFIER,  # fork
    "processor.reward_classifier.success_threshold": _ignored("the threshold is part of our classifier"),
    "processor.reward_classifier.success_reward": _missing("a success pays 1", 1),
    # Up to 0.3.3 the environment was also the recorder.
    "mode": _missing("this is a training configuration", None),
    "repo_id": _ignored("recording"),
    "dataset_root": _ignored("recording"),
    "num_episodes": _ignored("recording"),
    "episode": _ignored("recording"),
    "device": _ignored("the environment needs no device"),
    "push_to_hub": _HUB,
    "pretrained_policy_name_or_path": _missing("training starts from its own checkpoints only", None),
    "reward_classifier_pretrained_path": _CLASSIFIER,
    "number_of_steps_after_success": _missing("success ends the episode", 0),
}

_DATASET: dict[str, Rule] = {
    "repo_id": _PART,
    "root": _PART,
    "repo_type": _missing("a folder on this machine", "dataset"),
    "episodes": _PART,
    "revision": _missing("the folder is used as it is", None),
    "video_backend": _ignored("PyAV decodes, each frame once; torchcodec is not needed"),
    "use_imagenet_stats": _STATS,
    "return_uint8": _ignored("images are uint8 until they are on the training device"),
    "image_transforms.**": _IMITATION,
    "depth_output_unit": _IMITATION,
    "streaming": _missing("the dataset is read once, into the buffer", False),
    "eval_split": _IMITATION,
    "task": _ignored("recording"),
}

_TOP: dict[str, Rule] = {
    "output_dir": _ignored("everything is written under HILSERL_HOME"),
    "job_name": _PART,
    "resume": _ignored("a run resumes by its name, and only if a checkpoint exists"),
    "checkpoint_path": _ignored("LeRobot fills it itself"),
    "seed": _to("seed"),
    "batch_size": _to("policy.batch_size", "half online, half demonstrations, as in LeRobot"),
    "steps": _ignored("LeRobot's RL learner does not read it; the length is `policy.online_steps`"),
    "log_freq": _ignored("metrics are written every two seconds"),
    "eval_freq": _ignored("LeRobot's RL learner does not read it; see `actor.evaluate_every_steps`"),
    "env_eval_freq": _ignored("LeRobot's RL learner does not read it; see `actor.evaluate_every_steps`"),
    "save_checkpoint": _missing("checkpoints are always saved", True),
    "save_freq": _to("learner.save_freq", "environment steps here; optimisation steps in LeRobot"),
    "num_workers": _PREFETCH,
    "prefetch_factor": _PREFETCH,
    "persistent_workers": _PREFETCH,
    "dataloader_multiprocessing_context": _PREFETCH,
    "tolerance_s": _ignored("time stamps are checked by validation"),
    "cudnn_deterministic": _ignored("not used"),
    "mixer": _missing("half online, half demonstrations", "online_offline"),
    "online_ratio": _to("policy.online_ratio"),
    "wandb.enable": _missing("runs are tracked with MLflow", False),
    **{f"wandb.{key}": _WANDB for key in ("project", "entity", "notes", "run_id", "mode", "disable_artifact", "add_tags")},
    "save_checkpoint_to_hub": _HUB,
    "use_policy_training_preset": _IMITATION,
    "eval_steps": _IMITATION,
    "max_eval_samples": _IMITATION,
    "optimizer": _IMITATION,
    "scheduler": _IMITATION,
    **{f"eval.{key}": _ignored("see `evaluation`") for key in ("n_episodes", "batch_size", "use_async_envs")},
    **{f"eval.{key}": _ignored("see `evaluation`") for key in ("recording", "recording_repo_id", "recording_private")},
    "peft": _IMITATION,
    **{f"job.{key}": _ignored("runs are started through Prefect") for key in ("target", "image", "timeout", "detach", "tags")},
    "sample_weighting": _IMITATION,
    **{key: _IMITATION for key in ("use_rabc", "rabc_progress_path", "rabc_kappa", "rabc_epsilon", "rabc_head_mode")},
    "reward_model": _missing("that trains a success classifier", None),
    "rename_map": _missing("cameras keep their names", None, {}),
    "algorithm.type": _ignored("SAC"),
    "algorithm.policy_config": _ignored("LeRobot fills it itself"),
}


def _under(prefix: str, *groups: dict[str, Rule]) -> dict[str, Rule]:
    return {f"{prefix}.{key}": rule for group in groups for key, rule in group.items()}


RULES: dict[str, Rule] = (
    _TOP
    | _under("policy", _POLICY, _SAC)
    | _under("algorithm", _SAC)
    | _under("dataset", _DATASET)
    | _under("env", _ENV)
    | _under("env.robot", _KINEMATICS)
    | _under("env.wrapper", _CONTROL_MODE, _OBSERVATION, _IMAGES, _GRIPPER, _RESET)
    | _under("env.processor", _CONTROL_MODE)
    | _under("env.processor.observation", _OBSERVATION)
    | _under("env.processor.image_preprocessing", _IMAGES)
    | _under("env.processor.gripper", _GRIPPER)
    | _under("env.processor.reset", _RESET)
    | _under("env.processor.inverse_kinematics", _KINEMATICS)
)

# Key of LeRobot -> (our key, LeRobot's default), where the defaults differ: said when the file is silent.
DEFAULTS: dict[str, tuple[str, Any]] = {
    "batch_size": ("policy.batch_size", 8),
    "discount": ("policy.discount", 0.99),
    "temperature_init": ("policy.temperature_init", 1.0),
    "use_backup_entropy": ("policy.use_backup_entropy", True),
    "utd_ratio": ("policy.utd_ratio", 1),
    "latent_dim": ("policy.latent_dim", 256),
    "online_steps": ("policy.online_steps", 1_000_000),
    "offline_buffer_capacity": ("policy.offline_buffer_capacity", 100_000),
    "learner_port": ("link.port", 50051),
    "policy_parameters_push_frequency": ("learner.policy_parameters_push_frequency", 4),
    "save_freq": ("learner.save_freq", 20_000),
    "seed": ("seed", 1000),
    "fps": ("robot.control_hz", 30),
    "control_time_s": ("task.control_time_s", 20.0),
}
