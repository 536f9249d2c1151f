"""BIRD's EX, R-VES and soft-F1."""

import math

import pytest

from distilsql.metrics import bird


@pytest.mark.parametrize(
    ("gold", "predicted", "equal"),
    [
        ([(1,), (2,)], [(2,), (1,), (1,)], True),
        ([(1, 2)], [(2, 1)], False),
        ([], [], True),
        ([], [(1,)], False),
        ([(1,)], [(1.0,)], True),
        ([("1",)], [(1,)], False),
    ],
)
def test_results_are_compared_as_sets_of_rows(gold, predicted, equal):
    assert bird.results_equal(gold, predicted) is equal


@pytest.mark.parametrize(
    ("ratio", "value"),
    [
        (5, 1.25),
        (2, 1.25),
        (1.99, 1),
        (1, 1),
        (0.99, 0.75),
        (0.5, 0.75),
        (0.49, 0.5),
        (0.25, 0.5),
        (0.2, 0.25),
    ],
)
def test_reward_bands(ratio, value):
    assert bird.reward(ratio) == value


def test_speed_ratio_leaves_out_what_is_three_deviations_off():
    gold = [1.0] * 30 + [1000.0]
    assert bird.speed_ratio(gold, [1.0] * 31) == pytest.approx(1.0)
    assert bird.speed_ratio([2.0, 2.0], [1.0, 1.0]) == 2.0


def test_r_ves_is_the_mean_root_in_percent():
    assert bird.r_ves([1.25, 1.0, 0.0, 0.25]) == pytest.approx(100 * (math.sqrt(1.25) + 1 + 0.5) / 4)


@pytest.mark.parametrize(
    ("gold", "predicted", "f1"),
    [
        ([], [], 1.0),
        ([(1,)], [], 0.0),
        ([(1,)], [(2,)], 0.0),
        ([(1, 2)], [(1, 2)], 1.0),
        ([(1, 2)], [(2, 1)], 1.0),  # cells of a row count wherever they stand
        ([(1, 2)], [(1, 3)], 0.5),  # tp 1/2, fp 1/2, fn 1/2
        ([(1,), (2,)], [(1,)], 2 / 3),  # tp 1, fn 1
        ([(1,), (1,)], [(1,)], 1.0),  # repeated rows are dropped
        ([(1, 2)], [(1, 2, 3)], 0.8),  # tp 1, fp 1/2
    ],
)
def test_soft_f1(gold, predicted, f1):
    assert bird.soft_f1(gold, predicted) == pytest.approx(f1)
