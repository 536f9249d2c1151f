"""Which examples make up each optimizer window: a pure function of seed and step, so that a run resumes exactly.

In every epoch each example is seen once. Examples are shuffled within their database and cut into trees of
`questions_per_tree`; trees are shuffled and dealt to windows of `trees_per_step`. Trees of one window usually
belong to different databases.
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
        order = rng.permutation(len(trees)).tolist()
        return [
            [trees[tree] for tree in order[start : start + self.trees_per_step]]
            for start in range(0, len(order), self.trees_per_step)
        ]

    def windows_per_epoch(self) -> int:
        return len(self.epoch(0))


class WindowStream:
    """Windows by step number, an epoch's order computed once."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler
        self.per_epoch = sampler.windows_per_epoch()
        self._epoch = -1
        self._windows: list[list[TreeOfExamples]] = []

    def window(self, step: int) -> list[TreeOfExamples]:
        """The window of a step, counted from 0 through all epochs."""
        epoch, index = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._windows = epoch, self.sampler.epoch(epoch)
        return self._windows[index]
