"""Adaptive KL (AKL; Wu et al. 2024, “Rethinking Kullback-Leibler Divergence in Knowledge Distillation for LLMs”).

Forward KL fits the head of the teacher's distribution first and reverse KL its tail. AKL adds both, each weighted by
how much of |p − q| lies in its part: AKL = h·KL(p‖q) + (1 − h)·KL(q‖p).
"""

import torch
from torch import Tensor

from distilsql.distill.divergence import LogProbs, PerPosition


def head_gap_share(teacher_NV: LogProbs, student_NV: LogProbs, head_mass: float) -> PerPosition:
    """h: the share of Σ|p − q| that lies in the teacher's head; 1/2 where the two agree.

    The head is the most likely tokens whose probabilities add up to no more than `head_mass` (the paper's μ), and the
    first in any case, as in the authors' code. No gradient flows through h, as in that code.
    """
    sorted_NV, order_NV = teacher_NV.detach().exp().sort(-1, descending=True)
    gap_NV = (sorted_NV - student_NV.detach().exp().gather(-1, order_NV)).abs()
    is_head_NV = sorted_NV.cumsum(-1) <= head_mass
    is_head_NV[:, 0] = True
    head_N, all_N = (gap_NV * is_head_NV).sum(-1), gap_NV.sum(-1)
    return torch.where(all_N > 0, head_N / all_N.clamp_min(torch.finfo(all_N.dtype).tiny), 0.5)


def adaptive_kl(teacher_NV: LogProbs, student_NV: LogProbs, *, head_mass: float = 0.5) -> PerPosition:
    """h·KL(p‖q) + (1 − h)·KL(q‖p)."""
    head_N = head_gap_share(teacher_NV, student_NV, head_mass)
    difference_NV = teacher_NV - student_NV
    forward_N = (teacher_NV.exp() * difference_NV).sum(-1)
    reverse_N = -(student_NV.exp() * difference_NV).sum(-1)
    return head_N * forward_N + (1 - head_N) * reverse_N


def adaptive_kl_slope(teacher_NV: LogProbs, student_NV: LogProbs, *, head_mass: float = 0.5) -> Tensor:
    head_N1 = head_gap_share(teacher_NV, student_NV, head_mass).unsqueeze(-1)
    reverse_NV = student_NV.exp() * (student_NV - teacher_NV)
    return (1 - head_N1) * reverse_NV - head_N1 * teacher_NV.exp()
