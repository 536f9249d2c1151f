"""A run about a database at a server: trained, asked and judged by its URL, and its password nowhere on disk."""

import json

import pytest

from distilsql.data.load import load_benchmark
from distilsql.databases.database import open_database
from distilsql.databases.url import place_of
from distilsql.errors import RecipeError
from distilsql.inference.ask import ask
from distilsql.inference.predict import benchmark_for, load_student, predict
from distilsql.inference.prepare import load_data
from distilsql.metrics.scores import Scores
from distilsql.runs.evaluate import evaluate_run
from distilsql.runs.recipe import load_recipe
from distilsql.serve.browse import suggested_questions
from distilsql.serve.feedback import Feedback
from distilsql.training.train import train
from servers import PASSWORD
from tiny_world import LEARNING

SINGERS = (
    "CREATE TABLE singer (id int PRIMARY KEY, name varchar(20), age int, country varchar(20))",
    "INSERT INTO singer VALUES (1, 'Ann', 31, 'France'), (2, 'Bob', 24, 'Spain'), (3, 'Cho', 45, 'France'), "
    "(4, 'Dee', 22, 'Peru')",
)


@pytest.fixture(params=["postgresql", "mysql"])
def url(request, monkeypatch):
    """Of the tiny world's singers, with a variable for the password."""
    monkeypatch.setenv("SINGERS_PASSWORD", PASSWORD)
    if request.param == "mysql":
        server, base, account = request.getfixturevalue("mariadb_server"), "mysql", "fan@localhost"
        server.run(base, "CREATE DATABASE story")
        server.run("story", *SINGERS, f"CREATE USER {account} IDENTIFIED BY '{PASSWORD}'")
        server.run("story", f"GRANT SELECT ON story.* TO {account}")
        drop = ("DROP DATABASE story", f"DROP USER {account}")
    else:
        server, base = request.getfixturevalue("postgresql_server"), "postgres"
        server.run(base, "CREATE DATABASE story")
        server.run("story", *SINGERS, f"CREATE ROLE fan LOGIN PASSWORD '{PASSWORD}'")
        server.run("story", "GRANT SELECT ON singer TO fan")
        drop = ("DROP DATABASE story WITH (FORCE)", "DROP ROLE fan")
    yield f"{server.engine}://fan:${{SINGERS_PASSWORD}}@/story?{server.query}"
    server.run(base, *drop)


@pytest.mark.slow
def test_trained_asked_and_judged_by_a_url(recipe, world, tmp_path, url, commands):
    def output(*words):
        done = commands.run(*map(str, words), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    pairs = world / "pairs.jsonl"
    given = recipe("sft", *LEARNING, f"data.database={url}", "data.valid=" + str(pairs))
    run = train(given, tmp_path / "run")
    assert load_recipe(run.recipe).data.database == url
    spec = benchmark_for(given, str(pairs), None, None)
    predict(load_student(run), spec, run.predictions(spec.name))
    scores = evaluate_run(run, spec)
    assert scores.accuracy >= 0.7
    assert Scores.from_json(run.scores(spec.name).read_text()).databases == {}
    answer = ask(load_student(run), "How many singers are there?", url)
    assert answer.result.rows == ((4,),)
    asked = output("ask", run.path, "How many singers are there?")
    assert "SELECT" in asked
    literal = url.replace("${SINGERS_PASSWORD}", "p@ss:w%2Frd%3F%25")
    out = tmp_path / "written.jsonl"
    said = output("predict", run.path, "--on", pairs, "--database", literal, "--out", out)
    said += output("evaluate", out, "--on", pairs, "--database", literal)
    said += output("data", "check", pairs, "--database", literal)
    assert "10 golds run" in said
    texts = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for secret in (b"p@ss", b"w/rd", b"w%2Frd"):
        assert not any(secret in text for text in texts)
        assert secret.decode() not in said


def test_feedback_to_a_server_by_another_url_is_trained_on(recipe, tmp_path, url, monkeypatch):
    literal = place_of(url.replace("${SINGERS_PASSWORD}", "p@ss:w%2Frd%3F%25") + "&connect_timeout=9")
    feedback = Feedback(tmp_path / "feedback.jsonl")
    said = {"evidence": "", "database": str(literal), "model": "own"}
    feedback.add("corrected", "Who is new?", "SELECT 1", right="SELECT name FROM singer", **said)
    assert "p@ss" not in feedback.pairs.read_text()
    given = recipe("sft", f"data.database={url}", f"data.extra={feedback.pairs}")
    train_set, _ = load_data(given)
    assert train_set.examples[-1].question == "Who is new?"
    assert {str(database.path) for database in train_set.databases.values()} == {url}
    database = open_database(literal)
    assert suggested_questions(database, given) == suggested_questions(open_database(url), given)
    assert set(suggested_questions(database, given)) <= {each.question for each in train_set.examples}
    monkeypatch.delenv("SINGERS_PASSWORD")
    assert suggested_questions(database, given), "the recipe's variable is not needed to ask by another URL"


def test_a_password_in_a_recipe_is_refused_and_not_shown(recipe, tmp_path):
    for override in (
        "data.database=mysql://me:s3@cr3t@host/shop",
        'data={"database": "mysql://me:s3@cr3t@host/shop"}',
    ):
        with pytest.raises(RecipeError) as caught:
            recipe("sft", override)
        assert "cr3t" not in str(caught.value)
    assert recipe("sft", "data.database=mysql://me:${SHOP}@host/shop").data.database.count("${SHOP}") == 1


def test_pairs_are_about_the_url_that_is_given(world, url):
    benchmark = load_benchmark(world / "pairs.jsonl", database=url)
    (database,) = benchmark.databases.values()
    assert (database.db_id, json.dumps(str(database.path))) == ("story", json.dumps(url))
