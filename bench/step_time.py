"""Time of an optimizer step: our methods against TRL's SFTTrainer and its GKDTrainer, same examples.

    python bench/step_time.py --name smollm2-135m --data ../shared/data --student runs/teacher/model \\
        --teacher runs/teacher/model --windows 2 --contenders sft,rkd,kid,gkd-rkl,switch,trl-sft,trl-gkd

A window is sixteen questions of Spider's training set, drawn by our own sampler (k questions of a database to a
tree). Every contender runs every window in a process of its own, one after the other, window by window, so that
ratios are paired and every contender meets the machine in every state. A small window comes first, untimed.
TRL is configured as its documentation advises for this machine: weights in the precision that `auto` chooses for us,
fused AdamW, loss on completions only, already tokenised data, the micro-batch given by --micro-batch, no evaluation, no
logging, no checkpoints.
`trl-sft-kept` is `trl-sft` with the memory allocator's setting of our command line (allocator.py);
`trl-sft-float32` trains float32 weights in bfloat16 autocast, which keeps what our float32 masters keep.

Every contender visits its window twice, since memory is found and our teacher's prefixes are kept on the first visit.
Ratios are between visits of the same number.
Results are added to bench/results/step_time.json and shown by bench/performance.py. Needs `pip install '.[bench]'`.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).with_name("results") / "step_time.json"
WINDOW = 16
PROMPT = {
    "values": False,
    "matched_values": False,
    "comments": False,
    "schema_filter": "never",
    "max_prompt_tokens": 1024,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", required=True, help="name of this pair of models in the results")
    parser.add_argument("--data", type=Path, required=True, help="the data folder, holding spider/")
    parser.add_argument("--student", required=True, help="a transformers folder; all its weights are trained")
    parser.add_argument("--teacher", required=True, help="a transformers folder")
    parser.add_argument(
        "--contenders",
        required=True,
        help="comma-separated: our methods, trl-sft, trl-sft-kept, trl-sft-float32, trl-gkd",
    )
    parser.add_argument("--k", default="16", help="questions per tree, comma-separated")
    parser.add_argument("--windows", type=int, default=3, help="repeats, each on another window")
    parser.add_argument("--micro-batch", type=int, default=4, help="TRL's per-device batch size")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print("RESULT " + json.dumps(_measure(arguments, json.loads(arguments.worker))))
        return
    for k in map(int, arguments.k.split(",")):
        for window in range(arguments.windows):
            for contender in arguments.contenders.split(","):
                _add(arguments, {"contender": contender, "k": k, "window": window})


def _add(arguments: argparse.Namespace, task: dict[str, Any]) -> None:
    """Run one contender on one window in a fresh process, and write what it measured."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    rows = known.setdefault(arguments.name, {}).setdefault("rows", [])
    if any(all(row[key] == value for key, value in task.items()) for row in rows):
        return
    command = [sys.executable, *sys.argv, "--worker", json.dumps(task)]
    process = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in process.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        sys.exit(f"{task} failed:\n{process.stdout[-2000:]}\n{process.stderr[-4000:]}")
    result = json.loads(lines[0].removeprefix("RESULT "))
    rows.append(task | result)
    known[arguments.name] |= {
        "student": Path(arguments.student).parts[-2:],
        "teacher": Path(arguments.teacher).parts[-2:],
        "micro_batch": arguments.micro_batch,
        "max_new_tokens": arguments.max_new_tokens,
    }
    RESULTS.write_text(json.dumps(known, indent=1) + "\n")
    seconds = f"{result['first_visit_seconds']:.2f} s, then {result['seconds']:.2f} s"
    print(task, seconds, f"{result['peak_bytes'] / 2**30:.1f} GiB", flush=True)


# ---- inside a process of its own -----------------------------------------------------------------------------


def _measure(arguments: argparse.Namespace, task: dict[str, Any]) -> dict[str, Any]:
    from distilsql.allocator import keep_freed_memory
    from distilsql.threads import wait_briefly

    if not task["contender"].startswith("trl-"):
        wait_briefly()  # before torch is loaded

    import torch

    from distilsql.training.environment import peak_memory_bytes

    if not task["contender"].startswith("trl-") or task["contender"] == "trl-sft-kept":
        keep_freed_memory()
    load_before = os.getloadavg()[0]
    step = _trl_step if task["contender"].startswith("trl-") else _our_step
    result = step(arguments, task)
    described = {"threads": torch.get_num_threads(), "load_average_before": load_before}
    return result | {"peak_bytes": peak_memory_bytes()} | described


def _recipe(arguments: argparse.Namespace, method: str, k: int) -> Any:
    from distilsql.runs.recipe import make_recipe

    return make_recipe(
        {
            "method": method,
            "student": {"path": arguments.student, "tuning": "full"},
            "teacher": {"path": arguments.teacher},
            "data": {"train": "spider:train", "root": str(arguments.data)},
            "prompt": PROMPT | {"max_completion_tokens": arguments.max_new_tokens},
            "train": {"steps": 1, "questions_per_tree": k, "trees_per_step": WINDOW // k, "largest_tree": k},
        }
    )


def _windows(arguments: argparse.Namespace, recipe: Any, tokenizer: Any) -> tuple[Any, list[list[Any]]]:
    """The tokenised training set, and windows of exactly sixteen examples; window −1 is small, to warm up."""
    from distilsql.inference.prepare import load_data, prepare
    from distilsql.training.sampling import Sampler, TreeOfExamples

    benchmark, _ = load_data(recipe)
    prepared = prepare(benchmark, tokenizer, recipe.prompt, training=True)
    options = recipe.train
    keys = [example.prefix_key for example in prepared.examples]
    windows = [
        window
        for window in Sampler(
            keys, 0, options.questions_per_tree, options.trees_per_step, options.largest_tree
        ).epoch(0)
        if sum(len(tree.examples) for tree in window) == WINDOW
    ][: arguments.windows]
    used = {number for window in windows for tree in window for number in tree.examples}
    shortest = min(
        (n for n in range(len(keys)) if n not in used), key=lambda n: len(prepared.prefixes[keys[n]])
    )
    return prepared, [*windows, [TreeOfExamples((shortest,), 0)]]


def _our_step(arguments: argparse.Namespace, task: dict[str, Any]) -> dict[str, Any]:
    import torch

    from distilsql.inference.loading import load_engines
    from distilsql.training.ledger import Ledger, Phase
    from distilsql.training.optimizer import MasterAdamW
    from distilsql.training.window import WindowTrainer
    from distilsql.training.window_tree import as_window_trees

    recipe = _recipe(arguments, task["contender"], task["k"])
    engines = load_engines(recipe, torch.device("cpu"))
    prepared, windows = _windows(arguments, recipe, engines.tokenizer)
    # A learning rate of 0 keeps the weights, and with them the sampled completions, alike for all contenders.
    optimizer = MasterAdamW(engines.student.model, learning_rate=0.0, weight_decay=0.0)

    def step(window: list[Any]) -> tuple[float, Any]:
        ledger = Ledger()
        trainer = WindowTrainer(recipe, engines, ledger)
        items = as_window_trees(prepared, window)
        start = time.perf_counter()
        trained = trainer.source.write(items)
        trainer.accumulate(items, trained, trainer.denominators(items, trained))
        with ledger.phase(Phase.OPTIMIZER):
            optimizer.clip(1.0)
            optimizer.step(0.0)
        return time.perf_counter() - start, ledger

    step(windows[-1])
    window = windows[task["window"]]
    first_visit, _ = step(window)
    seconds, ledger = step(window)
    tokens = {
        "prefix": sum(len(prepared.prefixes[prepared.examples[t.examples[0]].prefix_key]) for t in window),
        "question": sum(len(prepared.examples[n].question) for t in window for n in t.examples),
        "gold": sum(len(prepared.examples[n].gold) for t in window for n in t.examples),
        **{name: int(value) for name, value in ledger.counts.items()},
    }
    phases = {phase.value: round(value, 3) for phase, value in ledger.seconds.items() if value}
    return {
        "seconds": seconds,
        "first_visit_seconds": first_visit,
        "phases": phases,
        "tokens": tokens,
        "precision": engines.student.precision,
    }


def _trl_step(arguments: argparse.Namespace, task: dict[str, Any]) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM, TrainerCallback

    from distilsql.models.load import DTYPES, load_tokenizer
    from distilsql.models.precision import choose_precision

    tokenizer = load_tokenizer(arguments.student)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    recipe = _recipe(arguments, "sft", task["k"])
    prepared, windows = _windows(arguments, recipe, tokenizer)

    def rows(window: list[Any]) -> list[tuple[list[int], list[int]]]:
        examples = [prepared.examples[number] for tree in window for number in tree.examples]
        return [([*prepared.prefixes[e.prefix_key], *e.question], list(e.gold)) for e in examples]

    data = rows(windows[-1]) * WINDOW + rows(windows[task["window"]]) * 2
    auto = choose_precision(arguments.student, torch.device("cpu")).precision
    precision = "float32" if task["contender"] == "trl-sft-float32" else auto
    model = AutoModelForCausalLM.from_pretrained(arguments.student, dtype=DTYPES[precision])
    seconds: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.start = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(time.perf_counter() - self.start)

    common = {
        "output_dir": "runs/trl",
        "per_device_train_batch_size": arguments.micro_batch,
        "gradient_accumulation_steps": WINDOW // arguments.micro_batch,
        "max_steps": 3,
        "bf16": auto == "bfloat16",
        "optim": "adamw_torch_fused",
        "learning_rate": 0.0,
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_num_workers": 0,
    }
    makers = {"trl-sft": _trl_sft, "trl-sft-kept": _trl_sft, "trl-sft-float32": _trl_sft, "trl-gkd": _trl_gkd}
    trainer = makers[task["contender"]](arguments, model, tokenizer, data, common)
    trainer.add_callback(Clock())
    trainer.train()
    lengths = [len(prompt) + len(gold) for prompt, gold in data[-WINDOW:]]
    return {
        "seconds": seconds[-1],
        "first_visit_seconds": seconds[-2],
        "tokens": {"sequences": int(np.sum(lengths))},
        "precision": precision,
    }


def _trl_sft(arguments: Any, model: Any, tokenizer: Any, data: list[Any], common: dict[str, Any]) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    dataset = Dataset.from_list(
        [
            {"input_ids": prompt + gold, "completion_mask": [0] * len(prompt) + [1] * len(gold)}
            for prompt, gold in data
        ]
    )
    config = SFTConfig(**common, completion_only_loss=True, max_length=None, shuffle_dataset=False)
    return _in_order(SFTTrainer)(model=model, args=config, train_dataset=dataset, processing_class=tokenizer)


def _trl_gkd(arguments: Any, model: Any, tokenizer: Any, data: list[Any], common: dict[str, Any]) -> Any:
    """Fully on-policy, reverse KL, sampling at temperature 1: gkd-rkl. Prompts are padded on the left."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    def padded(sequences: list[list[int]], fill: int) -> Any:
        width = max(map(len, sequences))
        return torch.tensor([[fill] * (width - len(sequence)) + sequence for sequence in sequences])

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        prompts, golds = [row["prompt_ids"] for row in rows], [row["gold_ids"] for row in rows]
        whole = [prompt + gold for prompt, gold in zip(prompts, golds, strict=True)]
        return {
            "input_ids": padded(whole, tokenizer.pad_token_id),
            "attention_mask": padded([[1] * len(sequence) for sequence in whole], 0),
            "labels": padded([[-100] * len(p) + g for p, g in zip(prompts, golds, strict=True)], -100),
            "prompts": padded(prompts, tokenizer.pad_token_id),
            "prompt_attention_mask": padded([[1] * len(prompt) for prompt in prompts], 0),
        }

    teacher = AutoModelForCausalLM.from_pretrained(arguments.teacher, dtype=model.dtype)
    config = GKDConfig(
        **common,
        lmbda=1.0,
        beta=1.0,
        temperature=1.0,
        max_new_tokens=arguments.max_new_tokens,
        max_length=None,
    )
    dataset = Dataset.from_list([{"prompt_ids": prompt, "gold_ids": gold} for prompt, gold in data])
    return _in_order(GKDTrainer)(
        model=model,
        teacher_model=teacher,
        args=config,
        data_collator=collate,
        train_dataset=dataset,
        processing_class=tokenizer,
    )


def _in_order(trainer: Any) -> Any:
    """The trainer, visiting examples in the given order: the small window first, then the timed one twice."""
    from torch.utils.data import SequentialSampler

    class InOrder(trainer):  # type: ignore[misc]
        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return SequentialSampler(self.train_dataset if dataset is None else dataset)

    return InOrder


if __name__ == "__main__":
    main()
