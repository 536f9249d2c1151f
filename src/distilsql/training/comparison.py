"""How teacher and student are compared, as the recipe says: the divergence, a bridge between two vocabularies, or what
is known of the teacher.
"""

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from distilsql.distill.bridge import Bridge
from distilsql.distill.divergence import Divergence
from distilsql.distill.divergences import DivergenceParameters, make_divergence
from distilsql.distill.head import Head
from distilsql.distill.loss import Distillation
from distilsql.distill.top_tokens import kept_probability, on_top_tokens
from distilsql.inference.loading import Engines
from distilsql.runs.recipe import Recipe


def resolve_divergence(recipe: Recipe) -> Divergence | None:
    """The method's divergence, or the one that the recipe sets instead; on the teacher's top tokens where only they are
    known."""
    whole = whole_divergence(recipe)
    return whole if whole is None or recipe.top_k is None else on_top_tokens(whole, recipe.top_k)


def whole_divergence(recipe: Recipe) -> Divergence | None:
    """The same on all tokens."""
    name = recipe.divergence
    if name is None:
        return None
    chosen = {each.name: getattr(recipe.distill, each.name) for each in fields(DivergenceParameters)}
    return make_divergence(name, DivergenceParameters(**chosen))


def make_bridge(recipe: Recipe, engines: Engines) -> Bridge | None:
    """How distributions over two vocabularies are compared (`teacher.bridge`); None where there is one."""
    if engines.translator is None or recipe.teacher is None:
        return None
    divergence = resolve_divergence(recipe) if recipe.teacher.bridge == "hybrid" else None
    known = engines.translator.vocabularies.on(engines.student.device)
    return Bridge(known, divergence, recipe.distill.uld_weight)


class Truncation:
    """What `teacher.top_k` leaves out, measured on the completions of the first step.

    With several processes those are the first one's. `whole` is the divergence on all tokens; None where an endpoint's
    top tokens are all that is known.
    """

    def __init__(self, k: int, whole: Divergence | None) -> None:
        self.k, self._whole = k, whole
        self._sums = {"positions": 0.0, "kept": 0.0, "divergence": 0.0}
        if whole is not None:
            self._sums["whole_divergence"] = 0.0

    @classmethod
    def of(cls, recipe: Recipe) -> "Truncation | None":
        """None where the teacher is known whole."""
        if recipe.top_k is None:
            return None
        return cls(recipe.top_k, whole_divergence(recipe) if recipe.loads_teacher else None)

    @torch.no_grad()
    def measure(
        self, distillation: Distillation, hidden_ND: Tensor, head: Head, vocabulary_size: int, chunk_rows: int
    ) -> None:
        """Adds the positions of one tree, `chunk_rows` rows of logits at a time."""
        for teacher_RE, student_RD in zip(
            distillation.hidden_NE.split(chunk_rows), hidden_ND.detach().split(chunk_rows), strict=True
        ):
            teacher_RV = distillation.head.log_probs(teacher_RE, vocabulary_size)
            student_RV = head.log_probs(student_RD, vocabulary_size)
            self._sums["kept"] += float(kept_probability(teacher_RV, self.k).sum())
            self._sums["divergence"] += float(distillation.divergence(teacher_RV, student_RV).sum())
            if self._whole is not None:
                self._sums["whole_divergence"] += float(self._whole(teacher_RV, student_RV).sum())
            self._sums["positions"] += len(teacher_RV)

    def state(self) -> dict[str, Any]:
        return dict(self._sums)

    def load(self, state: dict[str, Any]) -> None:
        self._sums = dict(state)

    def summary(self) -> dict[str, Any]:
        """`teacher_top_k`: k; and, means over positions of the first step, the probability `kept` by the teacher's top
        tokens, the divergence on them, and that on all tokens where they are known, in nats."""
        positions = max(self._sums["positions"], 1)
        means = {name: total / positions for name, total in self._sums.items() if name != "positions"}
        return {"teacher_top_k": {"k": self.k, "positions": int(self._sums["positions"]), **means}}
