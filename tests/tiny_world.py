"""Fixtures of a tiny world to train in: a SQLite file, question/SQL pairs about it, and recipes over tiny models."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest

from distilsql.lock import RunInUse
from distilsql.runs.folder import RunFolder
from distilsql.runs.recipe import Recipe, make_recipe

PAIRS = [
    ("How many singers are there?", "SELECT count(*) FROM singer"),
    ("How many singers are older than 30?", "SELECT count(*) FROM singer WHERE age > 30"),
    ("List all names.", "SELECT name FROM singer"),
    ("List names by age.", "SELECT name FROM singer ORDER BY age"),
    ("Who is the oldest?", "SELECT name FROM singer ORDER BY age DESC LIMIT 1"),
    ("What is the average age?", "SELECT avg(age) FROM singer"),
    ("What is the highest age?", "SELECT max(age) FROM singer"),
    ("Who sings in France?", "SELECT name FROM singer WHERE country = 'France'"),
    ("How many countries are there?", "SELECT count(DISTINCT country) FROM singer"),
    ("Names of singers younger than 25?", "SELECT name FROM singer WHERE age < 25"),
]

COMPLETION_TOKENS = 32  # all that a random model writes, for it writes no EOS; every gold is shorter
LEARNING = ("train.steps=120",)  # after which sft gives most of the pairs' queries


@pytest.fixture(autouse=True)
def own_cache_folder(tmp_path, monkeypatch):
    """What runs keep for later runs stays in the test that made it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A folder with singers.sqlite and pairs.jsonl."""
    return make_world(tmp_path)


def make_world(folder: Path) -> Path:
    with sqlite3.connect(folder / "singers.sqlite") as database:
        database.execute("CREATE TABLE singer (id INTEGER PRIMARY KEY, name TEXT, age INTEGER, country TEXT)")
        rows = [
            (1, "Ann", 31, "France"),
            (2, "Bob", 24, "Spain"),
            (3, "Cho", 45, "France"),
            (4, "Dee", 22, "Peru"),
        ]
        database.executemany("INSERT INTO singer VALUES (?, ?, ?, ?)", rows)
    database.close()
    lines = [json.dumps({"question": question, "sql": sql}) for question, sql in PAIRS]
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def recipe(world, tiny_models):
    """Make a recipe for the tiny world: `recipe("kid", "train.steps=3", …)`."""
    return partial(make_tiny_recipe, world, tiny_models)


@pytest.fixture(scope="session")
def learned(tiny_models, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that has learned the pairs of its world, which is the folder above it. It is made once and only read."""
    from distilsql.training.train import train

    folder = make_world(tmp_path_factory.mktemp("learned"))
    return train(make_tiny_recipe(folder, tiny_models, "sft", *LEARNING), folder / "run")


def make_tiny_recipe(world: Path, tiny_models: Mapping[str, Path], method: str, *overrides: str) -> Recipe:
    values = {
        "method": method,
        "name": method,
        "student": {"path": str(tiny_models["student"]), "tuning": "full"},
        "teacher": {"path": str(tiny_models["teacher"])},
        "data": {"train": str(world / "pairs.jsonl"), "database": str(world / "singers.sqlite")},
        "prompt": {"max_prompt_tokens": 400, "max_completion_tokens": COMPLETION_TOKENS},
        "train": {
            "steps": 4,
            "learning_rate": 1e-2,
            "questions_per_tree": 3,
            "trees_per_step": 2,
            "largest_tree": 1,  # the one database has several trees a step
            "precision": "float32",
            "log_every_steps": 1,
            "calibration_windows": 1,
        },
    }
    return make_recipe(values, overrides)


HOLDER = """
import sys
from pathlib import Path
from distilsql.lock import RunInUse, hold
try:
    with hold(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
except RunInUse as error:
    print(error, flush=True)
"""


@pytest.fixture
def held_elsewhere() -> Callable[[Path], AbstractContextManager[subprocess.Popen[str]]]:
    """`with held_elsewhere(folder) as process`: another process holds the folder, until its input is closed or it is
    killed. Raises RunInUse if it cannot have it."""

    @contextmanager
    def start(folder: Path) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-c", HOLDER, str(folder)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            said = process.stdout.readline().strip()
            if said != "held":
                raise RunInUse(said)
            yield process

    return start
