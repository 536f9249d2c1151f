"""Optimizer steps on a GPU: seconds, memory, and the share of the card's arithmetic that training the student reaches.

    python bench/gpu/steps.py --out runs/gpu/steps.json

Student and teacher have the shapes of Qwen2.5 models and random weights; tokens are random. A step is a window of
sixteen questions (32 at k = 32) in trees of k, each with a question of 40 tokens and a completion of 60, after a prompt
of 500 or 4,000: completions, teacher, loss, gradients, clipping and AdamW, all as in training. Two steps come first, in
which kernels are compiled and prefixes of the teacher are read; the median of the next ones counts. Cases come in the
order of their worth, and the file is whole after each.

The others are those of bench/peers, in batches of sixteen rows; `hf-loop` is the bare minimum of a padded loop.
"""

import argparse
import statistics
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distilsql.threads import wait_briefly

wait_briefly()  # before torch is loaded

import torch
from record import Rows, the_device, wait

from distilsql.models.compiled_layers import compile_layers
from distilsql.models.load import freeze
from distilsql.models.tree_model import TreeModel
from distilsql.runs.recipe import Recipe
from distilsql.training.ledger import Ledger
from distilsql.training.optimizer import MasterAdamW
from distilsql.training.window import WindowTrainer
from distilsql.training.window_tree import WindowTree
from model_shapes import SHAPES, TOY, causal_pairs, forward_operations, random_model
from peers import PEERS, distils, make_step
from peers.contender import Done, Models, Options, Row, Step
from random_step import TOKENIZER, make_engines, random_tree, recipe_of, whole_step

QUESTION, COMPLETION = 40, 60
MICRO_BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--toy", action="store_true", help="a tiny model and short prompts: to rehearse")
    parser.add_argument("--student", default="0.5b", choices=SHAPES)
    parser.add_argument("--teachers", default="1.5b", help="comma-separated")
    parser.add_argument("--prompts", default="500,4000", help="tokens, comma-separated")
    parser.add_argument("--k", default="16", help="questions per tree, comma-separated")
    parser.add_argument("--methods", default="sft,trl-sft,kid,hf-loop,gkd-rkl,rkd,switch,trl-gkd")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="compile the student's and teacher's layers")
    parser.add_argument(
        "--profile", type=Path, help="also write a profile of one step of each to this folder"
    )
    arguments = parser.parse_args()
    if arguments.toy:
        arguments.student = arguments.teachers = TOY
        arguments.prompts, arguments.repeats = "50", 2
    rows = Rows(arguments.out, the_device())
    for teacher in arguments.teachers.split(","):
        for prompt in map(int, arguments.prompts.split(",")):
            for k in map(int, arguments.k.split(",")):
                for method in arguments.methods.split(","):
                    _add(rows, arguments, teacher, prompt, k, method)


def _add(rows: Rows, arguments: Any, teacher: str, prompt: int, k: int, method: str) -> None:
    device = the_device()
    case = {"method": method, "student": arguments.student, "teacher": teacher, "prompt": prompt, "k": k}
    try:
        case |= measure(device, arguments.student, teacher, prompt, k, method, arguments)
    except Exception as error:  # the next case may run
        traceback.print_exc()
        case["error"] = f"{type(error).__name__}: {error}"[:500]
    if device.type == "cuda":
        torch.cuda.empty_cache()
    rows.add(case)


def measure(
    device: torch.device, student: str, teacher: str, prompt: int, k: int, method: str, arguments: Any
) -> dict[str, Any]:
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    window = [
        random_tree(
            SHAPES[student].vocabulary,
            prompt_tokens=prompt,
            questions=k,
            question_tokens=QUESTION,
            completion_tokens=COMPLETION,
        )
    ] * max(1, 16 // k)
    ledger = Ledger(device)
    trained: list[Done] = []
    if method in PEERS:
        peer, rows = peer_step(method, student, teacher, device, dtype), rows_of(window)

        def step() -> None:
            trained.append(peer(rows))
    else:
        step = our_step(
            recipe_of(method, COMPLETION), student, teacher, device, dtype, window, ledger, arguments.compile
        )
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    first = _seconds(step, device)
    second = _seconds(step, device)
    before = dict(ledger.seconds)
    seconds = [_seconds(step, device) for _ in range(arguments.repeats)]
    phases = {
        phase.value: (ledger.seconds[phase] - before[phase]) / arguments.repeats
        for phase in before
        if ledger.seconds[phase]
    }
    examples = k * len(window)
    result: dict[str, Any] = {
        "examples": examples,
        "first_seconds": first,
        "second_seconds": second,
        "seconds": statistics.median(seconds),
        "all_seconds": seconds,
        "ms_per_example": 1000 * statistics.median(seconds) / examples,
        "phases": phases,
    }
    if device.type == "cuda":
        result["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    if trained:
        result |= {"trained_tokens": trained[-1].trained_tokens, "positions": trained[-1].positions}
    operations = training_operations(student, prompt, k, shared=method not in PEERS) * len(window)
    training = phases.get("student", result["seconds"])
    result |= {"student_tflop": operations / 1e12, "student_tflops": operations / training / 1e12}
    if arguments.profile:
        _profile(step, arguments.profile / f"{method}_{student}_{teacher}_{prompt}_{k}.txt")
    return result


def our_step(
    recipe: Recipe,
    student: str,
    teacher: str,
    device: torch.device,
    dtype: torch.dtype,
    window: list[WindowTree],
    ledger: Ledger,
    compiled: bool = False,
) -> Callable[[], None]:
    own = random_model(teacher, device, dtype) if recipe.row.needs_teacher else None
    engines = make_engines(TreeModel(random_model(student, device, dtype)), own, cache_bytes=2**33)
    if compiled:
        for model in (engines.student, engines.teacher):
            if model is not None:
                compile_layers(model.causal_lm)
    optimizer = MasterAdamW(engines.student.model, learning_rate=0.0, weight_decay=0.0)

    def step() -> None:
        whole_step(WindowTrainer(recipe, engines, ledger), optimizer, window)

    return step


def peer_step(name: str, student: str, teacher: str, device: torch.device, dtype: torch.dtype) -> Step:
    frozen = freeze(random_model(teacher, device, dtype)) if distils(name) else None
    models = Models(random_model(student, device, dtype), frozen, TOKENIZER)
    return make_step(name, models, Options(micro_batch=MICRO_BATCH, max_new_tokens=COMPLETION))


def rows_of(window: list[WindowTree]) -> list[Row]:
    return [
        Row((*item.tree.prefix, *example.question), example.gold, len(item.tree.prefix))
        for item in window
        for example in item.examples
    ]


def training_operations(student: str, prompt: int, k: int, *, shared: bool) -> float:
    """Floating-point operations of the student's forward and backward passes over one tree of k questions."""
    own, read = QUESTION + COMPLETION, k * COMPLETION
    if shared:
        pairs = causal_pairs(0, prompt) + k * causal_pairs(prompt, own)
        return 3 * forward_operations(SHAPES[student], prompt + k * own, pairs, read)
    pairs = k * causal_pairs(0, prompt + own)
    return 3 * forward_operations(SHAPES[student], k * (prompt + own), pairs, read)


def _seconds(step: Callable[[], None], device: torch.device) -> float:
    wait(device)
    start = time.perf_counter()
    step()
    wait(device)
    return time.perf_counter() - start


def _profile(step: Callable[[], None], path: Path) -> None:
    from torch.profiler import ProfilerActivity, profile

    path.parent.mkdir(parents=True, exist_ok=True)
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiled:
        step()
    averages = profiled.key_averages()
    tables = [
        averages.table(sort_by=order, row_limit=30, max_name_column_width=70)
        for order in ("self_cuda_time_total", "self_cpu_time_total")
    ]
    path.write_text("\n\n".join(tables))


if __name__ == "__main__":
    main()
