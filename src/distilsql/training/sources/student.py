"""Completions that the student writes while it trains: gkd, and imitkd, which mixes them with gold."""

from collections.abc import Sequence
from typing import NamedTuple

from distilsql.inference.loading import Engines
from distilsql.inference.prepare import TokenizedExample
from distilsql.models.tree import Completion
from distilsql.models.vllm_source import VllmSource
from distilsql.runs.recipe import Recipe
from distilsql.training.ledger import Ledger, Phase
from distilsql.training.sources.decode_batches import DecodeTree, Place, decode_batches
from distilsql.training.sources.source import Beforehand, CompletionSource, Trained
from distilsql.training.sources.writing import vllm_source, write_completions
from distilsql.training.window_tree import Use, WindowTree

_LAST_GOLD_SHARE = 0.005  # to which ImitKD's exponential schedule falls


class Written(NamedTuple):
    """A completion; `from_teacher` of its tokens are the teacher's, None where the student writes alone. `logps` as in
    `Trained`."""

    tokens: Completion
    from_teacher: int | None = None
    by_student: bool = True
    logps: tuple[float, ...] | None = None


class Student(CompletionSource):
    """The student writes every completion (GKD, Agarwal et al. 2024)."""

    def __init__(self, recipe: Recipe, engines: Engines, ledger: Ledger) -> None:
        super().__init__(recipe, engines, ledger)
        self._vllm: VllmSource | None = None

    def prepare(self, beforehand: Beforehand) -> None:
        """Raises RunError if vLLM is used with several processes, ModelError if it is missing."""
        if self.recipe.generation.engine != "vllm":
            return
        self._vllm = vllm_source(
            self.recipe, self.engines.student, self.engines.tokenizer, beforehand.processes
        )

    def write(self, items: Sequence[WindowTree]) -> list[Trained]:
        rows = [self.given(item) for item in items]
        places = [
            (tree, row) for tree, each in enumerate(rows) for row, one in enumerate(each) if one is None
        ]
        with self.ledger.phase(Phase.GENERATION):
            self._write_into(rows, items, places)
        return [_trained([one for one in each if one is not None]) for each in rows]

    def _write_into(
        self, rows: list[list[Written | None]], items: Sequence[WindowTree], places: Sequence[Place]
    ) -> None:
        batches = decode_batches(items, places, self.recipe.generation.max_batch_rows)
        for batch, written in zip(batches, self._generated(batches), strict=True):
            for part, completions in zip(batch, written, strict=True):
                for (tree, row), one in zip(part.places, completions, strict=True):
                    self.ledger.count("generated_tokens", len(one.tokens))
                    rows[tree][row] = one

    def _generated(self, batches: Sequence[Sequence[DecodeTree]]) -> list[list[list[Written]]]:
        if not batches:
            return []
        return self.generate([[part.item for part in batch] for batch in batches])

    def given(self, item: WindowTree) -> list[Written | None]:
        """Per question, a completion that exists already, or None if the student has to write it."""
        return [None] * len(item.examples)

    def generate(self, batches: Sequence[Sequence[WindowTree]]) -> list[list[list[Written]]]:
        """The generated completions, per batch and tree."""
        if self._vllm is not None:
            self._vllm.refresh()
        written = write_completions(
            self.engines.student,
            self._vllm,
            batches,
            self.generation_options(),
            seed=self.recipe.seed,
            use=Use.SAMPLING,
        )
        return [[[Written(tokens) for tokens in tree] for tree in batch] for batch in written]


def _trained(rows: Sequence[Written]) -> Trained:
    counts = [one.from_teacher for one in rows if one.from_teacher is not None]
    logps = [one.logps for one in rows if one.logps is not None]
    return Trained(
        [one.tokens for one in rows],
        tuple(counts) if counts else None,
        by_student=tuple(one.by_student for one in rows),
        logps=tuple(logps) if logps else None,
    )


class Mixture(Student):
    """The student writes `distill.mixture_share` of completions, drawn by example and epoch; the others are `fixed`.
    Or, with `distill.mixture` = both, every question has two completions, the fixed one and the student's."""

    @property
    def has_both(self) -> bool:
        return self.recipe.distill.mixture == "both"

    def write(self, items: Sequence[WindowTree]) -> list[Trained]:
        written = super().write(items)
        if not self.has_both:
            return written
        return [self._beside_fixed(item, own) for item, own in zip(items, written, strict=True)]

    def _beside_fixed(self, item: WindowTree, own: Trained) -> Trained:
        questions = tuple(range(len(item.examples)))
        fixed = [self.fixed(example) for example in item.examples]
        return Trained(
            fixed + own.completions,
            questions=questions + questions,
            by_student=(False,) * len(fixed) + (True,) * len(own.completions),
        )

    @property
    def student_share(self) -> float:
        """The chance that the student writes, by `distill.mixture_schedule`: ImitKD's 1 − β_t (Lin et al. 2020)."""
        schedule = self.recipe.distill.mixture_schedule
        if schedule == "linear":
            return self.share_done
        if schedule == "exponential":
            return 1 - _LAST_GOLD_SHARE**self.share_done
        return self.recipe.distill.mixture_share

    def given(self, item: WindowTree) -> list[Written | None]:
        if self.has_both:
            return super().given(item)
        share = self.student_share
        draws = [item.rng(self.recipe.seed, Use.MIXING, row).random() for row in range(len(item.examples))]
        return [
            None if draw < share else Written(self.fixed(example), by_student=False)
            for draw, example in zip(draws, item.examples, strict=True)
        ]

    def fixed(self, example: TokenizedExample) -> Completion:
        """The completion that exists already."""
        raise NotImplementedError


class GoldAndStudent(Mixture):
    """Gold or the student's own (ImitKD, Lin et al. 2020)."""

    def fixed(self, example: TokenizedExample) -> Completion:
        return example.gold
