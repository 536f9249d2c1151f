"""The tables in results/ are those that the runs beside them render to."""

import csv
import json
import math
import tarfile
from pathlib import Path

import pytest

from distilsql.experiments import render as rendering
from distilsql.experiments.experiment import Book
from distilsql.experiments.plan import make_plan
from distilsql.experiments.render import render
from distilsql.runs.records import Environment, Exposure, Summary, read_record

ROOT = Path(__file__).parents[2]
TABLES = sorted((ROOT / "results").glob("*/report/*.md"))
FAST = ("table3", "figure1")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """Every published run as a folder, at results/<scale>/<run> of it."""
    folder = tmp_path_factory.mktemp("results")
    for archive in (ROOT / "results").glob("*/runs.tar.xz"):
        with tarfile.open(archive) as file:
            file.extractall(folder / archive.parent.name, filter="data")
    return folder


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(
            path, marks=[] if path.stem in FAST else pytest.mark.slow, id=f"{path.parts[-3]}-{path.stem}"
        )
        for path in TABLES
    ],
)
def test_a_published_table_is_what_its_runs_say(table, tmp_path, unpacked, monkeypatch):
    monkeypatch.setattr(rendering, "png", lambda *args: b"")  # pictures are not compared
    scale = table.parents[1].name
    plan = make_plan(Book(), [table.stem], scale, unpacked / scale)
    render(plan, tmp_path)
    again = (
        f"write it again: bench/collect_results.py --unpack {scale} runs/reproduce/{scale}; distilsql reproduce "
        f"{table.stem} --scale {scale} --render --out {table.parent.relative_to(ROOT)}"
    )
    assert (tmp_path / table.name).read_text() == table.read_text(), again
    numbers = f"{table.stem}.csv"
    rendered, published = _rows(tmp_path / numbers), _rows(table.parent / numbers)
    assert len(rendered) == len(published), again
    assert all(map(_are_same, rendered, published)), again


def test_every_published_file_is_of_its_class_and_loses_nothing(unpacked):
    kinds = {"summary.json": Summary, "environment.json": Environment, "exposure.json": Exposure}
    seen = set()
    for path in unpacked.rglob("*.json"):
        if path.name in kinds:
            before = json.loads(path.read_text())
            assert read_record(kinds[path.name], path).to_json() == before, path
            seen.add(path.name)
    assert seen == set(kinds)


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as lines:
        return list(csv.reader(lines))


def _are_same(rendered: list[str], published: list[str]) -> bool:
    return len(rendered) == len(published) and all(map(_is_same, rendered, published))


def _is_same(rendered: str, published: str) -> bool:
    """Whether two cells are the same text, or the same number but for the last digits of floating point."""
    if rendered == published:
        return True
    try:
        return math.isclose(float(rendered), float(published), rel_tol=1e-9)
    except ValueError:
        return False
