"""Precision and threads on this processor: products, small operations and steps, idle and beside a busy process.

    python bench/processor.py

Alone on the machine, in minutes. Every combination runs in a process of its own, because what decides is
read when torch is loaded:

- capability: the processor as it is, and made to behave like older ones (`ATEN_CPU_CAPABILITY`, `ONEDNN_MAX_CPU_ISA`,
  `MKL_ENABLE_INSTRUCTIONS`, which MKL heeds on Intel's processors only);
- threads: one, or one for each core, whose waiting is left as it comes, passive, or a spin of so many rounds;
- neighbour: none, or one process that never rests, on one of the cores.

Each measures products (of SmolLM2-135M's feed-forward layer, at several numbers of rows, in both precisions) and small
operations; on the processor as it is also steps of sft on random Llamas: loss, gradients and the optimizer's update.
Times are medians. Writes bench/results/processor.json, shown by bench/performance.py.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import joblib

from distilsql.threads import COUNT_VARIABLE, THREAD_VARIABLES

RESULTS = Path(__file__).with_name("results") / "processor.json"
ROWS = (16, 64, 512)
INPUTS, OUTPUTS = 576, 1536
CORES = joblib.cpu_count(only_physical_cores=True)

# How an older processor is imitated, and the flag without which there is nothing to switch off.
OLDER = {
    "AVX-512 without bfloat16": (
        "avx512_bf16",
        {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    ),
    "AVX2": (
        "avx512f",
        {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    ),
    "SSE4": (
        "avx2",
        {
            "ATEN_CPU_CAPABILITY": "default",
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        },
    ),
}
ALL_CORES = {COUNT_VARIABLE: str(CORES)}
THREADS = {
    "one": {COUNT_VARIABLE: "1"},
    "as it comes": ALL_CORES,
    "passive": ALL_CORES | {"OMP_WAIT_POLICY": "PASSIVE"},
    "spin 2,000": ALL_CORES | {"GOMP_SPINCOUNT": "2000"},
    "spin 10,000": ALL_CORES | {"GOMP_SPINCOUNT": "10000"},
}
NEIGHBOURS = ("none", "busy")


@dataclass(frozen=True)
class Model:
    """A Llama's size, with the head size of SmolLM2."""

    layers: int
    hidden: int
    inner: int
    key_value_heads: int
    vocabulary: int


# The first is the demo's teacher, the last SmolLM2-135M.
MODELS = {
    "1M": Model(4, 128, 512, 2, 1000),
    "5M": Model(6, 256, 1024, 4, 2000),
    "19M": Model(10, 384, 1536, 6, 4000),
    "135M": Model(30, 576, 1536, 3, 49152),
}
TREE = {"prompt_tokens": 64, "questions": 4, "question_tokens": 8, "completion_tokens": 16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick",
        action="store_true",
        help="the smallest model, to see that everything runs; to standard output",
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        task = json.loads(arguments.worker)
        print("RESULT " + json.dumps(_measure(**task, quick=arguments.quick)))
        return
    started = time.perf_counter()
    document: dict[str, Any] = {
        "command": "python bench/processor.py",
        "processor": _processor(),
        "cores": CORES,
        "load_average_before": os.getloadavg()[0],
        "product": {"inputs": INPUTS, "outputs": OUTPUTS},
        "tree": TREE,
        "rows": _rows(arguments.quick),
    }
    document["wall_s"] = round(time.perf_counter() - started, 1)
    text = json.dumps(document, indent=1) + "\n"
    if arguments.quick:
        print(text, end="")
    else:
        RESULTS.write_text(text)
        print(f"{RESULTS}, {document['wall_s']:.0f} s")


def _rows(quick: bool) -> list[dict[str, Any]]:
    rows = []
    for capability, settings in _capabilities().items():
        for threads, waiting in THREADS.items():
            if settings and threads.startswith("spin"):
                continue  # how long to spin is asked of the processor as it is
            for neighbour in NEIGHBOURS:
                with _busy_core() if neighbour == "busy" else _nobody():
                    task = {"with_steps": not settings, "is_alone": neighbour == "none"}
                    result = _in_own_process(settings | waiting, task, quick=quick)
                row = {"capability": capability, "threads": threads, "neighbour": neighbour} | result
                rows.append(row)
                print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


def _capabilities() -> dict[str, dict[str, str]]:
    """What this processor is, and what older ones it can be made to look like, with the environment that does it."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    return {"as it is": {}} | {
        name: settings for name, (without, settings) in OLDER.items() if without in flags
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return (named or [platform.processor()])[0]


@contextmanager
def _busy_core() -> Iterator[None]:
    """One process that never rests, on the last core that we may use."""
    core = max(os.sched_getaffinity(0))
    never_rests = (
        f"import os\nos.sched_setaffinity(0, {{{core}}})\nparent = os.getppid()\n"
        "while os.getppid() == parent: pass"  # it must not outlive a bench that was killed
    )
    process = subprocess.Popen([sys.executable, "-c", never_rests])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def _nobody() -> Iterator[None]:
    yield


def _in_own_process(settings: dict[str, str], task: dict[str, bool], *, quick: bool) -> dict[str, Any]:
    ours = (*THREAD_VARIABLES, *(name for _, others in OLDER.values() for name in others))
    environment = {name: value for name, value in os.environ.items() if name not in ours} | settings
    command = [sys.executable, __file__, "--worker", json.dumps(task)]
    command += ["--quick"] if quick else []
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    found = [line for line in process.stdout.splitlines() if line.startswith("RESULT ")]
    if not found:
        sys.exit(f"{settings} failed:\n{process.stdout[-2000:]}\n{process.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(found[0].removeprefix("RESULT "))
    return result


# ---- inside a process of its own -----------------------------------------------------------------------------


def _measure(*, with_steps: bool, is_alone: bool, quick: bool) -> dict[str, Any]:
    import torch

    from distilsql.models.precision import choose_on_cpu

    result: dict[str, Any] = {
        "torch_threads": torch.get_num_threads(),
        "auto_precision": choose_on_cpu((64, INPUTS, OUTPUTS)).precision,
        "gflops": {precision: _products(precision) for precision in ("float32", "bfloat16")},
        "small_operations_per_second": _small_operations(),
    }
    if with_steps:
        models = {"1M": MODELS["1M"]} if quick else MODELS
        result["step_seconds"] = {name: _step_seconds(model, "float32") for name, model in models.items()}
        if is_alone and os.environ[COUNT_VARIABLE] == "1":  # enough to compare precisions
            found = {name: _step_seconds(model, "bfloat16") for name, model in models.items()}
            result["bfloat16_step_seconds"] = found
    return result


def _products(precision: str) -> dict[int, float]:
    """GFLOP/s by number of rows."""
    import torch

    from distilsql.models.load import DTYPES

    weight_OI = torch.randn(OUTPUTS, INPUTS).to(DTYPES[precision])
    found = {}
    for rows in ROWS:
        input_XI = torch.randn(rows, INPUTS).to(DTYPES[precision])
        product = partial(torch.nn.functional.linear, input_XI, weight_OI)
        seconds = _median_seconds(product, at_most_s=0.3)
        found[rows] = round(2 * rows * INPUTS * OUTPUTS / seconds / 1e9, 2)
    return found


def _small_operations() -> float:
    """Operations a second as models of a few million parameters have them: just large enough for several threads."""
    import torch

    input_XI, weight_IO, hidden = torch.randn(64, 256), torch.randn(256, 256), torch.randn(300, 256)
    pairs = 20

    def some() -> None:
        for _ in range(pairs):
            input_XI @ weight_IO
            torch.nn.functional.gelu(hidden)

    return round(2 * pairs / _median_seconds(some, at_most_s=0.5))


def _step_seconds(model: Model, precision: str) -> float:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from distilsql.inference.loading import Engines
    from distilsql.models.load import DTYPES
    from distilsql.models.tree_model import TreeModel
    from distilsql.training.ledger import Ledger
    from distilsql.training.optimizer import MasterAdamW
    from distilsql.training.window import WindowTrainer
    from random_step import TOKENIZER, loss_and_gradients, random_tree, recipe_of

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=model.vocabulary,
        hidden_size=model.hidden,
        intermediate_size=model.inner,
        num_hidden_layers=model.layers,
        num_attention_heads=model.hidden // 64,
        num_key_value_heads=model.key_value_heads,
        tie_word_embeddings=True,
        bos_token_id=None,
    )
    student: Any = LlamaForCausalLM(config)
    student.to(DTYPES[precision])
    engines = Engines(TreeModel(student), TOKENIZER, model.vocabulary)
    optimizer = MasterAdamW(student, learning_rate=1e-5, weight_decay=0.0)
    recipe, tree = recipe_of("sft"), random_tree(model.vocabulary, **TREE)

    def step() -> None:
        loss_and_gradients(WindowTrainer(recipe, engines, Ledger()), [tree])
        optimizer.clip(1.0)
        optimizer.step(1e-5)

    return round(_median_seconds(step, at_most_s=3.0, at_most=5), 5)


def _median_seconds(work: Callable[[], object], *, at_most_s: float, at_most: int = 1000) -> float:
    """The median of as many repeats as there is time for. The first is left out, unless it took all the time."""
    seconds: list[float] = []
    started = time.perf_counter()
    while len(seconds) <= at_most and (not seconds or time.perf_counter() - started < at_most_s):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:] or seconds)


if __name__ == "__main__":
    main()
