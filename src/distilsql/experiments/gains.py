"""Columns derived from others: means, and gains over another row, from how right each question was. Imports no torch.

A column is missing unless the seeds that are trained were judged in all the columns it is made of.
"""

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from distilsql.experiments.experiment import ColumnSpec, Scale
from distilsql.experiments.paper_table import SEEDS_THAT_TELL, Line, Measured
from distilsql.experiments.plan import PlannedRow, PlannedRun, judgement_of, measured_columns
from distilsql.experiments.state import read_correctness
from distilsql.metrics.statistics import deviation_of_seeds, holm, stratified_bootstrap, variance_parts
from distilsql.report.cost import BASELINE

NOTE = (
    "paired, question by question (bootstrap), over the seeds that both rows have: with one seed, both trained on the "
    "same examples in the same order. p is two-sided, and corrected for as many comparisons as the column has methods "
    "(Holm). Where that is several seeds, chance in the seeds is in interval "
    "and p (Student's t of the differences, seed by seed). “*”: one seed, or two, whose spread is hardly known: "
    "interval and p hold for these runs on other questions, and say little of other seeds."
)
_LEVEL = 0.95
_Key = TypeVar("_Key")


@dataclass(frozen=True)
class Answers:
    """How right each question was, 0 to 1: for each column and each seed, by example id. `benchmarks` holds that of
    each column."""

    by_column: Mapping[str, Mapping[int, Mapping[str, float]]]
    benchmarks: Mapping[str, str]

    def tables(self) -> dict[str, np.ndarray]:
        """What each question (rows) adds to the mean of columns with each seed (columns of the table), by benchmark.
        Columns of one benchmark, with evidence or without, ask the same questions."""
        seeds = sorted(next(iter(self.by_column.values())))
        found: dict[str, np.ndarray] = {}
        for key, by_seed in self.by_column.items():
            examples = sorted(by_seed[seeds[0]])
            table = np.array([[by_seed[seed][example] for seed in seeds] for example in examples])
            benchmark = self.benchmarks[key]
            found[benchmark] = found.get(benchmark, 0.0) + table / len(self.by_column)
        return found

    def questions(self) -> dict[str, frozenset[str]]:
        """The questions of each column."""
        return {key: frozenset(next(iter(seeds.values()))) for key, seeds in self.by_column.items()}

    def seed_means(self) -> dict[int, float]:
        """The mean of columns of each seed."""
        columns = list(self.by_column.values())
        return {
            seed: statistics.fmean(statistics.fmean(column[seed].values()) for column in columns)
            for seed in columns[0]
        }

    def of_seeds(self, seeds: Collection[int]) -> "Answers":
        kept = {
            key: {seed: right for seed, right in found.items() if seed in seeds}
            for key, found in self.by_column.items()
        }
        return replace(self, by_column=kept)


def mean_of_columns(
    keys: Sequence[str], row: PlannedRow, scale: Scale, runs: Mapping[str, PlannedRun]
) -> Measured | None:
    """The mean of measured columns in percent. Each benchmark's questions are drawn apart, as if those of Spider's
    variants were not each other's."""
    answers = read_answers(keys, row, scale, runs)
    if answers is None:
        return None
    mean, low, high, _ = estimate(list(answers.tables().values()))
    spread = deviation_of_seeds([100 * seed for seed in answers.seed_means().values()])
    return Measured(mean, spread, (max(low, 0.0), min(high, 100.0)))


def with_gains(
    lines: Sequence[Line],
    rows: Sequence[PlannedRow],
    columns: Mapping[str, ColumnSpec],
    scale: Scale,
    runs: Mapping[str, PlannedRun],
) -> tuple[Line, ...]:
    """Lines with their gains over each column's baseline: ours, of the runs that are there, and the paper's. `rows`
    are those that the lines were made from. A gain over a row that the table lacks is left out."""
    found = list(lines)
    places = {line.key: place for place, line in enumerate(lines)}
    # Read once for all the gains of one column: over several rows.
    compared = dict.fromkeys(column.of[0] for column in columns.values() if column.measure == "gain")
    answers = {
        of: [read_answers(measured_columns(of, scale), row, scale, runs) for row in rows] for of in compared
    }
    for key, column in columns.items():
        base = places.get(column.over or BASELINE)
        if column.measure != "gain" or base is None:
            continue
        of_rows = answers[column.of[0]]
        trained = [row.row.role is None and rows[base].row.role is None for row in rows]
        gains = {
            place: gain
            for place, of_row in enumerate(of_rows)
            if place != base and (gain := _gain(of_row, of_rows[base], seed_by_seed=trained[place]))
        }
        gains |= corrected({place: gain for place, gain in gains.items() if trained[place]})
        for place in (place for place in range(len(rows)) if place != base):
            found[place] = replace(
                found[place],
                cells={**found[place].cells, **({key: gains[place]} if place in gains else {})},
                published=_published(found[place], lines[base], key, column.of[0]),
            )
    return tuple(found)


def corrected(gains: Mapping[_Key, Measured]) -> dict[_Key, Measured]:
    """The same gains with their p corrected for their number (Holm 1979)."""
    p_values = holm([gain.p if gain.p is not None else 1.0 for gain in gains.values()])
    return {key: replace(gain, p=p) for (key, gain), p in zip(gains.items(), p_values, strict=True)}


def _gain(row: Answers | None, baseline: Answers | None, *, seed_by_seed: bool) -> Measured | None:
    """The mean over columns of the row's gain in points; None unless both were asked the same questions in all."""
    differences = gains_by_question(row, baseline, seed_by_seed=seed_by_seed)
    if differences is None:
        return None
    mean, low, high, p = estimate(differences)
    few = seed_by_seed and differences[0].shape[1] < SEEDS_THAT_TELL
    return Measured(mean, interval=(low, high), p=p, is_of_runs=few or not seed_by_seed)


def gains_by_question(
    row: Answers | None, baseline: Answers | None, *, seed_by_seed: bool
) -> list[np.ndarray] | None:
    """Tables of questions by seeds, one for each benchmark: what each question adds to the mean gain, 0 to 1. None
    unless both rows were asked the same questions.

    `seed_by_seed`, over the seeds that both have: what a seed draws, its examples and their order, is the same in both
    rows and moves both alike. A teacher or start is one model, compared with the mean of all seeds.
    """
    if row is None or baseline is None or row.questions() != baseline.questions():
        return None
    if seed_by_seed:
        shared = row.seed_means().keys() & baseline.seed_means().keys()
        if not shared:
            return None
        row, baseline = row.of_seeds(shared), baseline.of_seeds(shared)
    before, after = baseline.tables(), row.tables()
    if not seed_by_seed:
        before, after = _means_over_seeds(before), _means_over_seeds(after)
    return [after[benchmark] - table for benchmark, table in before.items()]


def _means_over_seeds(tables: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {benchmark: table.mean(axis=1, keepdims=True) for benchmark, table in tables.items()}


def estimate(strata: Sequence[np.ndarray]) -> tuple[float, float, float, float]:
    """The sum of the means of the strata (tables of questions by seeds) and its interval, in points, and p of its being
    0. Chance in the seeds counts where there are several that differ."""
    mean = sum(float(table.mean()) for table in strata)
    low, high, p = stratified_bootstrap([table.mean(axis=1).tolist() for table in strata], level=_LEVEL)
    if error := variance_parts(strata).error():
        low, high = mean + error.ppf((1 - _LEVEL) / 2), mean + error.ppf((1 + _LEVEL) / 2)
        p = 2 * error.sf(abs(mean))
    return 100 * mean, 100 * float(low), 100 * float(high), float(p)


def read_answers(
    keys: Sequence[str], planned: PlannedRow, scale: Scale, runs: Mapping[str, PlannedRun]
) -> Answers | None:
    """None unless the seeds that are there were judged, each on the same questions, in all of the columns."""
    by_column: dict[str, dict[int, Mapping[str, float]]] = {}
    for key in keys:
        column = scale.columns[key]
        judgement = judgement_of(column)
        assert judgement is not None, "scales allow means of accuracies only"
        there = [runs[name] for name in planned.cells.get(key, ()) if name in runs]
        found = {
            run.recipe.seed: read_correctness(run.folder, judgement, length=column.length) for run in there
        }
        known: dict[int, Mapping[str, float]] = {seed: values for seed, values in found.items() if values}
        if not known or len(known) < len(there) or len({frozenset(values) for values in known.values()}) > 1:
            return None
        by_column[key] = known
    if len({frozenset(seeds) for seeds in by_column.values()}) > 1:
        return None
    return Answers(by_column, {key: str(scale.columns[key].benchmark).partition("+")[0] for key in keys})


def _published(line: Line, baseline: Line, key: str, of: str) -> dict[str, dict[str, float]]:
    """The paper's numbers with the difference between two of them."""
    published = {group: dict(numbers) for group, numbers in line.published.items()}
    for group, numbers in published.items():
        base = baseline.published.get(group, {})
        if of in numbers and of in base:
            numbers[key] = round(numbers[of] - base[of], 2)
    return published
