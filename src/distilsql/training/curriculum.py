"""DistiLLM-2's curriculum (Ko et al. 2025): a skew for each completion, and weights that move to the student's side.

The skew of a completion follows from its gap (`distill/contrastive.py`) and from the mean gap m of the completions of
its side, which is that of the steps done so far while the first epoch lasts, and stays from then on. In the first step
all have the recipe's skew. That m is taken from the first epoch is ASSUMED: the authors' code has the formula and does
not say where m comes from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from distilsql.distill.contrastive import adapted_skew, completion_gaps


@dataclass
class Sides:
    """Sums over the completions of some steps, the teacher's side first, the student's second: of their gaps, of their
    skews, and how many there are."""

    gap: list[float] = field(default_factory=lambda: [0.0, 0.0])
    skew: list[float] = field(default_factory=lambda: [0.0, 0.0])
    completions: list[float] = field(default_factory=lambda: [0.0, 0.0])

    def values(self) -> list[float]:
        return [*self.gap, *self.skew, *self.completions]

    @classmethod
    def of(cls, values: Sequence[float]) -> "Sides":
        """From its `values`."""
        return cls(list(values[:2]), list(values[2:4]), list(values[4:6]))

    def __add__(self, other: "Sides") -> "Sides":
        return Sides.of([a + b for a, b in zip(self.values(), other.values(), strict=True)])

    def mean_gap(self, side: int) -> float | None:
        return self.gap[side] / self.completions[side] if self.completions[side] else None

    def mean_skew(self, side: int) -> float | None:
        return self.skew[side] / self.completions[side] if self.completions[side] else None


class SkewCurriculum:
    """What the skews of a run are taken from. All processes hold the same sums."""

    def __init__(self, largest: float) -> None:
        self._largest = largest
        self._first_epoch, self._whole_run = Sides(), Sides()

    def skews(
        self, teacher_logp_N: Tensor, student_logp_N: Tensor, lengths: Sequence[int], by_student_C: Tensor
    ) -> tuple[Tensor, Sides]:
        """The skew of each completion, in float64, and what there is to `learn` of them. No gradient flows."""
        gap_C = completion_gaps(
            teacher_logp_N.detach().double(), student_logp_N.detach().double(), lengths, by_student_C
        )
        skew_C = torch.full_like(gap_C, self._largest)
        found = Sides()
        for side in (0, 1):
            own_C = by_student_C == bool(side)
            reference = self._first_epoch.mean_gap(side)
            if reference is not None:
                skew_C[own_C] = adapted_skew(gap_C[own_C], reference, largest=self._largest)
            found.gap[side], found.skew[side] = float(gap_C[own_C].sum()), float(skew_C[own_C].sum())
            found.completions[side] = float(own_C.sum())
        return skew_C, found

    def learn(self, sides: Sides, *, is_in_first_epoch: bool) -> None:
        """What a step found, over all processes."""
        self._whole_run += sides
        if is_in_first_epoch:
            self._first_epoch += sides

    def state(self) -> dict[str, Any]:
        return {"first_epoch": self._first_epoch.values(), "whole_run": self._whole_run.values()}

    def load(self, state: dict[str, Any]) -> None:
        self._first_epoch, self._whole_run = Sides.of(state["first_epoch"]), Sides.of(state["whole_run"])

    def summary(self) -> dict[str, Any]:
        """`skew`: of each side the reference gap and the mean skew of the run."""
        sides = ("teacher", "student")
        return {
            "skew": {
                f"{name}_side": {
                    "reference_gap": self._first_epoch.mean_gap(side),
                    "mean_skew": self._whole_run.mean_skew(side),
                }
                for side, name in enumerate(sides)
            }
        }


def side_factors(by_student_C: Tensor, share_done: float) -> Tensor:
    """Weights of completions that grow on the student's side: β there and 2 − β on the teacher's, β from 1 to 1.5 over
    the first half of the steps, as in the authors' code."""
    beta = 1 + 0.5 * min(1.0, 2 * share_done)
    return torch.where(by_student_C, beta, 2 - beta)
