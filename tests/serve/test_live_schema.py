"""A database that others change while it is served: prompts, the page and MCP show its tables as they are."""

import os
import shutil
import sqlite3
import threading
from contextlib import closing

import pytest
from starlette.testclient import TestClient

from distilsql.databases.database import Database, open_database
from distilsql.errors import DatabaseUnavailable
from distilsql.serve.live import LiveDatabase
from distilsql.serve.service import Service


@pytest.fixture
def own(database, tmp_path) -> Database:
    """A copy of the shop that a test may change."""
    path = tmp_path / "own.sqlite"
    shutil.copy(database.path, path)
    return open_database(path)


def change(path, *statements):
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def tables_of(asker):
    return [table.name for table in asker.database.schema.tables]


def test_a_new_table_is_in_the_next_prompt_and_rows_alone_change_none(model, own):
    live_database = LiveDatabase(model, own, read_again_s=0)
    before = live_database.current()
    change(own.path, "INSERT INTO product DEFAULT VALUES")
    assert live_database.current() is before, "what was run of its prompt is still good"
    prompt = before.asked("How many?").tree.prefix
    change(own.path, "CREATE TABLE visit (id INTEGER PRIMARY KEY, day TEXT)")
    after = live_database.current()
    assert tables_of(after) == [*tables_of(before), "visit"]
    assert after.asked("How many?").tree.prefix != prompt


def test_it_is_not_read_at_every_question(model, own):
    live_database = LiveDatabase(model, own, read_again_s=3600)
    before = live_database.current()
    change(own.path, "CREATE TABLE visit (id INTEGER PRIMARY KEY)")
    assert live_database.current() is before


def test_comments_of_a_benchmark_are_no_change(model, database):
    live_database = LiveDatabase(model, database, read_again_s=0)
    assert live_database.current() is live_database.current()
    assert live_database.asker.database is database


def test_a_database_that_is_gone_is_said_and_read_again_when_it_is_back(model, own):
    live_database = LiveDatabase(model, own, read_again_s=0)
    away = own.path.with_name("away")
    os.replace(own.path, away)
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            live_database.current()
    change(away, "CREATE TABLE visit (id INTEGER PRIMARY KEY)")
    os.replace(away, own.path)
    assert "visit" in tables_of(live_database.current())


@pytest.mark.slow
def test_the_page_shows_it_while_questions_are_asked(model, own, app_of, examples):
    with Service(model, own, name="teacher") as service:
        service._live = LiveDatabase(model, own, read_again_s=0)
        with TestClient(app_of(service), base_url="http://localhost") as client:
            statuses = []

            def ask():
                statuses.extend(
                    client.post("/api/ask", json={"question": each.question}).status_code
                    for each in examples[:5]
                )

            threads = [threading.Thread(target=ask) for _ in range(3)]
            for thread in threads:
                thread.start()
            for number in range(5):
                change(own.path, f"CREATE TABLE visit{number} (id INTEGER PRIMARY KEY)")
            for thread in threads:
                thread.join()
            assert set(statuses) == {200}
            client.post("/api/ask", json={"question": "How many visits are there?"})
            shown = [table["name"] for table in client.get("/api/database").json()["tables"]]
    assert {f"visit{number}" for number in range(5)} <= set(shown)
