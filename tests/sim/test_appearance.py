"""Light and table change what is seen and nothing else; what is held out is never shown before."""

import numpy as np
import pytest

from hilserl.config import load_config
from hilserl.errors import SimulationError
from hilserl.sim.appearance import sample_appearance, table_texture
from hilserl.sim.attempts import KINDS, Attempt, sample_kind
from hilserl.sim.env import So101Env
from hilserl.success_examples import play_examples


def test_what_is_held_out_is_never_shown_before() -> None:
    rng = np.random.default_rng(0)
    shown, asked = ([sample_appearance(rng, variation) for _ in range(300)] for variation in ("varied", "held_out"))
    assert not {each.table for each in shown} & {each.table for each in asked}
    side = [{round(np.degrees(np.arctan2(each.lamp_direction[1], each.lamp_direction[0]))) for each in group} for group in (shown, asked)]
    assert not side[0] & side[1]
    total = [np.array([sum(each.lamp_rgb) / 3.45 + sum(each.ambient_rgb) / 2.25 for each in group]) for group in (shown, asked)]
    assert ((total[1] < total[0].min() * 0.99) | (total[1] > total[0].max() * 1.01)).all()
    assert all(np.isclose(np.linalg.norm(each.lamp_direction), 1) for each in shown)


def test_a_table_is_known_by_its_number() -> None:
    assert table_texture(3).shape == (512, 512, 3) and not np.array_equal(table_texture(3), table_texture(7))
    again = table_texture.__wrapped__(3)
    np.testing.assert_array_equal(table_texture(3), again)


def test_another_light_changes_pictures_and_not_the_motion() -> None:
    """The renderer's own copy is dressed: the next environment of the process looks as ever."""
    config = load_config("lift")
    plain, other = So101Env(config), So101Env(config.model_copy(update={"task": config.task.model_copy(update={"appearance": "varied"})}))
    try:
        before = plain.reset(seed=1)[0]["observation.images.wrist"]
        first, second = (other.reset(seed=seed)[0]["observation.images.wrist"].astype(int) for seed in (1, 2))
        assert np.abs(first - before).mean() > 3 and np.abs(first - second).mean() > 3
        np.testing.assert_array_equal(other.reset(seed=1)[0]["observation.images.wrist"], first)
        np.testing.assert_array_equal(plain.reset(seed=1)[0]["observation.images.wrist"], before)
    finally:
        plain.close()
        other.close()


@pytest.mark.slow
def test_attempts_are_what_they_are_meant_to_be() -> None:
    """Without pictures, so that it is quick: near misses and misses never succeed here, most liftings do."""
    config = load_config("lift_state", {"robot.cameras": {}, "observation.images": {}})
    for kind, least, most in (("lifted", 3, 4), ("nearly", 0, 0), ("missed", 0, 0), ("empty", 0, 0)):
        episodes = list(play_examples(config, 4, 5, "varied", lambda observation, action, done: None, kinds=lambda rng, kind=kind: kind))
        assert least <= sum(bool(episode.success.any()) for episode in episodes) <= most, kind
        assert all(len(episode.success) == 40 for episode in episodes)


def test_every_kind_is_drawn_and_only_lift_is_known() -> None:
    rng = np.random.default_rng(0)
    assert {sample_kind(rng) for _ in range(500)} == set(KINDS)
    with pytest.raises(SimulationError, match="known for `lift` only"):
        Attempt(load_config("reach"), "lifted", rng)
