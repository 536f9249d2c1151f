"""Are exported files the model that they were made from? Real weights, asked through llama.cpp.

    python bench/export.py --model models/qwen2.5-coder-0.5b --name qwen2.5-coder-0.5b --gguf f16 q8_0 q4_0

Exports the model and has each file prove itself on a draw of questions (`distilsql.export.proof`): tokens of every
prompt, log-probabilities of what the file writes, queries that are right before and after, paired. With --db-id the
questions share one prompt, which saves most of the time. A model that was not fine-tuned writes on behind its query,
so it is cut at --longest tokens. Writes bench/results/export.json, one entry a name.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from distilsql.threads import wait_briefly

wait_briefly()

import torch

from distilsql.data.load import load_sql_benchmark
from distilsql.export.export import export
from distilsql.export.kinds import QUANTIZATIONS
from distilsql.files import write_json
from serve import served_model

RESULTS = Path(__file__).with_name("results") / "export.json"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="a run, or a folder of weights")
    parser.add_argument("--name", required=True)
    parser.add_argument("--gguf", nargs="*", choices=QUANTIZATIONS, default=["f16", "q8_0"])
    parser.add_argument("--on", default="demo:test-seen")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--db-id", help="questions about this database alone")
    parser.add_argument("--longest", type=int, default=40, help="tokens of a query, of a folder of weights")
    arguments = parser.parse_args()
    model = served_model(arguments.model, arguments.longest)
    benchmark = load_sql_benchmark(arguments.on, root=arguments.data, missing_databases="skip")
    if arguments.db_id:
        own = tuple(each for each in benchmark.examples if each.db_id == arguments.db_id)
        benchmark = replace(benchmark, examples=own)
    benchmark = benchmark.take(arguments.limit, 0) if arguments.limit else benchmark
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        made = export(
            model, Path(folder) / "out", name=arguments.name, gguf=arguments.gguf, benchmark=benchmark
        )
        seconds = time.perf_counter() - started
        megabytes = {kind: round(path.stat().st_size / 1e6, 1) for kind, path in made.files.items()}
    found = {
        "model": arguments.model,
        "db_id": arguments.db_id,
        "threads": torch.get_num_threads(),
        "precision": model.decoder.model.precision,
        "seconds": round(seconds, 1),
        "megabytes": megabytes,
        "proofs": {kind: proof.as_json() for kind, proof in made.proofs.items()},
    }
    print(json.dumps(found, indent=2))
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    write_json(RESULTS, {**known, arguments.name: found})


if __name__ == "__main__":
    main()
