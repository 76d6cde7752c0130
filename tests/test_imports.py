"""Imports run one way, so that a reader can begin anywhere and never goes round in a circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
# From the ground up: a room imports only from those before it, and from itself.
FLOORS = (
    ("errors", "__init__"),
    ("seeding", "files", "file_kinds", "cache", "devices", "distributed", "training_set"),
    ("interfaces",),
    ("datasets", "schemes"),
    ("metrics", "models"),
    ("selectors",),
    ("config",),
    ("retrain", "runs"),
    ("experiment", "parameters", "yaml_door"),
    ("rehearsal",),
    ("archive", "compare", "ecosystem", "remeasure", "reproduce", "status", "__main__"),
    ("studies",),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def modules() -> dict[str, Path]:
    """Every module of the package by its name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        found[".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the package that a module imports, in functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{a.name}" for a in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
    return {name for name in names if name in known}


def room(module: str) -> str:
    """The room that a module is in: the part of its name after the package."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_from_below(module: str):
    known = modules()
    above = {n for n in imported(known[module], known) if FLOOR_OF[room(n)] > FLOOR_OF[room(module)]}
    assert module == "iterative_retraining" or not above, f"{module} reaches up for {sorted(above)}"


def test_no_module_is_in_a_circle():
    known = modules()
    graph = {}
    for name, path in known.items():  # a module needs the one it imports from, not the room that holds it
        found = imported(path, known)
        graph[name] = {n for n in found if n != name and not name.startswith(f"{n}.")}
    assert set(TopologicalSorter(graph).static_order()) == set(known)  # raises CycleError, with the circle


def test_the_core_knows_no_study():
    known = modules()
    for name, path in known.items():
        if room(name) != "studies":
            assert not [n for n in imported(path, known) if room(n) == "studies"], name
