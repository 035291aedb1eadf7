"""Imports go one way: a room uses only rooms below it, whether a module is loaded early or late."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import ROOT

# What each room may import. None may import a script or a test.
GROUND = {"models", "runtime", "simulator"}  # each of them alone
STORAGE = GROUND | {"storage"}
DRIVERS = STORAGE | {"pictures", "drivers"}
MAY_IMPORT = {
    "models": {"models"},
    "runtime": {"runtime"},
    "simulator": {"simulator"},
    "storage": STORAGE,
    "pictures": STORAGE | {"pictures"},
    "drivers": DRIVERS,
    "racing": DRIVERS | {"racing"},
    "world_model": DRIVERS | {"world_model"},
    "evolution": DRIVERS | {"racing", "world_model", "evolution"},
}
MODULES = sorted([*(ROOT / "models").glob("*.py"), *(ROOT / "utils").glob("*/*.py")])
TESTS = {path.stem for path in (ROOT / "tests").glob("*") if path.suffix in ("", ".py")}


def room(path: Path) -> str:
    """models/vae.py -> models; utils/storage/logs.py -> storage."""
    parts = path.relative_to(ROOT).parts
    return parts[0] if parts[0] == "models" else parts[1]


def imported(source: str) -> Iterator[str]:
    """The rooms of this project that a module imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the direction"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first == "utils":
                yield rest[0]
            elif first == "models" or first[0].isdigit() or first in TESTS:
                yield first


def test_an_import_is_found_wherever_it_stands():
    source = "import utils.racing.agent\ndef f():\n    from utils import evolution, runtime"
    assert list(imported(source)) == ["racing", "evolution", "runtime"]


def test_every_room_is_in_the_table():
    assert {room(path) for path in MODULES} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    upward = set(imported(path.read_text(encoding="utf-8"))) - MAY_IMPORT[room(path)]
    assert not upward


@pytest.mark.parametrize("name", sorted(set(MAY_IMPORT) - {"models"}))
def test_every_room_says_what_belongs_there(name):
    said = ast.get_docstring(ast.parse((ROOT / "utils" / name / "__init__.py").read_text()))
    assert said is not None
    assert len(said.split()) > 15
