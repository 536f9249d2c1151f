"""Time of an optimizer step: our methods against the programs of bench/peers, same examples.

    python bench/step_time.py --name smollm2-135m --data ../shared/data --student runs/teacher/model \\
        --teacher runs/teacher/model --windows 2 --contenders sft,rkd,kid,gkd-rkl,switch,trl-sft,trl-distillation

A window is sixteen questions of Spider's training set, drawn by our own sampler (k questions of a database to a
tree). Every contender runs every window in a process of its own, one after the other, window by window, so that
ratios are paired and every contender meets the machine in every state. A small window comes first, untimed.
TRL is configured as its documentation advises for this machine: weights in the precision that `auto` chooses for us,
fused AdamW, loss on completions only, already tokenised data, the micro-batch given by --micro-batch, no evaluation, no
logging, no checkpoints. `trl-sft-float32` trains float32 weights in bfloat16 autocast, which keeps what our float32
masters keep. Our methods run with the memory allocator's and the threads' settings of our command line (allocator.py,
threads.py), peers without. `-kept` after a peer's name gives it the allocator's, `-tuned` both.

Every contender visits its window twice, since memory is found and our teacher's prefixes are kept on the first visit.
Ratios are between visits of the same number. `trained` is what the loss was computed from, counted in the step: whoever
trains on fewer examples than the window holds is marked in the tables.
Results are added to bench/results/step_time.json and shown by bench/performance.py. Needs `pip install '.[bench]'`.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from peers import PEERS, distils, make_step
from windows import load_for, spider_windows

RESULTS = Path(__file__).with_name("results") / "step_time.json"
KEPT, TUNED = "-kept", "-tuned"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", required=True, help="name of this pair of models in the results")
    parser.add_argument("--data", type=Path, required=True, help="the data folder, holding spider/")
    parser.add_argument("--student", required=True, help="a transformers folder; all its weights are trained")
    parser.add_argument("--teacher", required=True, help="a transformers folder")
    parser.add_argument("--layers", type=int, help="keep so many decoder layers of both")
    parser.add_argument(
        "--contenders",
        required=True,
        help="comma-separated: our methods, -padded after one for the padded layout, and names of bench/peers",
    )
    parser.add_argument("--k", default="16", help="questions per tree, comma-separated")
    parser.add_argument("--windows", type=int, default=3, help="repeats, each on another window")
    parser.add_argument("--micro-batch", type=int, default=4, help="rows of a padded forward pass, TRL's too")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print("RESULT " + json.dumps(_measure(arguments, **json.loads(arguments.worker))))
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
        "layers": arguments.layers,
        "micro_batch": arguments.micro_batch,
        "max_new_tokens": arguments.max_new_tokens,
    }
    RESULTS.write_text(json.dumps(known, indent=1) + "\n")
    seconds = f"{result['first_visit_seconds']:.2f} s, then {result['seconds']:.2f} s"
    print(task, seconds, f"{result['peak_bytes'] / 2**30:.1f} GiB", result["trained"], flush=True)


# ---- inside a process of its own -----------------------------------------------------------------------------


def _measure(arguments: argparse.Namespace, *, contender: str, k: int, window: int) -> dict[str, Any]:
    from distilsql.allocator import keep_freed_memory
    from distilsql.threads import wait_briefly

    name = contender.removesuffix(KEPT).removesuffix(TUNED)
    is_peer = name in PEERS
    if not is_peer or contender.endswith(TUNED):
        wait_briefly()  # before torch is loaded

    import torch

    from distilsql.models.load import load_tokenizer
    from distilsql.models.precision import choose_precision
    from distilsql.threads import fit_threads
    from distilsql.training.environment import peak_memory_bytes
    from peers.contender import Models, Options

    if not is_peer or contender.endswith((KEPT, TUNED)):
        keep_freed_memory()
    load_before = os.getloadavg()[0]
    auto = choose_precision(arguments.student, torch.device("cpu")).precision
    precision = "float32" if name == "trl-sft-float32" else auto
    tokenizer = load_tokenizer(arguments.student)
    student = load_for(arguments.student, precision, arguments.layers)
    teacher = load_for(arguments.teacher, precision, arguments.layers) if distils(name) else None
    if not is_peer:
        fit_threads(*(model for model in (student, teacher) if model is not None))
    # A learning rate of 0 keeps the weights, and with them the sampled completions, alike for all contenders.
    options = Options(
        micro_batch=arguments.micro_batch,
        max_new_tokens=arguments.max_new_tokens,
        bfloat16_autocast=auto == "bfloat16",
    )
    step = make_step(name, Models(student, teacher, tokenizer), options)
    windows = spider_windows(arguments.data, tokenizer, k, arguments.windows)
    step(windows[-1])
    rows = windows[window]
    first, second = step(rows), step(rows)
    return {
        "seconds": second.seconds,
        "first_visit_seconds": first.seconds,
        "phases": second.phases,
        "tokens": {
            "prefix": sum({row.prefix: row.prefix_tokens for row in rows}.values()),
            "question": sum(len(row.question) for row in rows),
            "gold": sum(len(row.completion) for row in rows),
            "sequences": sum(len(row.prompt) + len(row.completion) for row in rows),
            **second.counts,
        },
        "trained": {"examples": second.rows, "tokens": second.trained_tokens, "positions": second.positions},
        "examples": len(rows),
        "precision": precision,
        "peak_bytes": peak_memory_bytes(),
        "threads": torch.get_num_threads(),
        "load_average_before": load_before,
    }


if __name__ == "__main__":
    main()
