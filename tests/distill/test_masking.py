"""KID's imperfect completions: exact counts, the four strategies, lengths that line up."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distilsql.distill.masking import (
    MaskStrategy,
    choose_mask_positions,
    mask_completion,
    masked_count,
    rewrite_completion,
)

# Apart may have to give fewer positions.
WITH_EXACT_COUNTS = [strategy for strategy in MaskStrategy if strategy is not MaskStrategy.APART]


@given(length=st.integers(1, 200), percent=st.integers(0, 100))
def test_count_is_the_ceiling(length, percent):
    assert masked_count(length, percent / 100) == -(-percent * length // 100)


def test_count_is_not_pushed_up_by_rounding():
    # 0.1 · 30 and 0.7 · 10 are just above 3 and 7 in floating point.
    assert masked_count(30, 0.1) == 3
    assert masked_count(10, 0.7) == 7


@given(
    data=st.data(),
    strategy=st.sampled_from(WITH_EXACT_COUNTS),
    seed=st.integers(0, 1000),
)
def test_exactly_count_distinct_positions_in_range(data, strategy, seed):
    length = data.draw(st.integers(1, 60))
    count = data.draw(st.integers(0, length))
    entropy = torch.rand(length, generator=torch.Generator().manual_seed(seed))
    chosen = choose_mask_positions(
        length, count, strategy, rng=np.random.default_rng(seed), student_entropy_T=entropy
    ).tolist()
    assert len(chosen) == len(set(chosen)) == count
    assert chosen == sorted(chosen)
    assert all(0 <= position < length for position in chosen)


@given(length=st.integers(1, 40), data=st.data(), seed=st.integers(0, 1000))
def test_positions_apart_never_touch_and_are_as_many_as_can_be(length, data, seed):
    count = data.draw(st.integers(0, length))
    chosen = choose_mask_positions(
        length, count, MaskStrategy.APART, rng=np.random.default_rng(seed)
    ).tolist()
    assert len(chosen) == min(count, (length + 1) // 2)
    assert all(after - before > 1 for before, after in itertools.pairwise(chosen))
    assert all(0 <= position < length for position in chosen)


def test_positions_apart_are_drawn_evenly_among_all_choices():
    rng = np.random.default_rng(0)
    found = Counter(
        tuple(choose_mask_positions(6, 2, MaskStrategy.APART, rng=rng).tolist()) for _ in range(5000)
    )
    assert found.keys() == {pair for pair in itertools.combinations(range(6), 2) if pair[1] - pair[0] > 1}
    assert all(abs(count - 500) < 110 for count in found.values())  # five standard deviations


def test_hard_and_easy_take_the_highest_and_lowest_entropy():
    entropy = torch.tensor([0.5, 3.0, 0.1, 2.0, 1.0])
    rng = np.random.default_rng(0)
    hard = choose_mask_positions(5, 2, MaskStrategy.HARD, rng=rng, student_entropy_T=entropy)
    easy = choose_mask_positions(5, 2, MaskStrategy.EASY, rng=rng, student_entropy_T=entropy)
    assert hard.tolist() == [1, 3]
    assert easy.tolist() == [0, 2]
    with pytest.raises(ValueError, match="entropy"):
        choose_mask_positions(5, 2, MaskStrategy.HARD, rng=rng)


def test_uniform_is_evenly_spaced_and_random_is_not_always():
    gaps = set()
    for seed in range(20):
        chosen = choose_mask_positions(20, 5, MaskStrategy.UNIFORM, rng=np.random.default_rng(seed))
        gaps |= set(np.diff(chosen.numpy()).tolist())
    assert gaps == {4}
    random = choose_mask_positions(20, 5, MaskStrategy.RANDOM, rng=np.random.default_rng(1))
    assert set(np.diff(random.numpy()).tolist()) != {4}


@given(st.lists(st.integers(10, 99), min_size=1, max_size=30), st.data())
def test_rewriting_changes_the_masked_positions_only(gold, data):
    positions = sorted(data.draw(st.sets(st.integers(0, len(gold) - 1))))
    where, gold_T = torch.tensor(positions, dtype=torch.int64), torch.tensor(gold)
    masked = mask_completion(gold_T, where, 7)
    rewritten = rewrite_completion(gold_T, where, torch.full((len(positions),), 8))
    assert len(rewritten) == len(gold)
    for index, token in enumerate(gold):
        assert masked[index] == (7 if index in positions else token)
        assert rewritten[index] == (8 if index in positions else token)
    assert gold_T.tolist() == gold
