"""Checks: which drafts are kept. A gold query is a useful test only if nearly identical queries give another result.

Every draft runs under the limits of serving, returns rows, depends on no tie, and differs from its neighbours: where a
clause is dropped, on the database itself, so that no condition is trivially true; elsewhere on the database or on one
of its variants (`metrics.suites`), which hold few rows that nearly meet the conditions.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from distilsql.data.golds import may_have_ties, tie
from distilsql.databases.job import Execution, Outcome, require_available
from distilsql.databases.neighbours import neighbours, with_ties_broken
from distilsql.databases.pool import ExecutionPool
from distilsql.databases.sql_tokens import dotted_tokens
from distilsql.metrics.rules import results_equal
from distilsql.synthesis.source import Source, serving_job
from distilsql.synthesis.variants import as_sqlite

# A query that takes longer is compared with its neighbours on the variants alone.
QUICK_S = 0.15
_NUMBER = re.compile(r"\d+(\.\d+)?")
_STRICTNESS = frozenset({(">", ">="), (">=", ">"), ("<", "<="), ("<=", "<"), ("=", ">="), ("=", "<=")})


class Verdict(Enum):
    KEPT = "kept"
    REPEATED = "repeated"
    FREQUENT = "of a pattern that is asked often enough"
    UNSAID = "not said in full by any wording"
    FAILED = "does not run"
    SLOW = "stopped at its limit"
    LARGE = "more rows than a person reads"
    EMPTY = "no rows, or nothing in them"
    TIED = "decided by a tie"
    TRIVIAL = "a clause changes nothing"
    AMBIGUOUS = "a wrong query gives the same result"


_FAULTS = {
    Outcome.TIMEOUT: Verdict.SLOW,
    Outcome.TOO_MANY_ROWS: Verdict.LARGE,
    Outcome.TOO_LARGE: Verdict.LARGE,
}


@dataclass(frozen=True)
class Checker:
    """`variants` are SQLite files, whatever the engine of the source. All methods raise DatabaseUnavailable."""

    source: Source
    variants: tuple[Path, ...]
    pool: ExecutionPool

    def check(self, sql: str) -> Verdict:
        gold = self._run(sql)
        if gold.outcome is not Outcome.ROWS:
            return _FAULTS.get(gold.outcome, Verdict.FAILED)
        if all(cell is None or cell == 0 for row in gold.rows for cell in row):
            return Verdict.EMPTY
        if self._is_tied(sql, gold):
            return Verdict.TIED
        return self._compared(sql, gold)

    def same_everywhere(self, sql: str, other: str) -> bool:
        """Whether two queries give equal results on the database and on every variant that can judge them."""
        gold, found = self._run(sql), self._run(other)
        ran = gold.outcome is found.outcome is Outcome.ROWS
        return ran and self._same(sql, gold, found) and bool(self._alike_on_variants(sql, gold, [other]))

    def _alike_on(self, path: Path, sql: str, gold: Execution, other: str) -> bool:
        """A query in another engine's SQL that does not run on a variant is not told apart there: it may be sqlglot's
        fault."""
        found = self._run_on(path, other)
        is_own = self.source.engine == "sqlite"
        if not is_own and not gold.outcome is found.outcome is Outcome.ROWS:
            return True
        return self._same(sql, gold, found)

    def _run(self, sql: str) -> Execution:
        return require_available(
            self.pool.run(self.source.job(sql)), self.source.path, "queries were checked"
        )

    def _run_on(self, path: Path, sql: str) -> Execution:
        engine = self.source.engine
        return self.pool.run(serving_job(path, sql if engine == "sqlite" else as_sqlite(sql, engine)))

    def _same(self, gold_sql: str, gold: Execution, found: Execution) -> bool:
        """A query that fails where the gold does not is told apart; one that does not finish is not."""
        if Outcome.TIMEOUT in (gold.outcome, found.outcome):
            return True
        if gold.outcome is not Outcome.ROWS or found.outcome is not Outcome.ROWS:
            return gold.outcome is found.outcome
        return results_equal(gold_sql, gold.rows, found.rows, "plain", self.source.engine)

    def _is_tied(self, sql: str, gold: Execution) -> bool:
        if not may_have_ties(sql):
            return False
        job = self.source.job(sql)
        others = [replace(job, reverse_unordered=True)] if self.source.engine == "sqlite" else []
        others += [replace(job, sql=with_ties_broken(sql, direction)) for direction in ("asc", "desc")]
        ran = [self.pool.run(other) for other in others]
        return bool(
            tie(sql, gold.rows, [other.rows for other in ran if other.outcome is Outcome.ROWS], "plain")
        )

    def _compared(self, sql: str, gold: Execution) -> Verdict:
        tokens = dotted_tokens(sql)
        is_slow = gold.seconds > QUICK_S
        alive = []
        for wrong in neighbours(sql):
            changed = dotted_tokens(wrong)
            if _is_of_degree(tokens, changed):
                continue
            is_dropped = len(changed) < len(tokens) and "distinct" not in _words(changed) ^ _words(tokens)
            if is_slow or not is_dropped:
                alive.append(wrong)
            elif self._same(sql, gold, self._run(wrong)):
                return Verdict.TRIVIAL
        for compared in (self._alike_here, self._alike_on_variants)[:: self._direction]:
            if alive and not (is_slow and compared == self._alike_here):
                alive = compared(sql, gold, alive)
        return Verdict.AMBIGUOUS if alive else Verdict.KEPT

    @property
    def _direction(self) -> int:
        """Files are compared on first: a server makes a connection for every query."""
        return 1 if self.source.engine == "sqlite" else -1

    def _alike_here(self, sql: str, gold: Execution, others: Sequence[str]) -> list[str]:
        """Those that give the query's result on the database."""
        return [other for other in others if self._same(sql, gold, self._run(other))]

    def _alike_on_variants(self, sql: str, gold: Execution, others: Sequence[str]) -> list[str]:
        """Those that give the query's result on every variant that can judge them."""
        alike = list(others)
        for path in self.variants:
            if alike:
                expected = self._run_on(path, sql)
                alike = [other for other in alike if self._alike_on(path, sql, expected, other)]
        return alike


def _words(tokens: Sequence[str]) -> set[str]:
    return {token.lower() for token in tokens}


def _is_of_degree(tokens: Sequence[str], changed: Sequence[str]) -> bool:
    """Whether a neighbour differs in a number, or in > for >= alone: that no value lies between is no fault."""
    if len(tokens) != len(changed):
        return False
    differ = [(a, b) for a, b in zip(tokens, changed, strict=True) if a != b]
    return all((_NUMBER.fullmatch(a) and _NUMBER.fullmatch(b)) or (a, b) in _STRICTNESS for a, b in differ)
