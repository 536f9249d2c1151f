"""Does filling a step with questions of one database cost accuracy, and what does it save? Several seeds each.

    python bench/grouping.py --data ../shared/data --model models/smollm2-135m --out runs/grouping

Every arm takes steps of sixteen questions and differs in how many come from one database: `16x1` takes one tree of
sixteen questions, `4x4` four trees of four, `1x16` sixteen questions from anywhere, as an ordinary trainer does.
`16x1-long` takes four times the steps, for a comparison at about equal time. `4x4-padded` is `4x4` with every
sequence run by itself (`share_prefix = "off"`): the same steps of the same examples without the engine. Data: Spider's
in-domain split, cut to databases with a short prompt, because `1x16` and `4x4-padded` run every prompt anew.

Execution accuracy and gold's negative log-likelihood on the test part, for each arm and seed, training time, and
each arm's paired difference to the arm it is compared with go to bench/results/grouping.json. Finished runs are not
run again; `--arms` and `--seeds` make a part of them. The results hold what is
there, and name its seeds.
"""

import argparse
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from distilsql.data.example import Example
from distilsql.threads import wait_briefly

wait_briefly()  # before torch is loaded

import torch

from distilsql.allocator import keep_freed_memory
from distilsql.data.benchmark import Benchmark
from distilsql.data.load import load_sql_benchmark
from distilsql.inference.model import Model
from distilsql.inference.predict import load_student, predict
from distilsql.inference.prepare import prepare
from distilsql.metrics.evaluate import evaluate
from distilsql.metrics.statistics import bootstrap_interval, paired_bootstrap
from distilsql.models.load import load_tokenizer
from distilsql.models.tree import as_branches
from distilsql.runs.folder import RunFolder
from distilsql.runs.recipe import Recipe, make_recipe
from distilsql.runs.sections import PromptSettings
from distilsql.training.train import train

RESULTS = Path(__file__).with_name("results") / "grouping.json"


@dataclass(frozen=True)
class Arm:
    """How the questions of a step are drawn and run, how many steps there are as a multiple of `--steps`, and which
    arm this one is compared with."""

    questions_per_tree: int
    trees_per_step: int
    length: int = 1
    share_prefix: str = "on"
    reference: str | None = "1x16"


ARMS = {
    "1x16": Arm(1, 16, reference=None),
    "4x4": Arm(4, 4),
    "8x2": Arm(8, 2),
    "16x1": Arm(16, 1),
    "16x1-long": Arm(16, 1, length=4),
    "4x4-padded": Arm(4, 4, share_prefix="off", reference="4x4"),
}
SEEDS = (0, 1, 2)
PROMPT = {"values": False, "matched_values": False, "comments": False, "schema_filter": "never"}


def only_databases(data: Path, out: Path, names: Collection[str]) -> Path:
    """A data folder in `out` with Spider's training questions about the databases of these names."""
    records = json.loads((data / "spider" / "train_spider.json").read_text())
    spider = out / "data" / "spider"
    spider.mkdir(parents=True, exist_ok=True)
    kept = [record for record in records if record["db_id"] in names]
    (spider / "train_spider.json").write_text(json.dumps(kept))
    for name in ("tables.json", "database"):
        if not (spider / name).exists():
            (spider / name).symlink_to((data / "spider" / name).resolve())
    return spider.parent


def short_prompts_only(data: Path, out: Path, model: str, longest: int) -> Path:
    """A data folder with Spider's training questions on databases whose prompt has at most `longest` tokens."""
    benchmark = load_sql_benchmark("spider:train_spider", root=data, missing_databases="skip")
    settings = PromptSettings(max_prompt_tokens=2048, **PROMPT)
    prepared = prepare(benchmark, load_tokenizer(model), settings, training=True)
    short = {
        cast(Example, example.example).db_id
        for example in prepared.examples
        if len(prepared.prefixes[example.prefix_key]) <= longest
    }
    return only_databases(data, out, short)


def recipe(arm: str, seed: int, data: Path, model: str, steps: int) -> Recipe:
    return make_recipe(
        {
            "method": "sft",
            "name": f"{arm}-seed{seed}",
            "seed": seed,
            "student": {"path": model, "tuning": "full"},
            "data": {"train": "spider:indomain-train", "root": str(data)},
            "prompt": {**PROMPT, "max_prompt_tokens": 512},
            "train": {
                "steps": steps * ARMS[arm].length,
                "learning_rate": 1e-4,
                "questions_per_tree": ARMS[arm].questions_per_tree,
                "trees_per_step": ARMS[arm].trees_per_step,
                "largest_tree": 1,  # trees stay as they are drawn
                "share_prefix": ARMS[arm].share_prefix,
                "calibration_windows": 0,
                "save_every_steps": 25,
            },
        }
    )


@torch.no_grad()
def gold_nll(model: Model, benchmark: Benchmark) -> dict[str, float]:
    """Negative log-likelihood of each gold completion, nats per token."""
    decoder = model.decoder
    prepared = prepare(benchmark, decoder.tokenizer, model.prompt, training=False)
    result = {}
    for examples in prepared.by_prefix():
        golds = [example.gold for example in examples]
        hidden_ND = decoder.model.completion_hidden(prepared.tree(examples), as_branches(golds))
        logp_NV = decoder.model.head().log_probs(hidden_ND, decoder.vocabulary_size)
        picked_N = logp_NV.gather(1, torch.tensor([t for gold in golds for t in gold])[:, None])[:, 0]
        for example, logp in zip(examples, picked_N.split([len(gold) for gold in golds]), strict=True):
            result[example.example.example_id] = -float(logp.mean())
    return result


def make_arm(arm: str, seed: int, data: Path, model: str, out: Path, steps: int) -> None:
    """Trains and scores one arm with one seed, unless that is done: per test example whether the answer is right and
    gold's NLL, and what training saw and how long it took."""
    scores, folder = out / f"{arm}-seed{seed}.json", out / f"{arm}-seed{seed}"
    if scores.exists():
        return
    train(
        recipe(arm, seed, data, model, steps),
        folder,
        on_step=lambda line: print(arm, seed, line["step"], line["loss"], flush=True),
    )
    scores.write_text(json.dumps(judged(folder, data, ("examples_seen", "train_seconds"))))


def judged(folder: Path, data: Path, of_summary: Sequence[str]) -> dict[str, Any]:
    """What a finished run's student makes of the in-domain test: per example whether the answer is right, and gold's
    NLL; and what its summary says of training."""
    student = load_student(RunFolder(folder))
    test = load_sql_benchmark("spider:indomain-test", root=data, missing_databases="skip")
    predicted = predict(student, test, folder / "predictions.jsonl")
    nll = gold_nll(student, test)
    summary = json.loads((folder / "summary.json").read_text())
    return {
        "correct": [float(verdict.is_correct) for verdict in evaluate(predicted, test).verdicts],
        "nll": [nll[example.example_id] for example in test.examples],
        **{key: summary[key] for key in of_summary},
    }


def results(out: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """What is known of every arm, by seed."""
    files = {arm: {seed: out / f"{arm}-seed{seed}.json" for seed in SEEDS} for arm in ARMS}
    found = {
        arm: {seed: json.loads(file.read_text()) for seed, file in own.items() if file.exists()}
        for arm, own in files.items()
    }
    return {arm: runs for arm, runs in found.items() if runs}


def compared(
    found: dict[str, dict[int, dict[str, Any]]], key: str, references: Mapping[str, str | None]
) -> dict[str, Any]:
    """Each arm's mean with the interval over examples, its seeds, and the difference to the same seeds of its
    reference, paired by example."""
    rows: dict[str, Any] = {}
    for arm, runs in found.items():
        values = _mean_by_example(runs, key, runs)
        rows[arm] = {
            "mean": float(values.mean()),
            "interval": bootstrap_interval(values.tolist()),
            "seeds": {seed: float(np.mean(run[key])) for seed, run in runs.items()},
        }
        reference = references[arm]
        shared = [seed for seed in runs if reference in found and seed in found[reference]]
        if reference is not None and shared:
            one, other = (_mean_by_example(found[name], key, shared) for name in (reference, arm))
            low, high, p = paired_bootstrap(one.tolist(), other.tolist())
            rows[arm]["difference"] = {
                "to": reference,
                "mean": float((other - one).mean()),
                "interval": [low, high],
                "p": p,
            }
    return rows


def _mean_by_example(runs: dict[int, dict[str, Any]], key: str, seeds: Iterable[int]) -> np.ndarray:
    return np.mean([runs[seed][key] for seed in seeds], axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the data folder, holding spider/")
    parser.add_argument("--model", required=True, help="the model that is fine-tuned, a transformers folder")
    parser.add_argument("--out", type=Path, required=True, help="runs go here; finished ones are kept")
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", choices=SEEDS, default=list(SEEDS))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--longest-prompt", type=int, default=240, help="tokens of a database's prompt")
    arguments = parser.parse_args()
    keep_freed_memory()
    data = short_prompts_only(arguments.data, arguments.out, arguments.model, arguments.longest_prompt)
    for seed in arguments.seeds:
        for arm in arguments.arms:
            make_arm(arm, seed, data, arguments.model, arguments.out, arguments.steps)
    found = results(arguments.out)
    if not found:
        return
    references = {arm: own.reference for arm, own in ARMS.items()}
    document = {
        "command": "python bench/grouping.py --data ../shared/data --model models/smollm2-135m "
        "--out runs/grouping",
        "model": Path(arguments.model).name,
        "steps": arguments.steps,
        "questions_per_step": 16,
        "longest_prompt_tokens": arguments.longest_prompt,
        "test_examples": {len(run["correct"]) for runs in found.values() for run in runs.values()}.pop(),
        "training": {
            arm: {key: [run[key] for run in runs.values()] for key in ("examples_seen", "train_seconds")}
            for arm, runs in found.items()
        },
        "execution_accuracy": compared(found, "correct", references),
        "gold_negative_log_likelihood": compared(found, "nll", references),
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
