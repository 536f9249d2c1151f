"""Which examples make up each optimizer window: a pure function of seed and step, so that a run resumes exactly.

In every epoch each example is seen once. Examples are shuffled within their database and cut into trees of
`questions_per_tree`; trees are shuffled and dealt to windows of at most questions_per_tree · trees_per_step
examples. A database's last tree may be small, and so is the tree of a prompt that was cut for its question: such
trees share a window, so that a step always learns from about the same number of examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TreeOfExamples:
    """Example numbers that share a prefix, and the epoch they are drawn in (part of every random stream)."""

    examples: tuple[int, ...]
    epoch: int


@dataclass(frozen=True)
class Sampler:
    """Windows of trees over examples with the given prefix keys."""

    prefix_keys: Sequence[str]
    seed: int
    questions_per_tree: int
    trees_per_step: int

    def epoch(self, epoch: int) -> list[list[TreeOfExamples]]:
        """All windows of one epoch, in order."""
        rng = np.random.default_rng([self.seed, epoch])
        by_prefix: dict[str, list[int]] = {}
        for example in rng.permutation(len(self.prefix_keys)).tolist():
            by_prefix.setdefault(self.prefix_keys[example], []).append(example)
        trees = [
            TreeOfExamples(tuple(examples[start : start + self.questions_per_tree]), epoch)
            for examples in by_prefix.values()
            for start in range(0, len(examples), self.questions_per_tree)
        ]
        largest = self.questions_per_tree * self.trees_per_step
        windows: list[list[TreeOfExamples]] = []
        room = 0
        for number in rng.permutation(len(trees)).tolist():
            size = len(trees[number].examples)
            if size > room:
                windows.append([])
                room = largest
            windows[-1].append(trees[number])
            room -= size
        return windows


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

    def window(self, step: int) -> list[TreeOfExamples]:
        """The window of a step; steps are usually asked for in order."""
        if step < self._first_step:
            self._epoch, self._first_step, self._windows = 0, 0, self.sampler.epoch(0)
        while step >= self._first_step + len(self._windows):
            self._first_step += len(self._windows)
            self._epoch += 1
            self._windows = self.sampler.epoch(self._epoch)
        return self._windows[step - self._first_step]
