"""`import distilsql`: instant, complete, and what docs/python.md and the notebook show is what it does."""

import json
import re
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import pytest

import distilsql

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "python.md"
NOTEBOOK = ROOT / "examples" / "distil_in_a_notebook.ipynb"
HEAVY = ("torch", "transformers", "numpy", "pydantic", "sqlglot")


def python(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=600)


def blocks() -> list[tuple[str, bool]]:
    """The Python of the page in its order, and whether it is to be run."""
    found = re.findall(r"(<!-- only compiled[^\n]*-->\n)?```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [(code, not marked) for marked, code in found]


def test_the_import_loads_nothing_heavy():
    code = (
        f"import distilsql, sys; print([name for name in {HEAVY!r} if name in sys.modules], dir(distilsql))"
    )
    loaded, names = python("-c", code).stdout.split("] ", 1)
    assert loaded == "["
    assert all(f"'{name}'" in names for name in distilsql.__all__)


@pytest.mark.slow
def test_data_recipes_and_scores_load_no_torch():
    names = ("load_benchmark", "make_recipe", "load_recipe", "METHODS", "evaluate", "compare", "DataError")
    code = f"import distilsql, sys; [getattr(distilsql, name) for name in {names!r}]; print('torch' in sys.modules)"
    assert python("-c", code).stdout == "False\n"


def test_every_name_is_there_and_no_other():
    for name in distilsql.__all__:
        assert getattr(distilsql, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        distilsql.trian  # noqa: B018
    from distilsql import errors

    raised = {
        name for name in vars(errors) if isinstance(vars(errors)[name], type) and not name.startswith("_")
    }
    assert raised <= set(distilsql.__all__)


def test_type_checkers_see_the_names_and_that_there_are_types():
    source = Path(distilsql.__file__).read_text()
    seen = source.split("if TYPE_CHECKING:\n    ", 1)[1].split("\n\n__version__", 1)[0]
    for name in set(distilsql.__all__) - {"__version__"}:
        assert re.search(rf"\b{name}\b", seen), name
    assert resources.files("distilsql").joinpath("py.typed").is_file()
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["src/distilsql"]}, "all files of the package, py.typed too"


def test_the_package_runs_as_the_command_line():
    assert python("-m", "distilsql", "--version").stdout == f"distilsql {distilsql.__version__}\n"


@pytest.mark.slow
def test_the_page_runs_from_top_to_bottom(tmp_path):
    script = tmp_path / "page.py"
    script.write_text("\n".join(code for code, is_run in blocks() if is_run))
    result = python(str(script), cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    assert re.search(
        r"^loss \d+\.\d+ → \d+\.\d+; the student is in runs/kid/model$", result.stdout, re.MULTILINE
    )
    assert re.search(r"^memory:[0-9a-f]{16}$", result.stdout, re.MULTILINE)
    assert "student.path = memory is not a path" in result.stdout


def test_what_the_page_shows_without_running_it_is_python():
    shown = [code for code, is_run in blocks() if not is_run]
    assert len(shown) == 2
    for code in shown:
        compile(code, str(PAGE), "exec")


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    notebook = json.loads(NOTEBOOK.read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in notebook["cells"]), "kept without outputs"
    script = tmp_path / "notebook.py"
    script.write_text("\n".join(cells))
    result = python(str(script), cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    assert re.search(r"^kid: \d+% of 20 questions right$", result.stdout, re.MULTILINE)
