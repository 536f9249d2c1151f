"""Checks: which drafts are kept. A gold judges something only if a query that is nearly it gives another result.

Every draft runs under the limits of serving, returns rows, hangs on no tie, and differs from its neighbours: where a
clause is dropped, on the database itself, so that no condition is trivially true; elsewhere on the database or on one
of its variants (`metrics.suites`), which hold few rows that nearly meet the conditions.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from distilsql.data.golds import may_have_ties, tie
from distilsql.databases.job import Execution, Outcome
from distilsql.databases.neighbours import neighbours, with_ties_broken
from distilsql.databases.pool import ExecutionPool
from distilsql.databases.sql_tokens import dotted_tokens
from distilsql.errors import DataError
from distilsql.metrics.rules import results_equal
from distilsql.metrics.suites.variants import read_template, write_variant
from distilsql.synthesis.profile import Profile
from distilsql.synthesis.source import Source

log = logging.getLogger(__name__)

VARIANTS = 6
# Of each column, for the rows of variants.
CONSTANTS_PER_COLUMN = 12
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
        """Whether two queries give equal results on the database and on every variant."""
        for path in (None, *self.variants):
            gold, found = self._run(sql, path), self._run(other, path)
            ran = gold.outcome is found.outcome is Outcome.ROWS
            if not ran or not _same(sql, gold, found):
                return False
        return True

    def _run(self, sql: str, path: Path | None = None) -> Execution:
        return self.pool.run(self.source.job(sql, path))

    def _is_tied(self, sql: str, gold: Execution) -> bool:
        if not may_have_ties(sql):
            return False
        job = self.source.job(sql)
        others = [replace(job, reverse_unordered=True)]
        others += [replace(job, sql=with_ties_broken(sql, direction)) for direction in ("asc", "desc")]
        ran = [self.pool.run(other) for other in others]
        return bool(
            tie(sql, gold.rows, [other.rows for other in ran if other.outcome is Outcome.ROWS], "plain")
        )

    def _compared(self, sql: str, gold: Execution) -> Verdict:
        tokens = dotted_tokens(sql)
        alive = []
        for wrong in neighbours(sql):
            changed = dotted_tokens(wrong)
            if _is_of_degree(tokens, changed):
                continue
            if gold.seconds > QUICK_S or not _same(sql, gold, self._run(wrong)):
                alive += [wrong] if gold.seconds > QUICK_S else []
                continue
            if len(changed) < len(tokens) and "distinct" in _words(changed) ^ _words(tokens):
                alive.append(wrong)
            elif len(changed) < len(tokens):
                return Verdict.TRIVIAL
            else:
                alive.append(wrong)
        for path in self.variants:
            if alive:
                expected = self._run(sql, path)
                alive = [wrong for wrong in alive if _same(sql, expected, self._run(wrong, path))]
        return Verdict.AMBIGUOUS if alive else Verdict.KEPT


def _words(tokens: Sequence[str]) -> set[str]:
    return {token.lower() for token in tokens}


def _same(gold_sql: str, gold: Execution, found: Execution) -> bool:
    """A query that fails where the gold does not is told apart; one that does not finish is not."""
    if Outcome.TIMEOUT in (gold.outcome, found.outcome):
        return True
    if gold.outcome is not Outcome.ROWS or found.outcome is not Outcome.ROWS:
        return gold.outcome is found.outcome
    return results_equal(gold_sql, gold.rows, found.rows, "plain")


def _is_of_degree(tokens: Sequence[str], changed: Sequence[str]) -> bool:
    """Whether a neighbour differs in a number, or in > for >= alone: that no value lies between is no fault."""
    if len(tokens) != len(changed):
        return False
    differ = [(a, b) for a, b in zip(tokens, changed, strict=True) if a != b]
    return all((_NUMBER.fullmatch(a) and _NUMBER.fullmatch(b)) or (a, b) in _STRICTNESS for a, b in differ)


def write_variants(source: Source, profile: Profile, folder: Path, seed: int) -> tuple[Path, ...]:
    """Variants of the database, in `folder`; none where its schema cannot be made anew, which is said."""
    if source.dialect != "sqlite":
        return ()
    constants = [
        (column.name.lower(), value)
        for table in profile.tables
        for column in table.columns
        for value in (*column.values[:CONSTANTS_PER_COLUMN], *column.quantiles[4:17:3])
    ]
    paths = []
    try:
        template = read_template(source.path, constants)
        for number in range(VARIANTS):
            path = folder / f"variant-{number}.sqlite"
            write_variant(template, path, f"{seed}/{number}")
            paths.append(path)
    except DataError as error:
        log.warning(f"{error} Queries are told from wrong ones on the database alone.")
        return ()
    return tuple(paths)
