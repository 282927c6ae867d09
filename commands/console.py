"""`hilserl console`: where the operator's consoles of this machine are."""

from __future__ import annotations

import webbrowser

from hilserl.errors import ServiceError


def run_console(robot: str | None, *, browser: bool) -> None:
    """Print the address of each console, with its token where it has one.

    Raises:
        ServiceError: There is none.
    """
    from hilserl.console.process import page_address, running_consoles

    found = [entry for entry in running_consoles() if robot in (None, entry["robot"])]
    if not found:
        raise ServiceError(
            f"no console{f' of robot `{robot}`' if robot else ''} runs here. `hilserl demo --console`, `hilserl train ... --console` and "
            "`hilserl record ... --console` serve one; with `hilserl up`, set `console.enable: true` in the run's configuration."
        )
    for entry in found:
        print(f"{entry['robot']:20}  {entry['mode']:8}  {entry['run']:40}  {page_address(entry)}")
        if browser:
            webbrowser.open(page_address(entry))
