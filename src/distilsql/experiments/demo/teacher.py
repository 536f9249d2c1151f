"""How the demo's teacher was made. It comes with the package (`models/embedded.py`).

A small Llama is trained from scratch on questions about hundreds of generated databases, so that it reads the schema it
is shown. An hour of one core.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from distilsql.data.benchmark import SqlBenchmark
from distilsql.data.load import load_sql_benchmark
from distilsql.files import new_folder, write_json
from distilsql.inference.predict import load_any, predict
from distilsql.inference.prepare import prompt_options
from distilsql.metrics.scores import Scores
from distilsql.models.embedded import RECORD, checksums
from distilsql.models.tiny import save_tiny_llama, train_tokenizer
from distilsql.prompts.codes import build_prefix, build_suffix
from distilsql.runs.evaluate import evaluate_run
from distilsql.runs.folder import RunFolder
from distilsql.runs.recipe import Recipe, make_recipe
from distilsql.runs.records import Environment, Summary, read_record
from distilsql.runs.sections import PromptSettings
from distilsql.training.train import train

DATA = "demo:teacher-train"
PROMPT = {"values": False, "max_prompt_tokens": 400, "max_completion_tokens": 64}
STEPS = 6000
# Benchmark → how many of its questions; None: all.
SCORED_ON: dict[str, int | None] = {"demo:valid": None, "demo:test-seen": None, "demo:test-unseen": None}
_VOCABULARY = 1600
_TEXTS_FOR_TOKENIZER = 20_000
# What stands in every prompt is a token of its own, so that a prompt is half as long.
_PHRASES = (
    "database schema :\n",
    " , columns = [",
    " ( integer | primary key ) ,",
    " ( integer ) ,",
    " ( text ) ,",
    " ( integer ) ]\n",
    " ( text ) ]\n",
    "foreign keys :\n",
    "matched contents :\n",
    "matched contents : None\n",
)


def make_start(folder: Path) -> int:
    """A tokenizer learnt from the teacher's training texts, and the random weights that become the teacher.

    Returns the number of parameters.
    """
    tokenizer = train_tokenizer(_texts(load_sql_benchmark(DATA)), _VOCABULARY, phrases=_PHRASES)
    with new_folder(folder, replacing=True) as start:
        return save_tiny_llama(
            start, tokenizer, hidden_size=128, intermediate_size=384, layers=6, heads=4, seed=1
        )


def _texts(benchmark: SqlBenchmark) -> list[str]:
    options = prompt_options(PromptSettings.model_validate(PROMPT))
    texts = [build_prefix(database, options) for database in benchmark.databases.values()]
    for example in benchmark.take(_TEXTS_FOR_TOKENIZER, seed=0).examples:
        texts += [build_suffix(example, benchmark.databases[example.db_id], options), example.gold_sql]
    return texts


def teacher_recipe(start: Path, steps: int = STEPS) -> Recipe:
    return make_recipe(
        {
            "method": "sft",
            "name": "teacher",
            "student": {"path": str(start), "tuning": "full"},
            "data": {"train": DATA},
            "prompt": PROMPT,
            "train": {
                "steps": steps,
                "learning_rate": 2e-3,
                "warmup_share": 0.03,
                "questions_per_tree": 16,
                "trees_per_step": 2,
                "precision": "float32",
                "log_every_steps": 20,
                "save_every_steps": 250,
                "calibration_windows": 0,
            },
        }
    )


def make_teacher(out: Path, *, steps: int = STEPS) -> Path:
    """Train a teacher in the run folder `out/run` and pack it into the folder `out/packed`, which is returned.

    `packed` is what the package ships: a `transformers` folder in half precision, with its recipe and its record.
    If interrupted, it resumes where it stopped.
    """
    packed = out / "packed"
    if (packed / RECORD).exists():
        return packed
    start = out / "start"
    if not start.exists():
        make_start(start)
    run = train(teacher_recipe(start, steps), out / "run")
    with new_folder(packed, replacing=True) as folder:
        save_in_half_precision(run.model, folder)
        shutil.copy(run.recipe, folder / "recipe.toml")
        write_json(folder / RECORD, _record(run, folder))
    return packed


def save_in_half_precision(model: Path, folder: Path) -> None:
    """Weights as float16 (a loader computes in the precision it is asked for), and the tokenizer."""
    AutoModelForCausalLM.from_pretrained(model, dtype=torch.float16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)


def _record(run: RunFolder, packed: Path) -> dict[str, Any]:
    """The teacher's record.json: how it was trained and what it scored. Scores are of the packed weights."""
    summary = read_record(Summary, run.summary)
    model = load_any(str(packed), PromptSettings.model_validate(PROMPT), precision="float32")
    scores = {}
    for spec, questions in SCORED_ON.items():
        benchmark = load_sql_benchmark(spec)
        if questions is not None:
            benchmark = benchmark.take(questions, seed=0)
        predict(model, benchmark, run.predictions(spec))
        found = evaluate_run(run, benchmark)
        assert isinstance(found, Scores)  # the demo is text-to-SQL
        scores[spec] = {"right": found.correct, "of": len(found.verdicts)}
    return {
        "made_by": "distilsql demo --train-teacher",
        "parameters": summary.student_parameters,
        "steps": summary.steps,
        "examples_seen": summary.examples_seen,
        "train_seconds": round(summary.train_seconds),
        "processor": read_record(Environment, run.environment).processor,
        "scores": scores,
        "sha256": checksums(packed),
    }
