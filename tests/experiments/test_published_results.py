"""The tables in docs/results are those that the runs beside them render to."""

import csv
import math
from pathlib import Path

import pytest

from distilsql.experiments.experiment import Book
from distilsql.experiments.plan import make_plan
from distilsql.experiments.render import render

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
TABLES = sorted(RESULTS.glob("*/report/*.md"))


@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.stem)
def test_a_published_table_is_what_its_runs_say(table, tmp_path):
    runs = table.parents[1]
    plan = make_plan(Book(ROOT / "recipes" / "paper"), [table.stem], runs.name, runs)
    render(plan, tmp_path)
    again = (
        f"write it again: distilsql reproduce {table.stem} --scale {runs.name} --render "
        f"--runs {runs.relative_to(ROOT)} --out {table.parent.relative_to(ROOT)}"
    )
    assert (tmp_path / table.name).read_text() == table.read_text(), again
    numbers = f"{table.stem}.csv"
    rendered, published = _rows(tmp_path / numbers), _rows(table.parent / numbers)
    assert len(rendered) == len(published), again
    assert all(map(_are_same, rendered, published)), again


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
