"""What distilling costs, from operation counts and bytes: predicted for a machine, and checked on this one.

    python bench/cost_model.py check       # measure steps here, beside the prediction for this processor
    python bench/cost_model.py predict     # 0.5B from 1.5B, 7B and 32B on Spider + BIRD, on 1, 8 and 64 H200s
    python bench/cost_model.py tokens --data DATA --model MODEL    # mean lengths in Spider and BIRD, for `predict`

Each part of a step takes its operations over a rate, or its bytes over a bandwidth. `check` measures four rates on this
processor (products in the shapes of the model's layers, products of the output layer, attention, copies), in programs
that know nothing of a step, and adds nothing to them: where the sum differs from a step's time, the model is wrong by
that much. For GPUs, rates are a share of a measured peak, links are the vendors', and both are named in the result.
Everything goes to bench/results/cost_model.json.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from distilsql.threads import fit_threads, wait_briefly

wait_briefly()  # before torch is loaded

import torch
import torch.nn.functional as F

from distilsql.allocator import keep_freed_memory
from distilsql.distill.masking import masked_count
from distilsql.models.load import DTYPES
from distilsql.models.precision import choose_on_cpu
from distilsql.models.tree_model import TreeModel
from distilsql.training.ledger import Ledger
from distilsql.training.optimizer import MasterAdamW
from distilsql.training.window import WindowTrainer
from model_shapes import SHAPES, Shape, causal_pairs, forward_operations, random_model
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
class Machine:
    """What bounds a step. Rates are of operations a second, bandwidths of bytes a second.

    `layer_seconds` is the least that a layer of a decoding step takes, however few rows it has. `host_seconds` is what
    starting the kernels of one layer's forward pass takes, where they are started one by one; a backward pass has twice
    as many.
    """

    name: str
    layer_rate: float
    head_rate: float
    attention_rate: float
    bandwidth: float
    element_bytes: int
    layer_seconds: float = 0.0
    host_seconds: float = 0.0


# ---- a step ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pass:
    """A forward pass: of `tokens` through the layers, `pairs` that attend, and `read` positions of the output layer."""

    tokens: float
    pairs: float
    read: float

    def seconds(self, shape: Shape, machine: Machine) -> float:
        """Each kind of work at its own rate; what is not a product, by the bytes it moves."""
        return (
            2 * shape.layer_weights * self.tokens / machine.layer_rate
            + 4 * shape.layers * shape.hidden * self.pairs / machine.attention_rate
            + 2 * shape.head_weights * self.read / machine.head_rate
            + self.tokens * elementwise_bytes(shape, machine) / machine.bandwidth
        )

    def operations(self, shape: Shape) -> float:
        return forward_operations(shape, self.tokens, self.pairs, self.read)


def elementwise_bytes(shape: Shape, machine: Machine) -> float:
    """Bytes that a token's norms, rotations, activations and sums read and write in all layers.

    Counted in numbers from the operations that `transformers` runs for a Llama: two norms of ten numbers a hidden
    dimension each, two sums of three, a rotation of twelve for each number of queries and keys, five for each number
    between the two halves of a feed-forward layer, and twelve for merging attention.
    """
    hidden, rotated = shape.hidden, shape.hidden + shape.key_size
    numbers = 20 * hidden + 6 * hidden + 12 * rotated + 5 * shape.intermediate + 12 * hidden
    return shape.layers * numbers * machine.element_bytes


def loss_bytes(shape: Shape, tree: Tree, distils: bool) -> float:
    """Bytes that the loss reads and writes beside the products: float32 rows of the whole vocabulary. A softmax and its
    gradient pass over them eight times; a divergence reads a second one and has terms of its own, some twenty in
    all."""
    return (20 if distils else 8) * 4 * shape.vocabulary * tree.read


def passes(method: str, tree: Tree) -> tuple[Pass, Pass | None, Pass | None]:
    """The student's pass that is trained, the student's pass without gradient, and the teacher's, whose prompt is
    cached.

    KID's pass without gradient reads completions again, with masks, and the output layer where they are. On-policy
    methods run the prompts, before anything is written.
    """
    own_pairs = tree.questions * causal_pairs(tree.prompt, tree.own)
    trained = Pass(
        tree.prompt + tree.questions * tree.own, causal_pairs(0, tree.prompt) + own_pairs, tree.read
    )
    teacher = Pass(tree.questions * tree.own, own_pairs, tree.read) if method != "sft" else None
    before = None
    if method == "kid":
        again = tree.completion - 1
        pairs = tree.questions * causal_pairs(tree.prompt + tree.question, again)
        masked = masked_count(round(tree.completion), recipe_of("kid").distill.mask_share)
        before = Pass(tree.questions * again, pairs, tree.questions * masked)
    if method == "gkd-rkl":
        pairs = causal_pairs(0, tree.prompt) + tree.questions * causal_pairs(tree.prompt, tree.question)
        before = Pass(tree.prompt + tree.questions * tree.question, pairs, tree.questions)
    return trained, before, teacher


def step_parts(
    method: str, tree: Tree, student: Shape, teacher: Shape | None, machine: Machine
) -> dict[str, float]:
    """Seconds of each part of a step on one tree, without the optimizer's."""
    trained, before, teachers = passes(method, tree)
    parts = {"student": 3 * trained.seconds(student, machine)}
    parts["loss"] = loss_bytes(student, tree, method != "sft") / machine.bandwidth
    if before is not None:
        parts["student without gradient"] = before.seconds(student, machine)
    if teachers is not None and teacher is not None:
        parts["teacher"] = teachers.seconds(teacher, machine)
    if method == "gkd-rkl":
        parts["writing"] = writing_seconds(tree, student, machine)
    return parts


def starting_seconds(method: str, tree: Tree, student: Shape, teacher: Shape, machine: Machine) -> float:
    """What the host takes to start all kernels of a step's passes one by one."""
    _, before, teachers = passes(method, tree)
    layers = student.layers * (3 + (before is not None)) + (teacher.layers if teachers else 0)
    return layers * machine.host_seconds


def writing_seconds(tree: Tree, shape: Shape, machine: Machine) -> float:
    """Of all completions of a tree, a token of each question at a time: the weights and the keys are read at every
    step.

    The prefix's keys are read once for all rows.
    """
    rows, steps = tree.questions, tree.completion
    weights = (shape.layer_weights + shape.head_weights) * machine.element_bytes
    keys = tree.prompt + rows * (tree.question + steps / 2)
    key_bytes = 2 * shape.layers * shape.key_size * machine.element_bytes * keys
    operations = forward_operations(shape, rows, rows * (tree.prompt + tree.question + steps / 2), rows)
    moved, computed = (weights + key_bytes) / machine.bandwidth, operations / machine.layer_rate
    return steps * max(moved, computed, shape.layers * machine.layer_seconds)


def optimizer_seconds(shape: Shape, machine: Machine, processes: int = 1) -> float:
    """AdamW reads weight, gradient and two moments and writes all but the gradient, in float32; clipping reads and
    writes the gradient; a narrower copy of the weights is written for the next step."""
    narrow = machine.element_bytes if machine.element_bytes < 4 else 0
    return (28 + 12 + narrow) * shape.weights / processes / machine.bandwidth


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
    machine = this_machine(student, dtype)
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
        "machine": asdict(machine),
        "rows": rows,
    }


def this_machine(shape: Shape, dtype: torch.dtype) -> Machine:
    """Rates of this processor, each the best of several."""

    def product_rate(rows: int, inputs: int, outputs: int) -> float:
        left, weight = torch.randn(rows, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
        return 2 * rows * inputs * outputs / least_seconds(lambda: F.linear(left, weight))

    hidden, intermediate, rows = shape.hidden, shape.intermediate, 1024
    shapes = [(hidden, hidden)] * 2 + [(hidden, shape.key_size)] * 2
    shapes += [(hidden, intermediate)] * 2 + [(intermediate, hidden)]
    seconds = sum(
        2 * rows * inputs * outputs / product_rate(rows, inputs, outputs) for inputs, outputs in shapes
    )
    layer_rate = 2 * rows * sum(inputs * outputs for inputs, outputs in shapes) / seconds
    tokens, size = 1024, hidden // shape.heads
    query = torch.randn(1, shape.heads, tokens, size).to(dtype)
    attention = least_seconds(lambda: F.scaled_dot_product_attention(query, query, query, is_causal=True))
    numbers = torch.randn(2**26)
    target = torch.empty_like(numbers)
    return Machine(
        name="this processor",
        layer_rate=layer_rate,
        head_rate=product_rate(128, hidden, shape.vocabulary),
        attention_rate=4 * shape.heads * size * causal_pairs(0, tokens) / attention,
        bandwidth=2 * numbers.nbytes / least_seconds(lambda: target.copy_(numbers)),
        element_bytes=dtype.itemsize,
    )


def least_seconds(work: Callable[[], object], repeats: int = 7) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


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

H200 = Machine(
    name="H200: 40 % of 773 TFLOP/s, 20 % for attention, 4.3 TB/s; measured: 0.19 ms a layer of a recorded decoding "
    "step, 2.3 ms of the host for a layer's forward pass",
    layer_rate=0.4 * 773e12,
    head_rate=0.4 * 773e12,
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
EXAMPLES, EPOCHS, QUESTIONS = 7_000 + 9_428, 3, 16


def predict(tokens: dict[str, float]) -> dict[str, Any]:
    """A step has one tree of sixteen questions for every GPU."""
    tree = Tree(tokens["prompt"], QUESTIONS, tokens["question"], tokens["completion"])
    rows = []
    for teacher in ("1.5b", "7b", "32b"):
        for processes in (1, 8, 64):
            for method in METHODS:
                for is_sharded in (False, True):
                    if is_sharded and (processes == 1 or method == "sft"):
                        continue
                    if method == "sft" and teacher != "1.5b":
                        continue
                    rows.append(_predicted(tree, method, teacher, processes, is_sharded))
    student = SHAPES["0.5b"]
    return {
        "machine": asdict(H200),
        # Up to so many rows, a decoding step takes as long as for one.
        "rows_until_writing_is_bound": H200.layer_seconds
        * H200.layer_rate
        * student.layers
        / (2 * student.layer_weights),
        "links_bytes_per_second": LINKS,
        "activation_bytes": ACTIVATION_BYTES,
        "examples": EXAMPLES,
        "epochs": EPOCHS,
        "tree": asdict(tree),
        "rows": rows,
    }


def _predicted(tree: Tree, method: str, teacher: str, processes: int, is_sharded: bool) -> dict[str, Any]:
    student, other = SHAPES["0.5b"], SHAPES[teacher]
    parts = step_parts(method, tree, student, other, H200)
    parts["optimizer"] = optimizer_seconds(student, H200, processes)
    _, before, teachers = passes(method, tree)
    if processes > 1:
        # Weights are gathered for every pass, the backward one included; gradients are scattered once, in float32.
        gathered = (2 + (before is not None)) * 2 * student.weights + 4 * student.weights
        if teachers is not None and is_sharded:
            gathered += 2 * other.weights
        parts["links"] = gathered * (processes - 1) / processes / LINKS[processes]
    bound = max(parts, key=lambda name: parts[name])
    hidden_links = min(parts.get("links", 0.0), parts["student"] + parts.get("teacher", 0.0))
    seconds = sum(parts.values()) - hidden_links
    on_device = seconds - parts.get("writing", 0.0)
    started_singly = seconds + max(0.0, starting_seconds(method, tree, student, other, H200) - on_device)
    steps = EXAMPLES * EPOCHS / (QUESTIONS * processes)
    memory = memory_gib(tree, student, other if teachers else None, processes, is_sharded)
    return {
        "method": method,
        "teacher": teacher,
        "gpus": processes,
        "teacher_sharded": is_sharded,
        "examples_per_step": QUESTIONS * processes,
        "step_seconds": seconds,
        "uncompiled_step_seconds": started_singly,
        "hours": steps * seconds / 3600,
        "bound_by": bound,
        "memory_gib": memory,
        "fits": memory < MEMORY_GIB,
        "parts": parts,
    }


def memory_gib(tree: Tree, student: Shape, teacher: Shape | None, processes: int, is_sharded: bool) -> float:
    """On each GPU: the student's masters, moments and float32 gradients (sharded), its weights and the teacher's as
    they are computed with, activations of one tree, the teacher's keys of the tree's prompt, and a chunk of logits."""
    weights = student.weights
    total = 16 * weights / processes + 2 * weights
    total += ACTIVATION_BYTES * student.layers * student.hidden * trained_tokens(tree)
    total += 128 * student.vocabulary * 4 * 6 + 4 * student.head_weights
    if teacher is not None:
        total += 2 * teacher.weights / (processes if is_sharded else 1)
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
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
