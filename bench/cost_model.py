"""What distilling costs, from operation counts and bytes: predicted for a machine, and checked on this one.

    python bench/cost_model.py check       # measure steps here, beside the prediction for this processor
    python bench/cost_model.py predict     # 0.5B from 1.5B, 7B and 32B on Spider + BIRD, on 1, 8 and 64 H200s
    python bench/cost_model.py tokens --data DATA --model MODEL    # mean lengths in Spider and BIRD, for `predict`

A step is a sum of products, attention, and numbers that are read and written. On this processor each kind is measured
by itself, in the shapes that the step has it in, by programs that know nothing of a step (`cost_measured.py`), and
nothing is fitted: where the sum differs from a step's time, the model is wrong by that much. For GPUs, rates are a
share of a measured peak, links are the vendors', and both are named in the result.
Everything goes to bench/results/cost_model.json.
"""

import argparse
import json
import os
import statistics
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from distilsql.threads import fit_threads, wait_briefly

wait_briefly()  # before torch is loaded

import torch

from cost_measured import CHUNK_ROWS, Machine, Measured, Pass
from distilsql.allocator import keep_freed_memory
from distilsql.distill.masking import masked_count
from distilsql.models.load import DTYPES
from distilsql.models.precision import choose_on_cpu
from distilsql.models.tree_model import TreeModel
from distilsql.training.ledger import Ledger
from distilsql.training.optimizer import MasterAdamW
from distilsql.training.window import WindowTrainer
from model_shapes import SHAPES, Shape, random_model
from random_step import make_engines, random_tree, recipe_of, whole_step

RESULTS = Path(__file__).with_name("results") / "cost_model.json"
METHODS = ("sft", "rkd", "kid", "gkd-rkl")
GIB = 2**30


@dataclass(frozen=True)
class Tree:
    """Lengths in tokens of what one step trains on."""

    prompt: float
    questions: int
    question: float
    completion: float

    @property
    def own(self) -> float:
        """Of a question with its completion, whose last token is no input."""
        return self.question + self.completion - 1

    @property
    def read(self) -> float:
        """Positions at which the output layer is read."""
        return self.questions * self.completion


@dataclass(frozen=True)
class Rated:
    """A machine known by its rates: of operations a second, and of bytes a second.

    `layer_seconds` is the least that a layer of a decoding step takes, however few rows it has. `host_seconds` is what
    starting the kernels of one layer's forward pass takes, where they are started one by one; a backward pass has twice
    as many.
    """

    name: str
    product_rate: float
    attention_rate: float
    bandwidth: float
    element_bytes: int
    layer_seconds: float = 0.0
    host_seconds: float = 0.0

    def products(self, shape: Shape, rows: float, *, is_backward: bool = False) -> float:
        return self._product(shape.layer_weights, rows) * (2 if is_backward else 1)

    def head(self, shape: Shape, rows: float, *, is_backward: bool = False) -> float:
        return self._product(shape.head_weights, rows) * (2 if is_backward else 1)

    def _product(self, weights: int, rows: float) -> float:
        return max(2 * weights * rows / self.product_rate, weights * self.element_bytes / self.bandwidth)

    def attention(self, shape: Shape, one: Pass, *, is_backward: bool = False) -> float:
        operations = 4 * shape.layers * shape.hidden * one.pairs
        keys = 2 * shape.layers * shape.key_size * self.element_bytes * (one.seen + one.questions * one.past)
        return max(operations / self.attention_rate, keys / self.bandwidth) * (2 if is_backward else 1)

    def moved(self, numbers: float, at_once: float, element_bytes: int) -> float:
        return numbers * element_bytes / self.bandwidth

    def exponentials(self, numbers: float) -> float:
        return self.moved(2 * numbers, numbers, 4)

    def log_softmax(self, rows: float, vocabulary: int) -> float:
        return self.moved(2 * rows * vocabulary, rows * vocabulary, 4)


# ---- a step ----------------------------------------------------------------------------------------------------


def forward_seconds(one: Pass, shape: Shape, machine: Machine) -> float:
    """Of a pass and of the output layer where it is read, a chunk at a time."""
    return (
        machine.products(shape, one.tokens)
        + machine.attention(shape, one)
        + one.chunks * machine.head(shape, one.rows_of_chunk)
        + between_products(one, shape, machine)
    )


def backward_seconds(one: Pass, shape: Shape, machine: Machine) -> float:
    return (
        machine.products(shape, one.tokens, is_backward=True)
        + machine.attention(shape, one, is_backward=True)
        + one.chunks * machine.head(shape, one.rows_of_chunk, is_backward=True)
        + 2 * between_products(one, shape, machine)
        + head_gradient_seconds(one, shape, machine)
    )


def between_products(one: Pass, shape: Shape, machine: Machine) -> float:
    """What norms, rotations, activations and sums take in all layers of a forward pass.

    Counted in numbers read and written, from the operations that `transformers` runs for a Llama: two norms of ten
    numbers a hidden dimension each, two sums of three, a rotation of twelve for each number of queries and keys, five
    for each number between the two halves of a feed-forward layer, and twelve for merging attention.
    """
    hidden, rotated = shape.hidden, shape.hidden + shape.key_size
    numbers = 20 * hidden + 6 * hidden + 12 * rotated + 5 * shape.intermediate + 12 * hidden
    return machine.moved(shape.layers * numbers * one.tokens, one.tokens * hidden, machine.element_bytes)


def head_gradient_seconds(one: Pass, shape: Shape, machine: Machine) -> float:
    """What the gradient of the output layer takes beside its products: each chunk's is added to a float32 sum, which
    begins as zeros and is scaled; that of the embeddings is as large, and where both share their weights they are
    added."""
    numbers = (3 * one.chunks + 3 + 1 + (3 if shape.tied else 0)) * shape.head_weights
    return machine.moved(numbers, shape.head_weights, 4)


def loss_seconds(shape: Shape, tree: Tree, method: str, machine: Machine) -> float:
    """What the loss takes beside the products, on float32 rows of the whole vocabulary.

    Likelihood: a softmax, its exponential for the gradient, weighed (two numbers). Reverse KL: two softmaxes, three
    exponentials, and 21 numbers for value, slope, gradient and weight; together with a likelihood one exponential and
    five numbers more.
    """
    softmaxes, exponentials, numbers = {"sft": (1, 1, 2), "gkd-rkl": (2, 3, 21)}.get(method, (2, 4, 26))
    logits = tree.read * shape.vocabulary
    at_once = min(CHUNK_ROWS, tree.read) * shape.vocabulary
    return (
        softmaxes * machine.log_softmax(tree.read, shape.vocabulary)
        + exponentials * machine.exponentials(logits)
        + machine.moved(numbers * logits, at_once, 4)
    )


def passes(method: str, tree: Tree) -> tuple[Pass, Pass | None, Pass | None]:
    """The student's pass that is trained, the student's pass without gradient, and the teacher's, whose prompt is
    cached.

    KID's pass without gradient reads completions again, with masks, and the output layer where they are. On-policy
    methods run the prompts, before anything is written.
    """
    questions, prompt = tree.questions, tree.prompt
    trained = Pass(prompt, questions, tree.own, seen=prompt, read=tree.read)
    teacher = Pass(0, questions, tree.own, seen=prompt, read=tree.read) if method != "sft" else None
    before = None
    if method == "kid":
        masked = masked_count(round(tree.completion), recipe_of("kid").distill.mask_share)
        again = tree.completion - 1
        before = Pass(0, questions, again, seen=prompt, past=tree.question, read=questions * masked)
    if method == "gkd-rkl":
        before = Pass(prompt, questions, tree.question, seen=prompt, read=questions)
    return trained, before, teacher


def step_parts(
    method: str, tree: Tree, student: Shape, teacher: Shape | None, machine: Machine
) -> dict[str, float]:
    """Seconds of each part of a step on one tree, without the optimizer's."""
    trained, before, teachers = passes(method, tree)
    parts = {
        "student": forward_seconds(trained, student, machine) + backward_seconds(trained, student, machine)
    }
    parts["loss"] = loss_seconds(student, tree, method, machine)
    if before is not None:
        parts["student without gradient"] = forward_seconds(before, student, machine)
    if teachers is not None and teacher is not None:
        parts["teacher"] = forward_seconds(teachers, teacher, machine)
    if method == "gkd-rkl":
        parts["writing"] = writing_seconds(tree, student, machine)
    return parts


def starting_seconds(
    method: str, tree: Tree, student: Shape, teacher: Shape, machine: Machine, trees_read: int
) -> float:
    """What the host takes to start all kernels of a step's passes one by one; the teacher reads so many trees."""
    _, before, teachers = passes(method, tree)
    layers = student.layers * (3 + (before is not None)) + (teacher.layers * trees_read if teachers else 0)
    return layers * machine.host_seconds


def writing_seconds(tree: Tree, shape: Shape, machine: Machine) -> float:
    """Of all completions of a tree, a token of each question at a time, with as many keys as there are on average.

    The prefix's keys are read once for all rows. A token is drawn from a softmax of the log-probabilities, summed up by
    blocks: two softmaxes and two numbers for each entry of the vocabulary.
    """
    rows, steps = tree.questions, tree.completion
    written = Pass(0, rows, 1, seen=tree.prompt, past=tree.question + steps / 2, read=rows)
    drawn = 2 * machine.log_softmax(rows, shape.vocabulary)
    drawn += machine.moved(2 * rows * shape.vocabulary, rows * shape.vocabulary, 4)
    seconds = forward_seconds(written, shape, machine) + drawn
    return steps * max(seconds, shape.layers * machine.layer_seconds)


def optimizer_seconds(shape: Shape, machine: Machine, processes: int = 1) -> float:
    """AdamW reads weight, gradient and two moments and writes all but the gradient, in float32; clipping reads and
    writes the gradient; a narrower copy of the weights is written for the next step."""
    narrow = machine.element_bytes if machine.element_bytes < 4 else 0
    numbers = (28 + 12 + narrow) / 4 * shape.weights / processes
    return machine.moved(numbers, shape.head_weights, 4)


# ---- checked here ----------------------------------------------------------------------------------------------


def check(arguments: argparse.Namespace) -> dict[str, Any]:
    precision = choose_on_cpu((64, 576, 1536)).precision
    dtype, device = DTYPES[precision], torch.device("cpu")
    keep_freed_memory()
    student, teacher = (
        replace(SHAPES["135m"], layers=count) for count in (arguments.layers, arguments.teacher_layers)
    )
    model = random_model(student, device, dtype)
    threads = fit_threads(model)
    machine = Measured(dtype)
    rows = []
    for tree in (Tree(300, 16, 25, 40), Tree(700, 16, 25, 40), Tree(300, 4, 25, 40)):
        for method in METHODS:
            measured = measured_seconds(method, tree, model, teacher, arguments.repeats)
            parts = step_parts(method, tree, student, teacher, machine)
            parts["optimizer"] = optimizer_seconds(student, machine)
            predicted = sum(parts.values())
            rows.append(
                {
                    "method": method,
                    **asdict(tree),
                    "measured_seconds": measured,
                    "predicted_seconds": predicted,
                    "measured_over_predicted": statistics.median(measured) / predicted,
                    "parts": parts,
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return {
        "processor": processor(),
        "threads": threads,
        "precision": precision,
        "load_average_1min": os.getloadavg()[0],
        "student": asdict(student),
        "teacher": asdict(teacher),
        "measured_parts": machine.found(),
        "rows": rows,
    }


def measured_seconds(method: str, tree: Tree, model: Any, teacher: Shape, repeats: int) -> list[float]:
    """Whole steps: what a source writes, teacher, loss, gradients, clipping, AdamW. The first is not counted."""
    recipe = recipe_of(method, completion_tokens=round(tree.completion))
    own = random_model(teacher, torch.device("cpu"), model.dtype) if recipe.row.needs_teacher else None
    engines = make_engines(TreeModel(model), own)
    item = random_tree(
        model.config.vocab_size,
        prompt_tokens=round(tree.prompt),
        questions=tree.questions,
        question_tokens=round(tree.question),
        completion_tokens=round(tree.completion),
    )
    optimizer = MasterAdamW(model, learning_rate=0.0, weight_decay=0.0)
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        whole_step(WindowTrainer(recipe, engines, Ledger()), optimizer, [item])
        times.append(time.perf_counter() - start)
    return times[1:]


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    widest = next((name for name in ("avx512_bf16", "avx512f", "avx2") if name in flags.split()), "")
    return f"{names[0] if names else 'unknown'} ({widest})"


# ---- predicted for GPUs ----------------------------------------------------------------------------------------

H200 = Rated(
    name="H200: 40 % of 773 TFLOP/s, 20 % for attention, 4.3 TB/s; measured: 0.19 ms a layer of a recorded decoding "
    "step, 2.3 ms of the host for a layer's forward pass",
    product_rate=0.4 * 773e12,
    attention_rate=0.2 * 773e12,
    bandwidth=4.3e12,
    element_bytes=2,
    layer_seconds=0.19e-3,
    host_seconds=2.26e-3,
)
MEMORY_GIB = 140
LINKS = {
    8: 350e9,
    64: 45e9,
}  # bytes a second into one GPU: NVLink in a machine of eight, InfiniBand between machines
ACTIVATION_BYTES = (
    44  # kept for the backward pass, a hidden dimension, layer and token: 2.0 GiB of 2,100 on an H200
)
MACHINE = 8  # GPUs of a machine
KEPT = ("whole", "sharded", "cut")  # what a GPU holds of a teacher (teacher.across_processes)
EXAMPLES, EPOCHS, QUESTIONS = 7_000 + 9_428, 3, 16


def predict(tokens: dict[str, float]) -> dict[str, Any]:
    """A step has one tree of sixteen questions for every GPU."""
    tree = Tree(tokens["prompt"], QUESTIONS, tokens["question"], tokens["completion"])
    rows = []
    for teacher in ("1.5b", "7b", "32b"):
        for processes in (1, 8, 64):
            for method in METHODS:
                for kept in KEPT:
                    if kept != "whole" and (processes == 1 or method == "sft"):
                        continue
                    if kept == "cut" and SHAPES[teacher].key_heads % MACHINE:
                        continue
                    if method == "sft" and teacher != "1.5b":
                        continue
                    rows.append(_predicted(tree, method, teacher, processes, kept))
    student = SHAPES["0.5b"]
    return {
        "machine": asdict(H200),
        # Up to so many rows, a decoding step takes as long as for one.
        "rows_until_writing_is_bound": H200.layer_seconds
        * H200.product_rate
        * student.layers
        / (2 * student.layer_weights),
        "links_bytes_per_second": LINKS,
        "activation_bytes": ACTIVATION_BYTES,
        "examples": EXAMPLES,
        "epochs": EPOCHS,
        "tree": asdict(tree),
        "rows": rows,
    }


def _predicted(tree: Tree, method: str, teacher: str, processes: int, kept: str) -> dict[str, Any]:
    student, other = SHAPES["0.5b"], SHAPES[teacher]
    parts = step_parts(method, tree, student, other, H200)
    parts["optimizer"] = optimizer_seconds(student, H200, processes)
    _, before, teachers = passes(method, tree)
    if processes > 1:
        # Weights are gathered for every pass, the backward one included; gradients are scattered once, in float32.
        gathered = (2 + (before is not None)) * 2 * student.weights + 4 * student.weights
        if teachers is not None and kept == "sharded":
            gathered += 2 * other.weights
        parts["links"] = gathered * (processes - 1) / processes / LINKS[processes]
    if teachers is not None and kept == "cut":
        parts["teacher's sums"] = sums_seconds(teachers, other)
    bound = max(parts, key=lambda name: parts[name])
    hidden_links = min(parts.get("links", 0.0), parts["student"] + parts.get("teacher", 0.0))
    seconds = sum(parts.values()) - hidden_links
    on_device = seconds - parts.get("writing", 0.0)
    trees_read = MACHINE if kept == "cut" else 1
    starting = starting_seconds(method, tree, student, other, H200, trees_read)
    started_singly = seconds + max(0.0, starting - on_device)
    steps = EXAMPLES * EPOCHS / (QUESTIONS * processes)
    memory = memory_gib(tree, student, other if teachers else None, processes, kept)
    return {
        "method": method,
        "teacher": teacher,
        "gpus": processes,
        "teacher_kept": kept,
        "examples_per_step": QUESTIONS * processes,
        "step_seconds": seconds,
        "uncompiled_step_seconds": started_singly,
        "hours": steps * seconds / 3600,
        "bound_by": bound,
        "memory_gib": memory,
        "fits": memory < MEMORY_GIB,
        "parts": parts,
    }


def sums_seconds(one: Pass, teacher: Shape) -> float:
    """Of a teacher that is cut within its layers: twice a layer, what a machine's GPUs have computed of the hidden
    states of everyone's trees goes round, once to be summed and once to be told."""
    numbers = 2 * teacher.layers * one.tokens * teacher.hidden * MACHINE
    return 2 * (MACHINE - 1) / MACHINE * numbers * H200.element_bytes / LINKS[MACHINE]


def memory_gib(tree: Tree, student: Shape, teacher: Shape | None, processes: int, kept: str) -> float:
    """On each GPU: the student's masters, moments and float32 gradients (sharded), its weights and the teacher's as
    they are computed with, activations of one tree, the teacher's keys of the tree's prompt, and a chunk of logits."""
    weights = student.weights
    total = 16 * weights / processes + 2 * weights
    total += ACTIVATION_BYTES * student.layers * student.hidden * trained_tokens(tree)
    total += 128 * student.vocabulary * 4 * 6 + 4 * student.head_weights
    if teacher is not None:
        embeddings = teacher.weights - teacher.layer_weights
        total += {
            "whole": 2 * teacher.weights,
            "sharded": 2 * teacher.weights / processes,
            "cut": 2 * (teacher.layer_weights / MACHINE + embeddings),
        }[kept]
        total += 2 * 2 * teacher.layers * teacher.key_size * tree.prompt
    return total / GIB


def trained_tokens(tree: Tree) -> float:
    return tree.prompt + tree.questions * tree.own


def mean_tokens(data: Path, model: str) -> dict[str, float]:
    """Of Spider's training set and BIRD's development set, weighted as both training sets have examples."""
    from distilsql.data.load import load_sql_benchmark
    from distilsql.inference.prepare import prepare
    from distilsql.models.load import load_tokenizer
    from distilsql.runs.sections import PromptSettings

    tokenizer = load_tokenizer(model)
    means = []
    for name, weight in (("spider:train", 7_000), ("bird:dev", 9_428)):
        benchmark = load_sql_benchmark(name, root=data, missing_databases="skip")
        settings = PromptSettings(matched_values=False, max_prompt_tokens=8192, schema_filter="never")
        prepared = prepare(benchmark, tokenizer, settings, training=True)
        examples = prepared.examples
        lengths = {
            "prompt": [len(prepared.prefixes[one.prefix_key]) for one in examples],
            "question": [len(one.question) for one in examples],
            "completion": [len(one.gold) for one in examples],
        }
        means.append((weight, {key: statistics.mean(values) for key, values in lengths.items()}))
        print(name, len(examples), means[-1][1], flush=True)
    total = sum(weight for weight, _ in means)
    return {key: sum(weight * mean[key] for weight, mean in means) / total for key in means[0][1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    checking = commands.add_parser("check")
    checking.add_argument("--repeats", type=int, default=3)
    checking.add_argument("--layers", type=int, default=6, help="of the student, in SmolLM2-135M's shape")
    checking.add_argument("--teacher-layers", type=int, default=12)
    commands.add_parser("predict")
    counting = commands.add_parser("tokens")
    counting.add_argument("--data", type=Path, required=True)
    counting.add_argument("--model", required=True)
    arguments = parser.parse_args()
    document = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if arguments.command == "tokens":
        document["tokens"] = mean_tokens(arguments.data, arguments.model)
    elif arguments.command == "check":
        document["check"] = check(arguments)
    else:
        document["predict"] = predict(document["tokens"])
    RESULTS.write_text(json.dumps(document) + "\n")


if __name__ == "__main__":
    main()
