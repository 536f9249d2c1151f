"""One optimizer window: completions, teacher, loss and backward for each tree, by any method of the table.

No method or source is mentioned here: the recipe's row gives the divergence and the weight of the gold likelihood, and
its source (`training/sources`) writes the completions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from distilsql.distill.divergences import DIVERGENCES, Divergence, jensen_shannon_with
from distilsql.distill.loss import Distillation, Likelihood, LossParts, completion_loss
from distilsql.distill.reduction import Reduction, position_weights, window_denominator
from distilsql.inference.loading import Engines
from distilsql.models.tree import Completion, as_branches, targets
from distilsql.models.tree_model import PromptState, student_hidden
from distilsql.runs.recipe import Recipe
from distilsql.training.frozen_teacher import FrozenTeacher
from distilsql.training.ledger import Ledger, Phase
from distilsql.training.sources.source import Trained, source_class
from distilsql.training.window_tree import WindowTree


@dataclass
class WindowLoss:
    """Sums over a window for the log; `total` is the loss that was differentiated."""

    total: float = 0.0
    divergence: float = 0.0
    negative_log_likelihood: float = 0.0
    divergence_positions: int = 0
    likelihood_positions: int = 0
    examples: int = 0
    finite: bool = True
    tokens_from_teacher: int = 0
    tokens_written: int = 0
    culprits: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Denominators:
    """Over the whole window, all ranks: of the divergence term and of the likelihood term."""

    trained: int
    gold: int


def resolve_divergence(recipe: Recipe) -> Divergence | None:
    """The method's divergence, or the one that the recipe sets instead."""
    name = recipe.distill.divergence or recipe.row.divergence
    if name is None or not recipe.row.needs_teacher:
        return None
    return jensen_shannon_with(recipe.distill.jsd_beta) if name == "jensen-shannon" else DIVERGENCES[name]


class WindowTrainer:
    """Runs windows for one recipe: its source writes what is trained on, then gradients accumulate tree by tree."""

    def __init__(self, recipe: Recipe, engines: Engines, ledger: Ledger) -> None:
        self.recipe, self.engines, self.ledger = recipe, engines, ledger
        self.divergence = resolve_divergence(recipe)
        self.reduction = Reduction(recipe.distill.reduction)
        self.source = source_class(recipe)(recipe, engines, ledger)
        self.teacher = FrozenTeacher(engines, ledger)

    def denominators(self, items: Sequence[WindowTree], trained: Sequence[Trained]) -> Denominators:
        """This rank's share of the window's denominators; to be summed over ranks."""
        lengths = [len(completion) for each in trained for completion in each.completions]
        golds = [len(gold) for item in items for gold in item.golds]
        return Denominators(
            window_denominator(lengths, self.reduction), window_denominator(golds, self.reduction)
        )

    def accumulate(
        self,
        items: Sequence[WindowTree],
        trained: Sequence[Trained],
        denominators: Denominators,
    ) -> WindowLoss:
        """Loss and gradients of this rank's trees, one tree at a time."""
        result = WindowLoss()
        for item, each in zip(items, trained, strict=True):
            parts = self._tree(item, each.completions, denominators, result)
            result.examples += len(item.examples)
            result.tokens_from_teacher += each.tokens_from_teacher
            result.tokens_written += each.tokens_written
            total = float(sum(part.total.detach() for part in parts))
            result.total += total
            if not np.isfinite(total):
                result.finite = False
                result.culprits += [example.example.example_id for example in item.examples]
        return result

    def _tree(
        self, item: WindowTree, completions: list[Completion], denominators: Denominators, result: WindowLoss
    ) -> list[LossParts]:
        self.ledger.count("prompt_tokens", item.tree.prompt_tokens)
        state: PromptState | None = None
        if self.source.rewrites:
            if self.engines.student.layout == "tree":
                # Prompts run once with gradient; the rewriting pass and the training pass both continue from them.
                with self.ledger.phase(Phase.STUDENT):
                    state = self.engines.student.run_prompts(item.tree)
            with self.ledger.phase(Phase.GENERATION):
                completions = self.source.rewrite(item, state)
        teacher_hidden = None if self.divergence is None else self.teacher.hidden(item, completions)
        with self.ledger.phase(Phase.STUDENT):
            parts = self._losses(item, completions, teacher_hidden, denominators, state, result)
            total = torch.stack([part.total for part in parts]).sum()
            if torch.isfinite(total):
                total.backward()
        return parts

    def _losses(
        self,
        item: WindowTree,
        completions: list[Completion],
        teacher_hidden_NE: Tensor | None,
        denominators: Denominators,
        state: PromptState | None,
        result: WindowLoss,
    ) -> list[LossParts]:
        """The terms of the loss: divergence on the completions; gold likelihood on the same branches or its own."""
        trained, golds = as_branches(completions), as_branches(item.golds)
        gold_weight = self.recipe.gold_weight
        lines_up = self.source.lines_up_with_gold()
        own_gold = gold_weight > 0 and not lines_up
        hidden_ND = student_hidden(
            self.engines.student, item.tree, trained + golds if own_gold else trained, state
        )
        self.ledger.count("student_tokens", len(hidden_ND))
        rows = sum(map(len, completions))
        distillation = self._distillation(teacher_hidden_NE, completions, denominators.trained)
        likelihood = self._likelihood(item.golds, gold_weight, denominators.gold) if gold_weight > 0 else None
        parts: list[LossParts] = []
        if lines_up:
            parts.append(self._loss(hidden_ND, distillation, likelihood))
        else:
            if distillation is not None:
                parts.append(self._loss(hidden_ND[:rows], distillation, None))
            if likelihood is not None:
                parts.append(self._loss(hidden_ND[rows:], None, likelihood))
        self._log(parts, result, distillation is not None, likelihood is not None)
        return parts

    def _loss(
        self, hidden_ND: Tensor, distillation: Distillation | None, likelihood: Likelihood | None
    ) -> LossParts:
        return completion_loss(
            hidden_ND,
            self.engines.student.head(),
            vocabulary_size=self.engines.vocabulary_size,
            distillation=distillation,
            likelihood=likelihood,
            chunk_rows=self.recipe.train.loss_chunk_rows,
        )

    def _distillation(
        self, teacher_hidden_NE: Tensor | None, completions: list[Completion], denominator: int
    ) -> Distillation | None:
        if teacher_hidden_NE is None or self.divergence is None or self.engines.teacher is None:
            return None
        weights = position_weights(
            [len(completion) for completion in completions], self.reduction, denominator
        )
        return Distillation(
            teacher_hidden_NE,
            self.engines.teacher.head(),
            self.divergence,
            weights.to(teacher_hidden_NE.device),
            self.recipe.distill.temperature,
        )

    def _likelihood(self, golds: list[Completion], gold_weight: float, denominator: int) -> Likelihood:
        device = self.engines.student.device
        weights = position_weights([len(gold) for gold in golds], self.reduction, denominator) * gold_weight
        return Likelihood(targets(as_branches(golds)).to(device), weights.to(device))

    @staticmethod
    def _log(parts: list[LossParts], result: WindowLoss, has_divergence: bool, has_likelihood: bool) -> None:
        if has_divergence:
            result.divergence += float(parts[0].divergence_N.sum())
            result.divergence_positions += len(parts[0].divergence_N)
        if has_likelihood:
            result.negative_log_likelihood += float(parts[-1].negative_log_likelihood_N.sum())
            result.likelihood_positions += len(parts[-1].negative_log_likelihood_N)
