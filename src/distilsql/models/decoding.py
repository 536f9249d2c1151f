"""Decoding of many questions under one database prefix, a token or a block of tokens at a time.

A `Decoding` holds the rows in flight: the prefix's keys and values once, shared by all rows, and a buffer of
each row's own keys and values (question, then what was written). Rows may have different lengths. They leave
when they are finished (`keep`), are reordered or repeated by the same call (beams), and forget their last tokens
when a draft is rejected (`rewind`).

Shapes: B rows in flight, L tokens fed per row, H query heads, K key/value heads, P prefix tokens, C buffer
columns, D head size (or hidden size, in hidden states).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from distilsql.models.attention import attend_rows
from distilsql.models.tree_model import PromptState, TreeModel


class Decoding:
    """Rows of one tree being written. `extend` feeds tokens and returns the hidden states that predict the next;
    `log_probs(hidden_ND, vocabulary_size)` turns those into float32 log-probabilities (N, V).

    The model's weights must not change while a Decoding is in use.
    """

    def __init__(self, model: TreeModel, state: PromptState, question_B: list[int], capacity: int) -> None:
        self.model = model
        self.prefix = state.prefix.layers
        self.prefix_length = len(state.tree.prefix)
        lengths = [len(state.tree.questions[question]) for question in question_B]
        self.length_B = torch.tensor(lengths, device=model.device)
        index_BC = torch.from_numpy(_left_aligned(state, question_B)).to(model.device)
        self.keys = [_buffer(key, index_BC, capacity) for key, _ in state.rest]
        self.values = [_buffer(value, index_BC, capacity) for _, value in state.rest]
        self._linears, self.log_probs = model.decoding_weights()

    def __len__(self) -> int:
        return len(self.length_B)

    def keep(self, rows_B: Tensor) -> None:
        """Go on with these rows only, in this order; a row may be repeated."""
        self.length_B = self.length_B[rows_B]
        self.keys = [buffer[rows_B] for buffer in self.keys]
        self.values = [buffer[rows_B] for buffer in self.values]

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
        run = self._by_parts if self.model.attention == "parts" else self._dense
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
        self._mask_BLC = _additive(hidden_from, model.dtype, float("-inf"))
        output = model.decoder(
            input_ids=tokens_BL.reshape(1, -1),
            position_ids=(self.prefix_length + columns_BL).reshape(1, -1),
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
        return attend_rows(query, self.prefix[layer] if self.prefix else None, own, self._mask_BLC, scale)

    def _dense(self, tokens_BL: Tensor, columns_BL: Tensor) -> Tensor:
        """The same through the stock forward, for models without an attention interface and for GPUs."""
        model, (batch, length) = self.model, tokens_BL.shape
        used = int(self.length_B.max())
        cache: Any = DynamicCache()
        for layer, (key, value) in enumerate(zip(self.keys, self.values, strict=True)):
            shared = self.prefix[layer] if self.prefix else (key[:1, :, :0], value[:1, :, :0])
            keys = torch.cat([shared[0].expand(batch, -1, -1, -1), key[:, :, :used]], dim=2)
            values = torch.cat([shared[1].expand(batch, -1, -1, -1), value[:, :, :used]], dim=2)
            cache.update(keys, values, layer)
        past = cache.get_seq_length()
        hidden = torch.zeros(batch, length, past + length, dtype=torch.bool, device=model.device)
        hidden[:, :, past - used : past] = (
            torch.arange(used, device=model.device) >= self.length_B[:, None, None]
        )
        hidden[:, :, past:] = torch.ones(length, length, dtype=torch.bool, device=model.device).triu(1)
        output = model.decoder(
            input_ids=tokens_BL,
            position_ids=self.prefix_length + columns_BL,
            attention_mask=_additive(hidden, model.dtype, torch.finfo(model.dtype).min)[:, None],
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


def start_decoding(
    model: TreeModel, state: PromptState, question_B: list[int], max_new_tokens: int
) -> tuple[Decoding, Tensor]:
    """Rows for the given questions (repeats allowed) and the hidden states (B, D) that predict their first token.

    No row may be fed more than `max_new_tokens` tokens beyond those that were rewound.
    """
    width = max((len(state.tree.questions[question]) for question in question_B), default=0)
    decoding = Decoding(model, state, question_B, capacity=width + max_new_tokens)
    return decoding, state.question_end_GD[torch.tensor(question_B, device=model.device)]


def _left_aligned(state: PromptState, question_B: list[int]) -> np.ndarray:
    """Index (B, longest question) into the rest tokens; columns after a short question point at token 0 and are
    hidden until they are written over."""
    rows = [np.flatnonzero(state.rest_nodes.question_T == question) for question in question_B]
    index = np.zeros((len(rows), max(map(len, rows), default=0)), dtype=np.int64)
    for row, tokens in enumerate(rows):
        index[row, : len(tokens)] = tokens
    return index


def _additive(hidden: Tensor, dtype: torch.dtype, lowest: float) -> Tensor:
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, lowest)


def _buffer(tensor_1KRD: Tensor, index_BC: Tensor, capacity: int) -> Tensor:
    """(1, K, R, D) gathered into (B, K, capacity, D), the columns after the question still free."""
    heads, _, size = tensor_1KRD.shape[1:]
    batch, width = index_BC.shape
    buffer = tensor_1KRD.new_zeros(batch, heads, capacity, size)
    if width:
        gathered = tensor_1KRD[0].index_select(1, index_BC.reshape(-1)).view(heads, batch, width, size)
        buffer[:, :, :width] = gathered.transpose(0, 1)
    return buffer
