"""SWITCH as a completion source: the student writes, the teacher takes over where they diverge (`switch_engine`)."""

from collections.abc import Sequence
from typing import Any

from distilsql.inference.loading import Engines
from distilsql.runs.recipe import Recipe
from distilsql.training.ledger import Ledger
from distilsql.training.sources.student import Student, Written
from distilsql.training.sources.switch_engine import (
    BlockLength,
    SwitchedCompletion,
    SwitchOptions,
    ThresholdSchedule,
    switch_generate,
)
from distilsql.training.window_tree import Use, WindowTree


class Switch(Student):
    """Student and teacher write together (SWITCH, Koo et al. 2025); how often is traced along the sequence."""

    def __init__(self, recipe: Recipe, engines: Engines, ledger: Ledger) -> None:
        super().__init__(recipe, engines, ledger)
        keys = recipe.switch
        self.options = SwitchOptions(
            keys.threshold, keys.decay, ThresholdSchedule(keys.schedule), keys.block_length
        )
        self.trace = SwitchTrace(self.options)

    @classmethod
    def longest_tokens(cls, recipe: Recipe) -> int:
        """Including drafted tokens that are rejected."""
        drafted = recipe.switch.block_length or max(BlockLength.CHOICES)
        return super().longest_tokens(recipe) + drafted - 1

    def generate(self, batches: Sequence[Sequence[WindowTree]]) -> list[list[list[Written]]]:
        return [self._switched(items) for items in batches]

    def _switched(self, items: Sequence[WindowTree]) -> list[list[Written]]:
        teacher, cache = self.engines.teacher, self.engines.teacher_prefixes
        assert teacher is not None
        assert cache is not None
        written = switch_generate(
            self.engines.student,
            teacher,
            [item.tree for item in items],
            self.generation_options(),
            self.options,
            streams=[item.streams(self.recipe.seed, Use.SAMPLING) for item in items],
            teacher_prefixes=[cache.get(item.prefix_key, item.tree.prefix) for item in items],
        )
        for tree in written:
            for completion in tree:
                self.trace.add(completion)
        return [[Written(one.tokens, sum(one.from_teacher)) for one in tree] for tree in written]

    def state(self) -> dict[str, Any]:
        return self.trace.state()

    def load(self, state: dict[str, Any]) -> None:
        if state:
            self.trace.load(state)

    def summary(self) -> dict[str, Any]:
        return {"teacher_share": self.trace.teacher_share, **self.trace.summary()}


class SwitchTrace:
    """Sums over the completions written so far, one number per position in the completion (0 is the first token).

    Divergences are JSD in nats. With several processes each sums its own trees; the main process's share, every
    n-th tree, is what goes into checkpoint and summary.
    """

    def __init__(self, options: SwitchOptions) -> None:
        self._options = options
        self.tokens: list[int] = []
        self.from_teacher: list[int] = []
        self.divergence: list[float] = []
        self.teacher_passes = 0

    def add(self, completion: SwitchedCompletion) -> None:
        longer = max(len(completion.tokens) - len(self.tokens), 0)
        self.tokens += [0] * longer
        self.from_teacher += [0] * longer
        self.divergence += [0.0] * longer
        self.teacher_passes += completion.teacher_passes
        steps = zip(completion.tokens, completion.from_teacher, completion.divergence, strict=True)
        for position, (_, is_from_teacher, divergence) in enumerate(steps):
            self.tokens[position] += 1
            self.from_teacher[position] += is_from_teacher
            self.divergence[position] += divergence

    @property
    def teacher_share(self) -> float | None:
        """The teacher's share of all tokens; None if nothing was written."""
        return sum(self.from_teacher) / sum(self.tokens) if self.tokens else None

    def summary(self) -> dict[str, Any]:
        """`switch`: threshold, tokens, teacher share and mean divergence by position; empty where nothing was written.

        `teacher_passes_per_token` is 1 for the definition run token by token, and less where blocks were drafted.
        """
        if not self.tokens:
            return {}
        return {
            "switch": {
                "threshold": [self._options.at(position) for position in range(len(self.tokens))],
                "tokens": list(self.tokens),
                "teacher_share": _means(self.from_teacher, self.tokens),
                "divergence": _means(self.divergence, self.tokens),
                "teacher_passes_per_token": self.teacher_passes / sum(self.tokens),
            }
        }

    def state(self) -> dict[str, Any]:
        return {
            "tokens": list(self.tokens),
            "from_teacher": list(self.from_teacher),
            "divergence": list(self.divergence),
            "teacher_passes": self.teacher_passes,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.tokens = list(state["tokens"])
        self.from_teacher = list(state["from_teacher"])
        self.divergence = list(state["divergence"])
        self.teacher_passes = state["teacher_passes"]


def _means(sums: list[int] | list[float], counts: list[int]) -> list[float]:
    """A completion that reaches a position has passed all earlier ones, so no count is 0."""
    return [total / count for total, count in zip(sums, counts, strict=True)]
