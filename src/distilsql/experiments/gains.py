"""Columns derived from others: means, and gains over another row, from how right each question was. Imports no torch.

A column is missing unless the seeds that are trained were judged in all the columns it is made of.
"""

import statistics
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from distilsql.experiments.experiment import ColumnSpec, Scale
from distilsql.experiments.paper_table import SEEDS_THAT_TELL, Line, Measured
from distilsql.experiments.plan import PlannedRow, PlannedRun, judgement_of, measured_columns
from distilsql.experiments.state import read_correctness
from distilsql.metrics.statistics import deviation_of_seeds, error_of_seeds, stratified_bootstrap
from distilsql.report.cost import BASELINE

NOTE = (
    "paired, question by question (bootstrap), over the seeds that both rows have: with one seed, both trained on the "
    "same examples in the same order. p is two-sided. Where that is several seeds, chance in the seeds is in interval "
    "and p (Student's t of the differences, seed by seed). “*”: one seed, or two, whose spread is hardly known: "
    "interval and p hold for these runs on other questions, and say little of other seeds."
)
_LEVEL = 0.95


@dataclass(frozen=True)
class _Answers:
    """How right each question was, 0 to 1: for each column and each seed, by example id. `benchmarks` holds that of
    each column."""

    by_column: Mapping[str, Mapping[int, Mapping[str, float]]]
    benchmarks: Mapping[str, str]

    def by_question(self) -> dict[str, dict[str, float]]:
        """What each question adds to the mean of columns, by benchmark and example id; over seeds, the mean. Columns
        of one benchmark, with evidence or without, ask the same questions."""
        found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for key, seeds in self.by_column.items():
            for right in seeds.values():
                for example, value in right.items():
                    found[self.benchmarks[key]][example] += value / len(seeds) / len(self.by_column)
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

    def of_seeds(self, seeds: Collection[int]) -> "_Answers":
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
    answers = _answers(keys, row, scale, runs)
    if answers is None:
        return None
    strata = [list(right.values()) for right in answers.by_question().values()]
    seeds = list(answers.seed_means().values())
    mean, low, high, _ = _estimate(strata, seeds)
    spread = deviation_of_seeds([100 * seed for seed in seeds])
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
        of: [_answers(measured_columns(of, scale), row, scale, runs) for row in rows] for of in compared
    }
    for key, column in columns.items():
        base = places.get(column.over or BASELINE)
        if column.measure != "gain" or base is None:
            continue
        of_rows = answers[column.of[0]]
        for place, of_row in enumerate(of_rows):
            if place == base:
                continue
            trained = rows[place].row.role is None and rows[base].row.role is None
            gain = _gain(of_row, of_rows[base], seed_by_seed=trained)
            found[place] = replace(
                found[place],
                cells={**found[place].cells, **({key: gain} if gain else {})},
                published=_published(found[place], lines[base], key, column.of[0]),
            )
    return tuple(found)


def _gain(row: _Answers | None, baseline: _Answers | None, *, seed_by_seed: bool) -> Measured | None:
    """The mean over columns of the row's gain in points; None unless both were asked the same questions in all.

    `seed_by_seed`, over the seeds that both have: what a seed draws, its examples and their order, is the same in both
    rows and moves both alike. A teacher or start is one model, compared with all seeds.
    """
    if row is None or baseline is None or row.questions() != baseline.questions():
        return None
    differences: list[float] = []
    if seed_by_seed:
        shared = row.seed_means().keys() & baseline.seed_means().keys()
        if not shared:
            return None
        row, baseline = row.of_seeds(shared), baseline.of_seeds(shared)
        means = baseline.seed_means()
        differences = [mean - means[seed] for seed, mean in row.seed_means().items()]
    before, after = baseline.by_question(), row.by_question()
    strata = [
        [after[benchmark][example] - value for example, value in right.items()]
        for benchmark, right in before.items()
    ]
    mean, low, high, p = _estimate(strata, differences)
    return Measured(mean, interval=(low, high), p=p, is_of_runs=len(differences) < SEEDS_THAT_TELL)


def _estimate(strata: Sequence[Sequence[float]], seeds: Sequence[float]) -> tuple[float, float, float, float]:
    """The sum of the strata's means and its interval, in points, and p of its being 0. `seeds` holds that sum of each
    seed, if chance in them is to count."""
    mean = sum(map(statistics.fmean, strata))
    low, high, p = stratified_bootstrap(strata, level=_LEVEL)
    of_questions = sum(statistics.variance(values) / len(values) for values in strata if len(values) > 1)
    if error := error_of_seeds(of_questions, seeds):
        low, high = mean + error.ppf((1 - _LEVEL) / 2), mean + error.ppf((1 + _LEVEL) / 2)
        p = 2 * error.sf(abs(mean))
    return 100 * mean, 100 * float(low), 100 * float(high), float(p)


def _answers(
    keys: Sequence[str], planned: PlannedRow, scale: Scale, runs: Mapping[str, PlannedRun]
) -> _Answers | None:
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
    return _Answers(by_column, {key: str(scale.columns[key].benchmark).partition("+")[0] for key in keys})


def _published(line: Line, baseline: Line, key: str, of: str) -> dict[str, dict[str, float]]:
    """The paper's numbers with the difference between two of them."""
    published = {group: dict(numbers) for group, numbers in line.published.items()}
    for group, numbers in published.items():
        base = baseline.published.get(group, {})
        if of in numbers and of in base:
            numbers[key] = round(numbers[of] - base[of], 2)
    return published
