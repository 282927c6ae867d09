"""`hilserl compare`: runs side by side, in the terminal and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def run_compare(runs: Sequence[str], into: Path) -> None:
    """Print the outcomes and the settings that differ, and write the page.

    Raises:
        ConfigError: A run is missing, or there are too few or too many.
    """
    from rich.console import Console
    from rich.table import Table

    from hilserl.report.compare import comparison_rows, differing_settings, write_comparison
    from hilserl.report.record import RunRecord, find_run

    records = [RunRecord.read(find_run(run)) for run in runs]
    page = write_comparison(records, into)
    for rows in (comparison_rows(records), differing_settings(records)):
        table = Table(*rows[0])
        for row in rows[1:]:
            table.add_row(*row)
        Console().print(table)
    print(page)
