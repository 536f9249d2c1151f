"""Divergences from a teacher's top tokens: equal to the definition, never above the whole one, exact where k is all."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distilsql.distill.divergences import DIVERGENCES
from distilsql.distill.top_tokens import kept_probability, on_top_tokens
from distilsql.runs.method_sections import KNOWN_BY_TOP_TOKENS

V = 11
KNOWN = list(KNOWN_BY_TOP_TOKENS)


def log_probs(seed: int, scale: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(scale * torch.randn(5, V, generator=generator, dtype=torch.float64), -1)


def by_hand(name: str, p: np.ndarray, q: np.ndarray, k: int) -> float:
    """One position: the k tokens with the largest p, and what is left."""
    top = sorted(range(len(p)), key=lambda token: -p[token])[:k]
    a, b = (
        np.array([each[token] for token in top] + [1 - sum(each[token] for token in top)]) for each in (p, q)
    )
    kl = lambda one, other: sum(x * np.log(x / y) for x, y in zip(one, other, strict=True) if x > 1e-12)  # noqa: E731
    return {
        "forward-kl": lambda: kl(a, b),
        "jensen-shannon": lambda: 0.5 * kl(a, (a + b) / 2) + 0.5 * kl(b, (a + b) / 2),
        "total-variation": lambda: 0.5 * float(np.abs(a - b).sum()),
        "skewed-forward-kl": lambda: kl(a, 0.1 * a + 0.9 * b),
    }[name]()


@pytest.mark.parametrize("name", KNOWN)
@given(seed=st.integers(0, 10_000), k=st.integers(1, V - 1))
@settings(max_examples=20, deadline=None)
def test_the_value_is_that_of_the_definition_and_never_above_the_whole(name, seed, k):
    teacher, student = log_probs(seed), log_probs(seed + 1)
    approximation = on_top_tokens(DIVERGENCES[name], k)
    p, q = teacher.exp().numpy(), student.exp().numpy()
    value = approximation(teacher, student)
    assert value.numpy() == pytest.approx(
        [by_hand(name, *row, k) for row in zip(p, q, strict=True)], rel=1e-6
    )
    assert (value <= DIVERGENCES[name](teacher, student) + 1e-9).all()
    assert (value >= 0).all()
    assert approximation(teacher, teacher).abs().max() < 1e-9
    more = on_top_tokens(DIVERGENCES[name], k + 1)(teacher, student)
    assert (more >= value - 1e-7).all(), "another token known brings it nearer"


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("k", [1, 4, V - 1])
def test_the_gradient_is_that_of_autograd(name, k):
    teacher = log_probs(0)
    logits = torch.randn(5, V, dtype=torch.float64, requires_grad=True)
    approximation = on_top_tokens(DIVERGENCES[name], k)
    approximation(teacher, torch.log_softmax(logits, -1)).sum().backward()
    closed = approximation.logit_gradient(teacher, torch.log_softmax(logits, -1).detach())
    torch.testing.assert_close(closed, logits.grad, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("name", KNOWN)
def test_all_tokens_are_the_whole(name):
    """k may be the vocabulary, or more; and nothing is infinite where the teacher is sure of one token."""
    teacher, student = log_probs(1), log_probs(2)
    whole = DIVERGENCES[name]
    for k in (V, 50):
        approximation = on_top_tokens(whole, k)
        torch.testing.assert_close(
            approximation(teacher, student), whole(teacher, student), atol=1e-7, rtol=1e-6
        )
        torch.testing.assert_close(
            approximation.logit_gradient(teacher, student),
            whole.logit_gradient(teacher, student),
            atol=1e-6,
            rtol=1e-5,
        )
    sure = torch.log_softmax(torch.tensor([[90.0, 0.0, 0.0, 0.0]]), -1)
    unlike = torch.log_softmax(torch.tensor([[0.0, 90.0, 0.0, 0.0]]), -1)
    for p, q in ((sure, unlike), (unlike, sure), (sure, sure)):
        approximation = on_top_tokens(whole, 1)
        assert torch.isfinite(approximation(p, q)).all()
        assert torch.isfinite(approximation.logit_gradient(p, q)).all()


def test_others_keep_the_students_proportions():
    """Nothing is known of them, so a step along the gradient does not tell them apart."""
    teacher, student = log_probs(3), log_probs(4)
    gradient_NV = on_top_tokens(DIVERGENCES["forward-kl"], 3).logit_gradient(teacher, student)
    top_NK = teacher.topk(3).indices
    per_probability_NV = (gradient_NV / student.exp()).scatter(-1, top_NK, torch.nan)
    for row in per_probability_NV:
        others = row[~row.isnan()]
        torch.testing.assert_close(others, others[:1].expand_as(others))
    kept = kept_probability(teacher, 3)
    torch.testing.assert_close(kept, teacher.exp().sort(-1, descending=True).values[:, :3].sum(-1))


def test_what_it_is_not_defined_for_is_refused():
    with pytest.raises(ValueError, match="reads the completion's tokens"):
        on_top_tokens(DIVERGENCES["adaptive-teaching"], 5)
    with pytest.raises(ValueError, match="at least one token"):
        on_top_tokens(DIVERGENCES["forward-kl"], 0)
