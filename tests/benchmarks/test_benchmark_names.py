"""Benchmarks run rarely: what they use of hilserl must still be there, or they break years later, in the middle of the night."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = sorted((Path(__file__).resolve().parents[2] / "benchmarks").glob("*.py"))


def gone(source: str) -> Iterator[str]:
    """Yield what a file imports from hilserl, or reads of its modules, and what is not there."""
    modules: dict[str, ModuleType] = {}
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hilserl":
            parent = node.module or ""
            module = importlib.import_module(parent)
            for name in node.names:
                try:
                    found = getattr(module, name.name) if hasattr(module, name.name) else importlib.import_module(f"{parent}.{name.name}")
                except ModuleNotFoundError:
                    yield f"line {node.lineno}: {parent}.{name.name}"
                    continue
                if isinstance(found, ModuleType):
                    modules[name.asname or name.name] = found
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            module = modules[node.value.id]
            if not hasattr(module, node.attr) or node.attr.startswith("_"):
                yield f"line {node.lineno}: {module.__name__}.{node.attr}"


@pytest.mark.parametrize("file", BENCHMARKS, ids=lambda file: file.stem)
def test_what_a_benchmark_uses_is_there_and_public(file: Path) -> None:
    assert list(gone(file.read_text())) == []


def test_what_is_gone_is_found() -> None:
    source = "from hilserl.learner import checkpoint as kept\nfrom hilserl.errors import NoSuch\nkept._load(1)\nkept.load_checkpoint\n"
    assert list(gone(source)) == ["line 2: hilserl.errors.NoSuch", "line 3: hilserl.learner.checkpoint._load"]
