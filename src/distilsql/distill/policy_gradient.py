"""The weights of a policy gradient of reverse KL (MiniLLM, Gu et al. 2024, eqs. 5 to 7).

Shapes: N completion positions of some completions, T tokens of one. All in nats, without gradient.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class PositionWeights(NamedTuple):
    """Factors of N positions: of the divergence, and of the likelihood of the completion's own tokens. The latter may
    be of either sign; what it adds is a gradient, and nothing to the loss that is logged."""

    divergence_N: Tensor
    likelihood_N: Tensor


def policy_gradient_weights(
    teacher_logp_N: Float[Tensor, " N"],
    student_logp_N: Float[Tensor, " N"],
    drawn_logp_N: Float[Tensor, " N"],
    lengths: Sequence[int],
    *,
    normalise: bool = True,
    clip: float | None = None,
) -> PositionWeights:
    """w_t of the divergence and w_t · R^Norm_{t+1} of the tokens' likelihood, completion after completion.

    `drawn_logp_N` is log p̃ of each token when it was written. The last token has no future: its R is 0. With `clip` ε,
    as PPO has it, a token's reward counts for nothing once w has left [1 − ε, 1 + ε] in its direction.
    """
    ratio_N = (student_logp_N - drawn_logp_N).exp()
    reward_N = teacher_logp_N - student_logp_N
    future_N = torch.cat([_future(reward_T, normalise) for reward_T in reward_N.split(list(lengths))])
    if clip is not None:
        is_out_N = torch.where(future_N > 0, ratio_N > 1 + clip, ratio_N < 1 - clip)
        future_N = future_N.masked_fill(is_out_N, 0.0)
    return PositionWeights(ratio_N, ratio_N * future_N)


def _future(reward_T: Tensor, normalise: bool) -> Tensor:
    """Σ or mean of the rewards after each token; 0 for the last."""
    count = len(reward_T)
    after_T = reward_T.flip(0).cumsum(0).flip(0) - reward_T
    return after_T / torch.arange(count - 1, -1, -1).clamp_min(1) if normalise else after_T
