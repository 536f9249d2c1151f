"""The command line: starts at once, documents itself, and turns every misuse into a sentence and a status."""

import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from distilsql.cli.method_reference import method_reference
from distilsql.data.load import load_benchmark
from distilsql.distill.methods import METHODS

ROOT = Path(__file__).parents[1]
RECIPE = (
    "method = 'sft'\n[student]\npath = 'no-such-model'\n[data]\ntrain = 'demo:train'\n[train]\nsteps = 1\n"
)


def distilsql(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """In a fresh process, which imports what it needs: `commands.run` is cheaper."""
    command = [sys.executable, "-m", "distilsql.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=600)


def test_help_names_every_command_and_methods_lists_every_row():
    shown = distilsql("--help").stdout
    for command in (
        "demo",
        "train",
        "predict",
        "evaluate",
        "compare",
        "reproduce",
        "methods",
        "data",
        "suite",
    ):
        assert f" {command} " in shown
    listed = distilsql("methods").stdout
    assert all(method in listed for method in METHODS)


def test_the_method_reference_is_current():
    committed = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert committed == method_reference(), "run `make docs`"


def test_ctrl_c_says_how_to_go_on():
    stopped = (
        "import sys\nfrom distilsql import cli\n@cli.app.command()\ndef wait(overwrite: bool = False):\n"
        "    raise KeyboardInterrupt\nsys.argv = ['distilsql', 'wait'] + sys.argv[1:]\ncli.main()\n"
    )
    for options in ([], ["--overwrite"]):
        result = subprocess.run([sys.executable, "-c", stopped, *options], capture_output=True, text=True)
        assert result.returncode == 130
        assert "stopped. To resume: distilsql wait\n" in result.stderr


WARN_OF_OTHERS = "warnings.warn('of somebody else', FutureWarning)"
ADAPT = """
from distilsql.models.load import add_lora, load_model
add_lora(load_model({student!r}, "float32"), rank=2, scale=1.0)
"""
# What ADAPT has peft hear, without loading it.
WARN = """
import warnings
warnings.warn_explicit(
    "`is_gradient_checkpointing` is deprecated", FutureWarning, "modeling_utils.py", 1, "transformers.modeling_utils"
)
"""


@pytest.mark.parametrize(
    ("work", "options", "is_shown"),
    [
        pytest.param(ADAPT, [], False, marks=pytest.mark.slow),
        pytest.param(ADAPT, ["-W", "default"], True, marks=pytest.mark.slow),
        (WARN, ["-W", "default"], True),
        (WARN, [], False),
    ],
)
def test_what_libraries_say_to_one_another_is_shown_to_who_asks(tiny_models, work, options, is_shown):
    """Adding LoRA has peft call what transformers has renamed."""
    body = (work.format(student=str(tiny_models["student"])) + WARN_OF_OTHERS).replace("\n", "\n    ")
    program = (
        f"import sys, warnings\nfrom distilsql import cli\n@cli.app.command()\ndef adapt():\n    {body}\n"
        "sys.argv = ['distilsql', 'adapt']\ncli.main()\n"
    )
    command = [sys.executable, *options, "-c", program]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert ("is_gradient_checkpointing" in said) == is_shown
    assert "of somebody else" in said


LIGHT = [
    ["train", "nowhere.toml"],
    ["predict", "nowhere", "--on", "demo:test"],
    ["exposure", "nowhere", "--on", "demo:test"],
    ["evaluate", "missing.txt", "--on", "demo:test"],
    ["ask", "nowhere", "How many?"],
    ["ask", "demo:nobody", "How many?", "--database", "shop.sqlite"],
    ["ask", "demo:teacher", "How many?", "--database", "missing.sqlite"],
    ["mcp", "nowhere"],
]


def test_what_is_quick_to_refuse_is_refused_before_torch_is_loaded(tmp_path):
    """In one fresh process, for an import stays: which of the commands has loaded torch?"""
    with sqlite3.connect(tmp_path / "shop.sqlite") as database:
        database.execute("CREATE TABLE item (price INTEGER)")
    database.close()
    program = (
        "import json, sys\nfrom distilsql import cli\nfrom distilsql.errors import DistilSQLError\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    try:\n        cli.app(words, standalone_mode=False)\n"
        "    except (DistilSQLError, OSError) as error:\n"
        "        print(' '.join(words), '->', type(error).__name__, 'torch' in sys.modules)\n"
    )
    command = [sys.executable, "-c", program, json.dumps(LIGHT)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    lines = result.stdout.splitlines()
    assert len(lines) == len(LIGHT), "every one is refused"
    assert [line for line in lines if not line.endswith(" False")] == []


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["train", "nowhere.toml"], 1, ["nowhere.toml", "cannot be read"]),
        (["train", "typo.toml"], 1, ["train.stepz", "did you mean train.steps?"]),
        (["train", "broken.toml"], 1, ["not valid TOML"]),
        (["train", "latin.toml"], 1, ["latin.toml", "not UTF-8"]),
        (["train", "marked.toml"], 1, ["no-such-model"]),
        (["train", "good.toml", "--set", "train.trackers=['foo']"], 1, ["no tracker 'foo'", "tensorboard"]),
        (["exposure", "nowhere", "--on", "demo:test", "--seed", "-1"], 2, ["--seed"]),
        (["train", "method.toml"], 1, ["'kidd'", "did you mean kid?"]),
        (["train", "good.toml"], 1, ["no-such-model"]),
        (["train", "good.toml", "--set", "data.train=missing.jsonl"], 1, ["missing.jsonl"]),
        (["predict", "nowhere", "--on", "demo:test"], 1, ["nowhere is not a run folder"]),
        (["predict", "nowhere", "--on", "demo:test", "--beams", "4"], 1, ["4 beams", "--out"]),
        (
            ["predict", "nowhere", "--on", "demo:test", "--precision", "float32"],
            1,
            ["in float32", "the run's own precision", "--out"],
        ),
        (["predict", "nowhere", "--on", "demo:test", "--precision", "half"], 2, ["--precision", "float32"]),
        (["evaluate", "missing.txt", "--on", "demo:test"], 1, ["missing.txt"]),
        (
            ["evaluate", "runs/own", "--on", "pairs.jsonl"],
            1,
            ["no run folder and no prediction file runs/own"],
        ),
        (["evaluate", "short.txt", "--on", "demo:test"], 1, ["short.txt", "1040"]),
        (["evaluate", "short.txt", "--on", "spider:nope"], 1, ["spider:nope", "spider:dev"]),
        (["evaluate", "short.txt", "--on", "demo:test", "--limit", "0"], 2, ["--limit"]),
        (
            ["evaluate", "short.txt", "--on", "demo:test", "--temperature", "1"],
            1,
            ["--temperature", "run folder"],
        ),
        (["evaluate", ".", "--on", "demo:test"], 1, [". is not a run folder"]),
        (["evaluate", ".", "--on", "demo:test", "--plug-values"], 1, ["--plug-values", "prediction file"]),
        (["ask", "nowhere", "How many?"], 1, ["nowhere is not a run folder"]),
        (["compare", "nowhere"], 1, ["nowhere"]),
        (["reproduce", "table3", "--recipes", "."], 1, ["no published.toml", "--recipes"]),
        (["reproduce", "tabel3"], 1, ["'tabel3'", "table3", "figure6", "switch"]),
        (["reproduce", "table3", "--scale", "gpu"], 1, ["'gpu'", "did you mean cpu"]),
        (["data", "check", "missing.jsonl"], 1, ["missing.jsonl"]),
        (["nonsense"], 2, ["nonsense"]),
    ],
)
def test_misuse_gives_a_sentence_and_an_exit_status(commands, tmp_path, arguments, status, words):
    good = RECIPE
    (tmp_path / "good.toml").write_text(good)
    (tmp_path / "typo.toml").write_text(good.replace("steps", "stepz"))
    (tmp_path / "method.toml").write_text(good.replace("'sft'", "'kidd'"))
    (tmp_path / "broken.toml").write_text("method = \n")
    (tmp_path / "latin.toml").write_bytes(f"# naïve\n{good}".encode("latin-1"))
    (tmp_path / "marked.toml").write_text(good, encoding="utf-8-sig")
    (tmp_path / "short.txt").write_text("SELECT 1\n")
    result = commands.run(*arguments, cwd=tmp_path)
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr
    shown = " ".join((result.stderr + result.stdout).split())
    for word in words:
        assert word in shown, shown


def test_a_run_is_compared_with_anyones_table(commands, tmp_path):
    """Which column holds the SQL is a question about the file after --against; a run's own predictions have none."""
    with sqlite3.connect(tmp_path / "shop.sqlite") as database:
        database.executescript("CREATE TABLE item (price INTEGER); INSERT INTO item VALUES (1), (2), (4);")
    database.close()
    golds = [f"SELECT count(*) FROM item WHERE price < {bound}" for bound in (2, 3, 5)]
    pairs = "".join(json.dumps({"question": sql, "sql": sql}) + "\n" for sql in golds)
    (tmp_path / "pairs.jsonl").write_text(pairs)
    (tmp_path / "theirs.csv").write_text(
        "answer,note\n" + "".join(f"{sql},\n" for sql in [*golds[:2], golds[0]])
    )
    run = tmp_path / "run"
    (run / "predictions").mkdir(parents=True)
    (run / "recipe.toml").write_text(RECIPE.replace("demo:train", "pairs.jsonl"))
    asked = ["--on", "pairs.jsonl", "--database", "shop.sqlite"]
    pairs_file = load_benchmark(str(tmp_path / "pairs.jsonl"), database=tmp_path / "shop.sqlite")
    example_ids = [example.example_id for example in pairs_file.examples]
    lines = [
        json.dumps({"example_id": i, "sql": sql}) + "\n" for i, sql in zip(example_ids, golds, strict=True)
    ]
    (run / "predictions" / "pairs.jsonl").write_text("".join(lines))
    compared = commands.run(
        "evaluate", "run", *asked, "--against", "theirs.csv", "--column", "answer", cwd=tmp_path
    )
    assert compared.returncode == 0, compared.stderr
    assert "100.0" in compared.stdout
    assert "+33.3" in compared.stdout
    refused = commands.run("evaluate", "run", *asked, "--column", "answer", cwd=tmp_path)
    assert refused.returncode == 1
    assert "--column has no effect here" in refused.stderr


COMMANDS = [
    "", "demo", "synth", "train", "predict", "ask", "serve", "mcp", "export", "evaluate", "compare", "exposure",
    "reproduce", "methods", "data check", "suite build",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_eighty_columns_and_cuts_no_word(commands, tmp_path, command):
    shown = commands.run(*command.split(), "--help", cwd=tmp_path, COLUMNS="80").stdout
    assert "Usage" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert not re.search(r"[^\s,]…", shown), "a word is cut"


@pytest.mark.parametrize("columns", [80, 60])
def test_the_table_of_methods_cuts_no_word(commands, tmp_path, columns):
    shown = commands.run("methods", cwd=tmp_path, COLUMNS=str(columns)).stdout
    assert "kid" in shown
    assert all(len(line) <= columns for line in shown.splitlines())
    assert "…" not in shown
    if columns == 80:
        for word in ("total-variation", "jensen-shannon", "student-generated", "kid-mask-only", "(SWITCH)"):
            assert word in shown
