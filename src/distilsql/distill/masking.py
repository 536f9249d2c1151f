"""Imperfect completions: mask some gold tokens, let the student predict them, put the predictions in (KID §3).

Everything here works on one completion at a time as a 1-D tensor of token ids; the forward pass that makes
the predictions belongs to the caller. The result has the length of the gold completion, so every gold target
still lines up, and carries no gradient.
"""

import math
from enum import StrEnum

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class MaskStrategy(StrEnum):
    """Which tokens of the gold completion are masked (KID §3; `apart` is not the paper's)."""

    RANDOM = "random"
    UNIFORM = "uniform"
    HARD = "hard"
    EASY = "easy"
    APART = "apart"

    @property
    def needs_entropy(self) -> bool:
        return self in (MaskStrategy.HARD, MaskStrategy.EASY)


def masked_count(length: int, mask_share: float) -> int:
    """⌈share · length⌉, guarded against a share · length that floating point leaves just above an integer.

    Raises:
        ValueError: a share outside [0, 1].
    """
    if not 0 <= mask_share <= 1:
        raise ValueError(f"mask_share must lie in [0, 1], got {mask_share}")
    return min(length, math.ceil(mask_share * length - 1e-9))


def choose_mask_positions(
    length: int,
    count: int,
    strategy: MaskStrategy,
    *,
    rng: np.random.Generator,
    student_entropy_T: Float[Tensor, " T"] | None = None,
) -> Int[Tensor, " M"]:
    """Exactly `count` of the positions 0 … length − 1, in increasing order; `apart` may have to give fewer.

    `random` samples without replacement; `uniform` spaces positions evenly from a random phase; `hard` and
    `easy` take the positions of highest and lowest student entropy on the gold completion (ties broken by
    position, so that the choice is deterministic). `apart` samples evenly among all choices in which no two positions
    are next to each other: at most ⌈length / 2⌉.

    Raises:
        ValueError: more positions than there are, or `hard` or `easy` without entropies.
    """
    if not 0 <= count <= length:
        raise ValueError(f"cannot mask {count} of {length} positions")
    if strategy is MaskStrategy.RANDOM:
        chosen = rng.choice(length, size=count, replace=False)
    elif strategy is MaskStrategy.APART:
        # k positions apart in n are k positions in n − k + 1, each moved on by how many come before it.
        reached = min(count, (length + 1) // 2)
        packed = np.sort(rng.choice(length - reached + 1, size=reached, replace=False))
        chosen = packed + np.arange(reached)
    elif strategy is MaskStrategy.UNIFORM:
        # Positions ⌊(i + phase) · length / count⌋ differ pairwise because the step is at least one.
        phase = rng.random()
        chosen = np.floor((np.arange(count) + phase) * length / max(count, 1)).astype(np.int64)
    else:
        if student_entropy_T is None or len(student_entropy_T) != length:
            raise ValueError(
                f"{strategy.value} masking needs the student's entropy at all {length} positions"
            )
        order = torch.argsort(student_entropy_T, descending=strategy is MaskStrategy.HARD, stable=True)
        chosen = order[:count].cpu().numpy()
    return torch.from_numpy(np.sort(chosen).astype(np.int64))


def touches_the_mask_before(positions_M: Int[Tensor, " M"]) -> Bool[Tensor, " M"]:
    """For each position, in increasing order, whether the position just before it is one of them, too."""
    touches_M = torch.zeros_like(positions_M, dtype=torch.bool)
    touches_M[1:] = positions_M[1:] == positions_M[:-1] + 1
    return touches_M


def mask_completion(
    gold_T: Int[Tensor, " T"], positions_M: Int[Tensor, " M"], mask_token_id: int
) -> Int[Tensor, " T"]:
    """A copy of the gold completion with the mask token at `positions_M`."""
    masked_T = gold_T.clone()
    masked_T[positions_M] = mask_token_id
    return masked_T


def rewrite_completion(
    gold_T: Int[Tensor, " T"], positions_M: Int[Tensor, " M"], predictions_M: Int[Tensor, " M"]
) -> Int[Tensor, " T"]:
    """The imperfect completion ŷ: gold everywhere but at `positions_M`, where the student's predictions stand."""
    imperfect_T = gold_T.clone()
    imperfect_T[positions_M] = predictions_M.to(imperfect_T.dtype)
    return imperfect_T
