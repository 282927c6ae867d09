import stat
from pathlib import Path

import pytest

from hilserl.errors import TransportError
from hilserl.link.auth import TOKEN_VARIABLE, check_token, create_token, read_token


@pytest.fixture(autouse=True)
def _no_token_in_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


def test_a_token_is_new_each_time_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    file = tmp_path / "run" / "token"
    first = create_token(file)
    assert read_token(file) == first
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert create_token(file) != first
    assert [path.name for path in file.parent.iterdir()] == ["token"]


def test_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_token(tmp_path / "token")
    monkeypatch.setenv(TOKEN_VARIABLE, "from-the-environment")
    assert read_token(tmp_path / "token") == "from-the-environment"
    monkeypatch.setenv(TOKEN_VARIABLE, "short")
    with pytest.raises(TransportError, match=f"{TOKEN_VARIABLE}: a link token has 16 to 512"):
        read_token(tmp_path / "token")


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    create_token(file)
    file.chmod(0o640)
    with pytest.raises(TransportError, match=r"mode 640.*chmod 600"):
        read_token(file)


def test_a_missing_file_says_where_a_token_comes_from(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="Start the learner first"):
        read_token(tmp_path / "token")


@pytest.mark.parametrize("token", ["short", "with a space in the middle", "ümläuts-are-not-ascii", "x" * 513])
def test_what_cannot_be_a_token_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(TransportError) as error:
        check_token(token, "here")
    assert token not in str(error.value)
