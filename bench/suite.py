"""Build a test suite for Spider's dev databases, and judge public systems on it.

    python bench/suite.py --data ../shared/data --predictions ../shared/predictions/spider-dev --out runs/suite

Time, how many wrong neighbours each database tells apart, and EX beside TS on this suite for every prediction file
go to bench/results/suite.json. TS here is never the official TS: it carries the suite's name and checksum.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from distilsql.data.load import load_sql_benchmark
from distilsql.databases.pool import ExecutionPool
from distilsql.metrics.evaluate import evaluate
from distilsql.metrics.golds import GoldResults
from distilsql.metrics.suites.build import build_suite
from distilsql.metrics.suites.suite import Suite

RESULTS = Path(__file__).with_name("results") / "suite.json"


def describe(suite: Suite) -> dict[str, Any]:
    return {
        db_id: {
            "golds": len(report["golds"]),
            "neighbours": report["neighbours"],
            "told_apart_by_the_original": report["told_apart_by_the_original"],
            "told_apart_by_each_variant": [variant["tells_apart"] for variant in report["variants"]],
            "never_told_apart": len(report["never_told_apart"]),
            "candidates_tried": report["candidates_tried"],
            "seconds": report["seconds"],
        }
        for db_id, report in suite.reports.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the data folder, holding spider/")
    parser.add_argument("--predictions", type=Path, required=True, help="a folder of prediction files (JSON)")
    parser.add_argument(
        "--out", type=Path, required=True, help="where the suite goes; an unfinished one goes on"
    )
    arguments = parser.parse_args()
    benchmark = load_sql_benchmark("spider:dev", root=arguments.data)
    started = time.perf_counter()
    suite = build_suite(
        benchmark,
        arguments.out,
        name="spider-dev",
        workers=2,
    )
    build_s = time.perf_counter() - started
    systems = {}
    with ExecutionPool(2) as pool:
        golds = GoldResults()
        for file in sorted(arguments.predictions.glob("*.json")):
            predictions = json.loads(file.read_text())["predictions"]
            ex = evaluate(predictions, benchmark, pool=pool, golds=golds)
            ts = evaluate(predictions, benchmark, pool=pool, golds=golds, suite=suite)
            systems[file.stem] = {"EX": round(100 * ex.accuracy, 1), ts.metric: round(100 * ts.accuracy, 1)}
            print(file.stem, systems[file.stem], flush=True)
    document = {
        "command": "python bench/suite.py --data ../shared/data --predictions ../shared/predictions/spider-dev "
        "--out runs/suite",
        "cpu_count": os.cpu_count(),
        "load_average_1min": os.getloadavg()[0],
        "build_wall_s": round(build_s, 1),
        "suite": suite.label,
        "variants": sum(len(report["variants"]) for report in suite.reports.values()),
        "systems": systems,
        "databases": describe(suite),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
