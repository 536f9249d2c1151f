"""The interface of a completion source, as the loop and the window use it.

A new source is one file with a subclass of `CompletionSource`, named by its row in `distill/methods.py`.
"""

import importlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from distilsql.data.benchmark import Benchmark
from distilsql.distill.policy_gradient import PositionWeights
from distilsql.inference.loading import Engines
from distilsql.inference.prepare import Prepared
from distilsql.models.generate import GenerationOptions
from distilsql.models.tree import Branch, Completion, as_branches
from distilsql.models.tree_model import PromptState
from distilsql.runs.folder import RunFolder
from distilsql.runs.recipe import Recipe
from distilsql.training.ledger import Ledger
from distilsql.training.sampling import TreeOfExamples
from distilsql.training.window_tree import WindowTree


@dataclass(frozen=True)
class Trained:
    """The completions that a tree is trained on: one per question, in order, unless `questions` says whose each is.

    `teacher_tokens` counts those of each that the teacher wrote, where either model could have written them.
    `by_student` says which ones the student wrote; by default none. `logps` are the log-probabilities with which
    their tokens were drawn, for a source that weighs positions by them. `about` names the examples that the completions
    are about, where they are others than were asked for.
    """

    completions: list[Completion]
    teacher_tokens: tuple[int, ...] | None = None
    questions: tuple[int, ...] | None = None
    by_student: tuple[bool, ...] | None = None
    logps: tuple[tuple[float, ...], ...] | None = None
    about: TreeOfExamples | None = None

    def branches(self) -> list[Branch]:
        if self.questions is None:
            return as_branches(self.completions)
        pairs = zip(self.questions, self.completions, strict=True)
        return [Branch(question, completion) for question, completion in pairs]

    @property
    def by_student_C(self) -> Tensor:
        """Whether the student wrote each completion."""
        return torch.tensor(self.by_student or [False] * len(self.completions), dtype=torch.bool)

    def to_json(self) -> dict[str, Any]:
        """For a checkpoint; `from_json` takes it back. What is None is left out."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        if self.about is not None:
            values["about"] = {"examples": self.about.examples, "epoch": self.about.epoch}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Trained":
        """Keys that are not its own are passed over."""
        known = {each.name: values[each.name] for each in fields(cls) if values.get(each.name) is not None}
        completions = [tuple(tokens) for tokens in known.pop("completions")]
        about = known.pop("about", None)
        if "logps" in known:
            known["logps"] = [tuple(logps) for logps in known["logps"]]
        return cls(
            completions,
            **{name: tuple(value) for name, value in known.items()},
            about=None if about is None else TreeOfExamples(tuple(about["examples"]), about["epoch"]),
        )

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
    this is process `process` of `processes`. `steps_per_epoch` is that of the first epoch."""

    run: RunFolder
    benchmark: Benchmark
    prepared: Prepared
    examples: Collection[int]
    process: int = 0
    processes: int = 1
    steps_per_epoch: int = 1


class CompletionSource:
    """A source of completions to train on. The base class uses the gold ones; a subclass overrides what differs.

    `is_fixed`: an example's completion never changes, so the frozen teacher's output for it can be kept.
    `rewrites`: the completions that `write` gives stand for others of the same length, which `rewrite` makes in the
    pass that trains on them. `weighs_positions`: `weigh` gives each position weights of its own.

    `share_done` is the share of the training's steps that are done when a round is written; the rollout keeps it.
    """

    is_fixed: ClassVar[bool] = False
    rewrites: ClassVar[bool] = False
    weighs_positions: ClassVar[bool] = False
    share_done: float = 0.0

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
        """What each tree is trained on, one for one. `items` may be the trees of several windows: one round of
        generation."""
        return [Trained(item.golds) for item in items]

    @property
    def validates_every(self) -> int | None:
        """After how many steps it wants to `hear` the validation loss; None for never. It hears it before the first
        step, too."""
        return None

    def hear(self, validation_loss: float) -> None:
        """The mean negative log-likelihood of gold on the validation examples, by the student as it stands."""

    def rewrite(self, item: WindowTree, state: PromptState | None) -> list[Completion]:
        """For a source that `rewrites`: the tree's completions, from the prompts that the student has just run.
        `state` is None in the padded layout."""
        raise NotImplementedError

    def weigh(self, trained: Trained, teacher_logp_N: Tensor, student_logp_N: Tensor) -> PositionWeights:
        """For a source that `weighs_positions`: from the log-probabilities that both models, the student as it stands,
        give the tokens of a tree's completions."""
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
