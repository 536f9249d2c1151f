"""Power: what the runs that are there can tell, and how many seeds a difference of one point needs. Imports no torch.

Differences are paired by question and by seed, which are crossed (`metrics.statistics.variance_parts`).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field

from distilsql.errors import RecipeError
from distilsql.experiments.experiment import Book, read_model
from distilsql.experiments.gains import Answers, estimate, gains_by_question, read_answers
from distilsql.experiments.plan import Plan, PlannedRow, PlannedRun, make_plan, measured_columns
from distilsql.experiments.render import finished_runs
from distilsql.metrics.statistics import VarianceParts, holm, variance_parts
from distilsql.report.cost import BASELINE
from distilsql.runs.sections import Section

CLAIMS_FILE = "claims.toml"
# A test at this level is to find the difference with this probability.
LEVEL = 0.05
POWER = 0.8
MOST_SEEDS = 1000


class Claim(Section):
    """A comparison that was written down before it was run. `above`: `row` beats `over`; `near`: they differ by less
    than `margin` points."""

    claim: str
    source: str
    experiment: str
    column: str = Field(description="a mean or accuracy of the scale")
    row: str
    over: str
    kind: Literal["above", "near"] = "above"
    expected: float = Field(0.0, description="the difference that was expected, in points")
    margin: float = Field(1.0, gt=0, description="differences below it do not count, in points")


class Claims(Section):
    claims: tuple[Claim, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Difference:
    """`row` less `over` in points, with a 95 % interval, two-sided p, and where its variance comes from."""

    row: str
    over: str
    column: str
    mean: float
    interval: tuple[float, float]
    p: float
    parts: VarianceParts

    def seeds_needed(self, points: float = 1.0) -> int | None:
        """How many seeds find a difference of so many points; None where these questions are too few for any number
        of seeds, or one seed leaves its part unknown."""
        if self.parts.seeds < 2:
            return None
        from scipy.stats import t as student_t

        for seeds in range(2, MOST_SEEDS):
            variance = self.parts.with_seeds(seeds)
            of_seeds = (self.parts.of_seeds + self.parts.of_interaction) * self.parts.seeds / seeds
            freedom = (seeds - 1) * (variance / of_seeds) ** 2 if of_seeds else float("inf")
            reach = student_t.ppf(1 - LEVEL / 2, freedom) + student_t.ppf(POWER, freedom)
            if reach * variance**0.5 <= points / 100:
                return seeds
        return None


def differences(plan: Plan) -> Iterator[Difference]:
    """Every gain of the plan's experiments between trained rows that the runs can tell, each once."""
    runs, seen = finished_runs(plan), set()
    for one in plan.experiments:
        for group in one.groups:
            rows = {row.key: row for row in group.rows if row.row.role is None}
            answers = _answers_of(rows, plan, runs)
            for column in one.columns.values():
                over = column.over or BASELINE
                if column.measure != "gain" or over not in rows:
                    continue
                for key in rows:
                    name = (group.pair, frozenset((key, over)), column.of[0])
                    if key == over or name in seen:
                        continue
                    seen.add(name)
                    found = _difference(answers, key, over, column.of[0])
                    if found:
                        yield found


# The answers of a row in a column; each is read once.
_AnswersOf = Callable[[str, str], Answers | None]


def _answers_of(rows: Mapping[str, PlannedRow], plan: Plan, runs: Mapping[str, PlannedRun]) -> _AnswersOf:
    @cache
    def answers(key: str, column: str) -> Answers | None:
        return read_answers(measured_columns(column, plan.scale), rows[key], plan.scale, runs)

    return answers


def _difference(answers: _AnswersOf, key: str, over: str, column: str) -> Difference | None:
    tables = gains_by_question(answers(key, column), answers(over, column), seed_by_seed=True)
    if tables is None:
        return None
    mean, low, high, p = estimate(tables)
    return Difference(key, over, column, mean, (low, high), p, variance_parts(tables))


def power_lines(plan: Plan) -> Iterator[str]:
    """A table of every difference: how well it is known, why not better, and what one point would need."""
    rows = list(differences(plan))
    if not rows:
        yield "No two rows have been trained and judged with the same seeds yet."
        return
    yield (
        f"{'row':<28}{'over':<15}{'points':>8}{'95 % interval':>17}{'p':>9}{'p, Holm':>9}{'seeds':>7}"
        f"{'sd of seeds':>13}{'se, questions':>15}{'seeds for 1':>13}"
    )
    for row, p in zip(rows, holm([row.p for row in rows]), strict=True):
        parts, needed = row.parts, row.seeds_needed()
        of_seeds = 100 * ((parts.of_seeds + parts.of_interaction) * parts.seeds) ** 0.5
        low, high = row.interval
        yield (
            f"{row.row:<28}{row.over:<15}{row.mean:>+8.2f}{f'{low:+.2f} to {high:+.2f}':>17}{row.p:>9.2g}{p:>9.2g}"
            f"{parts.seeds:>7}{f'{of_seeds:.2f}' if parts.seeds > 1 else '–':>13}"
            f"{100 * parts.of_questions**0.5:>15.2f}{needed or '–':>13}"
        )
    yield (
        "\nsd of seeds: of one seed's difference. se, questions: what remains however many seeds there are. seeds for "
        f"1: those that find a difference of one point with probability {POWER:g} at level {LEVEL:g} (–: one seed, "
        "or more questions are needed). One seed's interval and p are of chance in the questions alone."
    )


def claim_lines(book: Book, scale_name: str, folder: Path) -> Iterator[str]:
    """What the runs say of the comparisons that were written down beforehand: confirmed, refuted or open.

    A claim is judged once it has all the seeds that were planned for it; until then it is open, since a claim that is
    tested again after every seed is confirmed or refuted by chance too often. It is confirmed or refuted where its
    corrected p is below the level (Holm over all claims that have runs); also refuted is `above` where the interval
    ends below the margin, and confirmed is `near` where it lies within. Raises RecipeError where the scale has no
    claims.
    """
    path = book.folder / scale_name / CLAIMS_FILE
    if not path.exists():
        raise RecipeError(
            f"Scale {scale_name} has no {CLAIMS_FILE}, so no comparisons were written down beforehand."
        )
    claims = read_model(Claims, path).claims
    plans = {
        name: make_plan(book, [name], scale_name, folder) for name in {each.experiment for each in claims}
    }
    found = [(claim, *_of_claim(plans[claim.experiment], claim)) for claim in claims]
    p_values = iter(holm([difference.p for _, difference, _ in found if difference]))
    for claim, difference, planned in found:
        head = f"{claim.claim} ({claim.source}): {claim.row} and {claim.over}"
        if difference is None:
            yield f"not run    {head}"
            continue
        p, (low, high), seeds = next(p_values), difference.interval, difference.parts.seeds
        verdict = _verdict(claim, difference, p) if seeds >= planned else "open"
        yield (
            f"{verdict:<11}{head}, {difference.mean:+.2f} points ({low:+.2f} to {high:+.2f}), corrected p = {p:.2g}, "
            f"{seeds} of {planned} seeds; expected {claim.expected:+.1f}"
        )


def _of_claim(plan: Plan, claim: Claim) -> tuple[Difference | None, int]:
    """The difference that a claim is about, and how many seeds were planned for it."""
    rows = {row.key: row for row in plan.experiments[0].groups[0].rows}
    for name in (claim.row, claim.over):
        if name not in rows:
            raise RecipeError(f"{CLAIMS_FILE}: {claim.experiment} has no row {name!r}.")
    if claim.column not in plan.scale.columns:
        raise RecipeError(f"{CLAIMS_FILE}: scale {plan.scale_name} has no column {claim.column!r}.")
    planned = min(len(runs) for name in (claim.row, claim.over) for runs in rows[name].cells.values())
    answers = _answers_of(rows, plan, finished_runs(plan))
    return _difference(answers, claim.row, claim.over, claim.column), planned


def _verdict(claim: Claim, difference: Difference, p: float) -> str:
    low, high = difference.interval
    if claim.kind == "near":
        if max(abs(low), abs(high)) < claim.margin:
            return "confirmed"
        return "refuted" if p < LEVEL and abs(difference.mean) >= claim.margin else "open"
    if p < LEVEL and difference.mean > 0:
        return "confirmed"
    return "refuted" if (p < LEVEL and difference.mean < 0) or high < claim.margin else "open"
