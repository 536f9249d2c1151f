"""Compare two scores, question by question, or run folders, by accuracy and cost."""

from pathlib import Path
from typing import overload

from distilsql.errors import DataError
from distilsql.metrics.compare import Comparison
from distilsql.metrics.rouge import RougeComparison, RougeScores
from distilsql.metrics.scores import Scores
from distilsql.report.table import ComparisonTable, comparison_table
from distilsql.report.write import write_report
from distilsql.runs.evaluate import compare_scores
from distilsql.runs.folder import RunFolder
from distilsql.runs.records import load_runs

Run = RunFolder | Path | str


@overload
def compare(first: Scores, second: Scores, /) -> Comparison: ...


@overload
def compare(first: RougeScores, second: RougeScores, /) -> RougeComparison: ...


@overload
def compare(*runs: Run, out: Path | str | None = None) -> ComparisonTable: ...


def compare(
    *compared: Scores | RougeScores | Run, out: Path | str | None = None
) -> Comparison | RougeComparison | ComparisonTable:
    """Two scores on the same examples, paired; or run folders, each a row of accuracy and cost.

    Of two scores: the `difference`, second minus first, as a share of examples, its 95 % `interval`, exact and
    bootstrap p values, and the questions that were fixed and broken. Of runs: the table of `distilsql compare`, from
    the scores that lie in their folders; with `out`, figures and a page are written there too.

    Raises:
        DataError: the scores judge different examples or in different ways; or what is given is neither two scores
            nor runs.
        RunError: a folder holds no finished run.
    """
    scores = [one for one in compared if isinstance(one, Scores | RougeScores)]
    if not scores and compared:
        folders = [one for one in compared if not isinstance(one, Scores | RougeScores)]
        records = load_runs([one.path if isinstance(one, RunFolder) else Path(one) for one in folders])
        if out is not None:
            write_report(records, Path(out), title="Accuracy against cost")
        return comparison_table(records)
    if len(compared) != 2 or len(scores) != 2 or out is not None:
        raise DataError("compare takes either two scores (without out) or one or more run folders.")
    return compare_scores(scores[0], scores[1])
