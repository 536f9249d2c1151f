"""Is a teacher of another family worth having? A small student from a larger coder with another tokenizer, against sft.

    python bench/bridged.py --data ../shared/data --student models/smollm2-135m --teacher models/qwen2.5-coder-0.5b \
        --out runs/bridged

Every arm starts from the same pretrained student and makes the same steps of the same examples: `sft` learns from gold
alone, `hybrid` and `uld` also from a teacher with another vocabulary (`teacher.bridge`), on gold: forward KL on common
tokens with logit distillation on the others, and CE + 1.5 · ULD as Boizard et al. (2024) have it. The teacher is not
fine-tuned. Data: Spider's in-domain split, cut to the databases with the fewest columns, because prompts cost most.

Execution accuracy and gold's negative log-likelihood on the test part, for each arm and seed, training time, and
each arm's difference to sft, paired by question and seed, go to bench/results/bridged.json. The teacher reads the
training examples once for all arms and seeds. Everything resumes: what is finished is not done again, and `--arms` and
`--seeds` make a part. The results hold what is there, and name its seeds.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from distilsql.threads import wait_briefly

wait_briefly()  # before torch is loaded

from distilsql.allocator import keep_freed_memory
from distilsql.runs.recipe import Recipe, make_recipe
from distilsql.training.train import train
from grouping import PROMPT, compared, judged, only_databases

RESULTS = Path(__file__).with_name("results") / "bridged.json"
# Settings of each arm beside those that all have.
ARMS: dict[str, dict[str, Any]] = {
    "sft": {"method": "sft"},
    "hybrid": {"method": "fkd", "teacher": {"bridge": "hybrid"}},
    "uld": {"method": "fkd", "teacher": {"bridge": "uld"}, "distill": {"uld_weight": 1.5}},
}
REFERENCES = {arm: None if arm == "sft" else "sft" for arm in ARMS}
QUESTIONS = 8  # of one database in a step


def smallest_databases(data: Path, count: int) -> set[str]:
    """The `count` databases of Spider's training questions with the fewest columns."""
    tables = json.loads((data / "spider" / "tables.json").read_text())
    columns = {table["db_id"]: len(table["column_names"]) for table in tables}
    asked = Counter(
        record["db_id"] for record in json.loads((data / "spider" / "train_spider.json").read_text())
    )
    return set(sorted(asked, key=lambda name: (columns[name], name))[:count])


def recipe(arm: str, seed: int, data: Path, arguments: argparse.Namespace) -> Recipe:
    own = ARMS[arm]
    values: dict[str, Any] = {
        "method": own["method"],
        "name": f"{arm}-seed{seed}",
        "seed": seed,
        "student": {"path": arguments.student, "tuning": "full"},
        "data": {"train": "spider:indomain-train", "root": str(data)},
        "prompt": {**PROMPT, "max_prompt_tokens": 512},
        "distill": own.get("distill", {}),
        "train": {
            "steps": arguments.steps,
            "learning_rate": 1e-4,
            "questions_per_tree": QUESTIONS,
            "trees_per_step": 1,
            "largest_tree": QUESTIONS,
            "teacher_hidden": "on",
            "teacher_hidden_folder": str(arguments.out / "teacher-hidden"),
            "calibration_windows": 0,
            "save_every_steps": 5,
        },
    }
    if "teacher" in own:
        values["teacher"] = {"path": arguments.teacher, **own["teacher"]}
    return make_recipe(values)


def make_arm(arm: str, seed: int, data: Path, arguments: argparse.Namespace) -> None:
    """Trains and scores one arm with one seed, unless that is done: per test example whether the answer is right and
    gold's NLL, and what training took."""
    name = f"{arm}-seed{seed}"
    scores, folder = arguments.out / f"{name}.json", arguments.out / name
    if scores.exists():
        return
    train(
        recipe(arm, seed, data, arguments),
        folder,
        on_step=lambda line: print(name, line["step"], line["loss"], line["train_seconds"], flush=True),
    )
    scores.write_text(json.dumps(judged(folder, data, ("examples_seen", "train_seconds", "counts"))))


def results(out: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """What is known of every arm, by seed."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for arm in ARMS:
        for file in sorted(out.glob(f"{arm}-seed*.json")):
            seed = int(file.stem.rpartition("seed")[2])
            found.setdefault(arm, {})[seed] = json.loads(file.read_text())
    return found


def document(found: dict[str, dict[int, dict[str, Any]]], arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "command": "python bench/bridged.py --data ../shared/data --student models/smollm2-135m "
        "--teacher models/qwen2.5-coder-0.5b --out runs/bridged",
        "student": Path(arguments.student).name,
        "teacher": Path(arguments.teacher).name,
        "steps": arguments.steps,
        "questions_per_step": QUESTIONS,
        "databases": arguments.databases,
        "test_examples": {len(run["correct"]) for runs in found.values() for run in runs.values()}.pop(),
        "training": {
            arm: {
                key: [run[key] for run in runs.values()]
                for key in ("examples_seen", "train_seconds", "counts")
            }
            for arm, runs in found.items()
        },
        "execution_accuracy": compared(found, "correct", REFERENCES),
        "gold_negative_log_likelihood": compared(found, "nll", REFERENCES),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the data folder, holding spider/")
    parser.add_argument("--student", required=True, help="the model that is trained, a transformers folder")
    parser.add_argument(
        "--teacher", required=True, help="a model with another tokenizer, a transformers folder"
    )
    parser.add_argument("--out", type=Path, required=True, help="runs go here; finished ones are kept")
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--databases", type=int, default=6, help="those with the fewest columns")
    arguments = parser.parse_args()
    keep_freed_memory()
    data = only_databases(
        arguments.data, arguments.out, smallest_databases(arguments.data, arguments.databases)
    )
    for seed in arguments.seeds:
        for arm in arguments.arms:
            make_arm(arm, seed, data, arguments)
    found = results(arguments.out)
    if found:
        text = json.dumps(document(found, arguments), indent=1)
        RESULTS.write_text(text + "\n")
        print(text)


if __name__ == "__main__":
    main()
