"""What a retry on an error and candidates that vote by result gain, in points, and what they cost, in seconds.

    python bench/candidates.py                                                        # the demo's teacher
    python bench/candidates.py --model runs/kid --on spider:dev --limit 200 --name kid-spider

Answers a benchmark greedily and then in each other way, judges all of them, and pairs each with the greedy answers:
the gain in points with its 95 % interval (paired bootstrap over questions), and McNemar's exact p. `seconds` are by
the clock, for all questions, the statements included. Writes bench/results/candidates.json, one entry a name.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from distilsql.threads import wait_briefly

wait_briefly()

import torch

from distilsql.data.benchmark import SqlBenchmark
from distilsql.data.load import load_sql_benchmark
from distilsql.files import write_json
from distilsql.inference.candidates import GREEDY, Choosing, choose_all
from distilsql.inference.model import Model
from distilsql.inference.predict import load_named, predict
from distilsql.metrics.evaluate import evaluate
from distilsql.metrics.statistics import mcnemar_exact, paired_bootstrap

RESULTS = Path(__file__).with_name("results") / "candidates.json"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="demo:teacher", help="a run, or demo:teacher")
    parser.add_argument("--name", default="demo-teacher")
    parser.add_argument("--on", default="demo:test")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--candidates", type=int, nargs="*", default=[3, 5, 9])
    parser.add_argument("--temperatures", type=float, nargs="*", default=[1.0])
    arguments = parser.parse_args()
    benchmark = load_sql_benchmark(arguments.on, root=arguments.data, missing_databases="skip")
    benchmark = benchmark.take(arguments.limit, 0) if arguments.limit else benchmark
    model = load_named(arguments.model)[0]

    started = time.perf_counter()
    answers = predict(model, benchmark)
    greedy_s = time.perf_counter() - started
    greedy = [verdict.is_correct for verdict in evaluate(answers, benchmark).verdicts]
    ways = [
        Choosing(count, retry=True, temperature=temperature)
        for temperature in arguments.temperatures
        for count in sorted({1, *arguments.candidates})
    ]
    rows = [{**vars(GREEDY), "accuracy": percent(greedy), "seconds": round(greedy_s, 1)}]
    for choosing in ways:
        started = time.perf_counter()
        chosen = {example.example_id: found for example, found in choose_all(model, benchmark, choosing)}
        seconds = time.perf_counter() - started
        found = [chosen[example.example_id] for example in benchmark.examples]
        verdicts = evaluate([each.answer.sql for each in found], benchmark).verdicts
        right = [verdict.is_correct for verdict in verdicts]
        low, high, _ = paired_bootstrap(greedy, right)
        pairs = list(zip(greedy, right, strict=True))
        lost, won = pairs.count((True, False)), pairs.count((False, True))
        rows.append(
            {
                **vars(choosing),
                "accuracy": percent(right),
                "gain_points": round(percent(right) - percent(greedy), 1),
                "interval_points": [round(100 * low, 1), round(100 * high, 1)],
                "won": won,
                "lost": lost,
                "p": round(mcnemar_exact(lost, won), 4),
                "answers_that_fail": sum(each.fails for each in found),
                "retries_that_run": sum(each.retried for each in found),
                "retries_that_are_right": sum(
                    each.retried and is_right for each, is_right in zip(found, right, strict=True)
                ),
                "seconds": round(seconds, 1),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
        keep(arguments, model, benchmark, rows)


def keep(
    arguments: argparse.Namespace, model: Model, benchmark: SqlBenchmark, rows: list[dict[str, Any]]
) -> None:
    """Write what is measured so far."""
    measured = {
        "model": Path(arguments.model).name,
        "benchmark": benchmark.name,
        "questions": len(benchmark.examples),
        "threads": torch.get_num_threads(),
        "precision": model.decoder.model.precision,
        "ways": rows,
    }
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    write_json(RESULTS, {**known, arguments.name: measured})


def percent(right: list[bool]) -> float:
    return round(100 * sum(right) / len(right), 1)


if __name__ == "__main__":
    main()
