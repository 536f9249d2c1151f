"""What a row gains over the row sft, question by question. Imports no torch."""

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from distilsql.metrics.statistics import stratified_bootstrap
from distilsql.report.paper_table import Line, Measured
from distilsql.runs.experiment import Column, Scale
from distilsql.runs.plan import PlannedRow, PlannedRun, judgement_of, measured_columns
from distilsql.runs.state import read_values

BASELINE = "sft"
NOTE = (
    "paired, question by question; p is two-sided. Interval and p are of chance in the questions (bootstrap, each "
    "benchmark's drawn from it alone), and in the seeds too where there are several."
)
# Two-sided 95 % of a normal distribution.
_Z95 = 1.96


@dataclass(frozen=True)
class _Answers:
    """How right each question was, 0 to 1: for each column and each seed, by example id."""

    by_column: Mapping[str, Sequence[Mapping[str, float]]]

    def by_question(self, key: str) -> dict[str, float]:
        """The mean over seeds of each question of a column."""
        seeds = self.by_column[key]
        return {example: statistics.fmean(seed[example] for seed in seeds) for example in seeds[0]}

    def variance_of_mean(self) -> float:
        """The variance that chance in the seeds gives to the mean of columns; 0 where one seed leaves it unknown."""
        seeds = zip(*self.by_column.values(), strict=True)
        means = [statistics.fmean(statistics.fmean(column.values()) for column in seed) for seed in seeds]
        return statistics.variance(means) / len(means) if len(means) > 1 else 0.0


def with_gains(
    lines: Sequence[Line],
    rows: Sequence[PlannedRow],
    columns: Mapping[str, Column],
    scale: Scale,
    runs: Mapping[str, PlannedRun],
) -> tuple[Line, ...]:
    """Lines with their gains over the row sft: ours, of the runs that are there, and the paper's. `rows` are those
    that the lines were made from."""
    gains = {key: column.of[0] for key, column in columns.items() if column.measure == "gain"}
    base = next((place for place, line in enumerate(lines) if line.key == BASELINE), None)
    if not gains or base is None:
        return tuple(lines)
    found = []
    for line, row in zip(lines, rows, strict=True):
        if line is not lines[base]:
            ours = {
                key: gain
                for key, of in gains.items()
                if (gain := _gain(measured_columns(of, scale), row, rows[base], scale, runs))
            }
            line = replace(line, cells={**line.cells, **ours}, published=_published(line, lines[base], gains))
        found.append(line)
    return tuple(found)


def _gain(
    keys: Sequence[str],
    row: PlannedRow,
    baseline: PlannedRow,
    scale: Scale,
    runs: Mapping[str, PlannedRun],
) -> Measured | None:
    """The mean over columns of the row's gain in points; None unless both were asked the same questions in all."""
    first, second = (_answers(keys, planned, scale, runs) for planned in (baseline, row))
    if first is None or second is None:
        return None
    # Columns of one benchmark ask the same questions, which are drawn together.
    strata: dict[str | None, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for key in keys:
        before, after = first.by_question(key), second.by_question(key)
        if before.keys() != after.keys():
            return None
        for example in before:
            strata[scale.columns[key].benchmark][example] += (after[example] - before[example]) / len(keys)
    values = [list(stratum.values()) for stratum in strata.values()]
    mean = sum(map(statistics.fmean, values))
    low, high, p = stratified_bootstrap(values)
    variance = first.variance_of_mean() + second.variance_of_mean()
    if variance:
        half = math.hypot((high - low) / 2, _Z95 * math.sqrt(variance))
        low, high = mean - half, mean + half
        p = math.erfc(abs(mean) / (half / _Z95) / math.sqrt(2))
    return Measured(100 * mean, interval=(100 * low, 100 * high), p=p)


def _answers(
    keys: Sequence[str], planned: PlannedRow, scale: Scale, runs: Mapping[str, PlannedRun]
) -> _Answers | None:
    """None unless every seed that is there was judged, on the same questions, in all of the columns."""
    by_column: dict[str, list[Mapping[str, float]]] = {}
    for key in keys:
        judgement = judgement_of(scale.columns[key])
        assert judgement is not None, "a gain is of accuracies"
        there = [runs[name].folder for name in planned.cells.get(key, ()) if name in runs]
        seeds = [read_values(folder, judgement) for folder in there]
        known = [seed for seed in seeds if seed]
        if not known or len(known) < len(there) or any(seed.keys() != known[0].keys() for seed in known):
            return None
        by_column[key] = list(known)
    return _Answers(by_column)


def _published(line: Line, baseline: Line, gains: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """The paper's numbers with the differences between them."""
    published = {group: dict(numbers) for group, numbers in line.published.items()}
    for group, numbers in published.items():
        base = baseline.published.get(group, {})
        for key, of in gains.items():
            if of in numbers and of in base:
                numbers[key] = round(numbers[of] - base[of], 2)
    return published
