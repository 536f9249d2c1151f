"""Intervals and tests against what is known in closed form."""

import math
import random

import numpy as np
import pytest
from scipy.stats import t as scipy_t

from distilsql.metrics.statistics import (
    bootstrap_interval,
    error_of_seeds,
    holm,
    mcnemar_exact,
    paired_bootstrap,
    stratified_bootstrap,
    variance_parts,
)


def test_interval_has_the_width_of_the_binomial():
    values = [1] * 800 + [0] * 200
    low, high = bootstrap_interval(values)
    half = 1.96 * math.sqrt(0.8 * 0.2 / 1000)
    assert low == pytest.approx(0.8 - half, abs=0.003)
    assert high == pytest.approx(0.8 + half, abs=0.003)


def test_interval_of_many_different_values():
    values = [random.Random(i).gauss(0, 1) for i in range(400)]
    low, high = bootstrap_interval(values, samples=2000)
    half = 1.96 * float(np.std(values)) / 20
    assert (low + high) / 2 == pytest.approx(float(np.mean(values)), abs=0.02)
    assert high - low == pytest.approx(2 * half, rel=0.1)


def test_same_seed_same_interval_and_certainty_has_no_width():
    assert bootstrap_interval([0, 1, 1], seed=3) == bootstrap_interval([0, 1, 1], seed=3)
    assert bootstrap_interval([1, 1, 1]) == (1.0, 1.0)
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_interval([])


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (0, 1, 1.0), (0, 5, 2 / 32), (1, 9, 2 * 11 / 1024), (9, 1, 2 * 11 / 1024)],
)
def test_mcnemar_is_a_fair_coin(first, second, p):
    assert mcnemar_exact(first, second) == pytest.approx(p)


def test_holm_corrects_the_smallest_most_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_paired_bootstrap_sees_pairs():
    first = [0, 1] * 200
    better = [1 if i % 10 == 0 else value for i, value in enumerate(first)]
    low, high, p = paired_bootstrap(first, better)
    assert 0 < low < np.mean(better) - np.mean(first) < high
    assert p < 0.001
    assert paired_bootstrap(first, first) == (0.0, 0.0, 1.0)
    low, high, p = paired_bootstrap(better, first)
    assert high < 0
    assert p < 0.001


def test_strata_are_drawn_apart_and_their_means_added():
    """A stratum without chance shifts the interval and adds nothing to its width; two add their variances."""
    values = [0.0, 1.0] * 100
    low, high, _ = stratified_bootstrap([values])
    shifted_low, shifted_high, p = stratified_bootstrap([values, [2.0] * 50])
    assert (shifted_low, shifted_high) == pytest.approx((low + 2, high + 2))
    assert p == pytest.approx(2 / 10_001), "the least that so many draws can tell"
    both_low, both_high, _ = stratified_bootstrap([values, values])
    assert both_high - both_low == pytest.approx(2**0.5 * (high - low), rel=0.1)
    assert both_low < 1.0 < both_high


@pytest.mark.parametrize("of_few_sizes", [True, False])
def test_a_gain_and_its_reverse_are_mirror_images(of_few_sizes):
    draw = random.Random(0)
    size = (lambda: 1.0) if of_few_sizes else draw.random
    gains = [[draw.choice([-1.0, 0.0, 1.0, 1.0]) * size() for _ in range(60)] for _ in range(2)]
    low, high, p = stratified_bootstrap(gains, samples=1000)
    reverse = stratified_bootstrap([[-value for value in values] for values in gains], samples=1000)
    assert reverse == pytest.approx((-high, -low, p))


def test_without_chance_in_examples_the_error_of_seeds_is_students():
    error = error_of_seeds(0.0, [22.0, 26.0, 30.0])
    assert error.interval(0.95) == pytest.approx(scipy_t.interval(0.95, 2, scale=4 / 3**0.5))


def test_chance_in_examples_adds_to_that_in_seeds():
    error = error_of_seeds(100.0, [1.0, 2.0, 3.0])
    assert error.ppf(0.975) == pytest.approx(1.96 * (100 + 1 / 3) ** 0.5, rel=1e-3), "seeds hardly count here"
    assert error_of_seeds(100.0, [2.0, 2.0]) is None, "no seeds differ"
    assert error_of_seeds(100.0, [5.0]) is None, "one seed"


def crossed(rng, questions, seeds, of_question, of_seed, of_both):
    """A table of questions by seeds of mean 0, with normal parts of these standard deviations."""
    return (
        rng.normal(0, of_question, (questions, 1))
        + rng.normal(0, of_seed, (1, seeds))
        + rng.normal(0, of_both, (questions, seeds))
    )


PARTS = [(0.3, 0.02, 0.4), (0.1, 0.0, 0.5), (0.3, 0.05, 0.05), (0.0, 0.03, 0.3)]


@pytest.mark.parametrize("parts", PARTS)
def test_the_parts_of_the_variance_are_what_the_data_were_made_of(parts):
    rng, questions, seeds = np.random.default_rng(0), 300, 6
    found = [variance_parts([crossed(rng, questions, seeds, *parts)]) for _ in range(400)]
    of_question, of_seed, of_both = (part**2 for part in parts)
    true = of_question / questions + of_seed / seeds + of_both / (questions * seeds)
    assert np.mean([one.total for one in found]) == pytest.approx(true, rel=0.25)
    ten = of_question / questions + of_seed / 10 + of_both / (questions * 10)
    # A part that is 0 is not estimated below it, so that what more seeds would gain is sooner said to be less.
    assert 0.8 * ten < np.mean([one.with_seeds(10) for one in found]) < 1.35 * ten


@pytest.mark.slow
@pytest.mark.parametrize("parts", PARTS)
def test_ninety_five_percent_intervals_of_crossed_data_hold_the_truth_as_often(parts):
    rng, held, tries = np.random.default_rng(1), 0, 600
    for _ in range(tries):
        strata = [crossed(rng, 200, 5, *parts)]
        low, high = variance_parts(strata).error().interval(0.95)
        held += low <= -strata[0].mean() <= high
    assert 0.92 < held / tries < 0.99


def test_strata_of_different_questions_share_their_seeds():
    rng = np.random.default_rng(2)
    of_seed = rng.normal(0, 0.1, (1, 4))
    strata = [rng.normal(0, 0.3, (size, 4)) + of_seed for size in (100, 300)]
    parts = variance_parts(strata)
    assert (parts.questions, parts.seeds) == (400, 4)
    means = sum(table.mean(axis=0) for table in strata)
    assert parts.of_seeds + parts.of_interaction == pytest.approx(means.var(ddof=1) / 4)


def test_one_seed_has_no_part_of_seeds_and_no_law():
    parts = variance_parts([np.array([[1.0], [0.0], [1.0]])])
    assert parts.of_seeds == parts.of_interaction == 0.0
    assert parts.error() is None
    with pytest.raises(ValueError, match="two or more questions"):
        variance_parts([np.ones((1, 3))])
