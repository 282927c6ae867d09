"""One running actor with a console for many tests, since each start costs seconds."""

import pytest
from console_testing import Page, Playing, page, playing


@pytest.fixture(scope="module")
def shared_game(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HILSERL_HOME", str(tmp_path_factory.mktemp("home")))
        with playing() as game:
            yield game


@pytest.fixture
def game(shared_game) -> Playing:
    """An actor in the middle of an episode, the policy in control, no page open."""
    return shared_game


@pytest.fixture
def operator(game):
    """A page in control of it."""
    with page(game) as one:
        one.control()
        one.do("source", value="console")
        assert one.do("start")["ok"]
        one.do("hand_back")
        one.sees(lambda state: state["control"] == "policy")
        yield one


__all__ = ["Page"]
