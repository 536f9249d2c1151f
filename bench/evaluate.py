"""Wall time of judging whole prediction files: our worker processes beside a straightforward loop.

    python bench/evaluate.py --data ../shared/data --predictions ../shared/predictions/spider-dev

The loop keeps one connection per database open and runs gold and prediction for every example, as an evaluator without
worker processes would; its queries are read with the full sqlparse parse and compared by the same function.
Both must give the same verdicts, or nothing is written. Results go to bench/results/evaluate.json.
"""

import argparse
import json
import os
import platform
import sqlite3
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import sqlparse

from distilsql.data.benchmark import SqlBenchmark
from distilsql.data.load import load_sql_benchmark
from distilsql.databases.pool import ExecutionPool
from distilsql.metrics.evaluate import evaluate
from distilsql.metrics.execution import order_matters, results_equal
from distilsql.metrics.golds import GoldResults

RESULTS = Path(__file__).with_name("results") / "evaluate.json"


class PlainLoop:
    """The straightforward way, in this process."""

    def __init__(self) -> None:
        self._connections: dict[Path, sqlite3.Connection] = {}

    def judge(self, predictions: list[str], benchmark: SqlBenchmark) -> list[bool]:
        return [
            self._judge_one(prediction, example.gold_sql, Path(str(benchmark.databases[example.db_id].path)))
            for prediction, example in zip(predictions, benchmark.examples, strict=True)
        ]

    def _judge_one(self, prediction: str, gold: str, path: Path) -> bool:
        gold_sql, sql = plain_read(gold), plain_read(prediction.split("\t")[0].replace("value", "1"))
        gold_rows = self._run(gold_sql, path)
        try:
            rows = self._run(sql, path)
        except (sqlite3.Error, sqlite3.Warning):
            return False
        return results_equal(gold_rows, rows, ordered=order_matters(gold_sql))

    def _run(self, sql: str, path: Path) -> list[Any]:
        if path not in self._connections:
            connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
            connection.text_factory = lambda raw: raw.decode(errors="ignore")
            self._connections[path] = connection
        return self._connections[path].execute(sql).fetchall()


def plain_read(sql: str) -> str:
    for spaced, joined in (("> =", ">="), ("< =", "<="), ("! =", "!=")):
        sql = sql.replace(spaced, joined)
    tokens = sqlparse.parse(sql.strip())[0].flatten()
    return "".join(token.value for token in tokens if token.value.lower() != "distinct")


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    answer = work()
    return time.perf_counter() - started, answer


def cpu_seconds(pool: ExecutionPool) -> float:
    """CPU time so far, of this process and of the workers."""
    workers = [psutil.Process(process_id).cpu_times() for process_id in pool.process_ids()]
    return time.process_time() + sum(times.user + times.system for times in workers)


def measure(file: Path, benchmark: SqlBenchmark, repeats: int) -> dict[str, Any]:
    """Wall and CPU seconds for one prediction file; the median (CPU: mean) of `repeats` runs after the gold pass."""
    predictions = json.loads(file.read_text())["predictions"]
    loop = PlainLoop()
    loop.judge(predictions, benchmark)  # opens connections and warms the file cache
    cpu_before = time.process_time()
    plain = [seconds(lambda: loop.judge(predictions, benchmark)) for _ in range(repeats)]
    row: dict[str, Any] = {
        "system": file.stem,
        "predictions": len(predictions),
        "plain_loop_s": statistics.median(taken for taken, _ in plain),
        "plain_loop_cpu_s": (time.process_time() - cpu_before) / repeats,
    }
    for workers in (1, 2):
        with ExecutionPool(workers) as pool:
            golds = GoldResults()
            first, _ = seconds(lambda: evaluate(predictions, benchmark, pool=pool, golds=golds))  # noqa: B023
            cpu_before = cpu_seconds(pool)
            later = [
                seconds(lambda: evaluate(predictions, benchmark, pool=pool, golds=golds))  # noqa: B023
                for _ in range(repeats)
            ]
            row[f"workers_{workers}_cpu_s"] = (cpu_seconds(pool) - cpu_before) / repeats
        scores = later[-1][1]
        assert [verdict.is_correct for verdict in scores.verdicts] == plain[-1][1], "the verdicts differ"
        row[f"workers_{workers}_with_gold_pass_s"] = first
        row[f"workers_{workers}_s"] = statistics.median(taken for taken, _ in later)
    row["plain_loop_ms_per_prediction"] = 1000 * row["plain_loop_s"] / len(predictions)
    row["workers_1_ms_per_prediction"] = 1000 * row["workers_1_s"] / len(predictions)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the data folder, holding spider/")
    parser.add_argument("--predictions", type=Path, required=True, help="a folder of prediction files (JSON)")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    benchmark = load_sql_benchmark("spider:dev", root=arguments.data)
    rows = []
    for file in sorted(arguments.predictions.glob("*.json")):
        rows.append(measure(file, benchmark, arguments.repeats))
        shown = {name: round(value, 2) for name, value in rows[-1].items() if name != "system"}
        print(rows[-1]["system"], shown, flush=True)
    document = {
        "command": "python bench/evaluate.py --data ../shared/data --predictions ../shared/predictions/spider-dev",
        "cpu_count": os.cpu_count(),
        "load_average_1min": os.getloadavg()[0],
        "machine": platform.machine(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "repeats": arguments.repeats,
        "slowest_workers_2_s": max(row["workers_2_s"] for row in rows),
        "files": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
