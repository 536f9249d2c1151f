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
