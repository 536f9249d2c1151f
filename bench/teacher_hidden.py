"""What the teacher's cached hidden states save: a step's teacher pass against reading the same states from disk.

    python bench/teacher_hidden.py --data ../shared/data --teacher runs/teacher/model --examples 160

Takes the first questions of Spider's training set, fills the cache in a temporary folder, and then asks for shuffled
trees of sixteen as training does: once from the teacher (its prefixes cached already) and once from disk. Medians over
the trees go to bench/results/teacher_hidden.json.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from distilsql.threads import wait_briefly

wait_briefly()  # before torch is loaded

import torch

from distilsql.data.load import load_sql_benchmark
from distilsql.inference.loading import load_engines
from distilsql.inference.prepare import prepare
from distilsql.models.fingerprint import model_fingerprint
from distilsql.models.tree import as_branches
from distilsql.runs.recipe import make_recipe
from distilsql.training.ledger import Ledger
from distilsql.training.sampling import Sampler
from distilsql.training.teacher_states.states import open_teacher_hidden

RESULTS = Path(__file__).with_name("results") / "teacher_hidden.json"
QUESTIONS = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the data folder, holding spider/")
    parser.add_argument("--teacher", required=True, help="a transformers folder")
    parser.add_argument("--examples", type=int, default=160)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments.data, arguments.teacher, arguments.examples, folder)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def measure(data: Path, teacher_path: str, count: int, folder: str) -> dict[str, float | int | str]:
    recipe = make_recipe(
        {
            "method": "rkd",
            "student": {"path": teacher_path, "keep_layers": 1, "tuning": "full"},
            "teacher": {"path": teacher_path},
            "data": {"train": "spider:train", "root": str(data)},
            "prompt": {"values": False, "comments": False, "schema_filter": "never"},
            "train": {"epochs": 2, "teacher_hidden": "on", "teacher_hidden_folder": folder},
        }
    )
    engines, ledger = load_engines(recipe, torch.device("cpu")), Ledger()
    teacher, prefixes = engines.teacher, engines.teacher_prefixes
    assert teacher is not None
    assert prefixes is not None
    benchmark = load_sql_benchmark("spider:train", root=data, missing_databases="skip")
    prepared = prepare(
        replace(benchmark, examples=benchmark.examples[:count]),
        engines.tokenizer,
        recipe.prompt,
        training=True,
    )
    hidden = open_teacher_hidden(
        recipe, teacher, prefixes, prepared, is_longer_than_an_epoch=True, ledger=ledger
    )
    assert hidden is not None
    keys = [example.prefix_key for example in prepared.examples]
    trees = [
        tree.examples for window in Sampler(keys, 0, QUESTIONS, 1, QUESTIONS).epoch(0) for tree in window
    ]
    passes, reads, files = [], [], []
    for numbers in (tree for tree in trees if len(tree) == QUESTIONS):
        examples = [prepared.examples[number] for number in numbers]
        tree, golds = prepared.tree(examples), [example.gold for example in examples]
        key = examples[0].prefix_key
        passes.append(_seconds(lambda: prefixes.hidden(key, tree, as_branches(golds))))  # noqa: B023
        reads.append(_seconds(lambda: hidden.of(numbers)))  # noqa: B023
        files.append(sum(bool(set(entry.numbers) & set(numbers)) for entry in hidden.entries))
    positions = sum(len(example.gold) for example in prepared.examples)
    return {
        "teacher": "/".join(Path(teacher_path).parts[-2:]),
        "precision": teacher.precision,
        "threads": torch.get_num_threads(),
        "examples": len(prepared.examples),
        "positions": positions,
        "megabytes": hidden.bytes(hidden.entries) / 1e6,
        "bytes_per_position": hidden.bytes(hidden.entries) / positions,
        "trees_timed": len(passes),
        "files_per_tree": statistics.median(files),
        "teacher_pass_seconds": statistics.median(passes),
        "read_seconds": statistics.median(reads),
        "fill_seconds_per_example": hidden.seconds() / len(prepared.examples),
        "fingerprint_seconds": _seconds(lambda: model_fingerprint(teacher.causal_lm)),
    }


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
