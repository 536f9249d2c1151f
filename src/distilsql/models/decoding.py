"""Decoding of many questions, a token or a block of tokens at a time.

A `Decoding` holds the rows in flight: the keys and values of each tree's prefix once, shared by the rows of that
tree, and a buffer of each row's own keys and values (question, then what was written). Rows of several trees are
decoded together, because a step costs nearly the same for one row as for ten: it reads every weight. Rows may have
different lengths. They leave when they are finished (`keep`), are reordered or repeated by the same call (beams),
and forget their last tokens when a draft is rejected (`rewind`).

Shapes: B rows in flight, L tokens fed per row, H query heads, K key/value heads, P prefix tokens, C buffer
columns, D head size (or hidden size, in hidden states).
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache

from distilsql.errors import ModelError
from distilsql.models.attention import additive, attend_rows
from distilsql.models.layer_pass import KeyValue
from distilsql.models.lean_attention import attend_few
from distilsql.models.tree import PromptTree
from distilsql.models.tree_model import PrefixState, PromptState, TreeModel


class Decoding:
    """Rows being written. `keys` and `values` are buffers (B, K, C, D) per layer, `length_B` their filled columns.

    `extend` feeds tokens and returns the hidden states that predict the next;
    `log_probs(hidden_ND, vocabulary_size)` turns those into float32 log-probabilities (N, V).

    The model's weights must not change while a Decoding is in use.
    """

    def __init__(
        self, model: TreeModel, states: Sequence[PromptState], rows: Sequence[tuple[int, int]], capacity: int
    ) -> None:
        """`rows` are (number of the state, question in it), at least one."""
        self.model = model
        self._prefixes = [state.prefix.layers for state in states]
        self._set_states([state for state, _ in rows])
        self.length_B = torch.tensor([len(states[s].tree.questions[q]) for s, q in rows], device=model.device)
        prefix_lengths = [len(states[state].tree.prefix) for state, _ in rows]
        self._prefix_length_B = torch.tensor(prefix_lengths, device=model.device)
        indices = [torch.from_numpy(_rest_rows(states[s], q)).to(model.device) for s, q in rows]
        rest = [states[state].rest for state, _ in rows]
        layers = range(len(states[0].rest))
        self.keys = [_buffer([each[n][0] for each in rest], indices, capacity) for n in layers]
        self.values = [_buffer([each[n][1] for each in rest], indices, capacity) for n in layers]
        self._linears, self.log_probs = model.decoding_weights()

    def __len__(self) -> int:
        return len(self.length_B)

    def keep(self, rows_B: Tensor) -> None:
        """Go on with these rows only, in this order; a row may be repeated. It is fastest where rows of one tree
        stand side by side."""
        self._set_states([self._state_of_row[row] for row in rows_B.tolist()])
        self._prefix_length_B = self._prefix_length_B[rows_B]
        self.length_B = self.length_B[rows_B]
        self.keys = [buffer[rows_B] for buffer in self.keys]
        self.values = [buffer[rows_B] for buffer in self.values]

    def join(self, other: "Decoding") -> None:
        """Write the rows of `other`, of the same model, after these from now on. Rows that continue the same prefix, as
        one object, go on sharing it. `other` must not be used any more."""
        states = [self._prefixes[state] for state in self._state_of_row]
        states += [other._prefixes[state] for state in other._state_of_row]
        # Prefixes whose last row has left go, too: rows may join without end.
        self._prefixes = list({id(layers): layers for layers in states}.values())
        numbers = {id(layers): number for number, layers in enumerate(self._prefixes)}
        self._set_states([numbers[id(layers)] for layers in states])
        self._prefix_length_B = torch.cat([self._prefix_length_B, other._prefix_length_B])
        self.length_B = torch.cat([self.length_B, other.length_B])
        self.keys = _stacked(self.keys, other.keys)
        self.values = _stacked(self.values, other.values)

    def _set_states(self, state_of_row: list[int]) -> None:
        """Which state each row continues, and runs of rows (state, count) that continue the same one."""
        self._state_of_row = state_of_row
        self._runs = [(state, len(list(run))) for state, run in groupby(state_of_row)]

    def rewind(self, tokens_B: Tensor) -> None:
        """Forget the last `tokens_B` tokens of each row, as if they had never been fed."""
        self.length_B = self.length_B - tokens_B

    def step(self, tokens_B: Tensor) -> Tensor:
        """Feed one token per row; hidden states (B, D) that predict the token after it."""
        return self.extend(tokens_B.unsqueeze(1))[:, 0]

    @torch.no_grad()
    def extend(self, tokens_BL: Tensor) -> Tensor:
        """Feed L tokens per row; hidden states (B, L, D), the l-th of which predicts the token after the l-th fed."""
        new_L = torch.arange(tokens_BL.shape[1], device=tokens_BL.device)
        columns_BL = self.length_B[:, None] + new_L
        run = self._dense if self.model.attention == "dense" else self._by_parts
        with self._linears.in_place():
            hidden_BLD = run(tokens_BL, columns_BL)
        self.length_B = self.length_B + tokens_BL.shape[1]
        return hidden_BLD

    def _by_parts(self, tokens_BL: Tensor, columns_BL: Tensor) -> Tensor:
        model = self.model
        self._columns_BL = columns_BL
        self._rows_B1 = torch.arange(len(tokens_BL), device=model.device)[:, None]
        used = int(columns_BL.max()) + 1
        hidden_from = torch.arange(used, device=model.device) > columns_BL[:, :, None]
        self._mask_BLC = additive(hidden_from, model.dtype)
        self._folded_masks: dict[int, Tensor] = {}
        position_ids_BL = self._prefix_length_B[:, None] + columns_BL
        if model.lean is not None:
            hidden_ND = model.lean(tokens_BL.flatten(), position_ids_BL.flatten(), self.attend)
            return hidden_ND.view(*tokens_BL.shape, -1)
        output = model.sharding.run(
            input_ids=tokens_BL.reshape(1, -1),
            position_ids=position_ids_BL.reshape(1, -1),
            attention_mask=torch.zeros(1, 1, 1, 1, dtype=model.dtype, device=model.device),
            use_cache=False,
            tree=self,
        )
        return output.last_hidden_state[0].view(*tokens_BL.shape, -1)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Called by the attention layers with the new tokens of all rows side by side, (1, H, B·L, D): store keys
        and values, attend to the prefix and to the row's own tokens up to the query itself."""
        used = self._mask_BLC.shape[-1]
        for buffer, new in ((self.keys[layer], key), (self.values[layer], value)):
            new_BLKD = new[0].unflatten(1, self._columns_BL.shape).permute(1, 2, 0, 3)
            buffer.transpose(1, 2)[self._rows_B1, self._columns_BL] = new_BLKD
        own = (self.keys[layer][:, :, :used], self.values[layer][:, :, :used])
        prefixes = [(count, self._prefix(state, layer)) for state, count in self._runs]
        mask = self._folded_mask(query.shape[1] // key.shape[1])
        if self.model.lean is not None and len(prefixes) == 1:
            return attend_few(query, prefixes[0][1], own, mask, scale)
        return attend_rows(query, prefixes, own, mask, scale)

    def _folded_mask(self, heads_per_key: int) -> Tensor:
        """The mask (B, 1, n·L, C) where the queries of one key/value head stand side by side; alike for all layers."""
        if heads_per_key not in self._folded_masks:
            self._folded_masks[heads_per_key] = self._mask_BLC.repeat(1, heads_per_key, 1).unsqueeze(1)
        return self._folded_masks[heads_per_key]

    def _prefix(self, state: int, layer: int) -> KeyValue | None:
        """Keys and values (1, K, P, D); None for an empty prefix."""
        layers = self._prefixes[state]
        return layers[layer] if layers and layers[layer][0].shape[2] else None

    def _dense(self, tokens_BL: Tensor, columns_BL: Tensor) -> Tensor:
        """The same through the stock forward, for models without an attention interface."""
        model, (batch, length) = self.model, tokens_BL.shape
        used = int(self.length_B.max())
        longest = int(self._prefix_length_B.max())
        cache: Any = DynamicCache()
        for layer, (key, value) in enumerate(zip(self.keys, self.values, strict=True)):
            prefix_keys, prefix_values = self._prefix_rows(layer, longest)
            cache.update(
                torch.cat([prefix_keys, key[:, :, :used]], dim=2),
                torch.cat([prefix_values, value[:, :, :used]], dim=2),
                layer,
            )
        past = longest + used
        hidden = torch.zeros(batch, length, past + length, dtype=torch.bool, device=model.device)
        column = torch.arange(max(longest, used), device=model.device)
        hidden[:, :, :longest] = column[:longest] >= self._prefix_length_B[:, None, None]
        hidden[:, :, longest:past] = column[:used] >= self.length_B[:, None, None]
        hidden[:, :, past:] = torch.ones(length, length, dtype=torch.bool, device=model.device).triu(1)
        with model.own_attention():
            output = model.sharding.run(
                input_ids=tokens_BL,
                position_ids=self._prefix_length_B[:, None] + columns_BL,
                attention_mask=additive(hidden, model.dtype, torch.finfo(model.dtype).min)[:, None],
                past_key_values=cache,
                use_cache=True,
            )
        rows_B1 = torch.arange(batch, device=model.device)[:, None]
        for layer, cached in enumerate(cache.layers):
            self.keys[layer].transpose(1, 2)[rows_B1, columns_BL] = cached.keys[:, :, past:].transpose(1, 2)
            self.values[layer].transpose(1, 2)[rows_B1, columns_BL] = cached.values[:, :, past:].transpose(
                1, 2
            )
        return output.last_hidden_state

    def _prefix_rows(self, layer: int, longest: int) -> KeyValue:
        """Keys and values of every row's prefix, (B, K, longest, D) each; zeros after a shorter one."""
        _, heads, _, size = self.keys[layer].shape
        rows: list[KeyValue] = []
        for state, count in self._runs:
            prefix = self._prefix(state, layer)
            if prefix is None:
                nothing = self.keys[layer].new_zeros(1, heads, 0, size)
                prefix = nothing, nothing
            key, value = (F.pad(part, (0, 0, 0, longest - part.shape[2])) for part in prefix)
            rows.append((key.expand(count, -1, -1, -1), value.expand(count, -1, -1, -1)))
        if len(rows) == 1:
            return rows[0]
        return torch.cat([key for key, _ in rows]), torch.cat([value for _, value in rows])


class StockDecoding:
    """Rows of one question, written by the model's own forward with the cache it makes itself: for models that cannot
    run a tree exactly. The interface is that of `Decoding`; what was fed cannot be forgotten."""

    def __init__(self, model: TreeModel) -> None:
        self.model = model
        self.log_probs = model.head().log_probs
        self.length_B = torch.zeros(1, dtype=torch.int64, device=model.device)
        self._cache: Any = None

    def keep(self, rows_B: Tensor) -> None:
        """Go on with these rows only, in this order; a row may be repeated."""
        self._cache.reorder_cache(rows_B)
        self.length_B = self.length_B[rows_B]

    def rewind(self, tokens_B: Tensor) -> None:
        """Does nothing. Raises ValueError if tokens would have to be forgotten."""
        if tokens_B.any():
            raise ValueError("a model's own cache cannot drop tokens: feed it no token that may be rejected")

    def step(self, tokens_B: Tensor) -> Tensor:
        """Feed one token per row; hidden states (B, D) that predict the token after it."""
        return self.extend(tokens_B.unsqueeze(1))[:, 0]

    @torch.no_grad()
    def extend(self, tokens_BL: Tensor) -> Tensor:
        """Feed L tokens per row; hidden states (B, L, D). Raises ModelError for a model that makes no cache."""
        with self.model.own_attention():
            output = self.model.sharding.run(input_ids=tokens_BL, past_key_values=self._cache, use_cache=True)
        self._cache = getattr(output, "past_key_values", None)
        if self._cache is None:
            raise ModelError(
                f"{type(self.model.causal_lm).__name__} does not give exact results on trees and has no "
                "past_key_values to generate from: distilsql can train it by methods that generate nothing, but "
                "cannot use it to answer questions."
            )
        self.length_B = self.length_B + tokens_BL.shape[1]
        return output.last_hidden_state


def start_writing(
    model: TreeModel,
    trees: Sequence[PromptTree],
    prefixes: Sequence[PrefixState | None] | None,
    max_new_tokens: int,
) -> tuple[Decoding | StockDecoding, Tensor]:
    """A row for every question of every tree, in order, and the hidden states (B, D) that predict their first token.

    `prefixes` are prefixes already run. A model in the padded layout writes one question at a time, in a row of its
    own.
    """
    if model.layout == "padded":
        (prompt,) = [tree.prefix + question for tree in trees for question in tree.questions]
        stock = StockDecoding(model)
        return stock, stock.extend(torch.tensor([prompt], device=model.device))[:, -1]
    return start_decoding(model, run_all_prompts(model, trees, prefixes), max_new_tokens)


def run_all_prompts(
    model: TreeModel, trees: Sequence[PromptTree], prefixes: Sequence[PrefixState | None] | None
) -> list[PromptState]:
    """What the questions of each tree continue from. `prefixes` are prefixes already run."""
    each = prefixes or [None] * len(trees)
    return [model.run_prompts(tree, prefix) for tree, prefix in zip(trees, each, strict=True)]


def start_decoding(
    model: TreeModel, states: Sequence[PromptState], max_new_tokens: int
) -> tuple[Decoding, Tensor]:
    """A row for every question of every state, in order, and the hidden states (B, D) that predict their first token.

    No row may be fed more than `max_new_tokens` tokens beyond those that were rewound.
    """
    rows = [
        (number, question)
        for number, state in enumerate(states)
        for question in range(len(state.tree.questions))
    ]
    width = max((len(states[state].tree.questions[question]) for state, question in rows), default=0)
    decoding = Decoding(model, states, rows, capacity=width + max_new_tokens)
    return decoding, torch.cat([state.question_end_GD for state in states])


def _rest_rows(state: PromptState, question: int) -> np.ndarray:
    """Where a question's tokens stand among the tokens after the prefix."""
    return np.flatnonzero(state.rest_nodes.question_T == question)


def _stacked(one: Sequence[Tensor], other: Sequence[Tensor]) -> list[Tensor]:
    """Buffers (B, K, C, D) of each layer below one another, as wide as the wider ones."""
    width = max(one[0].shape[2], other[0].shape[2])
    padded = ([F.pad(buffer, (0, 0, 0, width - buffer.shape[2])) for buffer in each] for each in (one, other))
    return [torch.cat(both) for both in zip(*padded, strict=True)]


def _buffer(tensors: Sequence[Tensor], indices: Sequence[Tensor], capacity: int) -> Tensor:
    """Per row, its own columns of a (1, K, R, D) tensor, left-aligned in (B, K, capacity, D)."""
    _, heads, _, size = tensors[0].shape
    buffer = tensors[0].new_zeros(len(tensors), heads, capacity, size)
    for row, (tensor_1KRD, index) in enumerate(zip(tensors, indices, strict=True)):
        buffer[row, :, : len(index)] = tensor_1KRD[0].index_select(1, index)
    return buffer
