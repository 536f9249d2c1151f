"""A completion source that no paper has: gold backwards, counted; what a new method's file looks like."""

from collections.abc import Sequence
from typing import Any

from distilsql.training.sources.source import CompletionSource, Trained
from distilsql.training.window_tree import WindowTree


class Backwards(CompletionSource):
    """Gold's tokens in reverse order, EOS still last; how many were turned round goes through checkpoints."""

    turned = 0

    def write(self, items: Sequence[WindowTree]) -> list[Trained]:
        self.turned += sum(len(item.golds) for item in items)
        return [Trained([(*gold[-2::-1], gold[-1]) for gold in item.golds]) for item in items]

    def state(self) -> dict[str, Any]:
        return {"turned": self.turned}

    def load(self, state: dict[str, Any]) -> None:
        self.turned = state.get("turned", 0)

    def summary(self) -> dict[str, Any]:
        return {"turned": self.turned}
