"""What a divergence is: a function of teacher and student per position, with the slope that its gradient needs.

Shapes: N positions, V vocabulary entries. Inputs are natural-log probabilities in float32 (or float64); the teacher
always comes first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

LogProbs = Float[Tensor, "N V"]
PerPosition = Float[Tensor, " N"]


@dataclass(frozen=True)
class Positions:
    """What a divergence may read of positions beside the two distributions.

    `token_N` is the completion's token there, `by_student_N` whether the student wrote the completion, and `is_hard_N`
    whether the position is among those of the window where the teacher gives that token least (`hard_share`).
    `skew_N` is the skew of each position's completion, where it has one of its own.
    """

    token_N: Int[Tensor, " N"]
    by_student_N: Bool[Tensor, " N"]
    is_hard_N: Bool[Tensor, " N"]
    skew_N: Float[Tensor, " N"] | None = None

    def rows(self, rows: slice) -> "Positions":
        return Positions(
            self.token_N[rows],
            self.by_student_N[rows],
            self.is_hard_N[rows],
            None if self.skew_N is None else self.skew_N[rows],
        )


@dataclass(frozen=True)
class Divergence:
    """A divergence together with its slope. Call it with (teacher, student) log-probabilities, teacher first.

    One that `reads_positions` takes them as its third argument, in `value` and in `slope`. `hard_share` is the share
    of a window's positions that it wants marked as hard; 0 where it does not ask.
    """

    name: str
    title: str
    value: Callable[..., Tensor]
    slope: Callable[..., Tensor]
    reads_positions: bool = False
    hard_share: float = 0.0

    def __call__(self, teacher_NV: Tensor, student_NV: Tensor, positions: Positions | None = None) -> Tensor:
        return self.value(teacher_NV, student_NV, *self._beside(positions))

    def logit_gradient(
        self, teacher_NV: Tensor, student_NV: Tensor, positions: Positions | None = None
    ) -> Tensor:
        """∂D/∂(student logits), shape (N, V)."""
        slope_NV = self.slope(teacher_NV, student_NV, *self._beside(positions))
        return slope_NV.sub_(student_NV.exp().mul_(slope_NV.sum(-1, keepdim=True)))

    def _beside(self, positions: Positions | None) -> tuple[Any, ...]:
        """Raises ValueError where positions are needed and not given."""
        if not self.reads_positions:
            return ()
        if positions is None:
            raise ValueError(f"{self.title} reads the completion's tokens: give it the positions")
        return (positions,)
