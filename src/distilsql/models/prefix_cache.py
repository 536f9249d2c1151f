"""Keys and values of database prefixes, kept between steps for a model whose weights do not change."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from distilsql.models.tree import Branch, PromptTree
from distilsql.models.tree_model import PrefixState, TreeModel


class PrefixCache:
    """Prefix states by key, bounded in bytes; the least recently used one leaves first.

    What a batch is being written with stays in memory until it is done, kept here or not.

    A state larger than the whole budget is computed and returned but not kept. Only for a frozen model: a
    cached prefix of a model in training would be stale after one step.
    """

    def __init__(self, model: TreeModel, budget_bytes: int) -> None:
        self.model = model
        self.budget_bytes = budget_bytes
        self.used_bytes = 0
        self._states: OrderedDict[Hashable, PrefixState] = OrderedDict()

    def __len__(self) -> int:
        return len(self._states)

    def in_step(self) -> AbstractContextManager[None]:
        """All processes read the model as often as each needs to in here; they enter and leave it together."""
        return self.model.sharding.in_step()

    @torch.no_grad()
    def hidden(self, key: Hashable, tree: PromptTree, branches: Sequence[Branch]) -> Tensor:
        """The final hidden states (N, E) that predict `branches` of a tree, whose prefix `key` must identify."""
        return self.model.completion_hidden(tree, branches, self.get(key, tree.prefix))

    def get(self, key: Hashable, tokens: Sequence[int]) -> PrefixState | None:
        """The state of `tokens`, which `key` must identify; None for a padded model, which continues from none."""
        if self.model.layout == "padded":
            return None
        if key in self._states:
            self._states.move_to_end(key)
            return self._states[key]
        with torch.no_grad():
            state = self.model.run_prefix(tokens)
        size = state.bytes()
        if size > self.budget_bytes:
            return state
        while self.used_bytes + size > self.budget_bytes:
            _, evicted = self._states.popitem(last=False)
            self.used_bytes -= evicted.bytes()
        self._states[key] = state
        self.used_bytes += size
        return state
