"""What a row gains over another, question by question. Imports no torch."""

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scipy.stats import t as student_t

from distilsql.metrics.statistics import stratified_bootstrap
from distilsql.report.paper_table import Line, Measured
from distilsql.runs.experiment import Column, Scale
from distilsql.runs.plan import PlannedRow, PlannedRun, judgement_of, measured_columns
from distilsql.runs.state import read_correctness

BASELINE = "sft"
NOTE = (
    "paired, question by question (bootstrap, each benchmark's questions drawn apart, as if those of Spider's variants "
    "were not each other's); p is two-sided. Where both rows have several seeds, chance in the seeds is in interval "
    "and p (Welch's t). “*”: one of the two has a single seed; they hold for these runs on other questions."
)
_LEVEL = 0.95


@dataclass(frozen=True)
class _Answers:
    """How right each question was, 0 to 1: for each column and each seed, by example id."""

    by_column: Mapping[str, Mapping[int, Mapping[str, float]]]

    def by_question(self, key: str) -> dict[str, float]:
        """The mean over seeds of each question of a column."""
        seeds = list(self.by_column[key].values())
        return {example: statistics.fmean(seed[example] for seed in seeds) for example in seeds[0]}

    def seed_means(self) -> list[float]:
        """The mean of columns of each seed."""
        columns = list(self.by_column.values())
        return [
            statistics.fmean(statistics.fmean(column[seed].values()) for column in columns)
            for seed in columns[0]
        ]


def with_gains(
    lines: Sequence[Line],
    rows: Sequence[PlannedRow],
    columns: Mapping[str, Column],
    scale: Scale,
    runs: Mapping[str, PlannedRun],
) -> tuple[Line, ...]:
    """Lines with their gains over each column's baseline: ours, of the runs that are there, and the paper's. `rows`
    are those that the lines were made from. A gain over a row that the table lacks is left out."""
    found = list(lines)
    places = {line.key: place for place, line in enumerate(lines)}
    for key, column in columns.items():
        base = places.get(column.over or BASELINE)
        if column.measure != "gain" or base is None:
            continue
        measured = measured_columns(column.of[0], scale)
        for place, row in enumerate(rows):
            if place == base:
                continue
            gain = _gain(measured, row, rows[base], scale, runs)
            found[place] = replace(
                found[place],
                cells={**found[place].cells, **({key: gain} if gain else {})},
                published=_published(found[place], lines[base], key, column.of[0]),
            )
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
    # Columns of one benchmark, with evidence or without, ask the same questions, which are drawn together.
    strata: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for key in keys:
        before, after = first.by_question(key), second.by_question(key)
        if before.keys() != after.keys():
            return None
        stratum = strata[str(scale.columns[key].benchmark).partition("+")[0]]
        for example in before:
            stratum[example] += (after[example] - before[example]) / len(keys)
    return _estimate([list(stratum.values()) for stratum in strata.values()], first, second)


def _estimate(strata: Sequence[Sequence[float]], first: _Answers, second: _Answers) -> Measured:
    """In points. The variance of the questions and, where both have several seeds, those of the seeds add; the latter
    are known from few values, which Welch's degrees of freedom account for."""
    mean = sum(map(statistics.fmean, strata))
    low, high, p = stratified_bootstrap(strata, level=_LEVEL)
    seeds = [answers.seed_means() for answers in (first, second)]
    several = all(len(means) > 1 for means in seeds)
    variances = [statistics.variance(means) / len(means) for means in seeds] if several else []
    if sum(variances):
        of_questions = sum(statistics.variance(values) / len(values) for values in strata if len(values) > 1)
        total = of_questions + sum(variances)
        known_from = sum(v**2 / (len(means) - 1) for v, means in zip(variances, seeds, strict=True))
        law = student_t(total**2 / known_from, scale=math.sqrt(total))
        low, high = mean + law.ppf((1 - _LEVEL) / 2), mean + law.ppf((1 + _LEVEL) / 2)
        p = 2 * law.sf(abs(mean))
    return Measured(100 * mean, interval=(100 * low, 100 * high), p=float(p), is_of_runs=not several)


def _answers(
    keys: Sequence[str], planned: PlannedRow, scale: Scale, runs: Mapping[str, PlannedRun]
) -> _Answers | None:
    """None unless the seeds that are there were judged, each on the same questions, in all of the columns."""
    by_column: dict[str, dict[int, Mapping[str, float]]] = {}
    for key in keys:
        judgement = judgement_of(scale.columns[key])
        assert judgement is not None, "scales allow gains of accuracies only"
        there = [runs[name] for name in planned.cells.get(key, ()) if name in runs]
        length = scale.columns[key].length
        found = {run.recipe.seed: read_correctness(run.folder, judgement, length=length) for run in there}
        known: dict[int, Mapping[str, float]] = {seed: values for seed, values in found.items() if values}
        if not known or len(known) < len(there) or len({frozenset(values) for values in known.values()}) > 1:
            return None
        by_column[key] = known
    same_seeds = len({frozenset(seeds) for seeds in by_column.values()}) == 1
    return _Answers(by_column) if same_seeds else None


def _published(line: Line, baseline: Line, key: str, of: str) -> dict[str, dict[str, float]]:
    """The paper's numbers with the difference between two of them."""
    published = {group: dict(numbers) for group, numbers in line.published.items()}
    for group, numbers in published.items():
        base = baseline.published.get(group, {})
        if of in numbers and of in base:
            numbers[key] = round(numbers[of] - base[of], 2)
    return published
