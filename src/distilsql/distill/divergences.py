"""Divergences between a teacher p and a student q, per position, summed over the vocabulary.

Shapes: N positions, V vocabulary entries. Inputs are natural-log probabilities in float32 (or float64);
the teacher always comes first. Every divergence is zero iff p = q and never negative, but for `oracle-likelihood`, a
likelihood in a divergence's place.

Each divergence also states its *slope* q_v · ∂D/∂q_v, which is all that the gradient with respect to the
student's logits needs: ∂D/∂logit_v = slope_v − q_v · Σ_u slope_u. The chunked loss uses it to avoid building
an autograd graph over the vocabulary; the tests compare it with autograd in float64.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from distilsql.distill.adaptive_kl import adaptive_kl, adaptive_kl_slope
from distilsql.distill.adaptive_teaching import adaptive_teaching, adaptive_teaching_slope
from distilsql.distill.contrastive import (
    contrastive_skewed_kl,
    contrastive_skewed_kl_slope,
    oracle_likelihood,
    oracle_likelihood_slope,
)
from distilsql.distill.divergence import Divergence, LogProbs, PerPosition
from distilsql.distill.skewed import (
    log_mixture,
    skewed_forward_kl,
    skewed_forward_kl_slope,
    skewed_reverse_kl,
    skewed_reverse_kl_slope,
)


def forward_kl(teacher_NV: LogProbs, student_NV: LogProbs) -> PerPosition:
    """KL(p‖q) = Σ p (log p − log q). KID eq. 3; Hinton et al. 2015."""
    return (teacher_NV.exp() * (teacher_NV - student_NV)).sum(-1)


def forward_kl_slope(teacher_NV: LogProbs, student_NV: LogProbs) -> LogProbs:
    return -teacher_NV.exp()


def reverse_kl(teacher_NV: LogProbs, student_NV: LogProbs) -> PerPosition:
    """KL(q‖p) = Σ q (log q − log p). KID eq. 3 with the arguments exchanged; Gu et al. 2023."""
    return (student_NV.exp() * (student_NV - teacher_NV)).sum(-1)


def reverse_kl_slope(teacher_NV: LogProbs, student_NV: LogProbs) -> LogProbs:
    # The constant 1 of d(q log q)/dq vanishes in the softmax backward, so it is left out.
    return student_NV.exp() * (student_NV - teacher_NV)


def jensen_shannon(teacher_NV: LogProbs, student_NV: LogProbs, *, beta: float | int = 0.5) -> PerPosition:
    """β·KL(p‖m) + (1−β)·KL(q‖m) with m = βp + (1−β)q. KID eq. 4 is β = 1/2; Agarwal et al. 2024 for any β.

    Tends to 0 as β tends to 0 or 1, which are therefore refused rather than turned into a KL.

    Raises:
        ValueError: β is not strictly between 0 and 1.
    """
    _check_beta(beta)
    log_m_NV = log_mixture(teacher_NV, student_NV, beta)
    from_teacher_N = (teacher_NV.exp() * (teacher_NV - log_m_NV)).sum(-1)
    from_student_N = (student_NV.exp() * (student_NV - log_m_NV)).sum(-1)
    return beta * from_teacher_N + (1 - beta) * from_student_N


def jensen_shannon_slope(teacher_NV: LogProbs, student_NV: LogProbs, *, beta: float | int = 0.5) -> LogProbs:
    log_m_NV = log_mixture(teacher_NV, student_NV, beta)
    return (1 - beta) * student_NV.exp() * (student_NV - log_m_NV)


def total_variation(teacher_NV: LogProbs, student_NV: LogProbs) -> PerPosition:
    """½ Σ |p − q|. KID eq. 5; Wen et al. 2023."""
    return 0.5 * (teacher_NV.exp() - student_NV.exp()).abs().sum(-1)


def total_variation_slope(teacher_NV: LogProbs, student_NV: LogProbs) -> LogProbs:
    return 0.5 * student_NV.exp() * torch.sign(student_NV - teacher_NV)


def entropy(logp_NV: LogProbs) -> PerPosition:
    """−Σ p log p in nats: the confidence that KID's hard and easy masking sort by (KID §3, footnote 4)."""
    return -(logp_NV.exp() * logp_NV).sum(-1)


def _check_beta(beta: float | int) -> None:
    if not 0 < beta < 1:
        raise ValueError(f"JSD needs 0 < beta < 1, got {beta}: use forward or reverse KL for the end points.")


FORWARD_KL = Divergence("forward-kl", "forward KL", forward_kl, forward_kl_slope)
REVERSE_KL = Divergence("reverse-kl", "reverse KL", reverse_kl, reverse_kl_slope)
TOTAL_VARIATION = Divergence("total-variation", "total variation", total_variation, total_variation_slope)


def jensen_shannon_with(beta: float) -> Divergence:
    """The Jensen-Shannon divergence with weight β on the teacher's side; 0 < β < 1."""
    _check_beta(beta)
    return _with("jensen-shannon", "JSD", jensen_shannon, jensen_shannon_slope, beta=beta)


def _with(name: str, title: str, value: Any, slope: Any, **parameters: float) -> Divergence:
    return Divergence(name, title, partial(value, **parameters), partial(slope, **parameters))


@dataclass(frozen=True)
class DivergenceParameters:
    """What some divergences leave to choose, as recipes do (`distill.*`); defaults are the papers'."""

    jsd_beta: float = 0.5
    skew: float = 0.1
    head_mass: float = 0.5
    easy_weight: float = 0.2
    hard_share: float = 0.5


def make_divergence(name: str, parameters: DivergenceParameters = DivergenceParameters()) -> Divergence:
    """The divergence of a name in `DIVERGENCES`, with these parameters. Raises KeyError for another name."""
    return _MAKERS[name](parameters)


_MAKERS: dict[str, Callable[[DivergenceParameters], Divergence]] = {
    "forward-kl": lambda _: FORWARD_KL,
    "reverse-kl": lambda _: REVERSE_KL,
    "jensen-shannon": lambda given: jensen_shannon_with(given.jsd_beta),
    "total-variation": lambda _: TOTAL_VARIATION,
    "skewed-forward-kl": lambda given: _with(
        "skewed-forward-kl", "skewed forward KL", skewed_forward_kl, skewed_forward_kl_slope, skew=given.skew
    ),
    "skewed-reverse-kl": lambda given: _with(
        "skewed-reverse-kl", "skewed reverse KL", skewed_reverse_kl, skewed_reverse_kl_slope, skew=given.skew
    ),
    "adaptive-kl": lambda given: _with(
        "adaptive-kl", "adaptive KL", adaptive_kl, adaptive_kl_slope, head_mass=given.head_mass
    ),
    "adaptive-teaching": lambda given: Divergence(
        "adaptive-teaching",
        "adaptive teaching",
        partial(adaptive_teaching, easy_weight=given.easy_weight),
        partial(adaptive_teaching_slope, easy_weight=given.easy_weight),
        reads_positions=True,
        hard_share=given.hard_share,
    ),
    "contrastive-skewed-kl": lambda given: Divergence(
        "contrastive-skewed-kl",
        "contrastive skewed KL",
        partial(contrastive_skewed_kl, skew=given.skew),
        partial(contrastive_skewed_kl_slope, skew=given.skew),
        reads_positions=True,
    ),
    "oracle-likelihood": lambda _: Divergence(
        "oracle-likelihood",
        "likelihood of the oracle's token",
        oracle_likelihood,
        oracle_likelihood_slope,
        reads_positions=True,
    ),
}
DIVERGENCES: dict[str, Divergence] = {name: make_divergence(name) for name in _MAKERS}
