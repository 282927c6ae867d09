import multiprocessing

import pytest
from pipeline_testing import make_tiny_config

from hilserl.errors import CheckpointError
from hilserl.runs import RunFolder


@pytest.fixture(autouse=True)
def home(own_home):
    return own_home


def test_an_unfinished_run_of_the_same_configuration_continues(tiny_config) -> None:
    run, continued = RunFolder.open(tiny_config)
    assert not continued and run.run_id == f"tiny-{run.path.name}"
    again, continued = RunFolder.open(tiny_config)
    assert continued and again == run
    run.update(status="trained")  # not evaluated yet: still to continue
    assert RunFolder.open(tiny_config) == (run, True)
    run.update(status="finished")
    other, continued = RunFolder.open(tiny_config)
    assert not continued and other != run


def test_fresh_and_other_configurations_start_anew(tiny_config) -> None:
    run, _ = RunFolder.open(tiny_config)
    fresh, continued = RunFolder.open(tiny_config, fresh=True)
    assert not continued and fresh != run
    for change in ({"policy__utd_ratio": 3}, {"seed": 5}, {"dataset__record__noise": 0.1}):
        other, continued = RunFolder.open(make_tiny_config(**change))
        assert not continued and other not in (run, fresh), change


def test_a_retried_flow_run_continues_its_own_run_whatever_else_there_is(tiny_config) -> None:
    own, _ = RunFolder.open(tiny_config, fresh=True, flow_run_id="flow-1")
    other, _ = RunFolder.open(tiny_config, fresh=True, flow_run_id="flow-2")
    assert own != other
    assert RunFolder.open(tiny_config, fresh=True, flow_run_id="flow-1") == (own, True)
    own.update(status="finished")
    assert RunFolder.open(tiny_config, flow_run_id="flow-1") == (own, True)
    continued, _ = RunFolder.open(tiny_config, flow_run_id="flow-3")
    assert continued == other and other.facts()["flow_run_id"] == "flow-3"
    changed, is_continued = RunFolder.open(make_tiny_config(policy__utd_ratio=3), flow_run_id="flow-3")
    assert not is_continued and changed not in (own, other)


def test_settings_that_do_not_change_what_is_learned_do_not_start_anew(tiny_config) -> None:
    run, _ = RunFolder.open(tiny_config)
    assert RunFolder.open(make_tiny_config(evaluation__episodes=7, link__port=4711)) == (run, True)


def test_a_run_in_training_is_neither_continued_nor_shared(tiny_config) -> None:
    run, _ = RunFolder.open(tiny_config)
    with run.locked():
        other, continued = RunFolder.open(tiny_config)
        assert not continued and other != run
        with pytest.raises(CheckpointError, match="another learner"), run.locked():
            pass
    with run.locked():
        pass


def test_a_timeout_of_the_training_is_not_taken_for_the_lock(tiny_config) -> None:
    run, _ = RunFolder.open(tiny_config)
    with pytest.raises(TimeoutError, match="a socket"), run.locked():
        raise TimeoutError("a socket")


@pytest.mark.parametrize("content", ["", '{"identity": "abc", "sta', "[1, 2]", "null"])
def test_a_damaged_run_file_starts_a_new_run_and_says_so_when_used(tiny_config, content) -> None:
    run, _ = RunFolder.open(tiny_config)
    (run.path / "run.json").write_text(content)
    other, continued = RunFolder.open(tiny_config)
    assert not continued and other != run
    with pytest.raises(CheckpointError, match="missing or damaged"):
        _ = run.run_id


def open_many(config, count: int) -> list[str]:
    return [str(RunFolder.open(config, fresh=True)[0].path) for _ in range(count)]


def test_runs_opened_at_the_same_moment_get_folders_of_their_own(tiny_config) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        opened = pool.starmap(open_many, [(tiny_config, 15)] * 4)
    paths = [path for part in opened for path in part]
    assert len(set(paths)) == len(paths) == 60
