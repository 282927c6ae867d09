"""One Prefect server for all tests of this folder, with a result cache of its own."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    from prefect.settings import PREFECT_HOME, PREFECT_LOCAL_STORAGE_PATH, PREFECT_LOGGING_LEVEL, temporary_settings
    from prefect.testing.utilities import prefect_test_harness  # its module imports the whole server

    folder = tmp_path_factory.mktemp("prefect")
    settings = {PREFECT_HOME: folder, PREFECT_LOCAL_STORAGE_PATH: folder / "storage", PREFECT_LOGGING_LEVEL: "ERROR"}
    with temporary_settings(settings), prefect_test_harness(server_startup_timeout=180):
        yield
