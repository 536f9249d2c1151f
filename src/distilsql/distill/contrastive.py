"""What differs by who wrote the completion: DistiLLM-2's contrastive pair, and ImitKD's own loss."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distilsql.distill.divergence import LogProbs, PerPosition, Positions
from distilsql.distill.skewed import (
    Skew,
    skewed_forward_kl,
    skewed_forward_kl_slope,
    skewed_reverse_kl,
    skewed_reverse_kl_slope,
)

LEAST_SKEW = 0.01  # of an adapted skew, as in DistiLLM-2's code


def contrastive_skewed_kl(
    teacher_NV: LogProbs, student_NV: LogProbs, positions: Positions, *, skew: float = 0.1
) -> PerPosition:
    """Skewed forward KL on completions of the teacher, skewed reverse KL on those of the student.

    DistiLLM-2 (Ko et al. 2025): the former raises the student where the teacher is likely, the latter lowers it where
    the teacher is not. Positions that have a skew of their own are given that one.
    """
    own_skew = _skew_of(positions, skew)
    forward_N = skewed_forward_kl(teacher_NV, student_NV, skew=own_skew)
    reverse_N = skewed_reverse_kl(teacher_NV, student_NV, skew=own_skew)
    return torch.where(positions.by_student_N, reverse_N, forward_N)


def contrastive_skewed_kl_slope(
    teacher_NV: LogProbs, student_NV: LogProbs, positions: Positions, *, skew: float = 0.1
) -> Tensor:
    own_skew = _skew_of(positions, skew)
    forward_NV = skewed_forward_kl_slope(teacher_NV, student_NV, skew=own_skew)
    reverse_NV = skewed_reverse_kl_slope(teacher_NV, student_NV, skew=own_skew)
    return torch.where(positions.by_student_N.unsqueeze(-1), reverse_NV, forward_NV)


def _skew_of(positions: Positions, skew: float) -> Skew:
    return skew if positions.skew_N is None else positions.skew_N.unsqueeze(-1)


def completion_gaps(
    teacher_logp_N: Float[Tensor, " N"],
    student_logp_N: Float[Tensor, " N"],
    lengths: Sequence[int],
    by_student_C: Bool[Tensor, " C"],
) -> Float[Tensor, " C"]:
    """How far apart the two models are on each of C completions: the geometric mean of its tokens' probabilities by the
    model that wrote it, less that by the other one. An empty completion has no gap."""
    mean_C = [
        torch.stack(
            [logp_T.mean() if len(logp_T) else logp_T.sum() for logp_T in logp_N.split(list(lengths))]
        )
        for logp_N in (teacher_logp_N, student_logp_N)
    ]
    gap_C = mean_C[0].exp() - mean_C[1].exp()
    return torch.where(by_student_C, -gap_C, gap_C)


def adapted_skew(gap_C: Float[Tensor, " C"], reference_gap: float, *, largest: float) -> Float[Tensor, " C"]:
    """The skew α of each completion: the smaller its gap, the smaller, from `largest` (α₀) at the reference gap m down
    to 0.01, so that (1 − α) · gap = (1 − α₀) · m (DistiLLM-2's curriculum).

    The product is p − (α·p + (1 − α)·q), which stands for the difference of their logs (log x ≈ x − 1) and thus stays
    as it began while p and q come closer. A completion that its writer gives no more than the other model has no such
    α and keeps the largest, as in the authors' code.
    """
    wanted_C = 1 - (1 - largest) * reference_gap / gap_C
    return torch.where(gap_C > 0, wanted_C.clamp(LEAST_SKEW, largest), largest)


def oracle_likelihood(teacher_NV: LogProbs, student_NV: LogProbs, positions: Positions) -> PerPosition:
    """−log q of the token that is right there: gold's own on gold, the teacher's first choice after what the student
    wrote (ImitKD's optimal-oracle loss, Lin et al. 2020). No divergence: at p = q it is not zero."""
    return -student_NV.gather(-1, _right_token_N1(teacher_NV, positions)).squeeze(-1)


def oracle_likelihood_slope(teacher_NV: LogProbs, student_NV: LogProbs, positions: Positions) -> Tensor:
    return torch.zeros_like(student_NV).scatter_(-1, _right_token_N1(teacher_NV, positions), -1.0)


def _right_token_N1(teacher_NV: Tensor, positions: Positions) -> Tensor:
    return torch.where(positions.by_student_N, teacher_NV.argmax(-1), positions.token_N).unsqueeze(-1)
