"""Prediction files that are not what their suffix says, and files as spreadsheets and shells leave them."""

import gzip
import json
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from distilsql.errors import DataError
from distilsql.metrics.predictions import read_predictions

SQL = [f"SELECT {n}" for n in range(6)]
LINES = [json.dumps({"example_id": f"dev/{n}", "sql": sql}) for n, sql in enumerate(SQL)]


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("p.jsonl.bak", "\n".join(LINES), "it holds JSON"),
        ("p", "\n".join(LINES), "it holds JSON"),
        ("p.txt", json.dumps(SQL, indent=1)[:30] + "\n" * 0, "it holds JSON"),
        ("p.txt", "<!DOCTYPE html>\n<p>\n<p>\n<p>\n<p>\n</html>", "it holds HTML or XML"),
        ("p.txt", "```sql\n" + "\n".join(SQL[:4]) + "\n```", "it holds Markdown"),
        ("p.txt", "example_id,sql\n" + "\n".join(SQL[:5]), "the header of a table"),
        ("p.txt", "question;SQL\n" + "\n".join(SQL[:5]), "the header of a table"),
        ("p.txt", "How many shops?\n" * 6, "no line of it is SQL"),
        ("p.txt", "dev/0\ndev/1\ndev/2\ndev/3\ndev/4\ndev/5\n", "no line of it is SQL"),
        ("p.txt", gzip.compress(b"SELECT 1", mtime=0), "gzip-compressed"),
        ("p.jsonl", b"PK\x03\x04" + bytes(20), "a zip archive"),
        ("p.txt", b"SELECT 1\0\nSELECT 2", "NUL character"),
        ("p.csv", "SELECT 1\xe9".encode("latin-1"), "not UTF-8 text"),
        ("p.json", json.dumps(LINES), "a list of 6"),
        ("p.jsonl", '{"id": 0, "predicted_sql": "SELECT 1"}', "the fields id, predicted_sql"),
        ("p.jsonl", "[1]", "It holds list"),
        ("p.csv", "sql,sql\n1,2", "the column 'sql' twice"),
        ("p.csv", "answer,note\n1,2", "say which one holds the SQL with --column"),
        ("p.txt", "", "has 0 lines"),
        ("p.csv", "sql\n", "has 0 rows"),
        ("p.jsonl", "\n".join(line.replace("SELECT", " " * 6) for line in LINES)[:0], "is blank"),
    ],
)
def test_what_cannot_be_sql_is_refused_with_what_was_found(shop, tmp_path, name, content, found):
    with pytest.raises(DataError, match=found):
        read_predictions(write(tmp_path, name, content), shop)


def test_a_database_is_no_file_of_predictions(shop, tmp_path):
    with closing(sqlite3.connect(tmp_path / "p.txt")) as connection:
        connection.execute("CREATE TABLE t (a)")
    with pytest.raises(DataError, match="a SQLite database"):
        read_predictions(tmp_path / "p.txt", shop)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.JSONL", "\n".join(LINES)),
        ("p.Json", json.dumps({str(n): sql for n, sql in enumerate(SQL)})),
        ("p.CSV", "\n".join(["SQL", *SQL])),
        ("p.csv", "\ufeffExample_ID;Sql\r\n" + "".join(f"dev/{n};{sql}\r\n" for n, sql in enumerate(SQL))),
        ("p.csv", ("sql\tnote\n" + "".join(f"{sql}\tx\n" for sql in SQL)).encode("utf-16")),
        ("p.csv", "sep=;\nsql;note\n" + "".join(f'"{sql}";\n' for sql in SQL) + ";\n;\n"),
        ("p.csv", "sql,,\n" + "".join(f"{sql},,\n" for sql in SQL)),
        ("p.tsv", "example_id\tsql\n" + "".join(f"dev/{n}\t{sql}\n" for n, sql in enumerate(SQL))),
        ("p.txt", "\n".join(SQL).encode("utf-16")),
        ("p.sql", "\ufeff" + "\r\n".join(SQL) + "\r\n"),
    ],
)
def test_the_same_predictions_as_they_come(shop, tmp_path, name, content):
    if name == "p.csv" and isinstance(content, str) and content.startswith("sql,,"):
        with pytest.raises(DataError, match="twice"):  # two columns without a name are none to choose from
            read_predictions(write(tmp_path, name, content.replace(",,", ",a,a", 1)), shop)
    assert read_predictions(write(tmp_path, name, content), shop) == SQL


def test_the_name_of_the_database_behind_a_tab(shop, tmp_path):
    """Spider cuts there itself. Own SQL may hold tabs, so it is cut only where every line ends in its database."""
    own = replace(shop, evaluator="plain")
    lines = write(tmp_path, "p.tsv", "".join(f"{sql}\tshop\n" for sql in SQL))
    assert read_predictions(lines, own) == SQL
    assert read_predictions(lines, shop) == [f"{sql}\tshop" for sql in SQL]
    tabs = [*SQL[:5], "SELECT name FROM\tshop"]
    assert read_predictions(write(tmp_path, "p.txt", "\n".join(tabs)), own) == tabs
    examples = (replace(shop.examples[0], db_id="zoo"), *shop.examples[1:])
    other = replace(shop, examples=examples, databases={**shop.databases, "zoo": shop.databases["shop"]})
    with pytest.raises(DataError, match="prediction 1 is about shop, dev/0 of shop:dev about zoo"):
        read_predictions(lines, other)


@pytest.mark.parametrize("name", ["p.jsonl", "p.json"])
def test_all_predictions_empty_is_refused_but_of_a_run(shop, tmp_path, name):
    texts = {
        "p.jsonl": "\n".join(json.dumps({"example_id": f"dev/{n}", "sql": " "}) for n in range(6)),
        "p.json": json.dumps({str(n): "" for n in range(6)}),
    }
    path = write(tmp_path, name, texts[name])
    with pytest.raises(DataError, match=r"All 6 predictions .* are empty"):
        read_predictions(path, shop)
    assert not any(answer.strip() for answer in read_predictions(path, shop, may_be_empty=True))
