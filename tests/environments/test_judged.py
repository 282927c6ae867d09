"""Who says success: a classifier or a person in the simulator's place, and what speaks against a classifier."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from hilserl.config import load_config
from hilserl.config.models import TrainConfig
from hilserl.data.preprocess import CameraView
from hilserl.environments.judged import (
    ClassifierJudge,
    JudgedEnvironment,
    PersonJudge,
    open_judge,
    unjudged,
)
from hilserl.environments.make import make_environment
from hilserl.environments.named_classifier import check_classifier, misfits, resolve_success
from hilserl.errors import CheckpointError, ConfigError, SimulationError
from hilserl.reward.classifier import SuccessClassifier
from hilserl.reward.disagreements import Disagreements
from hilserl.reward.network import SuccessNetwork
from hilserl.sim.expert import ScriptedExpert

SIZE = (32, 32)
LIT, DARK = (np.full((*SIZE, 3), value, np.uint8) for value in (255, 0))


class Lamp(SuccessClassifier):
    """Sees success where the picture is bright; the debounce and everything around it are real."""

    def probabilities(self, frames: Any) -> np.ndarray:
        return frames[self.cameras[0]].mean((1, 2, 3)).astype(np.float32) / 255


class Film(gymnasium.Env):
    """Shows `#` as a bright picture; ends only with the film."""

    def __init__(self, film: str) -> None:
        self.film, self.at = film, 0
        self.observation_space, self.action_space = gymnasium.spaces.Dict({}), gymnasium.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.at = 0
        return {"observation.images.wrist": DARK}, {"is_success": False}

    def step(self, action: Any) -> Any:
        picture = LIT if self.film[self.at] == "#" else DARK
        self.at += 1
        return {"observation.images.wrist": picture}, 0.0, False, self.at == len(self.film), {"is_success": False}


def classifier_of(kind: type[SuccessClassifier] = SuccessClassifier, **changes: Any) -> SuccessClassifier:
    view = CameraView(SIZE, (0, 0, *SIZE), SIZE)
    settings = {"threshold": 0.5, "hold_frames": 3, "training": {}} | changes
    return kind(SuccessNetwork({"wrist": SIZE}, channels=8, hidden=8), {"wrist": view}, **settings)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    classifier_of().save(tmp_path / "classifier")
    return tmp_path / "classifier"


def config_of(folder: Path | str | None = None, name: str = "lift", **changes: Any) -> TrainConfig:
    success = {} if folder is None else {"task.success.classifier": str(folder)}
    return load_config(
        name, {"robot.cameras.wrist": {"width": 32, "height": 32}, "observation.images.wrist.resize": [32, 32]} | success | changes
    )


def play(film: str, disagreements: Disagreements | None = None) -> tuple[list[float], list[bool], JudgedEnvironment]:
    config = config_of()
    environment = JudgedEnvironment(Film(film), config, ClassifierJudge(classifier_of(Lamp), config), disagreements)
    environment.reset(seed=0)
    rewards, ends = [], []
    while not (ends and ends[-1]):
        _, reward, terminated, truncated, info = environment.step(np.zeros(1, np.float32))
        assert info["is_success"] == terminated and info["judged_by"] == "classifier" and info["success_threshold"] == 0.5
        rewards.append(reward)
        ends.append(terminated or truncated)
    return rewards, ends, environment


@pytest.mark.failure("L20")
@pytest.mark.failure("L13")
@pytest.mark.parametrize(
    ("film", "steps", "paid"),
    [
        ("..#..##..#.#", 12, 0.0),  # flickers neither pay nor end
        ("...########", 6, 1.0),  # pays once, with its third frame, and that is the end of it
        ("..##.####..", 8, 1.0),
    ],
)
def test_success_that_lasts_pays_once_and_ends_the_episode(film: str, steps: int, paid: float) -> None:
    rewards, _, environment = play(film)
    assert len(rewards) == steps and sum(rewards) == paid == sum(value > 0 for value in rewards)
    with pytest.raises(SimulationError, match="after the end"):
        environment.step(np.zeros(1, np.float32))
    environment.reset()
    assert environment.step(np.zeros(1, np.float32))[4]["is_success"] is False  # what was held in the last episode is forgotten


def test_the_arm_gets_the_verdicts_that_a_recording_of_it_would_get() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (40, *SIZE, 3), dtype=np.uint8)
    classifier = classifier_of(hold_frames=2)
    classifier.threshold = float(np.median(classifier.probabilities({"wrist": frames})))
    recorded = classifier.judge([{"wrist": frame} for frame in frames]).success.tolist()
    judge = ClassifierJudge(classifier, config_of())
    assert True in recorded and False in recorded
    for _ in range(2):  # an episode begins anew
        judge.begin()
        assert [judge.see({"observation.images.wrist": frame})[0] for frame in frames] == recorded


@pytest.mark.failure("L19")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"robot.cameras": {"top": {}}, "observation.images": {"top": {}}}, r"looks at camera `wrist`, the robot has \['top', 'wrist'\]"),
        ({"robot.cameras.wrist": {"width": 64, "height": 48}}, r"delivers 48x64 px \(height x width\), learned from 32x32"),
        ({"observation.images.wrist": {"crop": [0, 0, 32, 24], "resize": [24, 24]}}, r"crop \[0, 0, 32, 32\].*the policy \[0, 0, 32, 24\]"),
    ],
)
def test_a_classifier_of_another_camera_size_or_crop_is_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    if "top" in message:  # `robot.cameras` is merged: look at a camera that is not there
        problems = misfits(_of_camera("side").views, (), config_of(folder, **changes))
        assert problems and "looks at camera `side`, the robot has ['top', 'wrist']" in problems[0]
        return
    with pytest.raises(ConfigError, match=message):
        make_environment(config_of(folder, **changes))


def _of_camera(name: str) -> SuccessClassifier:
    return SuccessClassifier(
        SuccessNetwork({name: SIZE}, channels=8, hidden=8),
        {name: CameraView(SIZE, (0, 0, *SIZE), SIZE)},
        threshold=0.5,
        hold_frames=1,
        training={},
    )


def _held_out(right: int, wrong: int) -> dict[str, Any]:
    counts = {"true_positives": right, "false_positives": wrong, "false_negatives": wrong, "true_negatives": right}
    return {"validation": {"frames": counts, "episodes": counts, "early": 0, "flickers": 0}, "remarks": ["beware"]}


@pytest.mark.failure("L19")
def test_a_classifier_that_does_not_know_success_judges_only_where_somebody_insists(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level("INFO")
    classifier_of(training=_held_out(63, 37)).save(tmp_path / "poor")
    with pytest.raises(ConfigError, match=r"balanced accuracy 63%.*75% is the least.*accept_poor_classifier: true"):
        make_environment(config_of(tmp_path / "poor"))
    open_judge(config_of(tmp_path / "poor", **{"task.success.accept_poor_classifier": True}))
    assert caplog.records[0].levelname == "WARNING" and "63 % of frames" in caplog.text and "beware" in caplog.text
    frames_are_right = _held_out(93, 7)
    frames_are_right["validation"]["episodes"] = {"true_positives": 3, "false_positives": 3, "false_negatives": 0, "true_negatives": 4}
    classifier_of(training=frames_are_right).save(tmp_path / "pays")
    with pytest.raises(ConfigError, match=r"pays for failures: it rewards 3 of 7 held-out episodes that failed.*accept_poor_classifier"):
        make_environment(config_of(tmp_path / "pays"))
    open_judge(config_of(tmp_path / "pays", **{"task.success.accept_poor_classifier": True}))
    caplog.clear()
    classifier_of(training=_held_out(9, 1)).save(tmp_path / "good")
    caplog.clear()
    open_judge(config_of(tmp_path / "good"))
    assert caplog.records[0].levelname == "INFO" and "90 % of frames; 18 of 20 episodes right, 1 failures called" in caplog.text
    classifier_of().save(tmp_path / "unknown")
    caplog.clear()
    open_judge(config_of(tmp_path / "unknown"))
    assert caplog.records[0].levelname == "WARNING" and "nothing says how good it is" in caplog.text
    assert check_classifier(config_of()) is None


def test_another_crop_can_be_meant(folder: Path) -> None:
    changes = {"observation.images.wrist": {"crop": [0, 0, 32, 24], "resize": [24, 24]}, "task.success.other_crop": True}
    assert isinstance(open_judge(config_of(folder, **changes)), ClassifierJudge)


def test_a_missing_classifier_stops_before_anything_is_connected(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"task\.success\.classifier: .*no such folder"):
        make_environment(config_of(tmp_path / "none"))


def test_in_simulation_the_truth_is_reported_and_ends_nothing(folder: Path, own_home: Path) -> None:
    """An untrained classifier with a threshold that it never reaches: the cube is lifted, and the episode goes on to its end."""
    strict = SuccessClassifier.load(folder)
    strict.threshold = 0.999999
    strict.save(folder)
    config = config_of(folder, **{"task.control_time_s": 3})
    environment, expert = make_environment(config), ScriptedExpert(config)
    try:
        assert isinstance(environment, JudgedEnvironment)
        environment.reset(seed=3)
        truths, ended, steps = [], False, 0
        while not ended:
            _, reward, terminated, truncated, info = environment.step(expert.action(environment.privileged_state))
            assert not terminated and reward == 0 and not info["is_success"]
            truths.append(info["true_success"])
            ended, steps = truncated, steps + 1
        assert steps == config.episode_steps and truths[-1] and not truths[0] and truths == sorted(truths)
    finally:
        environment.close()
    kept = Disagreements(own_home / "disagreements" / "lift").entries()
    assert kept and all(entry.human_says and entry.is_truth and entry.probability < 0.999999 for entry in kept)
    assert kept[0].image("wrist").shape == (*SIZE, 3) and kept[0].classifier == strict.version


def test_a_camera_of_the_classifier_alone_is_opened_for_it() -> None:
    two = SuccessClassifier(
        SuccessNetwork({"front": SIZE, "wrist": SIZE}, channels=8, hidden=8),
        {name: CameraView(SIZE, (0, 0, *SIZE), SIZE) for name in ("front", "wrist")},
        threshold=0.5, hold_frames=1, training={},
    )  # fmt: skip
    config = config_of(**{"robot.cameras.front": {"width": 32, "height": 32}})
    inside = unjudged(config, ClassifierJudge(two, config))
    assert sorted(inside.observation.images) == ["front", "wrist"] and sorted(config.observation.images) == ["wrist"]


def test_who_judges_where_nothing_is_said() -> None:
    assert config_of().success_by == "simulator" and config_of("somewhere").success_by == "classifier"
    assert config_of(**{"task.success.by": "human"}).success_by == "human"
    assert isinstance(open_judge(config_of(**{"task.success.by": "human"})), PersonJudge)
    assert PersonJudge().see({}) == (False, {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task.classifier": "somewhere"}, r"task\.success\.classifier"),
        ({"task.success.by": "classifier"}, "name its folder"),
        ({"task.success": {"by": "human", "classifier": "x"}}, "leave one of them out"),
        ({"task.success.by": "human", "task.reward": "shaped"}, "set `sparse`"),
    ],
)
def test_contradictions_are_found_when_the_configuration_is_read(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(**changes)


def test_what_a_person_says_otherwise_is_kept(tmp_path: Path) -> None:
    store = Disagreements(tmp_path / "kept")
    *_, environment = play("......", store)
    environment.contradicted(True, 7, 5)
    environment.close()
    (entry,) = Disagreements(tmp_path / "kept").entries()
    assert (entry.human_says, entry.episode, entry.step, entry.probability, entry.is_truth) == (True, 7, 5, 0.0, False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
def test_an_alias_means_one_version_for_the_whole_run(folder: Path, own_home: Path) -> None:
    from hilserl.tracking.registry import register, set_alias

    name = "hilserl-lift-classifier"
    version = register(name, folder, run_id=None, tags={}, description="")
    set_alias(name, "champion", version.version)
    config = resolve_success(config_of(f"models:/{name}@champion"))
    assert config.task.success.classifier == f"models:/{name}/1"
    judge = open_judge(config)
    assert isinstance(judge, ClassifierJudge) and judge.classifier.version == SuccessClassifier.load(folder).version
