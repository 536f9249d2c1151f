"""Scores: the verdict on every prediction of a benchmark, and the tables that follow from them."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any

from distilsql.data.benchmark import Evaluator
from distilsql.errors import DataError
from distilsql.metrics import bird
from distilsql.metrics.statistics import bootstrap_interval

_NOT_FOUND = re.compile(r"no such (table|column): (.+)")


class VerdictOutcome(Enum):
    """The outcome of one prediction. All but CORRECT score 0; they are kept apart for analysis."""

    CORRECT = "correct"
    WRONG = "wrong result"
    EMPTY = "no SQL"
    SQL_ERROR = "SQL error"
    TIMEOUT = "timeout"
    TOO_LARGE = "result too large"
    CRASHED = "database crashed"
    UNDECIDED = "out of time on a busy machine"


@dataclass(frozen=True)
class LeftOut:
    """An example that was not judged, and why."""

    example_id: str
    reason: str


@dataclass(frozen=True)
class Verdict:
    """One judged prediction. `seconds` is the prediction's time in the database; 0 if it did not have to run.

    `soft_f1` and `reward` (R-VES) are BIRD's, None where they were not asked for.
    """

    example_id: str
    db_id: str
    level: str
    clauses: tuple[str, ...]
    question: str
    gold_sql: str
    predicted_sql: str
    outcome: VerdictOutcome
    message: str = ""
    seconds: float = 0.0
    soft_f1: float | None = None
    reward: float | None = None

    @property
    def is_correct(self) -> bool:
        return self.outcome is VerdictOutcome.CORRECT

    @property
    def is_valid_sql(self) -> bool:
        """Whether the database accepted the statement; one that ran out of time or memory was accepted."""
        return self.outcome not in (VerdictOutcome.EMPTY, VerdictOutcome.SQL_ERROR)

    @property
    def invented(self) -> tuple[str, str] | None:
        """("table" or "column", name) of the first name that the database did not find."""
        found = _NOT_FOUND.match(self.message)
        return (found[1], found[2]) if found else None


@dataclass(frozen=True)
class Tally:
    """`correct` of `total` examples."""

    correct: int
    total: int

    @property
    def accuracy(self) -> float:
        return self.correct / self.total


@dataclass(frozen=True)
class Scores:
    """All verdicts, in the benchmark's order, and what they were judged by.

    `metric` names the number: `EX`, the official one's equal where the evaluator is Spider's or BIRD's; on a suite
    of our own `TS on` the suite's name and checksum; `with plugged values` follows either, and how many examples
    were `left_out` behind that.
    `databases` maps each db_id to the fingerprint of what was judged on (see `databases.fingerprint`); it is empty in
    scores that an earlier version wrote. `stripped` counts the predictions that stood behind thoughts, in a fence or
    between prose, as far as they were judged without (see `databases.written_sql`).
    """

    benchmark: str
    evaluator: Evaluator
    metric: str
    keep_distinct: bool
    verdicts: tuple[Verdict, ...]
    left_out: tuple[LeftOut, ...] = ()
    databases: Mapping[str, str] = field(default_factory=dict)
    stripped: Mapping[str, int] = field(default_factory=dict)

    @property
    def correct(self) -> int:
        return sum(verdict.is_correct for verdict in self.verdicts)

    @property
    def accuracy(self) -> float:
        """The share of correct predictions, 0 to 1."""
        return self.correct / len(self.verdicts)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The 95 % bootstrap interval of the accuracy, examples drawn with replacement."""
        return bootstrap_interval([verdict.is_correct for verdict in self.verdicts])

    @property
    def valid_sql_rate(self) -> float:
        return sum(verdict.is_valid_sql for verdict in self.verdicts) / len(self.verdicts)

    @property
    def soft_f1(self) -> float | None:
        """BIRD's soft-F1, 0 to 1; None where it was not computed."""
        values = [verdict.soft_f1 for verdict in self.verdicts if verdict.soft_f1 is not None]
        return sum(values) / len(values) if values else None

    @property
    def r_ves(self) -> float | None:
        """BIRD's R-VES in percent, which can exceed 100; None where it was not measured."""
        rewards = [verdict.reward for verdict in self.verdicts if verdict.reward is not None]
        return bird.r_ves(rewards) if rewards else None

    def outcomes(self) -> dict[VerdictOutcome, int]:
        counts = Counter(verdict.outcome for verdict in self.verdicts)
        return {outcome: counts[outcome] for outcome in VerdictOutcome}

    def by_hardness(self) -> dict[str, Tally]:
        """Per level of hardness (Spider) or difficulty (BIRD), easiest first."""
        order = ("easy", "medium", "hard", "extra", "simple", "moderate", "challenging")
        table = _tally(self.verdicts, lambda verdict: (verdict.level,))
        return {
            level: table[level] for level in sorted(table, key=lambda x: order.index(x) if x in order else 99)
        }

    def by_database(self) -> dict[str, Tally]:
        return dict(sorted(_tally(self.verdicts, lambda verdict: (verdict.db_id,)).items()))

    def by_clause(self) -> dict[str, Tally]:
        """Per clause of the gold query, most frequent first. A query counts once for each clause it has."""
        table = _tally(self.verdicts, lambda verdict: verdict.clauses)
        return dict(sorted(table.items(), key=lambda item: -item[1].total))

    def invented(self, kind: str) -> dict[str, int]:
        """How often each unknown name of `kind` (`table` or `column`) stopped a prediction, most frequent first."""
        names = Counter(v.invented[1] for v in self.verdicts if v.invented and v.invented[0] == kind)
        return dict(names.most_common())

    def to_json(self) -> str:
        """Everything, with a summary on top for people; `from_json` reads the verdicts and counts again."""
        low, high = self.interval
        document = {
            "benchmark": self.benchmark,
            "evaluator": self.evaluator,
            "metric": self.metric,
            "keep_distinct": self.keep_distinct,
            "accuracy": self.accuracy,
            "accuracy_interval_95": [low, high],
            "correct": self.correct,
            "total": len(self.verdicts),
            "valid_sql_rate": self.valid_sql_rate,
            "soft_f1": self.soft_f1,
            "r_ves": self.r_ves,
            "outcomes": {outcome.name: count for outcome, count in self.outcomes().items()},
            "by_hardness": _tally_json(self.by_hardness()),
            "by_database": _tally_json(self.by_database()),
            "by_clause": _tally_json(self.by_clause()),
            "invented_tables": self.invented("table"),
            "invented_columns": self.invented("column"),
            "left_out": [asdict(example) for example in self.left_out],
            "databases": dict(self.databases),
            "stripped": dict(self.stripped),
            "verdicts": [asdict(verdict) | {"outcome": verdict.outcome.name} for verdict in self.verdicts],
        }
        text = json.dumps(document, indent=1, ensure_ascii=False)
        # A prediction can hold half of a surrogate pair, which no file can.
        return text.encode(errors="backslashreplace").decode()

    @classmethod
    def from_json(cls, text: str) -> "Scores":
        """Raises DataError if `text` is not what `to_json` wrote."""
        try:
            document = json.loads(text)
            return cls(
                document["benchmark"],
                document["evaluator"],
                document["metric"],
                document["keep_distinct"],
                tuple(map(_verdict_from_json, document["verdicts"])),
                tuple(LeftOut(**example) for example in document.get("left_out", ())),
                databases=document.get("databases", {}),
                stripped=document.get("stripped", {}),
            )
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(
                f"This is not a scores file ({type(error).__name__}: {error}); write one with `distilsql evaluate`."
            ) from error


def _tally(verdicts: Iterable[Verdict], keys: Callable[[Verdict], tuple[str, ...]]) -> dict[str, Tally]:
    correct: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for verdict in verdicts:
        for key in keys(verdict):
            total[key] += 1
            correct[key] += verdict.is_correct
    return {key: Tally(correct[key], total[key]) for key in total}


def _tally_json(table: dict[str, Tally]) -> dict[str, Any]:
    return {key: {"correct": t.correct, "total": t.total, "accuracy": t.accuracy} for key, t in table.items()}


def _verdict_from_json(values: dict[str, Any]) -> Verdict:
    outcome = VerdictOutcome[values["outcome"]]
    return Verdict(**(values | {"outcome": outcome, "clauses": tuple(values["clauses"])}))
