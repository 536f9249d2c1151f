"""Which examples make up each optimizer window: a pure function of seed and step, so that a run resumes exactly.

In every epoch each example is seen once. Examples are shuffled within their database and cut into trees of
`questions_per_tree`; trees are shuffled and dealt to windows of at most questions_per_tree · trees_per_step
examples. A database's last tree may be small, and so is the tree of a prompt that was cut for its question: such
trees share a window, so that a step always learns from about the same number of examples. Trees of one database
that meet in a window are run as one, so that its prompt is run once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distilsql.models.batches import first_fit


@dataclass(frozen=True)
class TreeOfExamples:
    """Example numbers that share a prefix, and the epoch they are drawn in (part of every random stream)."""

    examples: tuple[int, ...]
    epoch: int


@dataclass(frozen=True)
class Sampler:
    """Windows of trees over examples with the given prefix keys.

    Trees of one prefix in a window are joined into trees of at most `largest_tree` questions.
    """

    prefix_keys: Sequence[str]
    seed: int
    questions_per_tree: int
    trees_per_step: int
    largest_tree: int

    def epoch(self, epoch: int) -> list[list[TreeOfExamples]]:
        """All windows of one epoch, in order."""
        rng = np.random.default_rng([self.seed, epoch])
        by_prefix: dict[str, list[int]] = {}
        for example in rng.permutation(len(self.prefix_keys)).tolist():
            by_prefix.setdefault(self.prefix_keys[example], []).append(example)
        trees = [
            examples[start : start + self.questions_per_tree]
            for examples in by_prefix.values()
            for start in range(0, len(examples), self.questions_per_tree)
        ]
        shuffled = [trees[number] for number in rng.permutation(len(trees)).tolist()]
        largest = self.questions_per_tree * self.trees_per_step
        windows = first_fit([len(tree) for tree in shuffled], largest)
        # Shuffled once more: small trees fill the gaps of early windows, and the last window may be small.
        return [
            [
                TreeOfExamples(tree, epoch)
                for tree in self._joined([shuffled[number] for number in windows[place]])
            ]
            for place in rng.permutation(len(windows)).tolist()
        ]

    def _joined(self, trees: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
        """The trees of a window, those of one prefix joined as far as `largest_tree` allows."""
        by_prefix: dict[str, list[Sequence[int]]] = {}
        for tree in trees:
            by_prefix.setdefault(self.prefix_keys[tree[0]], []).append(tree)
        return [
            tuple(example for number in numbers for example in own[number])
            for own in by_prefix.values()
            for numbers in first_fit([len(tree) for tree in own], self.largest_tree)
        ]


class WindowStream:
    """Windows by step number, counted from 0 through all epochs. Epochs may differ a little in their number of
    windows, since trees are packed in another order each time; `first_epoch_steps` is that of the first."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler
        self._epoch = 0
        self._first_step = 0
        self._windows = sampler.epoch(0)
        self.first_epoch_steps = len(self._windows)

    def steps(self, epochs: float) -> int:
        """Optimizer steps of this many epochs, at least one."""
        whole = sum(len(self.sampler.epoch(epoch)) for epoch in range(int(epochs)))
        part = round((epochs % 1) * len(self.sampler.epoch(int(epochs)))) if epochs % 1 else 0
        return max(1, whole + part)

    def examples(self, steps: int) -> set[int]:
        """The numbers of the examples that the first `steps` steps see."""
        if steps >= self.first_epoch_steps:
            return set(range(len(self.sampler.prefix_keys)))
        return {number for step in range(steps) for tree in self.window(step) for number in tree.examples}

    def window(self, step: int) -> list[TreeOfExamples]:
        """The window of a step; steps are usually asked for in order."""
        if step < self._first_step:
            self._epoch, self._first_step, self._windows = 0, 0, self.sampler.epoch(0)
        while step >= self._first_step + len(self._windows):
            self._first_step += len(self._windows)
            self._epoch += 1
            self._windows = self.sampler.epoch(self._epoch)
        return self._windows[step - self._first_step]
