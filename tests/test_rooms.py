"""Who may import whom: the picture in docs/architecture.md, enforced."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "distilsql"
HEAVY = ("torch", "transformers", "accelerate", "peft")
# From the ground up; a room imports rooms above it in this list, and only those that it names. `errors.py`, `files.py`
# and other files outside the rooms may be imported by all.
MAY_IMPORT: dict[str, set[str]] = {
    "distill": set(),
    "databases": set(),
    "data": {"databases"},
    "prompts": {"data", "databases"},
    "metrics": {"data", "databases"},
    "synthesis": {"data", "databases", "metrics"},
    "models": {"distill"},
    "runs": {"data", "databases", "metrics", "distill"},
    "report": {"runs", "metrics", "distill"},
    "inference": {"data", "databases", "prompts", "metrics", "synthesis", "models", "distill", "runs"},
    "export": {"data", "metrics", "models", "inference"},
    "serve": {"data", "databases", "models", "runs", "inference"},
    "training": {
        "data",
        "databases",
        "prompts",
        "metrics",
        "synthesis",
        "models",
        "distill",
        "runs",
        "inference",
    },
    "experiments": {
        "data",
        "databases",
        "prompts",
        "metrics",
        "models",
        "distill",
        "runs",
        "report",
        "inference",
        "training",
    },
}
ABOVE_ALL = "cli"
LIGHT = ("databases", "data", "prompts", "metrics", "synthesis", "runs", "report", "cli")
LARGEST_ROOM_SHARE = 0.15
LONGEST_FILE_LINES = 400


def modules() -> dict[str, Path]:
    """Every module by its dotted name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = list(path.relative_to(SOURCE.parent).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the package that a file imports, inside functions and for type checks too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module in known:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
    return found


def room_of(module: str) -> str:
    """`distilsql.data.demo.build` → `data`; '' for a file that stands alone."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (SOURCE / parts[1]).is_dir() else ""


def test_the_picture_names_every_room():
    rooms = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists()}
    assert rooms == {*MAY_IMPORT, ABOVE_ALL}
    picture = (SOURCE.parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn = re.search(r"```\nsrc/distilsql/\n(.*?)```", picture, re.DOTALL)
    assert drawn is not None
    assert rooms <= {word.rstrip("/") for word in re.findall(r"^  (\w+/)", drawn[1], re.MULTILINE)}


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_the_picture_allows(room):
    known = modules()
    lower = list(MAY_IMPORT)[: list(MAY_IMPORT).index(room)]
    assert MAY_IMPORT[room] <= set(lower), "no arrow upwards"
    for module, path in known.items():
        if room_of(module) == room:
            extra = {room_of(found) for found in imports(path, known)} - MAY_IMPORT[room] - {room, ""}
            assert not extra, f"{module} imports {sorted(extra)}"


def test_what_stands_alone_imports_no_room():
    known = modules()
    for module, path in known.items():
        if not room_of(module) and module not in ("distilsql", "distilsql.__main__"):  # the two doors
            assert {room_of(found) for found in imports(path, known)} <= {""}, module


def test_there_are_no_circles():
    """Also none that an import inside a function hides."""
    known = modules()
    graph = {module: imports(path, known) - {module, "distilsql"} for module, path in known.items()}
    graph.pop("distilsql")  # the front door: names of everything, looked up when they are asked for
    assert list(graphlib.TopologicalSorter(graph).static_order())


def loaded_by(statement: str) -> set[str]:
    """Which heavy packages are loaded after a statement, in a fresh interpreter."""
    code = f"{statement}\nimport sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


@pytest.mark.slow
def test_light_rooms_load_no_torch():
    light = [
        module for module in modules() if room_of(module) in (*LIGHT, "") and not module.endswith("__main__")
    ]
    assert loaded_by("import " + ", ".join(light)) == set()


@pytest.mark.slow
def test_the_science_knows_nothing_of_hugging_face():
    science = [module for module in modules() if room_of(module) == "distill"]
    assert loaded_by("import " + ", ".join(science)) <= {"torch"}


def test_rooms_and_files_are_of_a_size_to_be_read():
    lines = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in modules().items()}
    assert max(lines.values()) <= LONGEST_FILE_LINES, max(lines, key=lines.__getitem__)
    rooms: dict[str, int] = {}
    for module, count in lines.items():
        rooms[room_of(module)] = rooms.get(room_of(module), 0) + count
    largest = max(rooms, key=rooms.__getitem__)
    assert rooms[largest] / sum(rooms.values()) <= LARGEST_ROOM_SHARE, largest


def test_the_inside_asks_the_front_door_for_its_version_alone():
    for module, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "distilsql" and module != "distilsql":
                assert [alias.name for alias in node.names] == ["__version__"], module
