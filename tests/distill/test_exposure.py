"""ExAccErr against its definition."""

import numpy as np
import pytest

from distilsql.distill.exposure import bootstrap_interval, excess_accumulated_error


def test_equals_the_definition_by_hand():
    student = [[1.0, 2.0, 5.0], [3.0, 0.0]]
    teacher = [[0.5, 0.5, 9.0], [1.0, 1.0]]
    # R(2) = (3 + 3) / 2 = 3, ε(2) = (1 + 2) / 2 = 1.5: 100 % more.
    assert excess_accumulated_error(student, teacher, 2) == pytest.approx(100)
    # A sample that ended contributes what it has: R(3) = (8 + 3) / 2, ε(3) = (10 + 2) / 2.
    assert excess_accumulated_error(student, teacher, 3) == pytest.approx((5.5 - 6) / 6 * 100)


def test_interval_holds_the_estimate_and_shrinks_with_samples():
    rng = np.random.default_rng(0)
    student, teacher = rng.gamma(2, 1, (400, 5)).tolist(), rng.gamma(1, 1, (400, 5)).tolist()
    few = bootstrap_interval(student[:40], teacher[:40], 5)
    many = bootstrap_interval(student, teacher, 5)
    assert many[0] < excess_accumulated_error(student, teacher, 5) < many[1]
    assert many[1] - many[0] < few[1] - few[0]


def test_interval_counts_prompts_not_samples():
    """A prompt sampled four times with the same outcome says as much as sampled once; samples of one are adjacent."""
    rng = np.random.default_rng(0)
    student, teacher = rng.gamma(2, 1, (50, 5)).tolist(), rng.gamma(1, 1, (50, 5)).tolist()
    often = [[kl for kl in each for _ in range(4)] for each in (student, teacher)]
    once = bootstrap_interval(student, teacher, 5)
    assert bootstrap_interval(*often, 5, samples_per_prompt=4) == pytest.approx(once)


def test_no_error_along_the_teacher_is_undefined_not_infinite():
    with pytest.raises(ValueError, match="undefined"):
        excess_accumulated_error([[1.0]], [[0.0]], 1)
