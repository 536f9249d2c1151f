"""Who may import whom: the picture in docs/architecture.md, enforced."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "distilsql"
LIGHT_ROOMS = ("data", "databases", "prompts", "metrics", "report")
HEAVY = ("torch", "transformers", "accelerate", "peft")
ANYONE_MAY = {"errors", "lock", "progress", "shown"}  # single files beside the rooms
MAY_IMPORT = {
    "data": {"data", "databases"},
    "databases": {"databases"},
    "prompts": {"prompts", "data", "databases"},
    "metrics": {"metrics", "data", "databases"},
    "distill": {"distill"},
    "models": {"models", "distill"},
    "report": {"report", "metrics", "distill"},  # the method table; nothing that needs torch
    "runs": {"runs", "data", "databases", "prompts", "models", "distill", "metrics", "report"},
}


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("distilsql.")}
    return rooms


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_the_picture_allows(room):
    for path in sorted((SOURCE / room).rglob("*.py")):
        extra = imported_rooms(path) - MAY_IMPORT[room] - ANYONE_MAY
        assert not extra, f"{path.relative_to(SOURCE)} imports {sorted(extra)}"


def loaded_by(statement: str) -> set[str]:
    """Which heavy packages are loaded after a statement, in a fresh interpreter."""
    code = f"{statement}\nimport sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_light_rooms_the_command_line_and_evaluation_load_no_torch():
    modules = [
        "distilsql." + ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        for room in LIGHT_ROOMS
        for path in sorted((SOURCE / room).rglob("*.py"))
        if path.name not in ("__init__.py", "__main__.py")
    ]
    modules += [
        "distilsql.cli",
        "distilsql.progress",
        "distilsql.runs.interrupt",
        "distilsql.runs.evaluate",
        "distilsql.runs.listing",
        "distilsql.runs.plan",
        "distilsql.runs.recipe",
        "distilsql.runs.render",
        "distilsql.method_reference",
    ]
    assert loaded_by("import " + ", ".join(modules)) == set()


def test_the_science_knows_nothing_of_hugging_face():
    modules = [f"distilsql.distill.{path.stem}" for path in sorted((SOURCE / "distill").glob("[a-z]*.py"))]
    assert loaded_by("import " + ", ".join(modules)) <= {"torch"}
