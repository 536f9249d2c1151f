"""Feedback returns: said on the page, trained on, compared on questions that neither run has seen, served."""

import json
import logging
import sys

import pytest

from distilsql import cli
from distilsql.data.load import load_sql_benchmark
from distilsql.errors import DataError, RunError
from distilsql.inference.predict import write_predictions
from distilsql.inference.replacement import compare_with_old
from distilsql.runs.folder import RunFolder
from distilsql.serve.feedback import Feedback
from distilsql.training.train import train
from tiny_world import PAIRS

CORRECTED = ("Who is from Peru?", "SELECT name FROM singer WHERE country = 'Peru'")
TESTED = [(f"{question[:-1]} {question[-1]}", sql) for question, sql in PAIRS]


@pytest.fixture
def said(world):
    """What a person said of an answer, as a server keeps it; and pairs to test on, one of which was corrected."""
    feedback = Feedback(world / "feedback.jsonl")
    question, sql = CORRECTED
    database = str(world / "singers.sqlite")
    feedback.add("wrong", "What?", "SELECT 2", right="", evidence="", database=database, model="old")
    feedback.add("corrected", question, "SELECT 1", right=sql, evidence="", database=database, model="old")
    lines = [json.dumps({"question": q, "sql": s}) for q, s in (*TESTED, CORRECTED)]
    (world / "test.jsonl").write_text("\n".join(lines) + "\n")
    return feedback.pairs


@pytest.fixture
def trained(recipe, tmp_path):
    """`trained("name", *overrides)`: a finished run of that name."""
    return lambda name, *overrides: train(recipe("sft", *overrides), tmp_path / name)


def questions_of(world):
    return load_sql_benchmark(str(world / "test.jsonl"), database=world / "singers.sqlite")


def answer(run, benchmark, right):
    """Predictions of the run, of which so many are right: what a run has answered is not asked again."""
    sql = [example.gold_sql if n < right else "SELECT 'no'" for n, example in enumerate(benchmark.examples)]
    ids = [example.example_id for example in benchmark.examples]
    write_predictions(dict(zip(ids, sql, strict=True)), benchmark, run.predictions(benchmark.name))


def command(capsys, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["distilsql", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr()
    return stop.value.code, said.out + said.err


def test_runs_are_compared_and_what_was_trained_on_is_not_judged(world, said, trained, caplog):
    old = trained("old", "train.steps=1")
    new = trained("new", "train.steps=1", f"data.extra={said}")
    for run, right in ((old, 2), (new, 6)):
        answer(run, questions_of(world), right)
    assert new.recipe.read_text().count("feedback.jsonl") == 1
    with caplog.at_level(logging.WARNING, "distilsql"):
        found = compare_with_old(old, new, questions_of(world))
    assert "1 of the 11 questions" in caplog.text
    assert len(found.new.verdicts) == len(found.old.verdicts) == len(TESTED)
    assert CORRECTED[0] not in {verdict.question for verdict in found.new.verdicts}
    assert not found.is_worse
    assert found.comparison.difference == pytest.approx(0.4)
    low, high = found.comparison.interval
    assert low <= found.comparison.difference <= high
    assert f"{100 * found.comparison.difference:+.1f} points (95 % interval" in found.sentence()
    # The other way round it is worse, and the same predictions say so.
    assert compare_with_old(new, old, questions_of(world)).is_worse


def test_a_worse_model_is_not_served_in_place_of_the_old_one(world, said, trained, capsys, monkeypatch):
    old, new = trained("old", "train.steps=1"), trained("new", "train.steps=1", f"data.extra={said}")
    answer(old, questions_of(world), 3)
    answer(new, questions_of(world), 2)
    monkeypatch.setattr("distilsql.serve.server.serve", lambda *a, **k: pytest.fail("it was served"))
    words = ("serve", new.path, "--port", "0", "--feedback", said, "--on", world / "test.jsonl")
    code, text = command(capsys, monkeypatch, *words, "--instead-of", old.path)
    assert code == 1
    assert f"{new.path} answers 20.0%" in text
    assert "-10.0 points" in text
    assert f"serve {old.path}, or leave out --instead-of" in " ".join(text.split())


def test_a_run_that_is_not_worse_is_served(world, said, trained, capsys, monkeypatch):
    old = trained("old", "train.steps=1")
    served = []
    assert not old.predictions("test.jsonl").exists(), "it is asked first"
    monkeypatch.setattr("distilsql.serve.server.serve", lambda app, bound, ready: served.append(ready()))
    words = ("serve", old.path, "--port", "0", "--feedback", said, "--on", world / "test.jsonl")
    code, text = command(capsys, monkeypatch, *words, "--instead-of", old.path)
    assert (code, len(served)) == (0, 1)
    assert text.index("+0.0 points") < text.index("Page http")


def test_misuse_is_said(world, said, trained, capsys, monkeypatch, tmp_path):
    old = trained("old", "train.steps=1")
    code, text = command(capsys, monkeypatch, "serve", old.path, "--feedback", said, "--instead-of", old.path)
    assert code == 1
    assert "go together" in text
    pairs = load_sql_benchmark(str(world / "pairs.jsonl"), database=world / "singers.sqlite")
    with pytest.raises(DataError, match="trained on every question"):
        compare_with_old(old, old, pairs)
    with pytest.raises(RunError):
        compare_with_old(RunFolder(tmp_path / "nowhere"), old, questions_of(world))
