"""Classes of installed packages, run from their source: importing all of transformers or LeRobot takes half a minute."""

import ast
import importlib.util
from pathlib import Path
from typing import Any


def classes_of(package: str, file: str, names: list[str], namespace: dict[str, Any]) -> dict[str, Any]:
    """Execute the named classes of one file of an installed package, and nothing else of it, in `namespace`."""
    source = Path(importlib.util.find_spec(package).origin).parent / file
    body = [node for node in ast.parse(source.read_text()).body if isinstance(node, ast.ClassDef) and node.name in names]
    assert {node.name for node in body} == set(names)
    exec(compile(ast.Module(body, []), str(source), "exec"), namespace)
    return namespace
