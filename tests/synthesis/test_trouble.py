"""What goes wrong, at servers above all: a sentence with the cure, nothing lost, and the same command goes on."""

import logging
import sqlite3
from contextlib import closing

import pytest
from typer.testing import CliRunner

from distilsql.cli import app
from distilsql.errors import DatabaseUnavailable, DataError
from distilsql.synthesis import synthesise as module
from distilsql.synthesis.profile import profile
from distilsql.synthesis.source import open_source
from distilsql.synthesis.synthesise import synthesise
from engine_copies import HOMES, at_server, reader_of, statements
from servers import PASSWORD

SERVERS = tuple(HOMES)
SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module", params=["postgresql", pytest.param("mysql", marks=pytest.mark.slow)])
def served(request, shop):
    with at_server("shop", request.param, request, statements(shop, request.param)) as (place, server):
        yield place, server


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(module, "BATCH", 16)


def stopped_in_batch(monkeypatch, number, act):
    """Something happens before the batch of that number."""
    batch, calls = module._Maker._batch, []

    def acting(maker):
        calls.append(1)
        if len(calls) == number:
            act()
        return batch(maker)

    monkeypatch.setattr(module._Maker, "_batch", acting)


def locking(place, server, *, locked):
    reader = reader_of(place.name)
    if place.engine == "mysql":
        statement = f"ALTER USER {reader}@localhost ACCOUNT {'LOCK' if locked else 'UNLOCK'}"
    else:
        statement = f"ALTER ROLE {reader} {'NOLOGIN' if locked else 'LOGIN'}"
    return lambda: server.run(HOMES[place.engine], statement)


@pytest.mark.slow
def test_a_server_that_goes_away_halfway_costs_nothing(served, tmp_path, monkeypatch):
    place, server = served
    source = open_source(place)
    try:
        with monkeypatch.context() as patch:
            stopped_in_batch(patch, 2, locking(place, server, locked=True))
            said = r"check that the server runs.*kept in .*the same command"
            with pytest.raises(DatabaseUnavailable, match=said):
                synthesise(source, tmp_path / "cut", pairs=16, workers=2)
    finally:
        locking(place, server, locked=False)()
    assert (tmp_path / "cut" / "queries.jsonl").read_text().count('"drawn"') == 1
    synthesise(source, tmp_path / "cut", pairs=16, workers=2)
    synthesise(source, tmp_path / "whole", pairs=16, workers=2)
    for split in SPLITS:
        cut, whole = (tmp_path / name / f"{split}.jsonl" for name in ("cut", "whole"))
        assert cut.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_a_locked_file_is_no_querys_fault(shop, tmp_path, monkeypatch):
    path = tmp_path / "shop.sqlite"
    path.write_bytes(shop.read_bytes())
    with closing(sqlite3.connect(path)) as connection, monkeypatch.context() as patch:
        stopped_in_batch(patch, 2, lambda: connection.execute("BEGIN EXCLUSIVE"))
        with pytest.raises(DatabaseUnavailable, match=r"locked.*kept in .*the same command goes on"):
            synthesise(open_source(path), tmp_path / "out", pairs=40, workers=2)
    made = synthesise(open_source(path), tmp_path / "out", pairs=40, workers=2)
    assert sum(made.pairs.values()) == 40
    assert "does not run" not in made.verdicts


def test_one_who_may_do_more_than_read_is_refused(served):
    place, server = served
    with pytest.raises(DataError, match=r"connect as one that can only SELECT.*own_database"):
        open_source(server.url("owner", place.name))


@pytest.mark.slow
def test_another_databases_names_and_another_synthesis_are_refused(served, tmp_path):
    place, server = served
    names = tmp_path / "names.toml"
    names.write_text('database = "zoo"\n[tables.animals]\none = "animal"\nmany = "animals"\n')
    with pytest.raises(DataError, match="names animals, which 'shop' has not"):
        synthesise(open_source(place), tmp_path / "out", pairs=5, names=names)
    synthesise(open_source(place), tmp_path / "out", pairs=5, workers=2)
    with pytest.raises(DataError, match=r"another synthesis: its seed differs.*--out"):
        synthesise(open_source(place), tmp_path / "out", pairs=5, seed=1)
    before = (tmp_path / "out" / "queries.jsonl").read_bytes()
    server.run(place.name, "CREATE TABLE added (id int)")
    try:
        if place.engine == "postgresql":
            server.run(place.name, f"GRANT SELECT ON added TO {reader_of(place.name)}")
        with pytest.raises(DataError, match=r"another synthesis: its content.*--out"):
            synthesise(open_source(place), tmp_path / "out", pairs=5)
    finally:
        server.run(place.name, "DROP TABLE added")
    assert (tmp_path / "out" / "queries.jsonl").read_bytes() == before


def test_the_command_takes_a_url_and_never_shows_its_password(served, tmp_path):
    place, server = served
    url = server.url(reader_of(place.name), place.name)
    done = CliRunner().invoke(app, ["synth", url, "--out", str(tmp_path / "out"), "--pairs", "5"])
    assert done.exit_code == 0, done.output
    assert "***" in done.output
    again = CliRunner().invoke(app, ["synth", url, "--out", str(tmp_path / "names"), "--names-only"])
    assert again.exit_code == 0, again.output
    shown = (
        done.output
        + again.output
        + "".join(path.read_text() for path in tmp_path.rglob("*.*") if path.is_file())
    )
    assert PASSWORD not in shown
    assert "p@ss" not in shown


@pytest.mark.parametrize("engine", ["postgresql", pytest.param("mysql", marks=pytest.mark.slow)])
def test_databases_without_tables_or_rows(request, engine, tmp_path):
    with at_server("bare", engine, request, []) as (place, server):
        with pytest.raises(DataError, match=r"no table.*check the URL"):
            open_source(place)
        server.run("bare", "CREATE TABLE town (name text, people int)")
        if engine == "postgresql":
            with pytest.raises(DataError, match="GRANT SELECT"):
                open_source(place)
            server.run("bare", f"GRANT SELECT ON town TO {reader_of('bare')}")
        with pytest.raises(DataError, match="none of its tables has rows"):
            synthesise(open_source(place), tmp_path / "out", pairs=5)


def test_what_may_not_or_cannot_be_read_is_left_out_and_named(request, shop, tmp_path, caplog):
    made = [
        *statements(shop, "postgresql"),
        "CREATE VIEW failing AS SELECT 1 / (age - 25) AS ratio FROM customers",
    ]
    with at_server("partly", "postgresql", request, made) as (place, server):
        server.run("partly", f"REVOKE SELECT ON products FROM {reader_of('partly')}")
        with caplog.at_level(logging.WARNING, "distilsql"):
            source = open_source(place)
            found = profile(source)
        assert "may not read products" in caplog.text
        assert "what could not be read: failing (sql error: division by zero)" in caplog.text
        assert "products" not in {table.name for table in found.tables}
        assert sum(synthesise(source, tmp_path / "out", pairs=10, workers=2).pairs.values()) == 10
        assert "products" not in "".join(
            (tmp_path / "out" / f"{split}.jsonl").read_text() for split in SPLITS
        )


@pytest.mark.slow
def test_several_schemas_by_the_search_path(request, shop, tmp_path):
    made = [
        "CREATE SCHEMA sales",
        *statements(shop, "postgresql"),
        "ALTER TABLE orders SET SCHEMA sales",
        f"GRANT USAGE ON SCHEMA sales TO {reader_of('parts')}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA sales TO {reader_of('parts')}",
    ]
    with at_server("parts", "postgresql", request, made) as (_, server):
        source = open_source(server.url(reader_of("parts"), "parts", "&search_path=public,sales"))
        found = profile(source)
        assert found.table("orders").row_count == 240
        assert any((key.child, key.parent) == ("orders", "customers") for key in found.keys)
        synthesise(source, tmp_path / "out", pairs=15, workers=2)
        pairs = "".join((tmp_path / "out" / f"{split}.jsonl").read_text() for split in SPLITS)
        assert "JOIN orders" in pairs or "FROM orders" in pairs
