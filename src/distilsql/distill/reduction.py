"""How the per-position losses of an optimizer window become one number.

Both reductions give each completion position a weight; the loss is the weighted sum over all positions of
all micro-batches and ranks. Weights therefore depend on counts over the whole window, taken after the
completions are known (a generated completion has a length of its own).
"""

from collections.abc import Sequence
from enum import StrEnum

import torch
from jaxtyping import Float
from torch import Tensor


class Reduction(StrEnum):
    """`per_completion`: mean over a completion's tokens, then over completions (KID eq. 2; the default).
    `per_token`: one mean over all tokens of the window."""

    PER_COMPLETION = "per_completion"
    PER_TOKEN = "per_token"


def window_denominator(lengths: Sequence[int], reduction: Reduction) -> int:
    """What this rank contributes to the window's denominator: completions or tokens. Sum over ranks before use.

    An empty completion has no position to learn from and counts for nothing.
    """
    if reduction is Reduction.PER_COMPLETION:
        return sum(1 for length in lengths if length > 0)
    return sum(lengths)


def position_weights(lengths: Sequence[int], reduction: Reduction, denominator: int) -> Float[Tensor, " N"]:
    """The weight of each of the N = Σ lengths positions, completion after completion.

    `denominator` is the sum of `window_denominator` over the window (all micro-batches, all ranks).

    Raises:
        ValueError: the denominator is not positive although there are positions to weigh.
    """
    if sum(lengths) and denominator <= 0:
        raise ValueError(f"{sum(lengths)} positions to weigh but the window's denominator is {denominator}")
    repeats = torch.tensor(list(lengths), dtype=torch.int64)
    per_completion = 1.0 / (repeats * denominator) if reduction is Reduction.PER_COMPLETION else None
    if per_completion is None:
        return torch.full((int(repeats.sum()),), 1.0 / max(denominator, 1))
    return torch.repeat_interleave(per_completion, repeats)
