"""What tables and columns are called in questions, and which are asked about at all."""

import sqlite3
from contextlib import closing

import pytest

from distilsql.synthesis.names import draft_names
from distilsql.synthesis.profile import profile
from distilsql.synthesis.roles import Role
from distilsql.synthesis.source import open_source
from distilsql.synthesis.synthesise import synthesise
from distilsql.synthesis.world import make_world


def database(path, script, **rows):
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
        for table, values in rows.items():
            connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values[0]))})", values)
        connection.commit()
    return path


def named(path):
    source = open_source(path)
    found = profile(source)
    return found, draft_names(source, found)


WORDS = ("red", "blue", "green", "red", "blue", "black", "green", "red")
NUMBERS = (4.5, 2.5, 8.25, 1.5, 9.75, 3.0, 7.5, 6.0)
DAYS = tuple(f"2021-0{n}-11" for n in range(1, 9))


@pytest.mark.parametrize(
    ("column", "values", "name", "kind"),
    [
        ("took_office", WORDS, "took office", Role.NONE),
        ("in_office", WORDS, "in office", Role.NONE),
        ("most_popular_in", WORDS, "most popular in", Role.NONE),
        ("day_or_boarding", WORDS, "day or boarding", Role.NONE),
        ("valid_date_from", DAYS, "valid date from", Role.DATE),
        ("paid_on", DAYS, "paid date", Role.DATE),
        ("founded", DAYS, "founded date", Role.DATE),
        ("budgeted", NUMBERS, "budgeted value", Role.AMOUNT),
        ("damaged_yn", "10101100", "is damaged", Role.FLAG),
        ("isOrganic", ["Yes", "No"] * 4, "is organic", Role.FLAG),
        ("active", "YNYnYNyN", "is active", Role.FLAG),
        ("gender_flag", "10101100", "gender flag", Role.FLAG),
        ("genre_is", WORDS, "genre", Role.CATEGORY),
        ("t_colour", WORDS, "colour", Role.CATEGORY),
        ("a_colour", WORDS, "a colour", Role.CATEGORY),
    ],
)
def test_a_column_is_called_by_a_noun_or_left_out(tmp_path, column, values, name, kind):
    rows = [(n, f"Thing {n}", value) for n, value in enumerate(values)]
    path = database(
        tmp_path / "a.sqlite", f"CREATE TABLE thing (id INTEGER PRIMARY KEY, name, {column})", thing=rows
    )
    called = named(path)[1].tables["thing"].columns[column]
    assert (called.name, called.kind) == (name, kind)


def test_what_the_draft_leaves_out_is_said(tmp_path, caplog):
    rows = [(n, f"Thing {n}", value) for n, value in enumerate(WORDS)]
    path = database(
        tmp_path / "a.sqlite", "CREATE TABLE thing (id INTEGER PRIMARY KEY, name, took_office)", thing=rows
    )
    synthesise(open_source(path), tmp_path / "pairs", pairs=5)
    assert "thing.took_office" in caplog.text
    assert "names.toml" in caplog.text


@pytest.fixture(scope="module")
def airline_files(tmp_path_factory):
    """Airports are known by codes, airlines by numbers; all that is said of a flight is what it refers to."""
    airports = [(code, f"{code.title()} Field") for code in ("APG", "AHD", "ATO", "AKO", "ABI", "ABR")]
    airlines = [(n, f"Line {n}") for n in range(1, 5)]
    flights = [(1 + n * n % 4, 100 + n, airports[n * n % 5][0]) for n in range(60)]
    return database(
        tmp_path_factory.mktemp("air") / "air.sqlite",
        """
        CREATE TABLE airports (code TEXT PRIMARY KEY, name TEXT);
        CREATE TABLE airlines (uid INTEGER PRIMARY KEY, name TEXT);
        CREATE TABLE flights (airline INTEGER, flight_no INTEGER, airport TEXT REFERENCES airports,
            PRIMARY KEY (airline, flight_no));
        """,
        airports=airports,
        airlines=airlines,
        flights=flights,
    )


def test_codes_are_asked_for_and_numbers_are_not(airline_files):
    world = make_world(*named(airline_files))
    assert {a.name for a in world.entities["airports"].spoken} == {"code", "name"}
    assert {a.name for a in world.entities["airlines"].spoken} == {"name"}
    assert {a.name for a in world.entities["airlines"].ids} == {"uid"}
    assert {a.name for a in world.entities["flights"].spoken} == {"airport"}


def test_numbers_written_as_text_are_no_codes(tmp_path):
    rows = [(str(n), f"Pilot {n}") for n in range(30)]
    path = database(
        tmp_path / "a.sqlite", "CREATE TABLE pilot (pilot_id TEXT PRIMARY KEY, name TEXT)", pilot=rows
    )
    assert {a.name for a in make_world(*named(path)).entities["pilot"].spoken} == {"name"}


def test_a_column_called_like_a_table_refers_to_it(airline_files):
    found, _ = named(airline_files)
    key = next(key for key in found.keys if key.parent == "airlines")
    assert (key.child, key.columns, key.parent_columns) == ("flights", ("airline",), ("uid",))


def test_rows_with_a_number_of_their_own_are_no_link(airline_files):
    world = make_world(*named(airline_files))
    assert not world.entities["flights"].is_link
    assert "flights" in {entity.name for entity in world.topics}


def test_flights_are_asked_about(airline_files, tmp_path):
    synthesise(open_source(airline_files), tmp_path, pairs=120)
    pairs = (tmp_path / "train.jsonl").read_text(encoding="utf-8")
    assert "FROM flights WHERE airport = '" in pairs
    assert "FROM flights JOIN airlines" in pairs
    assert "GROUP BY airport" in pairs
    # Nobody asks for flights whose airport has the code APG: it is the flight's own column.
    assert "WHERE airports.code" not in pairs


@pytest.mark.slow
def test_a_database_that_allows_few_patterns_is_asked_all_the_same(tmp_path):
    """Without amounts, dates and keys there are lists and counts: no share is kept for what cannot come."""
    rows = [(f"Name {n}", f"Town {n * n % 37}", f"Street {n}") for n in range(90)]
    path = database(tmp_path / "a.sqlite", "CREATE TABLE person (name, town, street)", person=rows)
    made = synthesise(open_source(path), tmp_path / "pairs", pairs=400)
    assert sum(made.pairs.values()) == 400
