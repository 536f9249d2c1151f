"""A book of experiments over the tiny world."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from distilsql.experiments import render as rendering
from distilsql.experiments import reproduce as reproduction
from distilsql.experiments.experiment import Book
from distilsql.experiments.plan import Plan, make_plan

RECIPE = """
method = "sft"
[student]
path = "{student}"
tuning = "full"
[data]
train = "{pairs}"
[prompt]
max_prompt_tokens = 400
max_completion_tokens = 12
[train]
steps = 3
questions_per_tree = 5
precision = "float32"
save_every_steps = 1
log_every_steps = 1
calibration_windows = 1
"""
SCALE = """
title = "a tiny world"
notes = ["Nothing is learnt here."]
seeds = {{ default = [0], kid = [0, 1] }}
[runs]
teacher = {{ recipe = "base.toml" }}
start = {{ recipe = "base.toml", student_from = "teacher", settings = {{ "student.keep_layers" = 2 }} }}
[students]
small = {{ recipe = "base.toml", student_from = "start" }}
[pairs]
tiny = {{ title = "tiny", student = "small", teacher = "teacher" }}
[tasks.pairs]
student_settings = {{ "data.valid" = "{test}", "train.evaluate_every_steps" = 3 }}
[tasks.talk]
settings = {{ "data.train" = "{talk}" }}
[benchmarks]
"{talk}" = {{}}
"{test}" = {{ limit = 3, leave_out = {{ "test/0" = "for the test's sake" }} }}
"spider:dev" = {{}}
[columns]
latency = {{ title = "× SFT", measure = "x_sft" }}
ex = {{ title = "EX %", benchmark = "{test}" }}
spider_ex = {{ title = "Spider EX %", benchmark = "spider:dev" }}
mean = {{ title = "mean", measure = "mean", of = ["ex"] }}
gain = {{ title = "Δ", measure = "gain", of = ["mean"] }}
ts = {{ title = "TS %", benchmark = "{test}", suite = true }}
rouge = {{ title = "ROUGE-L", benchmark = "{talk}", task = "talk", temperature = 1.0, sample_seeds = [3, 4] }}
exaccerr = {{ title = "ExAccErr %", measure = "exposure", benchmark = "{test}", limit = 2 }}
"""
TABLE = """
title = "Main"
source = "nowhere"
summary = "all of it"
columns = ["latency", "ex", "spider_ex", "mean", "gain", "exaccerr"]
[rows]
teacher = { role = "teacher" }
start = { role = "start" }
sft = { method = "sft" }
kid = { method = "kid" }
[scales.tiny]
pairs = ["tiny"]
beside = { tiny = ["theirs"] }
"""
FIGURE = """
title = "Shares"
source = "nowhere"
summary = "another look at kid"
columns = ["ex"]
figure = { kind = "curve", y = "ex" }
[rows]
kid = { method = "kid" }
half = { method = "kid", settings = { "distill.mask_share" = 0.5 } }
[scales.tiny]
pairs = ["tiny"]
beside = { tiny = ["theirs"] }
"""
TALK = """
title = "Talk"
source = "nowhere"
summary = "instructions"
columns = ["COLUMN"]
[rows]
sft = { method = "sft" }
[scales.tiny]
pairs = ["tiny"]
beside = { tiny = [] }
"""
PUBLISHED = """
[titles]
theirs = "theirs"
[[blocks]]
source = "nowhere"
groups = ["theirs"]
columns = ["ex"]
rows = { sft = [50.0], kid = [60.0] }
"""


@pytest.fixture
def book(world: Path, tiny_models, monkeypatch) -> Book:
    """Experiments `main` and `shares` at scale `tiny`, over the tiny world's pairs. Spider's data is not to be had."""
    monkeypatch.delenv("DISTILSQL_DATA", raising=False)
    lines = [json.loads(line) for line in (world / "pairs.jsonl").read_text().splitlines()]
    pairs, test = world / "pairs.jsonl", world / "test.jsonl"
    told = "".join(json.dumps({**line, "database": "singers.sqlite"}) + "\n" for line in lines)
    pairs.write_text(told)
    test.write_text(told)
    talk = world / "talk.jsonl"
    talk.write_text(
        '{"instruction": "Greet.", "output": "hello"}\n{"instruction": "Count.", "output": "three"}\n'
    )
    folder = world / "book"
    (folder / "tiny").mkdir(parents=True)
    (folder / "tiny" / "base.toml").write_text(RECIPE.format(student=tiny_models["teacher"], pairs=pairs))
    (folder / "tiny" / "scale.toml").write_text(SCALE.format(test=test, talk=talk))
    files = {"main": TABLE, "shares": FIGURE, "published": PUBLISHED}
    files |= {"talk": TALK.replace("COLUMN", "rouge"), "suites": TALK.replace("COLUMN", "ts")}
    files |= {"both": TALK.replace("COLUMN", 'ex", "ts')}
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text)
    return Book(folder)


@pytest.fixture
def trained(monkeypatch) -> list[str]:
    """The names of the runs that are trained, in order."""
    names: list[str] = []
    real = reproduction.train

    def watched(recipe, *args, **kwargs):
        names.append(recipe.name)
        return real(recipe, *args, **kwargs)

    monkeypatch.setattr(reproduction, "train", watched)
    return names


@pytest.fixture
def no_figures(monkeypatch) -> None:
    """Tables only: drawing takes longer than the tiny trainings."""
    monkeypatch.setattr(rendering, "draw_paper_figure", lambda *args, **options: None)


@pytest.fixture
def plan_of() -> Callable[..., Plan]:
    """`plan_of(book, world, "main", …)`: the plan of these experiments, both if none is named."""

    def make(book: Book, world: Path, *names: str, only=()) -> Plan:
        return make_plan(book, names or ("main", "shares"), "tiny", world / "runs", only=only)

    return make
