"""Divergences: zero iff equal, never negative, equal to independent float64 formulas, gradients equal to autograd."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distilsql.distill.adaptive_teaching import target_and_diversity
from distilsql.distill.divergence import Positions
from distilsql.distill.divergences import (
    DIVERGENCES,
    DivergenceParameters,
    forward_kl,
    jensen_shannon,
    jensen_shannon_with,
    make_divergence,
    reverse_kl,
    total_variation,
)

ALL = [*DIVERGENCES.values(), jensen_shannon_with(0.1), jensen_shannon_with(0.9)]
IDS = [*DIVERGENCES, "jsd-0.1", "jsd-0.9"]
# For divergences that read positions: a token of each row, and the two kinds of completions and of positions.
POSITIONS = Positions(
    torch.tensor([0, 3, 10, 3, 7]),
    torch.tensor([True, False, True, False, True]),
    torch.tensor([True, True, False, False, True]),
)


def log_probs(seed: int, rows: int = 5, vocabulary: int = 11, scale: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(
        scale * torch.randn(rows, vocabulary, generator=generator, dtype=torch.float64), -1
    )


def formula(name: str, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Textbook definitions on probabilities, written without the code under test."""
    kl = lambda a, b: np.sum(a * np.log(a / b), -1)  # noqa: E731
    if name == "forward-kl":
        return kl(p, q)
    if name == "reverse-kl":
        return kl(q, p)
    if name == "jensen-shannon":
        return 0.5 * kl(p, 0.5 * (p + q)) + 0.5 * kl(q, 0.5 * (p + q))
    if name == "jsd-0.1":
        return 0.1 * kl(p, 0.1 * p + 0.9 * q) + 0.9 * kl(q, 0.1 * p + 0.9 * q)
    if name == "jsd-0.9":
        return 0.9 * kl(p, 0.9 * p + 0.1 * q) + 0.1 * kl(q, 0.9 * p + 0.1 * q)
    if name == "total-variation":
        return 0.5 * np.sum(np.abs(p - q), -1)
    if name == "skewed-forward-kl":
        return kl(p, 0.1 * p + 0.9 * q)
    if name == "skewed-reverse-kl":
        return kl(q, 0.9 * p + 0.1 * q)
    if name == "adaptive-kl":
        return np.array([adaptive_kl_by_hand(*row, head_mass=0.5) for row in zip(p, q, strict=True)])
    if name == "contrastive-skewed-kl":
        sides = zip(formula("skewed-forward-kl", p, q), formula("skewed-reverse-kl", p, q), strict=True)
        return np.array([pair[int(own)] for pair, own in zip(sides, POSITIONS.by_student_N, strict=True)])
    if name == "oracle-likelihood":
        tokens = zip(POSITIONS.by_student_N, p.argmax(-1), POSITIONS.token_N, strict=True)
        right = [first if own else token for own, first, token in tokens]
        return np.array([-math.log(q[row, token]) for row, token in enumerate(right)])
    assert name == "adaptive-teaching"
    return np.array([adaptive_teaching_by_hand(p[row], q[row], row) for row in range(len(p))])


def adaptive_teaching_by_hand(p: np.ndarray, q: np.ndarray, row: int, easy_weight: float = 0.2) -> float:
    """ATKD at one position (Zhong et al. 2024), from its two distributions over the tokens but one."""
    token, is_hard = int(POSITIONS.token_N[row]), bool(POSITIONS.is_hard_N[row])
    others = np.delete(p, token), np.delete(q, token)
    rest = others[0].sum(), others[1].sum()  # 1 less the token's would have few digits where that is near 1
    diversity = sum(a / rest[0] * math.log(a / rest[0] / (b / rest[1])) for a, b in zip(*others, strict=True))
    binary = ((p[token], q[token]), rest)
    target = sum(a * math.log(a / b) for a, b in binary)
    return (1 - easy_weight) * (target + diversity) if is_hard else easy_weight * diversity


def adaptive_kl_by_hand(p: np.ndarray, q: np.ndarray, head_mass: float) -> float:
    """AKL of one position (Wu et al. 2024), a token at a time."""
    head_gap = tail_gap = mass = 0.0
    for rank, token in enumerate(sorted(range(len(p)), key=lambda token: -p[token])):
        mass += p[token]
        if rank == 0 or mass <= head_mass:
            head_gap += abs(p[token] - q[token])
        else:
            tail_gap += abs(p[token] - q[token])
    forward = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    reverse = sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
    return (head_gap * forward + tail_gap * reverse) / (head_gap + tail_gap)


@pytest.mark.parametrize(("name", "divergence"), list(zip(IDS, ALL, strict=True)), ids=IDS)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 8))
@settings(max_examples=20, deadline=None)
def test_value_equals_the_textbook_formula(name, divergence, seed, scale):
    teacher, student = log_probs(seed, scale=scale), log_probs(seed + 1, scale=scale)
    expected = formula(name, teacher.exp().numpy(), student.exp().numpy())
    assert divergence(teacher, student, POSITIONS).numpy() == pytest.approx(expected, abs=1e-12, rel=1e-9)


@pytest.mark.parametrize("divergence", [each for each in ALL if each.name != "oracle-likelihood"])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_zero_iff_equal_and_never_negative(divergence, seed):
    teacher, student = log_probs(seed), log_probs(seed + 1)
    assert (divergence(teacher, student, POSITIONS) > 1e-4).all()
    assert divergence(teacher, teacher, POSITIONS).abs().max() < 1e-12
    in_float32 = divergence(teacher.float(), student.float(), POSITIONS)
    assert (in_float32 >= 0).all()


@pytest.mark.parametrize("divergence", ALL, ids=IDS)
def test_logit_gradient_equals_autograd(divergence):
    teacher = log_probs(0)
    logits = torch.randn(5, 11, dtype=torch.float64, requires_grad=True)
    student = torch.log_softmax(logits, -1)
    divergence(teacher, student, POSITIONS).sum().backward()
    closed_form = divergence.logit_gradient(teacher, student.detach(), POSITIONS)
    torch.testing.assert_close(closed_form, logits.grad, atol=1e-12, rtol=1e-9)


def test_reverse_kl_gradient_is_the_closed_form_of_the_design():
    teacher, student = log_probs(3), log_probs(4)
    q = student.exp()
    expected = q * (student - teacher - reverse_kl(teacher, student).unsqueeze(-1))
    torch.testing.assert_close(DIVERGENCES["reverse-kl"].logit_gradient(teacher, student), expected)


def test_kl_directions_are_not_exchanged():
    # p is peaked, q is flat over two tokens: KL(p‖q) = ln 2 stays small, KL(q‖p) is large.
    peaked = torch.log(torch.tensor([[1 - 1e-6, 1e-6]], dtype=torch.float64))
    flat = torch.log(torch.tensor([[0.5, 0.5]], dtype=torch.float64))
    assert forward_kl(peaked, flat).item() == pytest.approx(math.log(2), abs=1e-4)
    assert reverse_kl(peaked, flat).item() > 6


def test_jsd_is_not_a_mixture_of_kls_and_vanishes_at_its_ends():
    teacher, student = log_probs(5), log_probs(6)
    mixture = 0.9 * forward_kl(teacher, student) + 0.1 * reverse_kl(teacher, student)
    assert (jensen_shannon(teacher, student, beta=0.9) < 0.5 * mixture).all()
    assert jensen_shannon(teacher, student, beta=1e-9).max() < 1e-6
    assert jensen_shannon(teacher, student, beta=1 - 1e-9).max() < 1e-6
    assert (jensen_shannon(teacher, student) <= math.log(2)).all()
    assert (total_variation(teacher, student) <= 1).all()
    for end in (0, 1):
        with pytest.raises(ValueError, match="0 < beta < 1"):
            jensen_shannon(teacher, student, beta=end)


def test_adaptive_kl_is_forward_where_the_head_is_wrong_and_reverse_where_the_tail_is():
    teacher = torch.log(torch.tensor([[0.6, 0.2, 0.1, 0.1]], dtype=torch.float64))
    wrong_in_head = torch.log(torch.tensor([[0.2, 0.6, 0.1, 0.1]], dtype=torch.float64))
    wrong_in_tail = torch.log(torch.tensor([[0.6, 0.1, 0.2, 0.1]], dtype=torch.float64))
    akl = DIVERGENCES["adaptive-kl"]
    halves = 0.5 * (forward_kl(teacher, wrong_in_head) + reverse_kl(teacher, wrong_in_head))
    torch.testing.assert_close(akl(teacher, wrong_in_head), halves)  # the first token is the whole head
    torch.testing.assert_close(akl(teacher, wrong_in_tail), reverse_kl(teacher, wrong_in_tail))
    wide = make_divergence("adaptive-kl", DivergenceParameters(head_mass=0.85))
    torch.testing.assert_close(wide(teacher, wrong_in_head), forward_kl(teacher, wrong_in_head))


def test_parameters_reach_their_divergence():
    teacher, student = log_probs(7), log_probs(8)
    p, q = teacher.exp().numpy(), student.exp().numpy()
    given = DivergenceParameters(jsd_beta=0.9, skew=0.4, head_mass=0.8)
    skewed = {
        "skewed-forward-kl": np.sum(p * np.log(p / (0.4 * p + 0.6 * q)), -1),
        "skewed-reverse-kl": np.sum(q * np.log(q / (0.6 * p + 0.4 * q)), -1),
        "jensen-shannon": formula("jsd-0.9", p, q),
        "adaptive-kl": np.array([adaptive_kl_by_hand(*row, head_mass=0.8) for row in zip(p, q, strict=True)]),
    }
    for name, expected in skewed.items():
        assert make_divergence(name, given)(teacher, student).numpy() == pytest.approx(expected, rel=1e-9)


def test_target_and_diversity_make_up_forward_kl():
    """KL(p‖q) = T + (1 − p_g)·D, which is where adaptive teaching starts from (Zhong et al. 2024)."""
    teacher, student = log_probs(9), log_probs(10)
    target_N, diversity_N = target_and_diversity(teacher, student, POSITIONS)
    uncertainty_N = 1 - teacher.exp().gather(-1, POSITIONS.token_N.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(target_N + uncertainty_N * diversity_N, forward_kl(teacher, student))


def test_a_sure_teacher_still_teaches_its_other_tokens():
    """In float32 p_g may round to 1: what it says of the others is all there is, and is finite in value and slope."""
    logits = torch.tensor([[60.0, 1.0, 0.0, -1.0]])
    teacher, student = torch.log_softmax(logits, -1), torch.log_softmax(-logits / 60, -1)
    at_top = Positions(torch.tensor([0]), torch.tensor([False]), torch.tensor([False]))
    sure = make_divergence("adaptive-teaching")
    rest = forward_kl(torch.log_softmax(logits[:, 1:], -1), torch.log_softmax(-logits[:, 1:] / 60, -1))
    torch.testing.assert_close(sure(teacher, student, at_top), 0.2 * rest)
    assert torch.isfinite(sure.logit_gradient(teacher, student, at_top)).all()
    with pytest.raises(ValueError, match="reads the completion's tokens"):
        sure(teacher, student)
