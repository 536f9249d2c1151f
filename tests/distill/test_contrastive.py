"""DistiLLM-2's skew of each completion: the authors' formula in float64, its bounds, and what it keeps constant."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distilsql.distill.contrastive import LEAST_SKEW, adapted_skew, completion_gaps
from distilsql.distill.divergence import Positions
from distilsql.distill.divergences import make_divergence

BY_STUDENT = torch.tensor([True, False, True, False, True])


def log_probs(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(2 * torch.randn(5, 11, generator=generator, dtype=torch.float64), -1)


def skew_by_hand(gap: float, reference: float, largest: float) -> float:
    """α = 1 − (1 − α₀) · m / gap, kept between 0.01 and α₀; α₀ where the gap says nothing."""
    if gap <= 0:
        return largest
    return min(max(1 - (1 - largest) * reference / gap, 0.01), largest)


@given(
    gaps=st.lists(st.floats(-1, 1), min_size=1, max_size=8),
    reference=st.floats(1e-3, 1),
    largest=st.floats(0.02, 0.9),
)
@settings(max_examples=50, deadline=None)
def test_a_skew_is_the_papers_and_keeps_the_difference_constant(gaps, reference, largest):
    found = adapted_skew(torch.tensor(gaps, dtype=torch.float64), reference, largest=largest).tolist()
    assert found == pytest.approx([skew_by_hand(gap, reference, largest) for gap in gaps], rel=1e-9)
    for gap, skew in zip(gaps, found, strict=True):
        assert LEAST_SKEW <= skew <= largest
        if gap > 0 and LEAST_SKEW < skew < largest:
            assert (1 - skew) * gap == pytest.approx((1 - largest) * reference, rel=1e-6)
    ordered = sorted((gap, skew) for gap, skew in zip(gaps, found, strict=True) if gap > 0)
    skews = [skew for _, skew in ordered]
    assert skews == sorted(skews), "the closer the models, the smaller the skew"


def test_a_gap_is_of_the_writers_geometric_mean_over_the_others():
    teacher, student = (-torch.rand(7, dtype=torch.float64) * 3 for _ in range(2))
    lengths, by_student = [3, 0, 4], torch.tensor([False, False, True])
    found = completion_gaps(teacher, student, lengths, by_student).tolist()
    p, q = (logs.exp().tolist() for logs in (teacher, student))
    mean = lambda values: math.prod(values) ** (1 / len(values))  # noqa: E731
    assert found == pytest.approx([mean(p[:3]) - mean(q[:3]), 0.0, mean(q[3:]) - mean(p[3:])])


def test_each_position_has_the_skew_of_its_completion():
    """In value and gradient, against rows that are given one skew each."""
    teacher, student = log_probs(11), log_probs(12)
    skews = torch.tensor([0.01, 0.3, 0.1, 0.6, 0.05], dtype=torch.float64)
    contrastive = make_divergence("contrastive-skewed-kl")
    together = Positions(torch.arange(5), BY_STUDENT, torch.zeros(5, dtype=torch.bool), skews)
    value_N = contrastive(teacher, student, together)
    gradient_NV = contrastive.logit_gradient(teacher, student, together)
    for row, (own, skew) in enumerate(zip(BY_STUDENT.tolist(), skews.tolist(), strict=True)):
        p, q = teacher[row].exp(), student[row].exp()
        mixture = (1 - skew) * p + skew * q if own else skew * p + (1 - skew) * q
        left = q if own else p
        assert value_N[row].item() == pytest.approx((left * (left / mixture).log()).sum().item(), rel=1e-9)
        alone = together.rows(slice(row, row + 1))
        assert alone.skew_N.tolist() == [skew]
        torch.testing.assert_close(
            contrastive.logit_gradient(teacher[row : row + 1], student[row : row + 1], alone)[0],
            gradient_NV[row],
        )
    logits = torch.randn(5, 11, dtype=torch.float64, requires_grad=True)
    contrastive(teacher, torch.log_softmax(logits, -1), together).sum().backward()
    closed = contrastive.logit_gradient(teacher, torch.log_softmax(logits, -1).detach(), together)
    torch.testing.assert_close(closed, logits.grad, atol=1e-12, rtol=1e-9)
