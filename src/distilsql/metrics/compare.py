"""Compare two scores on the same examples: which were fixed, which were broken, and whether it could be chance."""

from dataclasses import dataclass

from distilsql.errors import DataError
from distilsql.metrics.scores import Scores, Verdict
from distilsql.metrics.statistics import mcnemar_exact, paired_bootstrap


@dataclass(frozen=True)
class Change:
    """One example on which two runs got different verdicts."""

    before: Verdict
    after: Verdict

    def __str__(self) -> str:
        before, after = self.before, self.after
        lines = [
            f"{before.example_id} [{before.db_id}, {before.level}] {before.question}",
            f"  gold    {before.gold_sql}",
            f"  before  {before.predicted_sql}   <- {before.outcome.value} {before.message}".rstrip(),
            f"  after   {after.predicted_sql}   <- {after.outcome.value} {after.message}".rstrip(),
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Comparison:
    """The comparison of two sets of predictions. Differences are second minus first, as shares of examples.

    `mcnemar_p` is exact and two-sided; `interval` and `bootstrap_p` come from a paired bootstrap of the examples.
    """

    difference: float
    interval: tuple[float, float]
    bootstrap_p: float
    mcnemar_p: float
    fixed: tuple[Change, ...]
    broken: tuple[Change, ...]

    def __str__(self) -> str:
        low, high = self.interval
        head = (
            f"difference {100 * self.difference:+.1f} points, 95 % interval [{100 * low:+.1f}, {100 * high:+.1f}]; "
            f"McNemar exact p = {self.mcnemar_p:.3g}, paired bootstrap p = {self.bootstrap_p:.3g}"
        )
        parts = [head]
        for name, changes in (("fixed", self.fixed), ("broken", self.broken)):
            parts.append(f"{len(changes)} {name}")
            parts += map(str, changes)
        return "\n\n".join(parts)


def compare_predictions(scores_a: Scores, scores_b: Scores) -> Comparison:
    """How `scores_b` differs from `scores_a`. Raises DataError unless both judged the same examples the same way."""
    _check_comparable(scores_a, scores_b)
    pairs = [Change(a, b) for a, b in zip(scores_a.verdicts, scores_b.verdicts, strict=True)]
    fixed = tuple(pair for pair in pairs if pair.after.is_correct and not pair.before.is_correct)
    broken = tuple(pair for pair in pairs if pair.before.is_correct and not pair.after.is_correct)
    low, high, p = paired_bootstrap(
        [pair.before.is_correct for pair in pairs], [pair.after.is_correct for pair in pairs]
    )
    return Comparison(
        difference=scores_b.accuracy - scores_a.accuracy,
        interval=(low, high),
        bootstrap_p=p,
        mcnemar_p=mcnemar_exact(len(broken), len(fixed)),
        fixed=fixed,
        broken=broken,
    )


def _check_comparable(a: Scores, b: Scores) -> None:
    for what, first, second in (
        ("metric", a.metric, b.metric),
        ("evaluator", a.evaluator, b.evaluator),
        ("keep_distinct", a.keep_distinct, b.keep_distinct),
    ):
        if first != second:
            raise DataError(
                f"The two scores differ in {what} ({first} and {second}), so their numbers are not "
                "comparable; evaluate both files the same way."
            )
    ids_a, ids_b = ([(v.example_id, v.gold_sql) for v in scores.verdicts] for scores in (a, b))
    if ids_a != ids_b:
        raise DataError(
            f"The two scores judge different examples ({len(ids_a)} of {a.benchmark} and {len(ids_b)} of "
            f"{b.benchmark}); evaluate both files on the same benchmark."
        )
    changed = [name for name in a.databases if b.databases.get(name, a.databases[name]) != a.databases[name]]
    if changed:
        raise DataError(
            f"{', '.join(changed)} changed between the two evaluations (the scores record the databases' contents), so "
            "their numbers are not comparable; evaluate both files on the same databases."
        )
