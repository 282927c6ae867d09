"""The import direction: flows -> tasks -> hilserl, and inside hilserl from the loops down to the base.

Held by reading the source, so that a wrong import fails here and not as a cycle in three months.
"""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("hilserl", "tasks", "flows")

BASE = {"errors", "files", "hash_memo", "intervals", "progress", "schema", "config", "telemetry", "threads"}
BELOW_THE_LOOPS = BASE | {
    "data",
    "sac",
    "vision",
    "link",
    "robot",
    "sim",
    "teleop",
    "joints",
    "tracking",
    "runs",
    "policy",
    "pretraining",
    "evaluation",
    "environments",
}

# What each room of hilserl may import. A new room is added here, with as little as it needs.
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "progress": set(),
    "telemetry": set(),
    "threads": set(),
    "files": {"errors"},
    "hash_memo": {"errors", "files"},
    "intervals": set(),
    "config": {"errors"},
    "schema": {"config", "errors", "files"},
    "data": BASE,
    "vision": BASE,
    "sac": BASE | {"vision"},
    "link": BASE,
    "robot": BASE,
    "tracking": BASE | {"link"},  # its journal
    "runs": BASE,
    "attempts": BASE | {"runs"},
    "sim": BASE | {"robot"},
    "joints": BASE | {"robot"},
    "virtual_arm": BASE | {"robot", "sim"},
    "teleop": BASE | {"data", "robot", "sim", "virtual_arm"},
    "reward": BASE | {"data", "vision"},
    "web": BASE,
    "console": BASE | {"data", "link", "robot", "teleop", "web"},
    "labelling": BASE | {"data", "reward", "web"},
    "policy": BASE | {"data", "sac", "vision"},
    "pretraining": BASE | {"data", "sim", "vision"},
    "demonstrations": BASE | {"data", "environments", "robot", "sim", "virtual_arm"},
    "environments": BASE | {"data", "reward", "robot", "sim", "tracking", "virtual_arm"},
    "success_examples": BASE | {"data", "environments", "sim"},
    "export": BASE | {"evaluation", "policy", "runs", "vision"},
    "evaluation": BASE | {"environments", "policy", "robot", "runs", "sim", "teleop", "tracking"},
    "champions": BASE | {"evaluation", "policy", "tracking"},
    "rollout": BELOW_THE_LOOPS | {"actor"},
    "learner": BELOW_THE_LOOPS,
    "actor": BELOW_THE_LOOPS,
    "doctor": BELOW_THE_LOOPS | {"demonstrations"},
    "classifier_training": BASE | {"data", "report", "reward", "tracking"},
    "report": BELOW_THE_LOOPS | {"learner", "reward", "web", "actor"},
    "training": BELOW_THE_LOOPS | {"learner", "actor", "demonstrations", "reward"},
    "services": BASE | {"tracking", "runs"},
}
FLOWS_MAY_IMPORT = {"config", "errors", "telemetry"}
# The command line is the front door: from inside its functions it may start anything.
FRONT_DOOR = "cli"
# The two heavy services, and the one room that knows each, which imports it when it is needed.
KNOWS = {"mlflow": "tracking", "prefect": "services"}


def modules() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def room(dotted: str) -> str:
    """Name the room of `hilserl.data.replay` (data) or of `hilserl/data/replay.py`."""
    parts = dotted.removesuffix(".py").replace("/", ".").split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(path: Path) -> Iterator[tuple[str, bool, int]]:
    """Yield (absolute name, at module level, line) of everything that a file imports."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]

    def visit(node: ast.AST, top: bool) -> Iterator[tuple[str, bool, int]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, top, child.lineno) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = (
                    ".".join([*package[: len(package) - child.level + 1], *filter(None, [child.module])]) if child.level else child.module
                )
                yield from ((f"{base}.{alias.name}", top, child.lineno) for alias in child.names)
            yield from visit(child, top and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    yield from visit(ast.parse(path.read_text()), True)


def violation(path: Path, name: str, top: bool) -> str | None:
    """Say what is wrong with one import; None if nothing is."""
    here = path.relative_to(ROOT).as_posix()
    package, target = here.partition("/")[0], name.partition(".")[0]
    if package == "hilserl" and room(here) == FRONT_DOOR:
        return f"imports {name} before it is needed" if top and target in ("tasks", "flows", *KNOWS) else None
    if target in KNOWS and package == "hilserl":
        if room(here) != KNOWS[target]:
            return f"imports {target}, which only hilserl/{KNOWS[target]} knows"
        return f"imports {target} at module level: seconds, for everybody who imports the library" if top else None
    if target not in PACKAGES:
        return None
    if PACKAGES.index(target) > PACKAGES.index(package):
        return f"imports {name}: the direction is flows -> tasks -> hilserl"
    if target != "hilserl":
        return None
    if package == "flows":
        return (
            None
            if room(name) in FLOWS_MAY_IMPORT
            else f"imports {name}: a flow calls tasks, and takes from hilserl only {sorted(FLOWS_MAY_IMPORT)}"
        )
    if package == "hilserl" and room(here) != "__init__":
        if room(here) not in ROOMS:
            return f"is in a new room, `{room(here)}`: say in ROOMS of this test what it may import"
        if room(name) != room(here) and room(name) not in ROOMS[room(here)]:
            return f"imports {name}: `{room(here)}` may import only {sorted(ROOMS[room(here)])}"
    return None


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_downwards(path):
    found = [f"{path.relative_to(ROOT)}:{line} {what}" for name, top, line in imports(path) if (what := violation(path, name, top))]
    assert not found, "\n".join(found)


def test_the_rooms_themselves_have_no_cycle():
    order = list(graphlib.TopologicalSorter(ROOMS).static_order())
    assert order.index("errors") < order.index("learner")
    assert set(order) == set(ROOMS)
    assert "actor" not in ROOMS["learner"]
    assert "learner" not in ROOMS["actor"]


@pytest.mark.parametrize(
    ("file", "source", "expected"),
    [
        ("hilserl/data/x.py", "from hilserl.learner import Learner", "`data` may import only"),
        ("hilserl/data/x.py", "from ..sac import agent", "`data` may import only"),
        ("hilserl/learner/x.py", "from hilserl.actor.loop import run", "`learner` may import only"),
        ("hilserl/learner/x.py", "def f():\n    import hilserl.actor", "`learner` may import only"),
        ("hilserl/sac/x.py", "def f():\n    import prefect", "only hilserl/services knows"),
        ("hilserl/learner/x.py", "from mlflow.tracking import MlflowClient", "only hilserl/tracking knows"),
        ("hilserl/tracking/x.py", "import mlflow", "at module level"),
        ("hilserl/tracking/x.py", "class A:\n    import mlflow", "at module level"),
        ("hilserl/tracking/x.py", "def f():\n    import mlflow", None),
        ("hilserl/data/x.py", "import tasks.train", "the direction is"),
        ("tasks/x.py", "from flows.train import hilserl", "the direction is"),
        ("flows/x.py", "from hilserl.learner.run import run_learner", "a flow calls tasks"),
        ("flows/x.py", "from hilserl.config import TrainConfig\nfrom tasks.train import train\nimport prefect", None),
        ("hilserl/newroom/x.py", "from hilserl.errors import ConfigError", "a new room"),
        ("hilserl/cli.py", "from flows.train import hilserl", "before it is needed"),
        ("hilserl/cli.py", "def demo():\n    from flows.train import hilserl", None),
        ("hilserl/sim/x.py", "from hilserl.robot import codec\nimport numpy", None),
    ],
)
def test_the_check_itself_finds_what_it_should(tmp_path, monkeypatch, file, source, expected):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    found = [what for name, top, _ in imports(path) if (what := violation(path, name, top))]
    assert bool(found) == (expected is not None)
    assert expected is None or expected in found[0]


@pytest.mark.parametrize("path", [path for path in modules() if room(str(path.relative_to(ROOT))) in ("link", "actor")], ids=str)
def test_two_hosts_never_compare_clocks(path: Path) -> None:
    """Two hosts have two clocks, and either may jump; only a certificate's days are told by them."""
    asks = [word for word in ("time.time(", "time_ns(", "utcnow(", ".now(", ".today(") if word in path.read_text()]
    assert not asks or path.name in ("certificates.py", "tls.py")
