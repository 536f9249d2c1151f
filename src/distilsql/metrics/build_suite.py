"""Build a test suite: random variants of each database, kept if they tell a wrong neighbour query from its gold.

The method is that of Zhong et al. 2020 (Semantic Evaluation for Text-to-SQL with Distilled Test Suites).
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distilsql.data.benchmark import SqlBenchmark
from distilsql.databases.execute import Execution, Job, Outcome, make_job
from distilsql.databases.neighbours import constants, join, neighbours, tokenise, with_ties_broken
from distilsql.databases.pool import ExecutionPool
from distilsql.databases.suite import REPORT_FILE, SUITE_FILE, Suite, file_checksum, identify, load_suite
from distilsql.databases.variants import Template, read_template, write_variant
from distilsql.errors import DataError
from distilsql.metrics.execution import order_matters, results_equal
from distilsql.metrics.rules import read_gold

QUERY_TIMEOUT_S = 2.0
MAX_ROWS = 50_000


@dataclass(frozen=True)
class SuiteLimits:
    """`candidates` variants are tried for each database; it gives up early after `patience` that told nothing new."""

    candidates: int = 400
    patience: int = 80


@dataclass
class _Pair:
    """A wrong neighbour that no database has told from its gold yet."""

    gold: str
    wrong: str


def build_suite(
    benchmark: SqlBenchmark,
    folder: Path,
    *,
    name: str,
    seed: int = 0,
    limits: SuiteLimits | None = None,
    workers: int | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Suite:
    """A suite for all databases of `benchmark`, in `folder`. The same arguments give the same suite.

    Databases that an earlier, interrupted build has finished are kept. `on_progress(db_id, done, total)` is called
    as each database is finished. Raises DataError if `folder` holds a suite that was built otherwise.
    """
    limits = limits or SuiteLimits()
    golds = _golds_by_database(benchmark)
    _claim(folder, {"name": name, "seed": seed, "limits": vars(limits), "databases": sorted(golds)})
    todo = [db_id for db_id in sorted(golds) if not (folder / db_id / REPORT_FILE).is_file()]
    workers = workers or os.cpu_count() or 1
    # Each database is a thread with a worker process of its own; the threads mostly wait for their process.
    with ExecutionPool(workers) as pool, ThreadPoolExecutor(workers) as threads:

        def build(db_id: str) -> str:
            path = benchmark.databases[db_id].path
            _build_database(path, golds[db_id], folder / db_id, f"{seed}/{db_id}", limits, pool)
            return db_id

        try:
            for done, db_id in enumerate(threads.map(build, todo), start=len(golds) - len(todo) + 1):
                if on_progress is not None:
                    on_progress(db_id, done, len(golds))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            pool.close()
            raise
    return load_suite(folder)


def _golds_by_database(benchmark: SqlBenchmark) -> dict[str, list[str]]:
    """The distinct gold queries of each database, as they run with DISTINCT kept."""
    golds: dict[str, dict[str, None]] = {}
    for example in benchmark.examples:
        gold = read_gold(example.gold_sql, benchmark.evaluator, keep_distinct=True)
        golds.setdefault(example.db_id, {})[gold] = None
    return {db_id: list(queries) for db_id, queries in golds.items()}


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Write what is to be built, or check that it is what is being built already."""
    file = folder / SUITE_FILE
    if file.is_file():
        if json.loads(file.read_text()) != settings:
            raise DataError(
                f"{folder} holds a suite that was begun with other settings; choose another folder or delete it."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings, indent=1))


def _build_database(
    path: Path, golds: Sequence[str], folder: Path, seed: str, limits: SuiteLimits, pool: ExecutionPool
) -> None:
    started = time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted build left
    folder.mkdir()
    template = read_template(path, [constant for gold in golds for constant in constants(gold)])
    pairs, skipped = _wrong_pairs(path, golds, pool)
    alive = [pair for pair in pairs if not _tells_apart(path, pair, pool)]
    report: dict[str, Any] = {
        "golds": [identify(gold) for gold in golds],
        "golds_without_neighbours": skipped,
        "neighbours": len(pairs),
        "told_apart_by_the_original": len(pairs) - len(alive),
        "variants": [],
    }
    tried = _keep_useful_variants(template, golds, alive, folder, seed, limits, pool, report["variants"])
    report["candidates_tried"] = tried
    report["never_told_apart"] = [vars(pair) for pair in alive]
    report["seconds"] = round(time.perf_counter() - started, 1)
    temporary = folder / f"{REPORT_FILE}.tmp"
    temporary.write_text(json.dumps(report, indent=1))
    temporary.replace(folder / REPORT_FILE)


def _keep_useful_variants(
    template: Template,
    golds: Sequence[str],
    alive: list[_Pair],
    folder: Path,
    seed: str,
    limits: SuiteLimits,
    pool: ExecutionPool,
    kept: list[dict[str, Any]],
) -> int:
    """Try variants, record the useful ones, take what they tell apart out of `alive`; returns how many were tried."""
    useless = 0
    for number in range(limits.candidates):
        if not alive or useless >= limits.patience:
            return number
        file = folder / f"variant-{number:03d}.sqlite"
        write_variant(template, file, f"{seed}/{number}")
        told = [pair for pair in alive if _tells_apart(file, pair, pool)]
        unstable = _unstable_golds(file, golds, pool) if told else None
        if unstable is not None:
            told = [pair for pair in told if identify(pair.gold) not in unstable]
        if not told or unstable is None:
            file.unlink()
            useless += 1
            continue
        useless = 0
        alive[:] = [pair for pair in alive if pair not in told]
        kept.append(
            {
                "file": file.name,
                "sha256": file_checksum(file),
                "tells_apart": len(told),
                "unstable_golds": sorted(unstable),
            }
        )
    return limits.candidates


def _wrong_pairs(path: Path, golds: Sequence[str], pool: ExecutionPool) -> tuple[list[_Pair], list[str]]:
    """The neighbours that run on the original database, and the golds whose tokens do not make the same query."""
    pairs, skipped = [], []
    for gold in golds:
        result = pool.run(_job(path, gold))
        rejoined = pool.run(_job(path, join(tokenise(gold))))
        if result.outcome is not Outcome.ROWS or not _equal(gold, result, rejoined):
            skipped.append(gold)
            continue
        candidates = neighbours(gold)
        ran = [pool.run(_job(path, wrong)).outcome is not Outcome.SQL_ERROR for wrong in candidates]
        pairs += [_Pair(gold, wrong) for wrong, runs in zip(candidates, ran, strict=True) if runs]
    return pairs, skipped


def _tells_apart(path: Path, pair: _Pair, pool: ExecutionPool) -> bool:
    """A neighbour that does not finish is not told apart: it says nothing about the database."""
    wrong, gold = pool.run(_job(path, pair.wrong)), pool.run(_job(path, pair.gold))
    if gold.outcome is not Outcome.ROWS or wrong.outcome not in (Outcome.ROWS, Outcome.TOO_MANY_ROWS):
        return False
    return not _equal(pair.gold, gold, wrong)


def _unstable_golds(path: Path, golds: Sequence[str], pool: ExecutionPool) -> set[str] | None:
    """The golds whose result hangs on the order rows are read in; None if some gold does not run here at all."""
    unstable = set()
    for gold in golds:
        result = pool.run(_job(path, gold))
        if result.outcome is not Outcome.ROWS:
            return None
        others = [replace(_job(path, gold), reverse_unordered=True)]
        others += [_job(path, with_ties_broken(gold, direction)) for direction in ("asc", "desc")]
        found = [pool.run(job) for job in others]
        if any(other.outcome is Outcome.ROWS and not _equal(gold, result, other) for other in found):
            unstable.add(identify(gold))
    return unstable


def _equal(gold: str, expected: Execution, found: Execution) -> bool:
    if found.outcome is not Outcome.ROWS:
        return False
    return results_equal(expected.rows, found.rows, ordered=order_matters(gold))


def _job(path: Path, sql: str) -> Job:
    return make_job(path, sql, timeout_s=QUERY_TIMEOUT_S, max_rows=MAX_ROWS)
