"""One optimizer window: completions, teacher, loss and backward for each tree, by any method of the table.

No method or source is mentioned here: the recipe's row gives the divergence and the weight of the gold likelihood, and
its source (`training/sources`) writes the completions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distilsql.distill.bridge import AlignedSpans, joined, span_weights
from distilsql.distill.head import LogProbsOf, token_log_probs
from distilsql.distill.loss import Bridged, Distillation, Likelihood, LossParts, completion_loss
from distilsql.distill.reduction import Reduction, position_weights, window_denominator
from distilsql.inference.loading import Engines
from distilsql.models.tree import Branch, Completion, as_branches, targets
from distilsql.models.tree_model import PromptState, student_hidden
from distilsql.runs.recipe import Recipe
from distilsql.training.comparison import Truncation, make_bridge, resolve_divergence
from distilsql.training.curriculum import Sides, SkewCurriculum, side_factors
from distilsql.training.frozen_teacher import FrozenTeacher
from distilsql.training.ledger import Ledger, Phase
from distilsql.training.reading import Reading, Survey, hard_threshold, positions_of
from distilsql.training.remote_teacher import RemoteTeacher
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
    sides: Sides = field(default_factory=Sides)
    culprits: list[str] = field(default_factory=list)

    def add(self, part: LossParts, *, has_divergence: bool, has_likelihood: bool) -> None:
        """Count a term's positions for the log."""
        if has_divergence:
            self.divergence += float(part.divergence_N.sum())
            self.divergence_positions += len(part.divergence_N)
        if has_likelihood:
            self.negative_log_likelihood += float(part.negative_log_likelihood_N.sum())
            self.likelihood_positions += len(part.negative_log_likelihood_N)


@dataclass(frozen=True)
class Denominators:
    """Over the whole window, all ranks: of the divergence term and of the likelihood term."""

    trained: int
    gold: int


@dataclass(frozen=True)
class StandIn:
    """A tree that a process runs beside those of the others, with a loss of weight zero: sharded models are run by all
    processes at once."""

    item: WindowTree
    trained: Trained


class WindowTrainer:
    """Runs windows for one recipe: its source writes what is trained on, then gradients accumulate tree by tree.

    `share_done` is the share of the training's steps that are done; the loop keeps it.
    """

    share_done: float = 0.0

    def __init__(self, recipe: Recipe, engines: Engines, ledger: Ledger) -> None:
        self.recipe, self.engines, self.ledger = recipe, engines, ledger
        self.divergence = resolve_divergence(recipe)
        self.bridge = make_bridge(recipe, engines)
        self.reduction = Reduction(recipe.distill.reduction)
        self.source = source_class(recipe)(recipe, engines, ledger)
        remote = RemoteTeacher.of(recipe, engines.tokenizer, engines.vocabulary_size)
        self.teacher = FrozenTeacher(engines, ledger, remote)
        adapts = recipe.distill.skew_schedule == "adaptive"
        self.curriculum = SkewCurriculum(recipe.distill.skew) if adapts else None
        self.truncation = Truncation.of(recipe)

    def learn(self, loss: WindowLoss, *, is_in_first_epoch: bool) -> None:
        """What a finished step says of the next ones; `loss` is of all processes."""
        if self.curriculum is not None:
            self.curriculum.learn(loss.sides, is_in_first_epoch=is_in_first_epoch)

    @property
    def _stateful(self) -> dict[str, SkewCurriculum | Truncation]:
        named = {"curriculum": self.curriculum, "truncation": self.truncation}
        return {name: part for name, part in named.items() if part is not None}

    def state(self) -> dict[str, Any]:
        """For a checkpoint, as JSON; `load` restores it."""
        return {**self.source.state(), **{name: part.state() for name, part in self._stateful.items()}}

    def load(self, state: dict[str, Any]) -> None:
        parts = self._stateful
        self.source.load({key: value for key, value in state.items() if key not in parts})
        for name, part in parts.items():
            if name in state:
                part.load(state[name])

    def summary(self) -> dict[str, Any]:
        """What the method adds to summary.json."""
        parts = [part.summary() for part in (self.source, *self._stateful.values())]
        return {key: value for part in parts for key, value in part.items()}

    def denominators(self, items: Sequence[WindowTree], trained: Sequence[Trained]) -> Denominators:
        """This rank's share of the window's denominators; to be summed over ranks."""
        lengths = [len(completion) for each in trained for completion in each.completions]
        golds = [len(gold) for item in items for gold in item.golds]
        return Denominators(
            window_denominator(lengths, self.reduction), window_denominator(golds, self.reduction)
        )

    def survey(
        self, items: Sequence[WindowTree], trained: Sequence[Trained], stand_in: StandIn | None = None
    ) -> Survey | None:
        """This rank's readings of a window, for a divergence that asks which of its positions are hard. None for
        others, and where completions are not known before they are rewritten: each tree is then judged by itself."""
        if not self._wants_token_logps or self.source.rewrites:
            return None
        readings = [self._read(item, each) for item, each in zip(items, trained, strict=True)]
        if stand_in is not None:
            readings.append(self._read(stand_in.item, stand_in.trained))
        return Survey([reading for reading in readings if reading is not None], counted=len(items))

    def judge(self, survey: Survey, logps: Sequence[float]) -> None:
        """Which positions are hard, from the log-probabilities of all processes."""
        survey.hard_below = hard_threshold(logps, self.divergence.hard_share if self.divergence else 0.0)

    def accumulate(
        self,
        items: Sequence[WindowTree],
        trained: Sequence[Trained],
        denominators: Denominators,
        survey: Survey | None = None,
        stand_in: StandIn | None = None,
    ) -> WindowLoss:
        """Loss and gradients of this rank's trees, one tree at a time."""
        result = WindowLoss()
        for number, (item, each) in enumerate(zip(items, trained, strict=True)):
            parts = self._tree(item, each, denominators, result, survey, number, weight=1.0)
            result.examples += len(item.examples)
            result.tokens_from_teacher += each.tokens_from_teacher
            result.tokens_written += each.tokens_written
            total = float(sum(part.total.detach() for part in parts))
            result.total += total
            if not np.isfinite(total):
                result.finite = False
                result.culprits += [example.example.example_id for example in item.examples]
        if stand_in is not None:
            uncounted = WindowLoss()
            self._tree(
                stand_in.item, stand_in.trained, denominators, uncounted, survey, len(items), weight=0.0
            )
        return result

    def _tree(
        self,
        item: WindowTree,
        trained: Trained,
        denominators: Denominators,
        result: WindowLoss,
        survey: Survey | None,
        number: int,
        *,
        weight: float,
    ) -> list[LossParts]:
        self.ledger.count("prompt_tokens", item.tree.prompt_tokens)
        state: PromptState | None = None
        if self.source.rewrites:
            if self.engines.student.layout == "tree":
                # Prompts run once with gradient; the rewriting pass and the training pass both continue from them.
                with self.ledger.phase(Phase.STUDENT):
                    state = self.engines.student.run_prompts(item.tree)
            with self.ledger.phase(Phase.GENERATION):
                trained = replace(trained, completions=self.source.rewrite(item, state))
        reading = self._read(item, trained) if survey is None else survey.readings[number]
        with self.ledger.phase(Phase.STUDENT):
            distillation = self._distillation(trained, reading, denominators.trained, survey)
            parts = self._losses(item, trained, reading, distillation, denominators, state, result)
            # Whether or not it is finite: other processes may be in their backward pass, too.
            (weight * torch.stack([part.total for part in parts]).sum()).backward()
        return parts

    def _losses(
        self,
        item: WindowTree,
        trained: Trained,
        reading: Reading | None,
        distillation: Distillation | None,
        denominators: Denominators,
        state: PromptState | None,
        result: WindowLoss,
    ) -> list[LossParts]:
        """The method's terms: divergence on what is trained on, likelihood of gold on the same or its own branches."""
        branches, gold_weight = trained.branches(), self.recipe.gold_weight
        lines_up = self.source.lines_up_with_gold()
        if gold_weight > 0 and not lines_up:
            branches = branches + as_branches(item.golds)
        hidden_ND = student_hidden(self.engines.student, item.tree, branches, state)
        self.ledger.count("student_tokens", len(hidden_ND))
        rows = sum(map(len, trained.completions))
        gold = self._likelihood(item.golds, gold_weight, denominators.gold) if gold_weight > 0 else None
        likelihood = (
            gold if lines_up else self._completion_likelihood(trained.completions, denominators.trained)
        )
        if self.truncation is not None and distillation is not None and self.share_done == 0:
            head, size = self.engines.student.head(), self.engines.vocabulary_size
            self.truncation.measure(
                distillation, hidden_ND[:rows], head, size, self.recipe.train.loss_chunk_rows
            )
        if self.curriculum is not None and distillation is not None:
            distillation = self._skewed(trained, reading, hidden_ND[:rows], distillation, result)
        if self.source.weighs_positions:
            distillation, likelihood = self._weighed(
                trained, reading, hidden_ND[:rows], distillation, denominators
            )
        terms = [(hidden_ND[:rows], distillation, likelihood)]
        if gold is not None and not lines_up:
            terms.append((hidden_ND[rows:], None, gold))
        parts = []
        for hidden, divergence, target in terms:
            if divergence is not None or target is not None:
                part = self._loss(hidden, divergence, target)
                has_likelihood = target is not None and target.has_value
                result.add(part, has_divergence=divergence is not None, has_likelihood=has_likelihood)
                parts.append(part)
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

    def _read(self, item: WindowTree, trained: Trained) -> Reading | None:
        """None where no divergence reads the teacher."""
        branches = trained.branches()
        hidden_NE = None if self.divergence is None else self.teacher.hidden(item, branches)
        if hidden_NE is None:
            return None
        if not (self._wants_token_logps or self.source.weighs_positions or self.curriculum is not None):
            return Reading(hidden_NE)
        with self.ledger.phase(Phase.TEACHER):
            return Reading(hidden_NE, self._token_logps(self.teacher.head, hidden_NE, branches))

    @property
    def _wants_token_logps(self) -> bool:
        """Whether the divergence asks which positions are hard; across vocabularies none that does is used."""
        return self.divergence is not None and self.divergence.hard_share > 0 and self.bridge is None

    def _token_logps(self, head: LogProbsOf, hidden_ND: Tensor, branches: Sequence[Branch]) -> Tensor:
        size, chunk_rows = self.engines.vocabulary_size, self.recipe.train.loss_chunk_rows
        return token_log_probs(head, hidden_ND.detach(), targets(branches), size, chunk_rows)

    def _distillation(
        self, trained: Trained, reading: Reading | None, denominator: int, survey: Survey | None
    ) -> Distillation | None:
        if reading is None or self.divergence is None:
            return None
        device = reading.hidden_NE.device
        lengths = [len(completion) for completion in trained.completions]
        weight_N = position_weights(lengths, self.reduction, denominator)
        if self.recipe.distill.side_weights == "growing":
            factor_C = side_factors(trained.by_student_C, self.share_done)
            weight_N = weight_N * torch.repeat_interleave(factor_C, torch.tensor(lengths))
        positions = bridged = None
        if self.bridge is not None:
            aligned = self._aligned(trained.completions)
            weight_N = span_weights(aligned, weight_N)
            bridged = Bridged(self.bridge, joined(aligned))
        elif self.divergence.reads_positions:
            hard_below = (
                survey.hard_below if survey else hard_threshold(reading.logps, self.divergence.hard_share)
            )
            positions = positions_of(trained, reading.token_logp_N, hard_below, device)
        return Distillation(
            reading.hidden_NE,
            self.teacher.head,
            self.divergence,
            weight_N.to(device),
            self.recipe.distill.temperature,
            positions,
            bridged,
        )

    def _skewed(
        self,
        trained: Trained,
        reading: Reading | None,
        hidden_ND: Tensor,
        distillation: Distillation,
        result: WindowLoss,
    ) -> Distillation:
        """With the skew that each completion has from the curriculum."""
        assert self.curriculum is not None
        assert reading is not None
        assert reading.token_logp_N is not None
        assert distillation.positions is not None
        lengths = [len(completion) for completion in trained.completions]
        student_logp_N = self._token_logps(self.engines.student.head(), hidden_ND, trained.branches())
        skew_C, found = self.curriculum.skews(
            reading.token_logp_N.cpu(), student_logp_N.cpu(), lengths, trained.by_student_C
        )
        result.sides += found
        skew_N = torch.repeat_interleave(skew_C, torch.tensor(lengths)).to(hidden_ND.device, torch.float32)
        return replace(distillation, positions=replace(distillation.positions, skew_N=skew_N))

    def _aligned(self, completions: Sequence[Completion]) -> list[AlignedSpans]:
        assert self.engines.translator is not None
        translated = [self.engines.translator.of(completion) for completion in completions]
        spans = [span for each in translated for span in each.spans]
        compared = [span for span in spans if span.can_be_compared]
        self.ledger.count("spans", len(compared))
        self.ledger.count(
            "merged_spans", sum(max(span.student_tokens, span.teacher_tokens) > 1 for span in compared)
        )
        self.ledger.count(
            "tokens_in_no_span", sum(span.student_tokens for span in spans if not span.can_be_compared)
        )
        return [each.aligned() for each in translated]

    def _likelihood(self, completions: list[Completion], weight: float, denominator: int) -> Likelihood:
        device = self.engines.student.device
        lengths = [len(completion) for completion in completions]
        weights = position_weights(lengths, self.reduction, denominator) * weight
        return Likelihood(targets(as_branches(completions)).to(device), weights.to(device))

    def _weighed(
        self,
        trained: Trained,
        reading: Reading | None,
        hidden_ND: Tensor,
        distillation: Distillation | None,
        denominators: Denominators,
    ) -> tuple[Distillation, Likelihood]:
        """Both terms of a source that weighs positions, with its weights."""
        assert reading is not None
        assert reading.token_logp_N is not None
        assert distillation is not None
        student_logp_N = self._token_logps(self.engines.student.head(), hidden_ND, trained.branches())
        factors = self.source.weigh(trained, reading.token_logp_N, student_logp_N)
        likelihood = self._likelihood(trained.completions, 1.0, denominators.trained)
        return (
            replace(
                distillation, weight_N=distillation.weight_N * factors.divergence_N.to(distillation.weight_N)
            ),
            Likelihood(
                likelihood.target_N,
                likelihood.weight_N * factors.likelihood_N.to(likelihood.weight_N),
                has_value=False,
            ),
        )

    def _completion_likelihood(self, completions: list[Completion], denominator: int) -> Likelihood | None:
        weight = self.recipe.row.completion_weight
        return self._likelihood(completions, weight, denominator) if weight > 0 else None
