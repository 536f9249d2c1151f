"""The tables in docs/results are those that the runs beside them render to."""

from pathlib import Path

import pytest

from distilsql.runs.experiment import Book
from distilsql.runs.plan import make_plan
from distilsql.runs.render import render

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
TABLES = sorted(RESULTS.glob("*/report/*.md"))


@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.stem)
def test_a_published_table_is_what_its_runs_say(table, tmp_path):
    runs = table.parents[1]
    plan = make_plan(Book(ROOT / "recipes" / "paper"), [table.stem], runs.name, runs)
    render(plan, tmp_path)
    for name in (table.name, f"{table.stem}.csv"):
        assert (tmp_path / name).read_text() == (table.parent / name).read_text(), (
            f"write it again: distilsql reproduce {table.stem} --scale {runs.name} --render "
            f"--runs {runs.relative_to(ROOT)} --out {table.parent.relative_to(ROOT)}"
        )
