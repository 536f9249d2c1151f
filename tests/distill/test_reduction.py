"""Reductions: what eq. 2 says, over the whole window, counted on the completions that are trained on."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distilsql.distill.reduction import Reduction, position_weights, window_denominator

LENGTHS = st.lists(st.integers(0, 12), min_size=1, max_size=8)


@given(LENGTHS, st.integers(0, 2**16))
def test_per_completion_is_the_mean_of_means(lengths, seed):
    values = torch.rand(sum(lengths), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    denominator = window_denominator(lengths, Reduction.PER_COMPLETION)
    weighted = (values * position_weights(lengths, Reduction.PER_COMPLETION, denominator)).sum()
    means = [part.mean() for part in values.split(lengths) if len(part)]
    if means:
        torch.testing.assert_close(weighted, torch.stack(means).mean(), atol=1e-6, rtol=1e-6)


@given(LENGTHS, st.integers(0, 2**16))
def test_per_token_is_one_mean(lengths, seed):
    values = torch.rand(sum(lengths), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    denominator = window_denominator(lengths, Reduction.PER_TOKEN)
    weighted = (values * position_weights(lengths, Reduction.PER_TOKEN, denominator)).sum()
    if len(values):
        torch.testing.assert_close(weighted, values.mean(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("reduction", Reduction)
@given(lengths=LENGTHS, cut=st.integers(0, 8))
def test_micro_batches_add_up_to_the_window(reduction, lengths, cut):
    parts = [lengths[:cut], lengths[cut:]]
    denominator = sum(window_denominator(part, reduction) for part in parts)
    assert denominator == window_denominator(lengths, reduction)
    apart = torch.cat([position_weights(part, reduction, denominator) for part in parts])
    torch.testing.assert_close(apart, position_weights(lengths, reduction, denominator))


def test_empty_completions_cost_nothing_and_count_for_nothing():
    assert window_denominator([3, 0, 2], Reduction.PER_COMPLETION) == 2
    assert len(position_weights([0, 0], Reduction.PER_COMPLETION, 0)) == 0
    with pytest.raises(ValueError, match="denominator"):
        position_weights([3], Reduction.PER_COMPLETION, 0)
