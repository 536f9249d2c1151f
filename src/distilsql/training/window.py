"""One optimizer window: completions, teacher, loss and backward for each tree, by any method of the table.

The trainer does not know which method it runs; everything that differs between methods is here, in two
questions: which completions are trained on (`window_completions`, and `rewriting.py` for KID) and which terms
the loss has (`_losses`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from distilsql.distill.divergences import DIVERGENCES, Divergence, jensen_shannon_with
from distilsql.distill.loss import Distillation, Likelihood, LossParts, completion_loss
from distilsql.distill.methods import Source
from distilsql.distill.reduction import Reduction, position_weights, window_denominator
from distilsql.inference.loading import Engines
from distilsql.inference.prepare import TokenizedExample
from distilsql.models.generate import GenerationOptions
from distilsql.models.tree import Completion, as_branches, targets
from distilsql.models.tree_model import PromptState, student_hidden
from distilsql.models.vllm_source import VllmSource
from distilsql.runs.recipe import Recipe
from distilsql.training.ledger import Ledger, Phase
from distilsql.training.sources.decode_batches import DecodeTree, decode_batches
from distilsql.training.sources.imperfect import imperfect_completions
from distilsql.training.sources.switch_engine import (
    SwitchedCompletion,
    SwitchOptions,
    ThresholdSchedule,
    switch_generate,
)
from distilsql.training.sources.switch_trace import SwitchTrace
from distilsql.training.sources.writing import write_completions
from distilsql.training.teacher_states.states import run_teacher
from distilsql.training.window_tree import Use, WindowTree


@dataclass(frozen=True)
class Trained:
    """The completions that a tree is trained on; under SWITCH also how many tokens of each the teacher wrote."""

    completions: list[Completion]
    teacher_tokens: tuple[int, ...] | None = None

    @property
    def tokens_from_teacher(self) -> int:
        return sum(self.teacher_tokens or ())

    @property
    def tokens_written(self) -> int:
        """Tokens that the student or the teacher could have written: those of SWITCH."""
        return 0 if self.teacher_tokens is None else sum(map(len, self.completions))


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
    """The method's divergence, or the one the recipe puts in its place."""
    name = recipe.distill.divergence or recipe.row.divergence
    if name is None or not recipe.row.needs_teacher:
        return None
    return jensen_shannon_with(recipe.distill.jsd_beta) if name == "jensen-shannon" else DIVERGENCES[name]


class WindowTrainer:
    """Runs windows for one recipe: generates what is trained on, then accumulates gradients tree by tree."""

    def __init__(self, recipe: Recipe, engines: Engines, ledger: Ledger) -> None:
        self.recipe = recipe
        self.engines = engines
        self.ledger = ledger
        self.divergence = resolve_divergence(recipe)
        self.reduction = Reduction(recipe.distill.reduction)
        self.teacher_completions: dict[str, Completion] = {}
        self.vllm_student: VllmSource | None = None
        self.switch = SwitchOptions(
            recipe.switch.threshold,
            recipe.switch.decay,
            ThresholdSchedule(recipe.switch.schedule),
            recipe.switch.block_length,
        )
        self.switch_trace = SwitchTrace(self.switch)

    # ---- which completions are trained on ----------------------------------------------------------------

    def window_completions(self, items: Sequence[WindowTree]) -> list[Trained]:
        """What each tree is trained on. `items` may be the trees of several windows: they are written in one round.

        Rewritten completions keep gold's length and are made later, in the same pass that trains on them; until
        then gold stands for them.
        """
        source = self.recipe.row.source
        if not source.is_on_policy:
            return [Trained(item.golds) for item in items]
        completions = [self._given(item, source) for item in items]
        from_teacher = [[0] * len(item.examples) for item in items]
        places = [
            (tree, row)
            for tree, each in enumerate(completions)
            for row, one in enumerate(each)
            if one is None
        ]
        with self.ledger.phase(Phase.GENERATION):
            batches = decode_batches(items, places, self.recipe.generation.max_batch_rows)
            for batch, written in zip(batches, self._written(batches, source), strict=True):
                for part, rows in zip(batch, written, strict=True):
                    for (tree, row), one in zip(part.places, rows, strict=True):
                        self.ledger.count("generated_tokens", len(one.tokens))
                        completions[tree][row] = one.tokens
                        from_teacher[tree][row] = sum(one.from_teacher)
        return [
            Trained(
                [one for one in each if one is not None], tuple(counts) if source is Source.SWITCH else None
            )
            for each, counts in zip(completions, from_teacher, strict=True)
        ]

    def _given(self, item: WindowTree, source: Source) -> list[Completion | None]:
        """Per example gold's or the teacher's completion where the mixture draws it, None where the student writes."""
        if source in (Source.STUDENT, Source.SWITCH):
            return [None] * len(item.examples)
        draws = [item.rng(self.recipe.seed, Use.MIXING, row).random() for row in range(len(item.examples))]
        return [
            None if draw < self.recipe.distill.mixture_share else self._fixed(example, source)
            for draw, example in zip(draws, item.examples, strict=True)
        ]

    def _fixed(self, example: TokenizedExample, source: Source) -> Completion:
        if source is Source.GOLD_AND_STUDENT:
            return example.gold
        return self.teacher_completions[example.example.example_id]

    def _written(
        self, batches: Sequence[Sequence[DecodeTree]], source: Source
    ) -> list[list[list[SwitchedCompletion]]]:
        """What the student writes, per batch and tree; only under SWITCH are some tokens the teacher's."""
        if not batches:
            return []
        items = [[part.item for part in batch] for batch in batches]
        if source is Source.SWITCH:
            return [self._switched(batch) for batch in items]
        if self.vllm_student is not None:
            self.vllm_student.refresh()
        written = write_completions(
            self.engines.student,
            self.vllm_student,
            items,
            self.generation_options(),
            seed=self.recipe.seed,
            use=Use.SAMPLING,
        )
        return [[[SwitchedCompletion(one, (), ()) for one in tree] for tree in batch] for batch in written]

    def _switched(self, items: Sequence[WindowTree]) -> list[list[SwitchedCompletion]]:
        teacher, cache = self.engines.teacher, self.engines.teacher_prefixes
        assert teacher is not None
        assert cache is not None
        written = switch_generate(
            self.engines.student,
            teacher,
            [item.tree for item in items],
            self.generation_options(),
            self.switch,
            streams=[item.streams(self.recipe.seed, Use.SAMPLING) for item in items],
            teacher_prefixes=[cache.get(item.prefix_key, item.tree.prefix) for item in items],
        )
        for tree in written:
            for completion in tree:
                self.switch_trace.add(completion)
        return written

    def generation_options(self) -> GenerationOptions:
        """How on-policy and teacher completions are generated."""
        return GenerationOptions(
            self.engines.eos_token_id,
            self.engines.vocabulary_size,
            self.recipe.prompt.max_completion_tokens,
            self.recipe.generation.temperature,
        )

    # ---- training on them --------------------------------------------------------------------------------

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
        row = self.recipe.row
        self.ledger.count("prompt_tokens", item.tree.prompt_tokens)
        state: PromptState | None = None
        if row.source.is_rewritten and self.engines.student.layout == "tree":
            # Prompts run once with gradient; the rewriting pass and the training pass both continue from them.
            with self.ledger.phase(Phase.STUDENT):
                state = self.engines.student.run_prompts(item.tree)
        if row.source.is_rewritten:
            with self.ledger.phase(Phase.GENERATION):
                completions = imperfect_completions(item, state, self.recipe, self.engines, self.ledger)
        teacher_hidden = self._teacher_hidden(item, completions)
        with self.ledger.phase(Phase.STUDENT):
            parts = self._losses(item, completions, teacher_hidden, denominators, state, result)
            total = torch.stack([part.total for part in parts]).sum()
            if torch.isfinite(total):
                total.backward()
        return parts

    def _teacher_hidden(self, item: WindowTree, completions: list[Completion]) -> Tensor | None:
        teacher, cache = self.engines.teacher, self.engines.teacher_prefixes
        if teacher is None or cache is None or self.divergence is None:
            return None
        with self.ledger.phase(Phase.TEACHER):
            if self.engines.teacher_hidden is not None:
                return self.engines.teacher_hidden.of(item.numbers)
            self.ledger.count("teacher_tokens", sum(map(len, completions)))
            return run_teacher(teacher, cache, item.prefix_key, item.tree, completions)

    def _losses(
        self,
        item: WindowTree,
        completions: list[Completion],
        teacher_hidden_NE: Tensor | None,
        denominators: Denominators,
        state: PromptState | None,
        result: WindowLoss,
    ) -> list[LossParts]:
        """The method's terms: divergence on what is trained on, likelihood of gold on the same or its own branches."""
        trained, golds = as_branches(completions), as_branches(item.golds)
        gold_weight = self.recipe.gold_weight
        lines_up = all(len(a) == len(b) for a, b in zip(completions, item.golds, strict=True)) and (
            self.recipe.row.source is Source.GOLD
            or (self.recipe.row.source.is_rewritten and self.recipe.distill.gold_context == "imperfect")
        )
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
