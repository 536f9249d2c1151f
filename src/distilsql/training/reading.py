"""What the teacher says of the completions that are trained on, and which positions of a window are hard for it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distilsql.distill.divergence import Positions
from distilsql.distill.masking import masked_count
from distilsql.models.tree import targets
from distilsql.training.sources.source import Trained


@dataclass(frozen=True)
class Reading:
    """The teacher's hidden states (N, E) at a tree's completion positions, and the log-probabilities (N) that it gives
    the tokens there, where something asks for them."""

    hidden_NE: Tensor
    token_logp_N: Tensor | None = None

    @property
    def logps(self) -> list[float]:
        return [] if self.token_logp_N is None else self.token_logp_N.tolist()


@dataclass
class Survey:
    """A window's readings, tree by tree of this process, of which the first `counted` are of trees that count.
    `hard_below` is over all processes: the log-probability up to which positions are hard."""

    readings: list[Reading]
    counted: int
    hard_below: float = -np.inf

    @property
    def logps(self) -> list[float]:
        return [logp for reading in self.readings[: self.counted] for logp in reading.logps]


def hard_threshold(logps: Sequence[float], share: float) -> float:
    """The log-probability up to which positions are hard, so that ⌈share · N⌉ of them are (more only where equal)."""
    return sorted(logps)[masked_count(len(logps), share) - 1] if len(logps) and share else -np.inf


def positions_of(
    trained: Trained, token_logp_N: Tensor | None, hard_below: float, device: torch.device
) -> Positions:
    """What a divergence may read of the positions of a tree's completions. Without log-probabilities none is hard."""
    token_N = targets(trained.branches()).to(device)
    lengths = torch.tensor([len(completion) for completion in trained.completions], dtype=torch.int64)
    is_hard_N = (
        torch.zeros_like(token_N, dtype=torch.bool)
        if token_logp_N is None
        else (token_logp_N <= hard_below).to(device)
    )
    return Positions(token_N, torch.repeat_interleave(trained.by_student_C, lengths).to(device), is_hard_N)
