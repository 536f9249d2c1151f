"""Intervals for one accuracy and tests between two, on the same examples."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BOOTSTRAP_SAMPLES = 10_000
_CHUNK_SAMPLES = 500


def bootstrap_interval(
    values: Sequence[float], *, level: float = 0.95, samples: int = BOOTSTRAP_SAMPLES, seed: int = 0
) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean of `values` (Efron 1979). The same seed gives the same interval."""
    means = _bootstrap_means(np.asarray(values, dtype=float), samples, seed)
    low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def _bootstrap_means(values: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Means of `samples` draws with replacement, [samples]."""
    if not len(values):
        raise ValueError("There is nothing to draw from: an interval needs at least one value.")
    random = np.random.default_rng(seed)
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= 16:  # such as 0 and 1: how often each value is drawn is all that matters
        drawn = random.multinomial(len(values), counts / len(values), size=samples)
        return drawn @ distinct / len(values)
    chunks = [min(_CHUNK_SAMPLES, samples - start) for start in range(0, samples, _CHUNK_SAMPLES)]
    return np.concatenate(
        [values[random.integers(len(values), size=(chunk, len(values)))].mean(axis=1) for chunk in chunks]
    )


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided p-value of McNemar's exact test: a fair coin decides each example that only one run has right.

    `only_first` and `only_second` count the examples that just one of the two runs has right.
    """
    trials, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(trials, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**trials)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests, each corrected for all of them (Holm 1979), in the order given."""
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected


def paired_bootstrap(
    first: Sequence[float],
    second: Sequence[float],
    *,
    level: float = 0.95,
    samples: int = BOOTSTRAP_SAMPLES,
    seed: int = 0,
) -> tuple[float, float, float]:
    """(low, high, p) of the mean of `second - first`, drawing examples, not runs; p as in `stratified_bootstrap`."""
    differences = np.subtract(np.asarray(second, dtype=float), np.asarray(first, dtype=float))
    return stratified_bootstrap([differences], level=level, samples=samples, seed=seed)


def stratified_bootstrap(
    strata: Sequence[Sequence[float] | np.ndarray],
    *,
    level: float = 0.95,
    samples: int = BOOTSTRAP_SAMPLES,
    seed: int = 0,
) -> tuple[float, float, float]:
    """(low, high, p) of the sum of the strata's means, such as of differences on several benchmarks; the values of
    each stratum are drawn from it alone. Of negated values, the interval is the mirror image and p the same.

    p is two-sided: twice the smaller share of draws in which the sum is not positive, or not negative; what was
    observed counts as one of the draws, so that p is never 0 (Davison and Hinkley 1997, section 4.2).
    """
    arrays = [np.asarray(values, dtype=float) for values in strata]
    # The same draws serve both signs: a gain and its reverse must not differ by chance.
    sign = -1.0 if sum(array.sum() / max(len(array), 1) for array in arrays) < 0 else 1.0
    means = sign * sum(
        _bootstrap_means(sign * array, samples, seed + place) for place, array in enumerate(arrays)
    )
    assert isinstance(means, np.ndarray), "there is a stratum"
    low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
    fewer = min(int((means <= 0).sum()), int((means >= 0).sum()))
    p = min(1.0, 2 * (1 + fewer) / (1 + samples))
    return float(low), float(high), p


def deviation_of_seeds(values: Sequence[float]) -> float | None:
    """The standard deviation over seeds; None of one, or of none."""
    return statistics.stdev(values) if len(values) > 1 else None


def error_of_seeds(variance_of_examples: float, seeds: Sequence[float]) -> Any:
    """The law of the error of a mean over seeds: a distribution of SciPy's about 0, None where no seeds differ.

    For where only each seed's value is known (`variance_parts` is exact): `variance_of_examples` is that of one seed's
    value from chance in the examples, `seeds` holds the values, in the same unit. Variances are added; that of seeds is
    known from few values, which the degrees of freedom of Student's t account for (Satterthwaite 1946).
    """
    of_seeds = statistics.variance(seeds) / len(seeds) if len(seeds) > 1 else 0.0
    if not of_seeds:
        return None
    # Imported here: it takes half a second, which those who judge one run need not wait for.
    from scipy.stats import t as student_t

    total = variance_of_examples + of_seeds
    freedom = (len(seeds) - 1) * (total / of_seeds) ** 2
    return student_t(freedom, scale=math.sqrt(total))


@dataclass(frozen=True)
class VarianceParts:
    """Where the variance of an estimate over crossed questions and seeds comes from (see `variance_parts`).

    Each part is what it adds to the variance of the estimate from these `questions` and `seeds`. `of_seeds` and
    `of_questions` are clear of the interaction, and 0 where they are smaller than what it alone would give.
    """

    of_questions: float
    of_seeds: float
    of_interaction: float
    questions: int
    seeds: int

    @property
    def total(self) -> float:
        return self.of_questions + self.of_seeds + self.of_interaction

    def with_seeds(self, seeds: int) -> float:
        """The variance that so many seeds on the same questions would have."""
        return self.of_questions + (self.of_seeds + self.of_interaction) * self.seeds / seeds

    def error(self) -> Any:
        """The law of the estimate's error: Student's t about 0, with Satterthwaite's degrees of freedom (1946). None
        where seeds do not differ."""
        if self.seeds < 2 or not self.of_seeds + self.of_interaction:
            return None
        # Imported here: it takes half a second, which those who judge one run need not wait for.
        from scipy.stats import t as student_t

        by_questions, by_seeds = self.of_questions + self.of_interaction, self.of_seeds + self.of_interaction
        of_questions, of_seeds = self.questions - 1, self.seeds - 1
        uncertainty = (
            by_questions**2 / of_questions
            + by_seeds**2 / of_seeds
            + self.of_interaction**2 / (of_questions * of_seeds)
        )
        return student_t(self.total**2 / uncertainty, scale=math.sqrt(self.total))


def variance_parts(strata: Sequence[np.ndarray]) -> VarianceParts:
    """The variance of a sum of means, each over all cells of a table of questions (rows) by seeds (columns).

    Questions and seeds are crossed and both drawn at random: every seed answers every question. The variance of the
    means by question and that of the means by seed both hold the interaction, which is therefore taken off once (the
    two-way random model without replication; Searle, Casella and McCulloch 1992, chapter 4). The strata are different
    questions answered by the same seeds.

    Raises:
        ValueError: no strata, or tables of different numbers of seeds or of fewer than two questions.
    """
    seeds = {table.shape[1] for table in strata}
    if len(seeds) != 1 or min(len(table) for table in strata) < 2:
        raise ValueError(
            f"tables of two or more questions by the same seeds, got {[t.shape for t in strata]}"
        )
    (count,) = seeds
    by_questions = sum(float(table.mean(axis=1).var(ddof=1)) / len(table) for table in strata)
    questions = sum(map(len, strata))
    if count == 1:
        return VarianceParts(by_questions, 0.0, 0.0, questions, count)
    by_seeds = float(sum(table.mean(axis=0) for table in strata).var(ddof=1)) / count
    interaction = sum(_interaction(table) for table in strata)
    # A part cannot be below 0; then both means vary as much as the interaction alone makes them.
    interaction = min(interaction, by_questions, by_seeds)
    return VarianceParts(by_questions - interaction, by_seeds - interaction, interaction, questions, count)


def _interaction(table: np.ndarray) -> float:
    questions, seeds = table.shape
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + table.mean()
    return float((rest**2).sum()) / ((questions - 1) * (seeds - 1)) / table.size
