"""Entries: runs of one configuration with several seeds, as one row of a table and one point of a figure."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from distilsql.distill.methods import METHODS
from distilsql.metrics.statistics import deviation_of_seeds, error_of_seeds, variance_parts
from distilsql.report.cost import BASELINE, Cost, RunCost, cost
from distilsql.runs.records import RunRecord, Score

# Two-sided 95 % of a normal distribution.
_Z95 = 1.96
_ROLLOUT_KEY = "generation.rollout_window"
_TOP_K_KEY = "teacher.top_k"
# What decides the cost of an example of fine-tuning.
_SAME_WORK = (
    "student.",
    "data.train",
    "prompt.",
    "train.questions_per_tree",
    "train.trees_per_step",
    "train.largest_tree",
    "train.precision",
    "train.share_prefix",
)


@dataclass(frozen=True)
class Accuracy:
    """`mean` over seeds; `spread` is their standard deviation (None for one seed); `interval` is 95 %; `total` is the
    number of examples (None where the seeds' differ)."""

    mean: float
    spread: float | None
    interval: tuple[float, float] | None
    metric: str
    total: int | None


@dataclass(frozen=True)
class Entry:
    """Runs that differ in nothing but their seed, and the short name they go by in this report.

    `variant` counts the configurations of one method; `cost` is None where it was not timed.
    """

    label: str
    runs: tuple[RunRecord, ...]
    variant: int = 0
    cost: Cost | None = None

    @property
    def method(self) -> str:
        return self.runs[0].summary.method

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.summary.seed for run in self.runs)

    @property
    def x_sft(self) -> float | None:
        return None if self.cost is None else self.cost.x_sft

    def mean(self, key: str) -> float | None:
        """The mean of a number of the summary over the runs that have it."""
        return mean_of(getattr(run.summary, key) for run in self.runs)

    def seconds_by_phase(self) -> dict[str, float]:
        """Seconds per example for every phase, the mean of the runs."""
        phases = dict.fromkeys(phase for run in self.runs for phase in run.summary.seconds_by_phase)
        return {
            phase: statistics.fmean(
                run.summary.seconds_by_phase.get(phase, 0.0) / max(run.summary.examples_seen, 1)
                for run in self.runs
            )
            for phase in phases
        }

    def accuracy(self, benchmark: str) -> Accuracy | None:
        """The runs' accuracy on `benchmark`; None if none of them was scored there."""
        return combine([run.scores[benchmark] for run in self.runs if benchmark in run.scores])


@dataclass(frozen=True)
class Reference:
    """A model to compare with that is not a method under test: the teacher."""

    name: str
    scores: dict[str, Score]
    parameters: int | None = None

    def accuracy(self, benchmark: str) -> Accuracy | None:
        return combine([self.scores[benchmark]] if benchmark in self.scores else [])


def combine(scores: Sequence[Score]) -> Accuracy | None:
    """The mean of the seeds' scores, with an interval for chance in both examples and seeds.

    All seeds are judged on the same examples, so their number does not make that part of the error smaller. Where
    scores do not say which examples were right, both variances are added, which counts their interaction twice and so
    makes the interval too wide.
    """
    if not scores:
        return None
    mean = statistics.fmean(score.accuracy for score in scores)
    spread = deviation_of_seeds([score.accuracy for score in scores])
    known = [score.interval for score in scores if score.interval is not None]
    interval = known[0] if len(scores) == 1 and known else None
    if spread is not None and len(known) == len(scores):
        half = statistics.fmean((high - low) / 2 for low, high in known)
        if error := _error_of_parts(scores) or error_of_seeds(
            (half / _Z95) ** 2, [score.accuracy for score in scores]
        ):
            half = float(error.ppf(0.975))
        interval = (max(0.0, mean - half), min(1.0, mean + half))
    totals = {score.total for score in scores}
    return Accuracy(mean, spread, interval, scores[0].metric, totals.pop() if len(totals) == 1 else None)


def _error_of_parts(scores: Sequence[Score]) -> Any:
    """The law of the mean's error from how right each example was; None where the scores do not say."""
    asked = {frozenset(score.right) for score in scores}
    if len(asked) != 1 or len(examples := sorted(asked.pop())) < 2:
        return None
    return variance_parts([np.array([[score.right[one] for score in scores] for one in examples])]).error()


def group_runs(runs: Iterable[RunRecord]) -> list[Entry]:
    """Entries in the order of the method table, each labelled by its method and by what sets it apart."""
    groups: dict[tuple[str, str], list[RunRecord]] = {}
    for run in runs:
        groups.setdefault((run.summary.method, run.configuration), []).append(run)
    by_method: dict[str, list[list[RunRecord]]] = {}
    for (method, _), members in groups.items():
        by_method.setdefault(method, []).append(sorted(members, key=lambda run: run.summary.seed))
    ordered = sorted(by_method, key=_place_in_table)
    return _with_costs(
        [
            Entry(label, tuple(members), variant)
            for method in ordered
            for variant, (label, members) in enumerate(
                zip(_labels(method, by_method[method]), by_method[method], strict=True)
            )
        ]
    )


def _with_costs(entries: Sequence[Entry]) -> list[Entry]:
    """Each is compared with the fine-tuning runs that do the same work: same student, data, prompts and trees."""
    return [
        replace(
            entry,
            cost=cost(
                entry.method,
                _run_costs(entry),
                [
                    found
                    for other in entries
                    if other.method == BASELINE and _work(other) == _work(entry)
                    for found in _run_costs(other)
                ],
            ),
        )
        for entry in entries
    ]


def _run_costs(entry: Entry) -> list[RunCost]:
    return [RunCost.of(run.summary.model_dump()) for run in entry.runs]


def _work(entry: Entry) -> dict[str, Any]:
    return {key: value for key, value in entry.runs[0].settings.items() if key.startswith(_SAME_WORK)}


def _place_in_table(method: str) -> tuple[int, str]:
    names = list(METHODS)
    return (names.index(method) if method in METHODS else len(names), method)


def _labels(method: str, groups: list[list[RunRecord]]) -> list[str]:
    """`kid` alone; `kid, mask_share 0.4` where one or two settings tell entries apart; else `kid, <run name>`.

    Rounds of generation that serve several steps, and a teacher known by its top tokens alone, are part of the method's
    name: they make it another method.
    """
    settings = [group[0].settings for group in groups]
    names = [_name(method, one) for one in settings]
    if len(groups) == 1:
        return names
    in_name = {"seed", "name"} | ({_ROLLOUT_KEY, _TOP_K_KEY} if len(set(names)) > 1 else set())
    keys = sorted(
        key
        for key in {key for one in settings for key in one} - in_name
        if len({str(one.get(key)) for one in settings}) > 1
    )
    if len(keys) <= 2:
        said = [
            ", ".join(f"{key.rpartition('.')[2]} {_short(one.get(key))}" for key in keys) for one in settings
        ]
    else:
        said = [group[0].summary.name for group in groups]
    labels = [", ".join(filter(None, parts)) for parts in zip(names, said, strict=True)]
    # Names can coincide; the folder's name then tells them apart.
    return [
        label if labels.count(label) == 1 else f"{names[i]}, {groups[i][0].path.name}"
        for i, label in enumerate(labels)
    ]


def _name(method: str, settings: Mapping[str, Any]) -> str:
    """`gkd-rkl`, or `gkd-rkl (rollouts of 4)`: on-policy as published is a round for every step. `fkd (teacher's top
    20)` is an approximation of fkd."""
    steps, top_k, row = settings.get(_ROLLOUT_KEY, 1), settings.get(_TOP_K_KEY), METHODS.get(method)
    said = [f"rollouts of {steps}"] if row and row.source.is_on_policy and steps > 1 else []
    said += [f"teacher's top {top_k}"] if row and row.divergence and top_k else []
    return f"{method} ({', '.join(said)})" if said else method


def _short(value: Any) -> str:
    """A setting's value for a label; for a path, its last part."""
    return "default" if value is None else str(value).rstrip("/").rpartition("/")[2]


def mean_of(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def benchmarks_of(entries: Iterable[Entry], order: Sequence[str] | None = None) -> list[str]:
    """Every benchmark that a run was scored on: those in `order` first, the others by name."""
    found = {benchmark for entry in entries for run in entry.runs for benchmark in run.scores}
    first = [benchmark for benchmark in order or () if benchmark in found]
    return [*first, *sorted(found - set(first))]
