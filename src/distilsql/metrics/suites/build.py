"""Build a test suite: random variants of each database, kept if they distinguish a wrong query from its gold.

The method is that of Zhong et al. 2020 (Semantic Evaluation for Text-to-SQL with Distilled Test Suites).
"""

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distilsql.data.benchmark import SqlBenchmark
from distilsql.data.layout import Evaluator
from distilsql.databases.fingerprint import Fingerprint, take_fingerprint
from distilsql.databases.job import Execution, Outcome, make_job, require_available
from distilsql.databases.neighbours import constants, join, neighbours, with_ties_broken
from distilsql.databases.pool import ExecutionPool
from distilsql.databases.sql_tokens import dotted_tokens
from distilsql.databases.url import DatabaseUrl
from distilsql.errors import DatabaseUnavailable, DataError
from distilsql.files import write_text
from distilsql.lock import hold
from distilsql.metrics.rules import read_gold, results_equal
from distilsql.metrics.suites.suite import (
    REPORT_FILE,
    SUITE_FILE,
    Suite,
    content_checksum,
    identify,
    load_suite,
)
from distilsql.metrics.suites.variants import Template, read_template, write_variant
from distilsql.progress import progress

# A second or two; a limit in seconds would keep other variants on another machine.
QUERY_STEPS = 100_000_000
QUERY_TIMEOUT_S = 120.0
MAX_ROWS = 50_000


@dataclass(frozen=True)
class SuiteLimits:
    """`candidates` variants are tried for each database; it gives up early after `patience` that told nothing new."""

    candidates: int = 400
    patience: int = 80


@dataclass(frozen=True)
class _Judge:
    """Runs queries and compares what they return by the benchmark's own rules."""

    pool: ExecutionPool
    evaluator: Evaluator

    def run(self, path: Path, sql: str, *, reverse_unordered: bool = False) -> Execution:
        job = make_job(path, sql, timeout_s=QUERY_TIMEOUT_S, max_rows=MAX_ROWS)
        job = replace(job, max_steps=QUERY_STEPS, reverse_unordered=reverse_unordered)
        return require_available(self.pool.run(job), path)

    def fingerprint(self, path: Path) -> Fingerprint:
        return take_fingerprint(path, self.pool)

    def equal(self, gold: str, expected: Execution, found: Execution) -> bool:
        if found.outcome is not Outcome.ROWS:
            return False
        return results_equal(gold, expected.rows, found.rows, self.evaluator)


@dataclass
class _Pair:
    """A wrong neighbour that no database has distinguished from its gold yet."""

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
) -> Suite:
    """A suite for all databases of `benchmark`, in `folder`. The same arguments give the same suite.

    Databases that an earlier, interrupted build has finished are kept. Raises DataError if `folder` holds a suite that
    was built otherwise, of other gold queries or of databases that have changed since, or if `benchmark` is BIRD's;
    DatabaseUnavailable if a database cannot be read or changes meanwhile; RunInUse (lock.py) if another process is at
    work in `folder`.
    """
    if benchmark.evaluator == "bird":
        raise DataError(
            f"Test suites are Spider's and own pairs'; BIRD is judged without them, and so is {benchmark.name}."
        )
    limits = limits or SuiteLimits()
    golds, paths = _golds_by_database(benchmark), _sqlite_files(benchmark)
    with hold(folder):
        _claim(folder, {"name": name, "seed": seed, "limits": vars(limits), "databases": sorted(golds)})
        workers = workers or os.cpu_count() or 1
        with ExecutionPool(workers) as pool:
            judge = _Judge(pool, benchmark.evaluator)
            for db_id, queries in golds.items():
                _check_finished(folder / db_id, queries, paths[db_id], judge)
            _build_unfinished(paths, golds, folder, seed, limits, judge)
        return load_suite(folder)


def _build_unfinished(
    paths: Mapping[str, Path],
    golds: Mapping[str, Sequence[str]],
    folder: Path,
    seed: int,
    limits: SuiteLimits,
    judge: _Judge,
) -> None:
    """Each database is a thread with a worker process of its own; the threads mostly wait for their process."""
    todo = [db_id for db_id in sorted(golds) if not (folder / db_id / REPORT_FILE).is_file()]

    def build(db_id: str) -> None:
        _build_database(paths[db_id], golds[db_id], folder / db_id, f"{seed}/{db_id}", limits, judge)
        advance()

    done = len(golds) - len(todo)
    with (
        progress("building the test suite", len(golds), done=done, unit="database") as advance,
        ThreadPoolExecutor(judge.pool.workers) as threads,
    ):
        try:
            list(threads.map(build, todo))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            judge.pool.close()
            raise


def _sqlite_files(benchmark: SqlBenchmark) -> dict[str, Path]:
    """By db_id. Raises DataError for any other database: variants are made of SQLite's files."""
    paths: dict[str, Path] = {}
    for db_id, database in benchmark.databases.items():
        if isinstance(database.path, DatabaseUrl):
            raise DataError(
                f"Test suites are made of SQLite files, and {db_id} is {database.path}; judge it without a suite, or "
                "on a copy in SQLite."
            )
        paths[db_id] = database.path
    return paths


def _golds_by_database(benchmark: SqlBenchmark) -> dict[str, list[str]]:
    """The distinct gold queries of each database, as they run with DISTINCT kept."""
    golds: dict[str, dict[str, None]] = {}
    for example in benchmark.examples:
        gold = read_gold(example.gold_sql, benchmark.evaluator, keep_distinct=True)
        golds.setdefault(example.db_id, {})[gold] = None
    return {db_id: list(queries) for db_id, queries in golds.items()}


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Record the settings of the build, or check that they equal those of a build begun earlier."""
    file = folder / SUITE_FILE
    if file.is_file():
        if json.loads(file.read_text()) != settings:
            raise DataError(
                f"{folder} holds a suite that was begun with different settings; choose another folder or delete it."
            )
        return
    write_text(file, json.dumps(settings, indent=1))


def _check_finished(folder: Path, golds: Sequence[str], path: Path, judge: _Judge) -> None:
    """Raises DataError if the database was finished for other golds, or from another file."""
    file = folder / REPORT_FILE
    if not file.is_file():
        return
    report = json.loads(file.read_text())
    same_golds = set(report["golds"]) == set(map(identify, golds))
    if not same_golds or report.get("original") != judge.fingerprint(path).sha256:
        raise DataError(
            f"{folder} was built for other gold queries, or {path} has changed since; delete {folder.parent} and build "
            "the suite again."
        )


def _build_database(
    path: Path, golds: Sequence[str], folder: Path, seed: str, limits: SuiteLimits, judge: _Judge
) -> None:
    started = time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted build left
    folder.mkdir()
    original = judge.fingerprint(path)
    template = read_template(path, [constant for gold in golds for constant in constants(gold)])
    pairs, skipped = _wrong_pairs(path, golds, judge)
    alive = [pair for pair in pairs if not _tells_apart(path, pair, judge)]
    if judge.fingerprint(path).sha256 != original.sha256:
        raise DatabaseUnavailable(
            f"{path} changed while its variants were being built; build the suite from a copy that does not change."
        )
    report: dict[str, Any] = {
        "original": original.sha256,
        "golds": [identify(gold) for gold in golds],
        "golds_without_neighbours": skipped,
        "neighbours": len(pairs),
        "told_apart_by_the_original": len(pairs) - len(alive),
        "variants": [],
    }
    tried = _keep_useful_variants(template, golds, alive, folder, seed, limits, judge, report["variants"])
    report["candidates_tried"] = tried
    report["never_told_apart"] = [vars(pair) for pair in alive]
    report["seconds"] = round(time.perf_counter() - started, 1)
    write_text(folder / REPORT_FILE, json.dumps(report, indent=1))


def _keep_useful_variants(
    template: Template,
    golds: Sequence[str],
    alive: list[_Pair],
    folder: Path,
    seed: str,
    limits: SuiteLimits,
    judge: _Judge,
    kept: list[dict[str, Any]],
) -> int:
    """Try variants, record the useful ones, take what they tell apart out of `alive`; returns how many were tried."""
    useless = 0
    for number in range(limits.candidates):
        if not alive or useless >= limits.patience:
            return number
        file = folder / f"variant-{number:03d}.sqlite"
        write_variant(template, file, f"{seed}/{number}")
        told = [pair for pair in alive if _tells_apart(file, pair, judge)]
        unstable = _unstable_golds(file, golds, judge) if told else None
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
                "content": content_checksum(file),
                "tells_apart": len(told),
                "unstable_golds": sorted(unstable),
            }
        )
    return limits.candidates


def _wrong_pairs(path: Path, golds: Sequence[str], judge: _Judge) -> tuple[list[_Pair], list[str]]:
    """The neighbours that run on the original database, and the golds whose tokens do not make the same query."""
    pairs, skipped = [], []
    for gold in golds:
        result = judge.run(path, gold)
        rejoined = judge.run(path, join(dotted_tokens(gold)))
        if result.outcome is not Outcome.ROWS or not judge.equal(gold, result, rejoined):
            skipped.append(gold)
            continue
        candidates = neighbours(gold)
        ran = [judge.run(path, wrong).outcome is not Outcome.SQL_ERROR for wrong in candidates]
        pairs += [_Pair(gold, wrong) for wrong, runs in zip(candidates, ran, strict=True) if runs]
    return pairs, skipped


def _tells_apart(path: Path, pair: _Pair, judge: _Judge) -> bool:
    """A neighbour that does not finish counts as not distinguished: it says nothing about the database."""
    wrong, gold = judge.run(path, pair.wrong), judge.run(path, pair.gold)
    if gold.outcome is not Outcome.ROWS or not wrong.has_rows:
        return False
    return not judge.equal(pair.gold, gold, wrong)


def _unstable_golds(path: Path, golds: Sequence[str], judge: _Judge) -> set[str] | None:
    """The golds whose result depends on the order rows are read in; None if some gold does not run here at all."""
    unstable = set()
    for gold in golds:
        result = judge.run(path, gold)
        if result.outcome is not Outcome.ROWS:
            return None
        found = [judge.run(path, gold, reverse_unordered=True)]
        found += [judge.run(path, with_ties_broken(gold, direction)) for direction in ("asc", "desc")]
        if any(other.outcome is Outcome.ROWS and not judge.equal(gold, result, other) for other in found):
            unstable.add(identify(gold))
    return unstable
