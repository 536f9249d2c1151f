"""MiniLLM (Gu et al. 2024): the policy gradient of reverse KL, on what student and teacher write together.

With r_t = log p(y_t) − log q(y_t) along a completion of T tokens and R_t = Σ_{t' ≥ t} r_t', the gradient of the
sequences' KL(q‖p) is split into that of the next token alone, which is exact, and that of the future, which is sampled:

    ∇L = E_{y ~ p̃} Σ_t w_t · ( ∇ KL(q_t‖p_t) − R^Norm_{t+1} · ∇ log q_t(y_t) )          (MiniLLM eq. 7)

- completions are written by the mixture p̃ = α·p + (1 − α)·q, token by token, so that the student does not learn to
  please the teacher with degenerate texts (eq. 4);
- w_t = q(y_t) / p̃(y_t) corrects for that, one token's ratio in place of all tokens' product (eq. 5);
- R^Norm_{t+1} is the mean of r over the tokens after t, not their sum, which would favour short completions (eq. 6).

The first part is the divergence reverse KL with weight w_t; the second is a likelihood of the completion's own tokens
with weight w_t · R^Norm_{t+1}, of either sign, which has a gradient and no value of its own.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from distilsql.distill.policy_gradient import PositionWeights, policy_gradient_weights
from distilsql.inference.loading import Engines
from distilsql.models.generate_mixed import generate_mixed
from distilsql.runs.recipe import Recipe
from distilsql.training.ledger import Ledger
from distilsql.training.sources.source import Trained
from distilsql.training.sources.student import Student, Written
from distilsql.training.window_tree import Use, WindowTree


class TeacherMixed(Student):
    """Student and teacher write together, each token drawn from a mixture of both (MiniLLM)."""

    weighs_positions = True

    def __init__(self, recipe: Recipe, engines: Engines, ledger: Ledger) -> None:
        super().__init__(recipe, engines, ledger)
        self._weight_sum = self._weight_count = 0.0

    def generate(self, batches: Sequence[Sequence[WindowTree]]) -> list[list[list[Written]]]:
        return [self._mixed(items) for items in batches]

    def _mixed(self, items: Sequence[WindowTree]) -> list[list[Written]]:
        teacher, cache = self.engines.teacher, self.engines.teacher_prefixes
        assert teacher is not None
        assert cache is not None
        written = generate_mixed(
            self.engines.student,
            teacher,
            [item.tree for item in items],
            self.generation_options(),
            self.recipe.minillm.teacher_share,
            streams=[item.streams(self.recipe.seed, Use.SAMPLING) for item in items],
            teacher_prefixes=[cache.get(item.prefix_key, item.tree.prefix) for item in items],
        )
        return [[Written(one.tokens, logps=one.logps) for one in tree] for tree in written]

    def weigh(self, trained: Trained, teacher_logp_N: Tensor, student_logp_N: Tensor) -> PositionWeights:
        assert trained.logps is not None
        lengths = [len(completion) for completion in trained.completions]
        drawn_N = torch.tensor([logp for logps in trained.logps for logp in logps], dtype=torch.float64)
        weights = policy_gradient_weights(
            teacher_logp_N.cpu().double(),
            student_logp_N.cpu().double(),
            drawn_N,
            lengths,
            normalise=self.recipe.minillm.length_normalisation,
            clip=self.recipe.minillm.clip,
        )
        self._weight_sum += float(weights.divergence_N.sum())
        self._weight_count += len(weights.divergence_N)
        return weights

    def state(self) -> dict[str, Any]:
        return {"weight_sum": self._weight_sum, "weight_count": self._weight_count}

    def load(self, state: dict[str, Any]) -> None:
        self._weight_sum, self._weight_count = state.get("weight_sum", 0.0), state.get("weight_count", 0.0)

    def summary(self) -> dict[str, Any]:
        """`importance_weight` is the mean of w, whose expectation is 1."""
        return {"importance_weight": self._weight_sum / self._weight_count if self._weight_count else None}
