"""What differs by who wrote the completion: DistiLLM-2's contrastive pair, and ImitKD's own loss."""

import torch
from torch import Tensor

from distilsql.distill.divergence import LogProbs, PerPosition, Positions
from distilsql.distill.skewed import (
    skewed_forward_kl,
    skewed_forward_kl_slope,
    skewed_reverse_kl,
    skewed_reverse_kl_slope,
)


def contrastive_skewed_kl(
    teacher_NV: LogProbs, student_NV: LogProbs, positions: Positions, *, skew: float = 0.1
) -> PerPosition:
    """Skewed forward KL on completions of the teacher, skewed reverse KL on those of the student.

    DistiLLM-2 (Ko et al. 2025): the former raises the student where the teacher is likely, the latter lowers it where
    the teacher is not.
    """
    forward_N = skewed_forward_kl(teacher_NV, student_NV, skew=skew)
    reverse_N = skewed_reverse_kl(teacher_NV, student_NV, skew=skew)
    return torch.where(positions.by_student_N, reverse_N, forward_N)


def contrastive_skewed_kl_slope(
    teacher_NV: LogProbs, student_NV: LogProbs, positions: Positions, *, skew: float = 0.1
) -> Tensor:
    forward_NV = skewed_forward_kl_slope(teacher_NV, student_NV, skew=skew)
    reverse_NV = skewed_reverse_kl_slope(teacher_NV, student_NV, skew=skew)
    return torch.where(positions.by_student_N.unsqueeze(-1), reverse_NV, forward_NV)


def oracle_likelihood(teacher_NV: LogProbs, student_NV: LogProbs, positions: Positions) -> PerPosition:
    """−log q of the token that is right there: gold's own on gold, the teacher's first choice after what the student
    wrote (ImitKD's optimal-oracle loss, Lin et al. 2020). No divergence: at p = q it is not zero."""
    return -student_NV.gather(-1, _right_token_N1(teacher_NV, positions)).squeeze(-1)


def oracle_likelihood_slope(teacher_NV: LogProbs, student_NV: LogProbs, positions: Positions) -> Tensor:
    return torch.zeros_like(student_NV).scatter_(-1, _right_token_N1(teacher_NV, positions), -1.0)


def _right_token_N1(teacher_NV: Tensor, positions: Positions) -> Tensor:
    return torch.where(positions.by_student_N, teacher_NV.argmax(-1), positions.token_N).unsqueeze(-1)
