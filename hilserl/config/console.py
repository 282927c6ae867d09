"""The operator's console: whether there is one, and where it listens."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hilserl.config.base import Model


class ConsoleConfig(Model):
    """The page from which a person watches and commands the actor."""

    enable: bool = Field(False, description="Serve it; `--console` does the same")
    host: str = Field(
        "127.0.0.1",
        description="Address of the robot's host at which it listens; anything but loopback needs a certificate "
        "(`hilserl certificates create --console NAME`), and a token, which is made at the first start",
    )
    port: Annotated[int, Field(ge=0, le=65_535, description="Where it is taken, the next free one of 20; 0: any")] = 8400
    wait_for_start: bool = Field(False, description="Nothing moves before somebody says `start` on the page")
    ask_before_evaluation: bool = Field(False, description="An evaluation that is due waits until somebody approves it; training goes on")
    replays: Annotated[int, Field(ge=0, le=200, description="Last episodes that are kept to be looked at")] = 20
