"""The link's token from Prefect's Secret block, for hosts that share no folder. It never passes through parameters or logs."""

from __future__ import annotations

import logging
import os

import httpx
from prefect.blocks.system import Secret

from hilserl.link.auth import TOKEN_VARIABLE
from tasks.server import has_server

logger = logging.getLogger(__name__)

BLOCK = "hilserl-link-token"


def take_token_from_block() -> None:
    """Put the block's token into this process's environment, where the link looks first; without the block nothing changes."""
    if TOKEN_VARIABLE in os.environ or not has_server():
        return
    try:
        os.environ[TOKEN_VARIABLE] = str(Secret.load(BLOCK).get())  # type: ignore[union-attr]
    except ValueError:
        return  # there is no such block: the run's token file is used
    except httpx.HTTPError as error:
        logger.warning("The block `%s` could not be looked up (%r); the run's token file is used.", BLOCK, error)
