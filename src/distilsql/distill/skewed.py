"""Skewed KL divergences (DistiLLM, Ko et al. 2024): a little of the left side is mixed into the right."""

import math

import torch
from torch import Tensor

from distilsql.distill.divergence import LogProbs, PerPosition

Skew = float | Tensor  # between 0 and 1: one for all positions, or (N, 1)


def log_mixture(teacher_NV: LogProbs, student_NV: LogProbs, teacher_share: Skew) -> LogProbs:
    """log(share·p + (1 − share)·q), computed without leaving log space."""
    if isinstance(teacher_share, Tensor):
        return torch.logaddexp(
            teacher_NV + torch.log(teacher_share), student_NV + torch.log1p(-teacher_share)
        )
    log_share = math.log(teacher_share), math.log1p(-teacher_share)
    return torch.logaddexp(teacher_NV + log_share[0], student_NV + log_share[1])


def skewed_forward_kl(teacher_NV: LogProbs, student_NV: LogProbs, *, skew: Skew = 0.1) -> PerPosition:
    """KL(p ‖ skew·p + (1−skew)·q). DistiLLM (Ko et al. 2024), whose default skew is 0.1."""
    return (teacher_NV.exp() * (teacher_NV - log_mixture(teacher_NV, student_NV, skew))).sum(-1)


def skewed_forward_kl_slope(teacher_NV: LogProbs, student_NV: LogProbs, *, skew: Skew = 0.1) -> LogProbs:
    log_m_NV = log_mixture(teacher_NV, student_NV, skew)
    return -(1 - skew) * (teacher_NV + student_NV - log_m_NV).exp()


def skewed_reverse_kl(teacher_NV: LogProbs, student_NV: LogProbs, *, skew: Skew = 0.1) -> PerPosition:
    """KL(q ‖ (1−skew)·p + skew·q). DistiLLM (Ko et al. 2024)."""
    log_m_NV = log_mixture(teacher_NV, student_NV, 1 - skew)
    return (student_NV.exp() * (student_NV - log_m_NV)).sum(-1)


def skewed_reverse_kl_slope(teacher_NV: LogProbs, student_NV: LogProbs, *, skew: Skew = 0.1) -> LogProbs:
    log_m_NV = log_mixture(teacher_NV, student_NV, 1 - skew)
    q_NV = student_NV.exp()
    return q_NV * (student_NV - log_m_NV - skew * (student_NV - log_m_NV).exp())
