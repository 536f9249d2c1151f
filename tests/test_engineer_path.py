"""The README's commands from a database to a page and a GGUF file, as they stand there, on the embedded model."""

import json
import re
import shlex
import shutil
import sys
import urllib.request
from pathlib import Path

import pytest

from distilsql import cli
from distilsql.data.load import load_sql_benchmark
from distilsql.metrics.scores import Scores

pytest.importorskip("fastapi")
pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")

from serving import running

ROOT = Path(__file__).parents[1]
HEADING = "## Your database, in eight commands"
# What makes it small: few pairs and steps, and the embedded model as teacher and student.
SMALL_PAIRS = 60
SMALL = (
    (r'path = "models/[^"]*"', 'path = "demo:teacher"'),
    (r"epochs = 4", "steps = 2"),
)


def commands_of_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(rf"{HEADING}\n.*?```\n(.*?)```", text, re.DOTALL)
    assert block is not None
    return [shlex.split(line, comments=True) for line in block[1].splitlines()]


@pytest.fixture
def folder(tmp_path, monkeypatch, cache_of_the_tests):
    """What the README begins with: a database and a recipe."""
    shop = load_sql_benchmark("demo:test-seen").databases["shop"]
    shutil.copy(shop.path, tmp_path / "shop.sqlite")
    recipe = (ROOT / "recipes" / "own.toml").read_text(encoding="utf-8")
    for found, small in SMALL:
        recipe, count = re.subn(found, small, recipe)
        assert count, found
    (tmp_path / "own.toml").write_text(recipe)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def asked_over_http(monkeypatch):
    """`serve` answers one question of the page over a socket, and ends."""
    answers = []

    def serve(app, bound, ready):
        ready()
        with running(app) as url:
            with urllib.request.urlopen(url) as page:
                assert b"<!doctype html>" in page.read().lower()
            body = json.dumps({"question": "How many products are there?"}).encode()
            request = urllib.request.Request(f"{url}api/ask", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request) as answer:
                answers.append(json.load(answer))

    monkeypatch.setattr("distilsql.serve.server.serve", serve)
    return answers


def test_the_readmes_commands_run_one_after_another(folder, asked_over_http, monkeypatch, capsys):
    commands = commands_of_the_readme()
    assert [command[1] for command in commands] == [
        "synth",
        "data",
        "train",
        "predict",
        "evaluate",
        "ask",
        "serve",
        "export",
    ]
    said = {}
    for command in commands:
        assert command[0] == "distilsql"
        small = [str(SMALL_PAIRS) if word == "5000" else word for word in command]
        port = ["--port", "0"] if command[1] == "serve" else []
        monkeypatch.setattr(sys, "argv", [*small, *port])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        output = capsys.readouterr()
        # A student that was hardly trained may be asked what it cannot answer; that is a sentence, too.
        wrote_no_query = command[1] == "ask" and "The SQL was not carried out" in output.err
        assert stop.value.code == 0 or wrote_no_query, f"{shlex.join(small)}: {output.err}"
        said[command[1]] = output.out
    assert set(map(str, folder.glob("data/*.jsonl"))) >= {
        str(folder / "data" / f"{split}.jsonl") for split in ("train", "valid", "test")
    }
    scores = Scores.from_json((folder / "runs" / "own" / "scores" / "test.json").read_text())
    assert f"{scores.accuracy:.1%}" in said["evaluate"]
    assert "SELECT" in said["ask"].upper()
    assert "Page http://127.0.0.1:" in said["serve"]
    assert "SELECT" in asked_over_http[0]["sql"].upper()
    proof = json.loads((folder / "shop-gguf" / "proof.json").read_text())
    assert "q8_0" in json.dumps(proof)
    assert "q8_0: " in said["export"]
