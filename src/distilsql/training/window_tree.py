"""WindowTree: one tree of an optimizer window, with its examples and their random streams."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from distilsql.inference.prepare import Prepared, TokenizedExample
from distilsql.models.generate import Stream, uniform_stream
from distilsql.models.tree import Completion, PromptTree
from distilsql.training.sampling import TreeOfExamples


class Use(IntEnum):
    """The purpose of a random stream. Each has its own, so that adding one never shifts another."""

    MASKING = 1
    SAMPLING = 2
    MIXING = 3
    REWRITING = 4
    TEACHER = 5
    REPLAYING = 6


@dataclass(frozen=True)
class WindowTree:
    """`numbers` are the examples' numbers in the training set: with seed, use and epoch they make its streams.

    `teacher_tree` is the same tree in the tokens of a teacher with another tokenizer.
    """

    prefix_key: str
    tree: PromptTree
    examples: tuple[TokenizedExample, ...]
    numbers: tuple[int, ...]
    epoch: int
    teacher_tree: PromptTree | None = None

    @property
    def golds(self) -> list[Completion]:
        return [example.gold for example in self.examples]

    @property
    def longest_tokens(self) -> int:
        """Tokens of its longest example: prompt and completion."""
        return len(self.tree.prefix) + max(len(each.question) + len(each.gold) for each in self.examples)

    def rng(self, seed: int, use: Use, row: int) -> np.random.Generator:
        return np.random.default_rng([seed, use, self.epoch, self.numbers[row]])

    def streams(self, seed: int, use: Use) -> list[Stream]:
        """One stream of uniform numbers per example, each from its own sequence."""
        return [uniform_stream(seed, use, self.epoch, number) for number in self.numbers]


def as_window_trees(prepared: Prepared, trees: Sequence[TreeOfExamples]) -> list[WindowTree]:
    """The sampler's example numbers as trees of tokens."""
    items = []
    for tree in trees:
        examples = tuple(prepared.examples[number] for number in tree.examples)
        items.append(
            WindowTree(
                examples[0].prefix_key,
                prepared.tree(examples),
                examples,
                tree.examples,
                tree.epoch,
                _teacher_tree(prepared, tree),
            )
        )
    return items


def _teacher_tree(prepared: Prepared, tree: TreeOfExamples) -> PromptTree | None:
    own = prepared.for_teacher
    return None if own is None else own.tree([own.examples[number] for number in tree.examples])
