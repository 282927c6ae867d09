from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from export_helpers import make_source_in

from hilserl.export.source import PolicySource


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_source(tmp_path: Path) -> Callable[..., PolicySource]:
    return partial(make_source_in, tmp_path / "policy")
