"""Adaptive teaching (ATKD; Zhong et al. 2024, “Revisiting Knowledge Distillation for Autoregressive Language Models”).

With g the completion's token, forward KL is KL(p‖q) = T + u·D, where

- T, target-oriented: the KL of (p_g, 1 − p_g) from (q_g, 1 − q_g);
- D, diversity-oriented: the KL of p from q over all other tokens, both renormalised over them;
- u = 1 − p_g, the teacher's uncertainty, by which D counts for nothing where the teacher is sure.

ATKD frees D of u, and leaves T out where the teacher is sure: λ·D on easy positions, (1 − λ)·(T + D) on hard ones,
which are the share k of positions with the highest u. The paper's λ is 0.2 and its k 50 %.
"""

import torch
from torch import Tensor

from distilsql.distill.divergence import LogProbs, PerPosition, Positions


def target_and_diversity(
    teacher_NV: LogProbs, student_NV: LogProbs, positions: Positions
) -> tuple[PerPosition, PerPosition]:
    """T and D at every position, in nats."""
    token_N1 = positions.token_N.unsqueeze(-1)
    (p_N, rest_p_N, p_hat_NV), (q_N, rest_q_N, q_hat_NV) = (
        _split(each_NV, token_N1) for each_NV in (teacher_NV, student_NV)
    )
    target_N = p_N.exp() * (p_N - q_N) + rest_p_N.exp() * (rest_p_N - rest_q_N)
    other_NV = torch.ones_like(p_hat_NV, dtype=torch.bool).scatter_(-1, token_N1, False)
    # The token itself has −∞ on both sides: it is taken out before the difference, which would be no number.
    difference_NV = torch.where(other_NV, p_hat_NV, 0) - torch.where(other_NV, q_hat_NV, 0)
    return target_N, (p_hat_NV.exp() * difference_NV).sum(-1)


def adaptive_teaching(
    teacher_NV: LogProbs, student_NV: LogProbs, positions: Positions, *, easy_weight: float = 0.2
) -> PerPosition:
    """λ·D on easy positions, (1 − λ)·(T + D) on hard ones."""
    target_N, diversity_N = target_and_diversity(teacher_NV, student_NV, positions)
    hard_N = (1 - easy_weight) * (target_N + diversity_N)
    return torch.where(positions.is_hard_N, hard_N, easy_weight * diversity_N)


def adaptive_teaching_slope(
    teacher_NV: LogProbs, student_NV: LogProbs, positions: Positions, *, easy_weight: float = 0.2
) -> Tensor:
    # D: q̂ − p̂. T: −p_g at the token, −(1 − p_g)·q̂ elsewhere. The token's entries of p̂ and q̂ are 0.
    token_N1 = positions.token_N.unsqueeze(-1)
    p_N, rest_p_N, p_hat_NV = _split(teacher_NV, token_N1)
    _, _, q_hat_NV = _split(student_NV, token_N1)
    q_hat_NV = q_hat_NV.exp()
    slope_NV = q_hat_NV - p_hat_NV.exp()
    target_NV = (-rest_p_N.exp()).unsqueeze(-1) * q_hat_NV
    target_NV.scatter_(-1, token_N1, -p_N.exp().unsqueeze(-1))
    hard_N1 = positions.is_hard_N.unsqueeze(-1)
    return torch.where(hard_N1, (1 - easy_weight) * (slope_NV + target_NV), easy_weight * slope_NV)


def _split(logp_NV: Tensor, token_N1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log p of the token, log (1 − p of the token), and log p over the others, renormalised; −∞ at the token."""
    others_NV = logp_NV.scatter(-1, token_N1, -torch.inf)
    rest_N = others_NV.logsumexp(-1)
    return logp_NV.gather(-1, token_N1).squeeze(-1), rest_N, others_NV - rest_N.unsqueeze(-1)
