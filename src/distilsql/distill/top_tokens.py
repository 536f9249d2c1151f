"""A teacher of whom only the k most likely tokens are known, as endpoints give them: all others are one outcome more.

Over these k + 1 outcomes both sides are distributions, so a divergence is never negative, and zero where the two agree
on them. It is an approximation, and from below: merging outcomes hides what differs among them (the data-processing
inequality of f-divergences). Nothing is learnt about the tokens beyond the k but their sum: the gradient leaves the
student's own proportions among them as they are.

Shapes: N positions, V vocabulary entries, K the known tokens, O = K + 1 outcomes.
"""

import math
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distilsql.distill.bridge import LEAST_OTHER
from distilsql.distill.divergence import Divergence, LogProbs, PerPosition


def on_top_tokens(divergence: Divergence, k: int) -> Divergence:
    """The divergence over the teacher's `k` most likely tokens and one outcome for all others.

    Raises:
        ValueError: the divergence reads more than two distributions, or `k` is below 1.
    """
    if divergence.reads_positions:
        raise ValueError(
            f"{divergence.title} reads the completion's tokens, which need not be among the top {k}"
        )
    if k < 1:
        raise ValueError(f"at least one token of the teacher is needed, not {k}")
    return replace(
        divergence,
        title=f"{divergence.title} on the teacher's top {k}",
        value=partial(_value, divergence, k),
        slope=partial(_slope, divergence, k),
    )


def merged(
    teacher_NV: LogProbs, student_NV: LogProbs, k: int
) -> tuple[Float[Tensor, "N O"], Float[Tensor, "N O"], Int[Tensor, "N K"]]:
    """Both distributions over the teacher's top tokens and, last, all others; and which tokens are on top."""
    top_NK = teacher_NV.topk(min(k, teacher_NV.shape[-1])).indices
    p_NO, q_NO = (
        torch.cat([logp_NV.gather(-1, top_NK), _others(logp_NV, top_NK)], -1)
        for logp_NV in (teacher_NV, student_NV)
    )
    return p_NO, q_NO, top_NK


@dataclass(frozen=True)
class TopTokens:
    """Stands for an output layer where a teacher's top `k` tokens are all that is known of it.

    In the place of hidden states are rows of 2k numbers: the tokens' ids, then their log-probabilities. What is left of
    the probability is spread evenly over the other tokens, so that divergences on the top k come out as they should;
    others do not.
    """

    k: int

    def log_probs(self, hidden_ND: Tensor, vocabulary_size: int, temperature: float = 1.0) -> Tensor:
        """Log-probabilities (N, V) over the first `vocabulary_size` tokens. Raises ValueError for a temperature other
        than 1, at which they are not known."""
        if temperature != 1.0:
            raise ValueError(f"top tokens are known at temperature 1, not at {temperature}")
        top_NK, logp_NK = hidden_ND[:, : self.k].long(), hidden_ND[:, self.k :]
        left_N1 = (1 - logp_NK.exp().sum(-1, keepdim=True)).clamp_min(LEAST_OTHER)
        each_N1 = left_N1.log() - math.log(max(vocabulary_size - self.k, 1))
        return each_N1.expand(-1, vocabulary_size).scatter(-1, top_NK, logp_NK)


def kept_probability(teacher_NV: LogProbs, k: int) -> PerPosition:
    """How much of the teacher's probability its top `k` tokens have."""
    return teacher_NV.topk(min(k, teacher_NV.shape[-1])).values.exp().sum(-1)


def _others(logp_NV: LogProbs, top_NK: Tensor) -> Tensor:
    others_N1 = logp_NV.scatter(-1, top_NK, -torch.inf).logsumexp(-1, keepdim=True)
    return others_N1.clamp_min(torch.full((), LEAST_OTHER, dtype=logp_NV.dtype).log().item())


def _value(divergence: Divergence, k: int, teacher_NV: LogProbs, student_NV: LogProbs) -> PerPosition:
    p_NO, q_NO, _ = merged(teacher_NV, student_NV, k)
    return divergence(p_NO, q_NO)


def _slope(divergence: Divergence, k: int, teacher_NV: LogProbs, student_NV: LogProbs) -> Tensor:
    # ∂D/∂q_v is one number for all other tokens, so each has its share, q_v / q_other, of that outcome's slope.
    p_NO, q_NO, top_NK = merged(teacher_NV, student_NV, k)
    slope_NO = divergence.slope(p_NO, q_NO)
    share_NV = (student_NV - q_NO[:, -1:]).exp()
    return (share_NV * slope_NO[:, -1:]).scatter(-1, top_NK, slope_NO[:, :-1])
