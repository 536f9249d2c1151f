from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilsql.data.load import load_benchmark
from distilsql.databases.database import Database
from distilsql.databases.schema import Column, ForeignKey, Schema, Table
from distilsql.databases.values import matched_values
from distilsql.prompts.relevance import gold_columns, most_relevant, relevance, restrict

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"


def table(name: str, *columns: str) -> Table:
    return Table(name, tuple(Column(column, "text", column == "id") for column in columns))


SCHOOL = Schema(
    (
        table("student", "id", "firstName", "birth_date"),
        table("enrolment", "id", "grade"),
        table("course", "id", "title"),
        table("canteen", "id", "menu"),
    ),
    (ForeignKey("enrolment", "id", "student", "id"), ForeignKey("enrolment", "id", "course", "id")),
)


def names(schema: Schema) -> set[tuple[str, str]]:
    return {(table.name, column.name) for table in schema.tables for column in table.columns}


def test_what_the_question_names_comes_first() -> None:
    scores = relevance(SCHOOL, "What are the birth dates of all students?")
    assert max(scores.tables, key=scores.tables.__getitem__) == "student"
    assert max(scores.columns, key=scores.columns.__getitem__) == ("student", "birth_date")


def test_case_and_snake_and_near_spellings_are_one_word() -> None:
    for question in ("the first name", "FIRST NAMES please"):
        scores = relevance(SCHOOL, question).columns
        assert max(scores, key=scores.__getitem__) == ("student", "firstName")


def test_a_column_whose_value_is_mentioned_counts_as_named() -> None:
    scores = relevance(SCHOOL, "Which one is called Physics?", {("course", "title")})
    assert max(scores.columns, key=scores.columns.__getitem__) == ("course", "title")
    assert max(scores.tables, key=scores.tables.__getitem__) == "course"


def test_a_comment_counts_as_a_name() -> None:
    schema = Schema((table("t", "id", "x1"), Table("u", (Column("x2", "text", comment="date of hire"),))))
    scores = relevance(schema, "when was the hire date").columns
    assert max(scores, key=scores.__getitem__) == ("u", "x2")


def test_a_table_that_joins_two_relevant_ones_is_kept() -> None:
    kept = most_relevant(
        SCHOOL, relevance(SCHOOL, "titles of the courses of each student"), tables=3, columns=9
    )
    assert {table.name for table in kept.tables} == {"student", "enrolment", "course"}


words = st.sampled_from(["student", "id", "grade", "menu", "x", "birth", "", "!", "naïve", "2024"])


@given(st.lists(words, max_size=6).map(" ".join), st.integers(1, 5), st.integers(1, 4))
def test_a_filtered_schema_is_a_part_in_the_same_order(text: str, tables: int, columns: int) -> None:
    kept = most_relevant(SCHOOL, relevance(SCHOOL, text), tables, columns)
    assert len(kept.tables) == min(tables, 4)
    assert all(len(own.columns) <= columns for own in kept.tables)
    assert names(kept) <= names(SCHOOL)
    order = [table.name for table in SCHOOL.tables]
    assert [table.name for table in kept.tables] == sorted((t.name for t in kept.tables), key=order.index)
    shown = {table.name for table in kept.tables}
    assert set(kept.foreign_keys) == {
        key for key in SCHOOL.foreign_keys if {key.table, key.referred_table} <= shown
    }


@given(st.sets(st.sampled_from(sorted(names(SCHOOL)))))
def test_restricting_keeps_exactly_these_columns(columns: set[tuple[str, str]]) -> None:
    assert names(restrict(SCHOOL, columns)) == columns


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT `order date` FROM `order details` WHERE `net (eur)` > 3",
        'SELECT "Order Date" FROM "order details" WHERE "net (eur)" > 3',
        "SELECT [order date] FROM [Order Details] WHERE [net (eur)] > 3",
        "SELECT `order date` FROM 'order details' WHERE 'it''s `' < `net (eur)`",
    ],
)
def test_gold_columns_are_found_in_any_quotes(sql) -> None:
    columns = tuple(Column(name, "text") for name in ("id", "order date", "net (eur)"))
    found = gold_columns(Schema((Table("order details", columns),)), sql)
    assert found == {("order details", "order date"), ("order details", "net (eur)")}


def test_gold_columns_are_those_named_of_the_tables_named() -> None:
    sql = "SELECT T1.firstname, count(*) FROM Student AS T1 JOIN enrolment AS T2 ON T1.id = T2.id WHERE 'menu' = 1"
    assert gold_columns(SCHOOL, sql) == {("student", "firstName"), ("student", "id"), ("enrolment", "id")}


def test_a_table_used_without_a_column_gives_its_key() -> None:
    assert gold_columns(SCHOOL, "SELECT count(*) FROM canteen") == {("canteen", "id")}
    assert gold_columns(Schema((table("t", "a", "b"),)), "SELECT * FROM t") == {("t", "a")}


@pytest.mark.slow
@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs the real benchmarks in ../shared/data")
def test_the_filter_keeps_what_spiders_golds_use(cache: Path) -> None:
    benchmark = load_benchmark("spider:dev", root=SHARED_DATA).take(400, seed=0)
    cut = kept_tables = kept_all = 0
    for example in benchmark.examples:
        database: Database = benchmark.databases[example.db_id]
        matched = matched_values(database.path, example.question, cache_folder=cache)
        scores = relevance(database.schema, example.question, matched)
        shown = names(most_relevant(database.schema, scores, tables=6, columns=10))
        if shown == names(database.schema):
            continue
        gold = gold_columns(database.schema, example.gold_sql)
        cut += 1
        kept_tables += {name for name, _ in gold} <= {name for name, _ in shown}
        kept_all += gold <= shown
    assert cut > 100
    assert kept_tables / cut > 0.98
    assert kept_all / cut > 0.95
