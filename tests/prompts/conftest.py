"""A concert database, real and small, that the prompts are built of."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from distilsql.databases.database import Database
from distilsql.databases.schema import Comments, describe, introspect

CONCERTS = """
CREATE TABLE Stadium (Stadium_ID INT PRIMARY KEY, "Opening Day" DATE, Capacity INT, story TEXT);
CREATE TABLE singer (Singer_ID INT PRIMARY KEY, Name TEXT, Country TEXT, "Net Worth (M)" REAL);
CREATE TABLE singer_in_concert (Singer_ID INT, Stadium_ID TEXT, year, PRIMARY KEY (Singer_ID, Stadium_ID),
    FOREIGN KEY (Stadium_ID) REFERENCES Stadium (Stadium_ID), FOREIGN KEY (Singer_ID) REFERENCES singer (Singer_ID));
INSERT INTO Stadium VALUES (1, '1990-05-01', 10104, 'A story of more than twenty-five letters'), (2, '', 20000, 'Old');
INSERT INTO singer VALUES (1, 'Joe Sharp', 'Netherlands', 1.5), (2, 'Rose White', 'France', NULL);
INSERT INTO singer_in_concert VALUES (1, '1', 2014), (2, '2', 2014), (2, '1', 2015);
"""
COMMENTS = Comments(
    {"singer": "artist"},
    {("singer", "name"): "full  Name\nof the singer", ("stadium", "stadium_id"): "stadium id"},
)


def make_database(path: Path, script: str) -> Database:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"BEGIN; {script}; COMMIT;")  # one write to disk
    return Database(path.stem, path, introspect(path))


@pytest.fixture(scope="session")
def concerts(tmp_path_factory: pytest.TempPathFactory) -> Database:
    database = make_database(tmp_path_factory.mktemp("db") / "concerts.sqlite", CONCERTS)
    return replace(database, schema=describe(database.schema, COMMENTS))


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Database:
    """Twelve tables of fifteen columns, each referring to the one before."""
    script = ""
    for table in range(12):
        columns = ", ".join(f"field_{table}_{column} TEXT" for column in range(14))
        key = f", FOREIGN KEY (id) REFERENCES part_{table - 1} (id)" if table else ""
        script += f"CREATE TABLE part_{table} (id INTEGER PRIMARY KEY, {columns}{key});\n"
        script += f"INSERT INTO part_{table} (id, field_{table}_3) VALUES (1, 'value {table}');\n"
    return make_database(tmp_path_factory.mktemp("db") / "wide.sqlite", script)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("values")
