"""Memory of each process of a training, in one, two and four processes.

    python bench/processes.py

Student and teacher have the shape of SmolLM2-135M and random weights, nothing is downloaded, and all weights of the
student are trained by kid. Processes talk through gloo on one machine. Of each process is measured what it holds
between two steps (weights, moments, the teacher's part), as bytes of tensors, and by how much its resident memory grew
beyond that in the second step; the largest over the processes is kept. The first step is untimed.

Writes bench/results/processes.json and the table in docs/scale.md; with --quick (tiny sizes) to runs/processes.json
alone.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from distilsql.threads import wait_briefly

wait_briefly()  # before torch is loaded

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from transformers import LlamaConfig, LlamaForCausalLM

from distilsql.inference.loading import Engines
from distilsql.models.load import DTYPES, Precision, freeze
from distilsql.models.prefix_cache import PrefixCache
from distilsql.models.sharding import Sharded, reshard
from distilsql.models.tree_model import TreeModel
from distilsql.training.ledger import Ledger
from distilsql.training.optimizer import MasterAdamW
from distilsql.training.window import WindowTrainer
from performance import put
from random_step import TOKENIZER, random_tree, recipe_of, whole_step

ROOT = Path(__file__).parents[1]
PROCESSES = (1, 2, 4)
SMOLLM2_135M: dict[str, Any] = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
}
TINY = SMOLLM2_135M | {"vocab_size": 500, "hidden_size": 72, "intermediate_size": 96, "num_hidden_layers": 2}
PRECISION: Precision = "float32"
TREE = {"prompt_tokens": 128, "questions": 2, "question_tokens": 16, "completion_tokens": 24}
COLUMNS = {
    "processes": "processes",
    "held_mib": "held between steps, MiB",
    "grown_mib": "more during a step, MiB",
    "seconds": "s / step",
}


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--quick", action="store_true", help="tiny sizes")
    options.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.measure:
        measure(TINY if chosen.quick else SMOLLM2_135M)
        return
    rows = [started(count, quick=chosen.quick) for count in PROCESSES]
    found = {"shape": SMOLLM2_135M, "tree": TREE, "precision": PRECISION, "method": "kid", "rows": rows}
    out = ROOT / ("runs/processes.json" if chosen.quick else "bench/results/processes.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    if not chosen.quick:
        put(ROOT / "docs" / "scale.md", {"processes": table(rows)})
    print(table(rows))


def started(count: int, *, quick: bool) -> dict[str, Any]:
    """A row of the table, measured in so many processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", __file__, "--measure"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
    result = subprocess.run(
        command + (["--quick"] if quick else []), env=environment, capture_output=True, text=True
    )
    if result.returncode:
        sys.exit(result.stderr)
    row: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return row


def measure(shape: dict[str, Any]) -> None:
    """What each process runs; the first one prints the row."""
    accelerator = Accelerator(cpu=True)
    student, teacher = (placed(shape, seed, accelerator) for seed in (0, 1))
    engines = Engines(student, TOKENIZER, shape["vocab_size"], teacher, PrefixCache(teacher, 2**30))
    optimizer = MasterAdamW(student.model, learning_rate=0.0, weight_decay=0.0)
    trainer = WindowTrainer(recipe_of("kid"), engines, Ledger())
    item = random_tree(shape["vocab_size"], **TREE)
    whole_step(trainer, optimizer, [item])
    Path("/proc/self/clear_refs").write_text("5")  # begin the peak of resident memory anew
    before, start = resident_bytes("VmRSS"), time.perf_counter()
    whole_step(trainer, optimizer, [item])
    mine = {
        "held_mib": held_bytes(engines, optimizer) / 2**20,
        "grown_mib": (resident_bytes("VmHWM") - before) / 2**20,
        "seconds": time.perf_counter() - start,
    }
    everyones = gather_object([mine])
    if accelerator.is_main_process:
        row = {"processes": accelerator.num_processes}
        print(json.dumps(row | {name: round(max(each[name] for each in everyones), 1) for name in mine}))


def placed(shape: dict[str, Any], seed: int, accelerator: Accelerator) -> TreeModel:
    """The student for seed 0, else a frozen teacher; of several processes each holds a part."""
    torch.manual_seed(seed)
    config = LlamaConfig(**shape, max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=None)
    model: Any = LlamaForCausalLM(config)
    model = model.to(DTYPES[PRECISION])
    if seed:
        freeze(model)
    if accelerator.num_processes == 1:
        return TreeModel(model)
    mesh = init_device_mesh("cpu", (accelerator.num_processes,))
    return TreeModel(model, sharding=Sharded(model, mesh, DTYPES[PRECISION], accelerator.device))


def held_bytes(engines: Engines, optimizer: MasterAdamW) -> int:
    """Of this process: weights of both models, each once, and the optimizer's moments."""
    models = [model.causal_lm for model in (engines.student, engines.teacher) if model is not None]
    for model in models:
        reshard(model)
    tensors: list[torch.Tensor] = [parameter for model in models for parameter in model.parameters()]
    tensors += [tensor for name, tensor in optimizer.state().items() if name.startswith("exp_")]
    return sum(own.numel() * own.element_size() for own in map(own_part, tensors))


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def resident_bytes(key: str) -> int:
    """A line of /proc/self/status in bytes: VmRSS now, VmHWM at the most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def table(rows: list[dict[str, Any]]) -> str:
    lines = [f"| {' | '.join(COLUMNS.values())} |", "|" + " ---: |" * len(COLUMNS)]
    lines += ["| " + " | ".join(f"{row[key]:,.0f}" for key in COLUMNS) + " |" for row in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
