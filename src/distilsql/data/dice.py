"""Dice: seeded choices that are the same on every Python version.

Only `Random.random()` is promised to give the same sequence for the same seed in later versions of Python, so every
other choice is derived from it here; that keeps the generated benchmark the same, question by question.
"""

from collections.abc import Sequence
from random import Random
from typing import TypeVar

Item = TypeVar("Item")


class Dice:
    """A stream of choices that depends only on `seed`."""

    def __init__(self, seed: str) -> None:
        self._random = Random(seed).random

    def chance(self, probability: float) -> bool:
        return self._random() < probability

    def between(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return low + int(self._random() * (high - low + 1))

    def pick(self, items: Sequence[Item]) -> Item:
        return items[int(self._random() * len(items))]

    def weighted(self, weights: dict[Item, float]) -> Item:
        """One key, with the probability of its share of all weights."""
        remaining = self._random() * sum(weights.values())
        for item, weight in weights.items():
            remaining -= weight
            if remaining < 0:
                return item
        return next(reversed(weights))

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        keyed = [(self._random(), position) for position in range(len(items))]
        return [items[position] for _, position in sorted(keyed)]

    def sample(self, items: Sequence[Item], count: int) -> list[Item]:
        """`count` different positions of `items`."""
        if count > len(items):
            raise ValueError(f"cannot take {count} of {len(items)} items")
        return self.shuffled(items)[:count]
