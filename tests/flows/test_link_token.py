"""The link's token comes from Prefect's Secret block where there is one, and the environment wins."""

from __future__ import annotations

import os

import pytest

from hilserl.link.auth import TOKEN_VARIABLE
from tasks.link_token import BLOCK, take_token_from_block

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_the_block_is_used_where_the_environment_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.blocks.system import Secret

    monkeypatch.setenv(TOKEN_VARIABLE, "")  # so that the test's own change is undone
    monkeypatch.delenv(TOKEN_VARIABLE)
    take_token_from_block()
    assert TOKEN_VARIABLE not in os.environ
    Secret(value="a-token-of-enough-characters").save(BLOCK)
    take_token_from_block()
    assert os.environ[TOKEN_VARIABLE] == "a-token-of-enough-characters"
    monkeypatch.setenv(TOKEN_VARIABLE, "another-one-of-enough-characters")
    take_token_from_block()
    assert os.environ[TOKEN_VARIABLE] == "another-one-of-enough-characters"
