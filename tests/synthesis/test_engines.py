"""One synthesis on four engines: the same tables give the same profile, and queries with the same results."""

import json
from collections import Counter

import pytest

from distilsql.data.check import check
from distilsql.data.dice import Dice
from distilsql.databases.execute import execute
from distilsql.databases.job import Outcome
from distilsql.databases.pool import ExecutionPool
from distilsql.databases.url import DIALECTS
from distilsql.synthesis import synthesise as module
from distilsql.synthesis.checks import Checker, Verdict
from distilsql.synthesis.grammar.patterns import draw_draft
from distilsql.synthesis.grammar.sql import Sql
from distilsql.synthesis.names import draft_names
from distilsql.synthesis.profile import profile
from distilsql.synthesis.source import open_source
from distilsql.synthesis.synthesise import synthesise
from distilsql.synthesis.variants import write_variants
from distilsql.synthesis.world import make_world
from engine_copies import ENGINES, copied

DATABASES = ("shop", "ugly")


def test_every_engine_has_a_story():
    assert set(ENGINES) == set(DIALECTS)


# The plain database on a file and a server, and the ugly one on a file; all others take long.
LATER = {("ugly", engine) for engine in ENGINES if engine != "sqlite"} | {
    ("shop", "duckdb"),
    ("shop", "mysql"),
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            (name, engine),
            marks=[pytest.mark.slow] if (name, engine) in LATER else [],
            id=f"{name}-{engine}",
        )
        for name in DATABASES
        for engine in ENGINES
    ],
)
def both(request, tmp_path_factory):
    """A database and its original, as sources."""
    name, engine = request.param
    path = request.getfixturevalue(name)
    with copied(path, engine, request, tmp_path_factory.mktemp("copy")) as place:
        yield open_source(place), open_source(path)


def seen(source):
    """All of a profile but types, whose words are the engine's, and the order of tables."""
    found = profile(source)
    tables = {
        table.name: (
            table.row_count,
            table.is_exact,
            set(table.key),
            [{**vars(column), "type": ""} for column in table.columns],
        )
        for table in found.tables
    }
    return tables, set(found.keys)


def test_the_profile_is_the_same(both):
    copy, original = both
    assert seen(copy) == seen(original)


def drawn(source, count):
    """The same drafts in the dialect of the source and in SQLite's."""
    found = profile(source)
    world = make_world(found, draft_names(source, found))
    for number in range(count):
        written = []
        for engine in (source.engine, "sqlite"):
            draft = draw_draft(world, Sql(engine), Dice(f"engines/{number}"), Counter())
            written.append(draft and Sql(engine).written(draft[0].query))
        if written[0]:
            yield written


def rows(execution):
    """As a multiset; MySQL's averages have four decimals."""
    return Counter(
        tuple(round(cell, 2) if isinstance(cell, float | int) else cell for cell in row)
        for row in execution.rows
    )


@pytest.mark.parametrize(("count", "kept"), [(16, 3), pytest.param(50, 8, marks=pytest.mark.slow)])
def test_queries_run_and_are_told_from_wrong_ones_alike(both, tmp_path, count, kept):
    copy, original = both
    verdicts = Counter()
    with ExecutionPool(2) as pool:
        here = Checker(copy, write_variants(copy, profile(copy), tmp_path, 0), pool)
        assert len(here.variants) == 6
        for sql, in_sqlite in drawn(copy, count):
            found, expected = copy.read(sql), original.read(in_sqlite)
            assert found.outcome is expected.outcome is Outcome.ROWS, (sql, found.message)
            verdict = here.check(sql)
            verdicts[verdict] += 1
            if verdict is Verdict.KEPT:
                assert rows(found) == rows(expected), (sql, in_sqlite)
    assert verdicts[Verdict.KEPT] >= kept
    assert not verdicts[Verdict.FAILED] + verdicts[Verdict.SLOW]


@pytest.mark.slow
def test_pairs_are_made_and_have_no_fault(both, tmp_path, monkeypatch):
    copy, _ = both
    monkeypatch.setattr(module, "BATCH", 16)
    made = synthesise(copy, tmp_path / "pairs", pairs=10, seed=1, workers=2)
    assert sum(made.pairs.values()) == 10
    for split in made.pairs:
        file = tmp_path / "pairs" / f"{split}.jsonl"
        if made.pairs[split]:
            report = check(file, database=copy.path)
            assert report.problems == report.warnings == ()
        for line in file.read_text(encoding="utf-8").splitlines():
            assert execute(copy.path, json.loads(line)["sql"], mode="serving").outcome is Outcome.ROWS
    assert "p@ss" not in (tmp_path / "pairs" / "synth.json").read_text()
