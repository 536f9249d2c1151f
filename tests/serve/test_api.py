"""What the page calls: questions, statements, CSV, the schema, what people say of answers; and how faults are said."""

import json
import shutil
import sqlite3
import threading
from contextlib import closing

import pytest
from starlette.testclient import TestClient

from distilsql.data.load import load_sql_benchmark
from distilsql.databases.database import Database, open_database
from distilsql.databases.execute import execute, shared_pool
from distilsql.inference.ask import ask
from distilsql.serve.service import Limits, Service
from killed import kill_workers


def test_a_question_is_answered_with_sql_and_its_rows(client, model, database, examples):
    right = 0
    for example in examples[:8]:
        answer = client.post("/api/ask", json={"question": example.question}).json()
        assert answer["sql"] == ask(model, example.question, database).sql
        gold = execute(database.path, example.gold_sql)
        right += answer["result"]["rows"] == [list(row) for row in gold.rows]
        assert answer["completion_tokens"] > 1
        assert answer["prompt_tokens"] > answer["completion_tokens"]
    assert right >= 4, "the teacher knows this database"


def test_questions_asked_at_once_are_answered_as_alone(client, examples):
    alone = [client.post("/api/ask", json={"question": each.question}).json()["sql"] for each in examples[:6]]
    together = [None] * 6

    def ask_one(number):
        together[number] = client.post("/api/ask", json={"question": examples[number].question}).json()["sql"]

    threads = [threading.Thread(target=ask_one, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_matched_values_are_said(client, database):
    table = next(table for table in database.schema.tables if any(c.type == "text" for c in table.columns))
    column = next(column.name for column in table.columns if column.type == "text")
    (value,) = execute(database.path, f'SELECT "{column}" FROM "{table.name}" LIMIT 1').rows[0]
    answer = client.post("/api/ask", json={"question": f"How many have the {column} {value}?"}).json()
    found = [
        each["values"]
        for each in answer["matched"]
        if (each["table"], each["column"]) == (table.name, column)
    ]
    assert found
    assert value in found[0]


def test_a_statement_runs_and_its_outcome_is_said(client):
    rows = client.post("/api/run", json={"sql": "SELECT 'a' AS name, 2 AS n UNION ALL SELECT 'b', 3"}).json()
    assert (rows["outcome"], rows["rows"], rows["kinds"]) == (
        "rows",
        [["a", 2], ["b", 3]],
        ["text", "number"],
    )
    assert rows["chart"] == {"kind": "bar", "x": 0, "y": 1}
    denied = client.post("/api/run", json={"sql": "DROP TABLE product"})
    assert (denied.status_code, denied.json()["outcome"], denied.json()["rows"]) == (200, "denied", [])
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 2000) SELECT i FROM n"
    cut = client.post("/api/run", json={"sql": many}).json()
    assert (cut["outcome"], len(cut["rows"])) == ("too many rows", 1000)
    assert client.post("/api/run", json={"sql": "   "}).json()["outcome"] == "sql error"


def test_csv_is_neutralised(client):
    sql = "SELECT '=1+1' AS \"=head\", '-2+3' AS b, -2 AS c, '@x' AS d, '-5' AS e, NULL AS f, 'a,\"b' AS g"
    answer = client.post("/api/csv", json={"sql": sql})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.text == "'=head,b,c,d,e,f,g\r\n'=1+1,'-2+3,-2,'@x,-5,,\"a,\"\"b\"\r\n"
    failed = client.post("/api/csv", json={"sql": "SELECT nothing"})
    assert (failed.status_code, "not carried out" in failed.json()["error"]) == (422, True)


def test_the_schema_is_shown_with_samples_and_suggestions(client, database):
    shown = client.get("/api/database").json()
    assert [table["name"] for table in shown["tables"]] == [table.name for table in database.schema.tables]
    samples = [
        sample for table in shown["tables"] for column in table["columns"] for sample in column["samples"]
    ]
    assert samples
    assert any(column["refers_to"] for table in shown["tables"] for column in table["columns"])
    assert shown["suggestions"]
    assert all(question.endswith((".", "?")) for question in shown["suggestions"])


def test_what_people_say_becomes_pairs_to_train_on(client, tmp_path, database):
    table = database.schema.tables[0].name
    good, wrong = f"SELECT count(*) FROM {table}", f"SELECT count(*) + 1 FROM {table}"

    def say(**said):
        return client.post("/api/feedback", json={"question": "How many?", "sql": wrong, **said})

    assert say(sql=good, verdict="right").status_code == 200
    assert say(verdict="corrected", right=good, evidence="all of them").status_code == 200
    assert say(verdict="wrong").status_code == 200
    refused = say(verdict="corrected", right="SELECT nothing")
    assert refused.status_code == 422
    assert "does not run" in refused.json()["error"]
    assert say(verdict="corrected", right="DELETE FROM product").status_code == 422
    assert say(verdict="corrected").status_code == 422
    assert say(verdict="splendid").status_code == 422

    pairs = load_sql_benchmark(str(tmp_path / "feedback.jsonl"))
    assert [(each.question, each.gold_sql, each.evidence) for each in pairs.examples] == [
        ("How many?", good, ""),
        ("How many?", good, "all of them"),
    ]
    assert {each.path for each in pairs.databases.values()} == {database.path.absolute()}
    (line,) = (tmp_path / "feedback.wrong.jsonl").read_text().splitlines()
    assert (json.loads(line)["verdict"], json.loads(line)["written"]) == ("wrong", wrong)


def test_what_cannot_be_read_is_a_sentence(client):
    for body, words in (
        ({}, "question: Field required"),
        ({"question": ""}, "at least 1 character"),
        ({"question": "x" * 5000}, "at most 4000"),
        ({"question": "How many?", "beams": 3}, "beams: Extra inputs"),
        ([1], "dictionary"),
    ):
        answer = client.post("/api/ask", json=body)
        assert answer.status_code == 422
        assert words in answer.json()["error"], answer.json()
    assert (
        client.post("/api/ask", content=b"{", headers={"content-type": "application/json"}).status_code == 422
    )
    assert client.get("/api/nothing").json() == {"error": "Not Found"}
    assert client.get("/api/ask").status_code == 405


@pytest.fixture
def copied(database, tmp_path) -> Database:
    path = tmp_path / "copy.sqlite"
    shutil.copy(database.path, path)
    return open_database(path)


def test_a_database_that_is_deleted_is_said_and_one_that_returns_is_read(
    model, copied, app_of, database, examples
):
    question = {"question": examples[0].question}
    with (
        Service(model, copied, name="m") as service,
        TestClient(app_of(service), base_url="http://localhost") as client,
    ):
        before = client.post("/api/ask", json=question).json()
        copied.path.unlink()
        for path, body in (("/api/ask", question), ("/api/run", {"sql": "SELECT 1"})):
            gone = client.post(path, json=body)
            assert gone.status_code == 503
            assert "no database file" in gone.json()["error"]
        assert client.get("/api/database").status_code == 503
        assert client.get("/health").json()["status"] == "ok"
        shutil.copy(database.path, copied.path)
        assert client.post("/api/ask", json=question).json()["sql"] == before["sql"]


@pytest.mark.slow
def test_answers_go_on_while_somebody_writes(model, copied, app_of, examples):
    with closing(sqlite3.connect(copied.path, isolation_level=None)) as writer:
        writer.execute("CREATE TABLE log (n INTEGER)")
        with (
            Service(model, copied, name="m") as service,
            TestClient(app_of(service), base_url="http://localhost") as client,
        ):
            for number in range(5):
                writer.execute("INSERT INTO log VALUES (?)", (number,))
                found = client.post("/api/run", json={"sql": "SELECT count(*) FROM log"}).json()
                assert found["rows"] == [[number + 1]]
                assert client.post("/api/ask", json={"question": examples[0].question}).status_code == 200
            writer.execute("BEGIN EXCLUSIVE")
            writer.execute("INSERT INTO log VALUES (9)")
            held = client.post("/api/run", json={"sql": "SELECT count(*) FROM log"})
            writer.execute("ROLLBACK")
            assert (held.status_code, "locked" in held.json()["error"]) == (503, True)
            assert client.post("/api/run", json={"sql": "SELECT count(*) FROM log"}).json()["rows"] == [[5]]


def test_a_worker_that_is_killed_is_replaced(client):
    assert client.post("/api/run", json={"sql": "SELECT 1"}).json()["rows"] == [[1]]
    kill_workers(shared_pool().process_ids())
    assert client.post("/api/run", json={"sql": "SELECT 2"}).json()["rows"] == [[2]]


def test_more_than_may_wait_gets_429(model, database, app_of):
    limits = Limits(questions=1, waiting=1, statements=0)
    with (
        Service(model, database, name="m", limits=limits) as service,
        TestClient(app_of(service), base_url="http://localhost") as client,
    ):
        full = client.post("/api/run", json={"sql": "SELECT 1"})
        assert full.status_code == 429
        assert int(full.headers["retry-after"]) > 0
        assert "ask again" in full.json()["error"]


def test_how_statements_are_run_can_be_replaced(model, database, app_of):
    """The seam for other engines: a Database and a function."""

    def run_sql(asked, sql):
        return execute(asked.path, sql, mode="serving", max_rows=1)

    with (
        Service(model, database, name="m", run_sql=run_sql) as service,
        TestClient(app_of(service), base_url="http://localhost") as client,
    ):
        rows = client.post("/api/run", json={"sql": "VALUES (1), (2)"}).json()
        assert (rows["outcome"], rows["rows"]) == ("too many rows", [[1]])


def test_the_open_api_description_names_every_path(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) >= {
        "/api/ask",
        "/api/run",
        "/api/csv",
        "/api/database",
        "/api/feedback",
        "/v1/models",
        "/v1/chat/completions",
    }
