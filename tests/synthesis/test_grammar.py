from collections import Counter

import pytest
import sqlglot
from sqlglot import exp

from distilsql.data.dice import Dice
from distilsql.databases.job import Outcome
from distilsql.databases.url import DIALECTS
from distilsql.synthesis.grammar.draft import Constant
from distilsql.synthesis.grammar.patterns import PATTERNS, draw_draft, says_everything, tidy, word
from distilsql.synthesis.grammar.sql import Sql
from distilsql.synthesis.grammar.wordings import WORDINGS
from distilsql.synthesis.names import draft_names
from distilsql.synthesis.profile import profile
from distilsql.synthesis.source import open_source
from distilsql.synthesis.synthesise import _SHARES
from distilsql.synthesis.world import make_world


def drafts(path, count, engine="sqlite"):
    source = open_source(path)
    found = profile(source)
    world, sql, uses = make_world(found, draft_names(source, found)), Sql(engine), Counter()
    for number in range(count):
        drawn = draw_draft(world, sql, Dice(f"test/{number}"), uses)
        if drawn is not None:
            uses.update(drawn[1])
            yield drawn[0], sql.written(drawn[0].query)


@pytest.mark.parametrize("database", ["shop", "ugly"])
def test_whatever_is_drawn_runs_and_is_said_in_full(database, request):
    source = open_source(request.getfixturevalue(database))
    for draft, sql in drafts(source.path, 700):
        assert source.read(sql).outcome is Outcome.ROWS, sql
        questions = word(draft, 3, Dice(sql))
        assert questions, (draft.pattern, draft.mentions)
        assert len(set(questions)) == len(questions)
        for question in questions:
            assert says_everything(question, draft)
            assert "{" not in question
            assert "  " not in question


@pytest.mark.slow
def test_every_wording_of_every_pattern_can_be_filled(shop):
    seen = set()
    for draft, _ in drafts(shop, 4000):
        if draft.pattern not in seen:
            seen.add(draft.pattern)
            for wording in WORDINGS[draft.pattern]:
                wording.format(**{slot: options[0] for slot, options in draft.phrases.items()})
    assert seen == set(WORDINGS)


def test_every_pattern_has_wordings_and_a_share(shop):
    assert set(_SHARES) <= set(WORDINGS)
    assert sum(PATTERNS.values()) > 0
    assert {draft.pattern for draft, _ in drafts(shop, 800)} <= set(_SHARES)


@pytest.mark.parametrize("engine", ["postgresql", "mysql", "duckdb"])
def test_queries_parse_in_every_dialect(ugly, engine):
    for draft, sql in drafts(ugly, 250, engine):
        assert sqlglot.parse_one(sql, dialect=DIALECTS[engine]) is not None
        assert "NULLS" not in sql
        if "größe" in sql:
            assert ('"größe"' if engine != "mysql" else "`größe`") in sql, draft.pattern


def test_constants_of_a_query_are_in_its_question(shop):
    for draft, sql in drafts(shop, 300):
        for constant in (m for m in draft.mentions if isinstance(m, Constant)):
            assert constant.raw in sql.replace("''", "'")


def test_bare_columns_where_one_table_is_read_and_qualified_ones_where_two_are(shop):
    for _, sql in drafts(shop, 300):
        for select in sqlglot.parse_one(sql, dialect="sqlite").find_all(exp.Select):
            own = [c for c in select.find_all(exp.Column) if c.find_ancestor(exp.Select) is select]
            if any(join.find_ancestor(exp.Select) is select for join in select.find_all(exp.Join)):
                assert all(column.table for column in own), sql


@pytest.mark.parametrize(
    ("text", "tidied"),
    [
        ("How many singers  are there?".replace("  ", " "), "How many singers are there?"),
        ("What are the names of the singers ?", "What are the names of the singers?"),
        ("that has a order of a unit", "that has an order of a unit"),
        ("the class a and class aa of a school", "the class a and class aa of a school"),
        ("whose class a is a island", "whose class a is an island"),
    ],
)
def test_gaps_are_closed(text, tidied):
    assert tidy(text) == tidied
