"""What is imported is declared, what is declared is imported, and what CI installs is pinned."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
DEPENDENCIES = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
DISTRIBUTIONS = packages_distributions()


def extra(*names: str) -> set[str]:
    """The packages of these extras, and of the extras they include."""
    found = set()
    for requirement in (Requirement(line) for name in names for line in EXTRAS[name]):
        is_ours = requirement.name == PROJECT["name"]
        found |= extra(*requirement.extras) if is_ours else {canonicalize_name(requirement.name)}
    return found


def imported_modules(path: Path) -> set[str]:
    """Top-level names, with those that `importorskip` and `import_module` are given."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import():
                names += [alias.name for alias in node.names]
            case ast.ImportFrom(module=str(module), level=0):
                names.append(module)
            case ast.Call(
                func=ast.Attribute(attr="importorskip" | "import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                names.append(name)
    return {name.partition(".")[0] for name in names}


def third_party(folder: str) -> dict[str, set[str]]:
    """Each module from elsewhere that files below the folder import, with the packages that may have brought it."""
    files = list((ROOT / folder).rglob("*.py"))
    shared = [file for name in ("bench", "tests") for file in (ROOT / name).rglob("*.py")]  # by each other
    packages = (file.parent.name for file in shared if file.name == "__init__.py")
    own = {PROJECT["name"], *(file.stem for file in [*files, *shared]), *packages}
    modules = set().union(*map(imported_modules, files)) - sys.stdlib_module_names - own
    return {name: {canonicalize_name(each) for each in DISTRIBUTIONS.get(name, [name])} for name in modules}


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("src", [name for name in EXTRAS if name not in ("dev", "bench")]),
        ("tests", ["dev"]),
        ("bench", ["bench"]),
    ],
)
def test_every_import_is_of_a_declared_package(folder, extras):
    declared = DEPENDENCIES | extra(*extras)
    undeclared = sorted(name for name, packages in third_party(folder).items() if not packages & declared)
    assert not undeclared, f"{folder} imports {undeclared}: declare them in pyproject.toml"


def test_every_dependency_is_imported():
    imported = set().union(*third_party("src").values())
    assert not DEPENDENCIES - imported, "nothing in src imports them"


def test_every_declared_package_is_pinned():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {canonicalize_name(line.partition("==")[0]) for line in lines if not line.startswith("#")}
    assert DEPENDENCIES | extra("dev", "bench") <= pinned
