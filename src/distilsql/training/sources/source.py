"""The interface of a completion source, as the loop and the window use it.

A new source is one file with a subclass of `CompletionSource`, named by its row in `distill/methods.py`.
"""

import importlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from distilsql.data.benchmark import Benchmark
from distilsql.inference.loading import Engines
from distilsql.inference.prepare import Prepared
from distilsql.models.generate import GenerationOptions
from distilsql.models.tree import Completion
from distilsql.models.tree_model import PromptState
from distilsql.runs.folder import RunFolder
from distilsql.runs.recipe import Recipe
from distilsql.training.ledger import Ledger
from distilsql.training.window_tree import WindowTree


@dataclass(frozen=True)
class Trained:
    """The completions that a tree is trained on, one per question.

    `teacher_tokens` counts those of each that the teacher wrote, where either model could have written them.
    """

    completions: list[Completion]
    teacher_tokens: tuple[int, ...] | None = None

    @property
    def tokens_from_teacher(self) -> int:
        return sum(self.teacher_tokens or ())

    @property
    def tokens_written(self) -> int:
        """Tokens that the student or the teacher could have written."""
        return 0 if self.teacher_tokens is None else sum(map(len, self.completions))


@dataclass(frozen=True)
class Beforehand:
    """What a source may use before the first step. `examples` are the numbers of those that the training will see;
    this is process `process` of `processes`."""

    run: RunFolder
    benchmark: Benchmark
    prepared: Prepared
    examples: Collection[int]
    process: int = 0
    processes: int = 1


class CompletionSource:
    """A source of completions to train on. The base class uses the gold ones; a subclass overrides what differs.

    `is_fixed`: an example's completion never changes, so the frozen teacher's output for it can be kept.
    `rewrites`: the completions that `write` gives stand for others of the same length, which `rewrite` makes in the
    pass that trains on them.
    """

    is_fixed: ClassVar[bool] = False
    rewrites: ClassVar[bool] = False

    def __init__(self, recipe: Recipe, engines: Engines, ledger: Ledger) -> None:
        self.recipe, self.engines, self.ledger = recipe, engines, ledger

    @classmethod
    def longest_tokens(cls, recipe: Recipe) -> int:
        """The largest number of tokens that a model reads for one question."""
        return recipe.prompt.longest_tokens

    def prepare(self, beforehand: Beforehand) -> None:
        """Prepare for the first step; called at every start of a run, also when it resumes."""

    @property
    def seconds_beforehand(self) -> float:
        """Seconds that `prepare` took at the first start, over all processes: part of the method's cost."""
        return 0.0

    def write(self, items: Sequence[WindowTree]) -> list[Trained]:
        """The completions to train on, per tree. `items` may be the trees of several windows (one round)."""
        return [Trained(item.golds) for item in items]

    def rewrite(self, item: WindowTree, state: PromptState | None) -> list[Completion]:
        """For a source that `rewrites`: the tree's completions, from the prompts that the student has just run.
        `state` is None in the padded layout."""
        raise NotImplementedError

    def lines_up_with_gold(self) -> bool:
        """Whether gold's likelihood is taken on the completions themselves, gold's target standing at each position;
        otherwise gold gets branches of its own."""
        return False

    def state(self) -> dict[str, Any]:
        """The source's state for a checkpoint, as JSON; `load` restores it."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Restore the `state` of a checkpoint."""

    def summary(self) -> dict[str, Any]:
        """What the source adds to summary.json."""
        return {}

    def generation_options(self) -> GenerationOptions:
        """How on-policy and teacher completions are generated."""
        return GenerationOptions(
            self.engines.eos_token_id,
            self.engines.vocabulary_size,
            self.recipe.prompt.max_completion_tokens,
            self.recipe.generation.temperature,
        )


def source_class(recipe: Recipe) -> type[CompletionSource]:
    """The class that the recipe's method names."""
    module, _, name = recipe.row.source.implementation.partition(":")
    found: type[CompletionSource] = getattr(importlib.import_module(module), name)
    return found
