import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilsql.databases.schema import (
    Column,
    Comments,
    ForeignKey,
    Schema,
    Table,
    comments_of,
    describe,
    introspect,
    schema_from_tables_json,
)
from distilsql.databases.values import load_value_index, sample_values
from distilsql.errors import DataError

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(
    not SHARED_DATA.is_dir(), reason="needs the real benchmarks in ../shared/data"
)


def make_sqlite(path: Path, script: str) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"BEGIN; {script}; COMMIT;")  # one write to disk
    return path


def test_introspection_gives_the_canonical_form(tmp_path: Path) -> None:
    path = make_sqlite(
        tmp_path / "odd.sqlite",
        """
        CREATE TABLE Zoo (Id INTEGER PRIMARY KEY AUTOINCREMENT, "Full Name" VARCHAR (20), untyped);
        CREATE TABLE visit (day DATE, zoo_id INT, guide INT REFERENCES Staff (nobody), PRIMARY KEY (day, zoo_id),
            FOREIGN KEY (ZOO_ID) REFERENCES zoo, FOREIGN KEY (zoo_id) REFERENCES Zoo (ID),
            FOREIGN KEY (guide) REFERENCES never_created (id));
        CREATE TABLE Staff (id INT);
        INSERT INTO Zoo VALUES (1, 'a', 2);
        """,
    )
    assert introspect(path) == Schema(
        (
            Table(
                "Zoo",
                (
                    Column("Id", "integer", is_primary_key=True),
                    Column("Full Name", "varchar (20)"),
                    Column("untyped", "text"),
                ),
            ),
            Table(
                "visit",
                (Column("day", "date", True), Column("zoo_id", "int", True), Column("guide", "int")),
            ),
            Table("Staff", (Column("id", "int"),)),
        ),
        (ForeignKey("visit", "zoo_id", "Zoo", "Id"),),
    )


def test_views_follow_the_tables_unless_what_they_read_is_gone(tmp_path: Path) -> None:
    path = make_sqlite(
        tmp_path / "views.sqlite",
        """
        CREATE VIEW early AS SELECT id AS number, upper(name) AS loud FROM zoo;
        CREATE VIEW broken AS SELECT gone FROM zoo;
        CREATE VIEW failing AS SELECT json_extract(name, '$.a') AS part FROM zoo;
        CREATE VIEW slow AS WITH RECURSIVE t(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM t) SELECT count(*) AS n FROM t;
        CREATE TABLE zoo (id INTEGER, name TEXT);
        INSERT INTO zoo VALUES (1, 'a');
        """,
    )
    zoo, early, *others = introspect(path).tables
    assert [view.name for view in others] == ["failing", "slow"]
    assert (zoo.name, zoo.is_view, early.name, early.is_view) == ("zoo", False, "early", True)
    assert [column.name for column in early.columns] == ["number", "loud"]
    samples = sample_values(path, introspect(path), 1)
    assert samples["early", "loud"] == ("A",)
    assert samples["failing", "part"] == samples["slow", "n"] == ()
    assert load_value_index(path, tmp_path / "cache").columns == ((("zoo", "name"),),), (
        "a view holds no values"
    )


def test_tables_that_only_sqlite_uses_are_left_out(tmp_path: Path) -> None:
    """Those that hold the content of a virtual table, and those whose module is not loaded."""
    path = make_sqlite(
        tmp_path / "text.sqlite",
        """
        CREATE VIRTUAL TABLE page USING fts5(title, body);
        INSERT INTO page VALUES ('hello', 'world');
        CREATE TABLE plain (a);
        PRAGMA writable_schema = 1;
        INSERT INTO sqlite_master VALUES ('table', 'map', 'map', 0, 'CREATE VIRTUAL TABLE map USING nowhere(x)');
        """,
    )
    assert [table.name for table in introspect(path).tables] == ["page", "plain"]


def test_a_composite_reference_without_columns_means_the_primary_key_in_its_order(tmp_path: Path) -> None:
    path = make_sqlite(
        tmp_path / "d.sqlite",
        "CREATE TABLE p (a, b, PRIMARY KEY (a, b)); CREATE TABLE c (x, y, FOREIGN KEY (x, y) REFERENCES p);",
    )
    assert introspect(path).foreign_keys == (ForeignKey("c", "x", "p", "a"), ForeignKey("c", "y", "p", "b"))


def test_nothing_can_be_written_and_nothing_is_left_beside_the_file(tmp_path: Path) -> None:
    path = make_sqlite(tmp_path / "d.sqlite", "CREATE TABLE t (c)")
    before = path.read_bytes()
    introspect(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_database_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no database file .*absent\.sqlite"):
        introspect(tmp_path / "absent.sqlite")
    assert not (tmp_path / "absent.sqlite").exists()
    (tmp_path / "text.sqlite").write_text("plain text, plainly" * 100)
    with pytest.raises(DataError, match=r"text\.sqlite cannot be read \(file is not a database\)"):
        introspect(tmp_path / "text.sqlite")
    with pytest.raises(DataError, match="has no table"):
        introspect(make_sqlite(tmp_path / "empty.sqlite", "CREATE TABLE t (c); DROP TABLE t;"))


def record(**changes: Any) -> dict[str, Any]:
    whole = {
        "db_id": "d",
        "table_names_original": ["T", "sqlite_sequence"],
        "table_names": ["tea", "sqlite sequence"],
        "column_names_original": [[-1, "*"], [0, "A"], [0, "B"], [1, "name"]],
        "column_names": [[-1, "*"], [0, "alpha"], [0, "beta"], [1, "name"]],
        "column_types": ["text", "number", "time", "text"],
        "primary_keys": [1],
        "foreign_keys": [[2, 1], [2, 1]],
    }
    return {**whole, **changes}


def test_tables_json_gives_names_families_and_comments() -> None:
    assert schema_from_tables_json(record()) == Schema(
        (Table("T", (Column("A", "number", True, "alpha"), Column("B", "time", False, "beta")), "tea"),),
        (ForeignKey("T", "B", "T", "A"),),
    )


def test_birds_nested_primary_keys_are_all_marked() -> None:
    schema = schema_from_tables_json(record(primary_keys=[[1, 2]]))
    assert [column.is_primary_key for column in schema.tables[0].columns] == [True, True]


@pytest.mark.parametrize(
    "changes",
    [
        {"column_types": ["text"]},
        {"column_names_original": [[-1, "*"], [9, "A"], [0, "B"], [1, "name"]]},
        {"foreign_keys": [[1, 99]]},
        {"primary_keys": None},
        {"table_names": ["tea"]},
    ],
)
def test_a_malformed_record_is_refused_by_its_db_id(changes: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"tables\.json, database d: "):
        schema_from_tables_json(record(**changes))


words = st.text("abcXYZ_ ", min_size=1, max_size=6)
columns = st.lists(
    st.builds(Column, words, words, st.booleans(), words), max_size=4, unique_by=lambda c: c.name.lower()
)
schemas = st.builds(
    Schema,
    st.lists(
        st.builds(Table, words, columns.map(tuple), words), max_size=4, unique_by=lambda t: t.name.lower()
    ).map(tuple),
)


@given(schemas)
def test_describing_a_schema_by_its_own_comments_changes_nothing(schema: Schema) -> None:
    assert describe(schema, comments_of(schema)) == schema
    assert describe(schema, Comments({}, {})) == schema


FAMILIES = {
    "number": r"(tiny|small|medium|big)?int|integer|real|decimal|numeric|float|double|number",
    "time": r"date|time|year",
    "boolean": r"boolean",
    "text": r"char|varchar|text|character",
}


def family(declared: str) -> str:
    return next((name for name, pattern in FAMILIES.items() if re.match(pattern, declared)), "others")


def columns_with_families(schema: Schema) -> dict[tuple[str, str], str]:
    return {(t.name, c.name): family(c.type) for t in schema.tables for c in t.columns}


def primary_keys(schema: Schema) -> dict[str, set[str]]:
    return {t.name: {c.name for c in t.columns if c.is_primary_key} for t in schema.tables}


# Columns of text that `tables.json` calls numbers, which their values are.
OTHER_FAMILY = {
    "formula_1": {
        ("circuits", "alt"),
        ("drivers", "number"),
        ("results", "position"),
        ("results", "laps"),
        ("results", "milliseconds"),
        ("results", "fastestLap"),
        ("results", "rank"),
        ("constructorResults", "status"),
    }
}
# Foreign keys that the file declares and `tables.json` lacks.
MORE_FOREIGN_KEYS = {
    "store_product": {ForeignKey("store_product", "Product_ID", "product", "product_id")},
    "loan_1": {ForeignKey("loan", "cust_ID", "customer", "cust_ID")},
}


@pytest.mark.slow
@needs_shared
def test_both_readers_agree_on_every_database_of_spider() -> None:
    compared = 0
    for record in json.loads((SHARED_DATA / "spider/tables.json").read_text()):
        db_id = record["db_id"]
        path = SHARED_DATA / "spider/database" / db_id / f"{db_id}.sqlite"
        if not path.is_file():
            continue
        compared += 1
        found, listed = introspect(path), schema_from_tables_json(record)
        one, other = columns_with_families(found), columns_with_families(listed)
        assert list(one) == list(other), db_id  # names, spelling and order
        assert {name for name in one if one[name] != other[name]} == OTHER_FAMILY.get(db_id, set())
        more = MORE_FOREIGN_KEYS.get(db_id, set())
        assert tuple(key for key in found.foreign_keys if key not in more) == listed.foreign_keys, db_id
        assert more <= set(found.foreign_keys)
        for table, keys in primary_keys(found).items():  # of a composite key tables.json has one column
            assert len(primary_keys(listed)[table]) == min(1, len(keys)), (db_id, table)
            assert primary_keys(listed)[table] <= keys
    assert compared == 164


@needs_shared
def test_both_readers_agree_on_birds_databases() -> None:
    compared = 0
    for record in json.loads((SHARED_DATA / "bird/dev_tables.json").read_text()):
        path = SHARED_DATA / "bird/dev_databases" / record["db_id"] / f"{record['db_id']}.sqlite"
        if path.is_file():
            compared += 1
            found, listed = introspect(path), schema_from_tables_json(record)
            assert columns_with_families(found) == columns_with_families(listed)
            assert found.foreign_keys == listed.foreign_keys
            assert primary_keys(found) == primary_keys(listed)
    assert compared == 3
