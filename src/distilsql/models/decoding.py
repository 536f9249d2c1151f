"""Token-by-token decoding of many questions under one database prefix.

A `Decoding` holds the rows in flight: the prefix's keys and values once, shared by all rows, and a buffer of
each row's own keys and values, aligned to the right so that every row writes the next token into the same
column. Rows leave when they are finished (`keep`), and are reordered or repeated by the same call (beams).

Shapes: B rows in flight, H query heads, K key/value heads, P prefix tokens, C buffer columns, D head size.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from distilsql.models.attention import attend_one_token
from distilsql.models.tree_model import PromptState, TreeModel


@dataclass
class _Rows:
    """Per row: its next position id and how many leading buffer columns are padding."""

    depth_B: Tensor
    padding_B: Tensor
    used_columns: int

    def select(self, rows: Tensor) -> None:
        self.depth_B, self.padding_B = self.depth_B[rows], self.padding_B[rows]

    def own_mask(self, dtype: torch.dtype, columns: int) -> Tensor:
        """Additive mask (B, columns) that hides the padding in front of each row's question."""
        hidden = torch.arange(columns, device=self.depth_B.device)[None, :] < self.padding_B[:, None]
        return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(
            hidden, float("-inf")
        )


class Decoding:
    """Rows of one tree being written. `step` feeds one token per row and returns the next hidden states."""

    def __init__(self, model: TreeModel, state: PromptState, question_B: list[int], capacity: int) -> None:
        self.model = model
        self.prefix = state.prefix.layers
        lengths = [len(state.tree.questions[question]) for question in question_B]
        width = max(lengths, default=0)
        depth = [len(state.tree.prefix) + length for length in lengths]
        self.rows = _Rows(
            torch.tensor(depth, device=model.device),
            torch.tensor([width - length for length in lengths], device=model.device),
            width,
        )
        index_BC = torch.from_numpy(_right_aligned(state, question_B, width)).to(model.device)
        self.keys = [_buffer(key, index_BC, capacity) for key, _ in state.rest]
        self.values = [_buffer(value, index_BC, capacity) for _, value in state.rest]

    def __len__(self) -> int:
        return len(self.rows.depth_B)

    def keep(self, rows_B: Tensor) -> None:
        """Go on with these rows only, in this order; a row may be repeated."""
        self.rows.select(rows_B)
        self.keys = [buffer[rows_B] for buffer in self.keys]
        self.values = [buffer[rows_B] for buffer in self.values]

    @torch.no_grad()
    def step(self, tokens_B: Tensor) -> Tensor:
        """Feed one token per row; hidden states (B, D) that predict the token after it."""
        hidden_BD = self._by_parts(tokens_B) if self.model.attention == "parts" else self._dense(tokens_B)
        self.rows.depth_B = self.rows.depth_B + 1
        self.rows.used_columns += 1
        return hidden_BD

    def _by_parts(self, tokens_B: Tensor) -> Tensor:
        model = self.model
        self._mask_BC = self.rows.own_mask(model.dtype, self.rows.used_columns + 1)
        output = model.decoder(
            input_ids=tokens_B.unsqueeze(0),
            position_ids=self.rows.depth_B.unsqueeze(0),
            attention_mask=torch.zeros(1, 1, 1, 1, dtype=model.dtype, device=model.device),
            use_cache=False,
            tree=self,
        )
        return output.last_hidden_state[0]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Called by the attention layers: store the new keys and values, attend to prefix and own buffer."""
        column = self.rows.used_columns
        self.keys[layer][:, :, column] = key[0].transpose(0, 1)
        self.values[layer][:, :, column] = value[0].transpose(0, 1)
        own = (self.keys[layer][:, :, : column + 1], self.values[layer][:, :, : column + 1])
        prefix = self.prefix[layer] if self.prefix else None
        return attend_one_token(query, prefix, own, self._mask_BC, scale)

    def _dense(self, tokens_B: Tensor) -> Tensor:
        """The same step through the stock forward, for models without an attention interface and for GPUs."""
        model, column = self.model, self.rows.used_columns
        batch = len(tokens_B)
        cache: Any = DynamicCache()
        for layer, (key, value) in enumerate(zip(self.keys, self.values, strict=True)):
            shared = self.prefix[layer] if self.prefix else (key[:1, :, :0], value[:1, :, :0])
            keys = torch.cat([shared[0].expand(batch, -1, -1, -1), key[:, :, :column]], dim=2)
            values = torch.cat([shared[1].expand(batch, -1, -1, -1), value[:, :, :column]], dim=2)
            cache.update(keys, values, layer)
        own_BC = self.rows.own_mask(model.dtype, column + 1).clamp_min(torch.finfo(model.dtype).min)
        prefix_length = cache.get_seq_length() - column
        mask = torch.cat([own_BC.new_zeros(batch, prefix_length), own_BC], dim=1)
        output = model.decoder(
            input_ids=tokens_B.unsqueeze(1),
            position_ids=self.rows.depth_B.unsqueeze(1),
            attention_mask=mask[:, None, None],
            past_key_values=cache,
            use_cache=True,
        )
        for layer, cached in enumerate(cache.layers):
            self.keys[layer][:, :, column] = cached.keys[:, :, -1]
            self.values[layer][:, :, column] = cached.values[:, :, -1]
        return output.last_hidden_state[:, -1]


def start_decoding(
    model: TreeModel, state: PromptState, question_B: list[int], max_new_tokens: int
) -> tuple[Decoding, Tensor]:
    """Rows for the given questions (repeats allowed) and the hidden states (B, D) that predict their first token."""
    width = max((len(state.tree.questions[question]) for question in question_B), default=0)
    decoding = Decoding(model, state, question_B, capacity=width + max_new_tokens)
    return decoding, state.question_end_GD[torch.tensor(question_B, device=model.device)]


def _right_aligned(state: PromptState, question_B: list[int], width: int) -> np.ndarray:
    """Index (B, width) into the rest tokens; padding points at token 0 and is masked."""
    index = np.zeros((len(question_B), width), dtype=np.int64)
    for row, question in enumerate(question_B):
        tokens = np.flatnonzero(state.rest_nodes.question_T == question)
        index[row, width - len(tokens) :] = tokens
    return index


def _buffer(tensor_1KRD: Tensor, index_BC: Tensor, capacity: int) -> Tensor:
    """(1, K, R, D) gathered into (B, K, capacity, D), the columns after the question still free."""
    heads, _, size = tensor_1KRD.shape[1:]
    batch, width = index_BC.shape
    buffer = tensor_1KRD.new_zeros(batch, heads, capacity, size)
    if width:
        gathered = tensor_1KRD[0].index_select(1, index_BC.reshape(-1)).view(heads, batch, width, size)
        buffer[:, :, :width] = gathered.transpose(0, 1)
    return buffer
