"""Greedy and sampled generation on a GPU, a token of all rows as one CUDA graph.

A step of decoding is hundreds of small kernels, and Python takes longer to start them than the GPU to run them. Here a
step (embeddings, layers, output layer, choice of the token) is recorded once per shape and replayed for every token;
nothing is read back but, every few tokens, whether all rows have ended. What is written is what `generate` writes, up
to rounding.

Graphs have fixed shapes and addresses. So rows lie in a grid of S trees by R questions each, whose sizes are rounded up
(`Grid`), and rows that have ended are written on to the end. The weights are read where they were when the graph was
recorded: an optimizer that writes them in place may go on; if they have moved, the step is recorded again.

Shapes: B = S · R rows, H query heads, K key/value heads (H = K · n), P prefix tokens, C columns of a row's own keys, D
head size, M tokens written at most.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
import torch
from torch import Tensor

from distilsql.models.attention import additive, wide_product
from distilsql.models.flex_attention import KEY_STEPS, TOKEN_STEPS, bucket
from distilsql.models.layer_pass import ByLayer, KeyValue, LayerPass
from distilsql.models.token_choice import choose_tokens
from distilsql.models.tree import Completion
from distilsql.models.tree_model import PromptState, TreeModel

log = logging.getLogger(__name__)

ROW_STEP = 4  # rows of a tree are rounded up to a multiple of it
LOOK_EVERY = 8  # tokens between two looks at whether all rows have ended
MOST_GRIDS = 16  # recorded for one model; the least recently used one leaves first
MOST_BYTES = 8 * 2**30  # of one grid's keys and values
MOST_DIFFERENCE = 0.02  # between a recorded step and the step itself, as a share; the kernels are the same


@dataclass(frozen=True)
class Grid:
    """What a recorded step is good for."""

    trees: int
    rows: int  # of each tree
    prefix: int
    columns: int
    tokens: int
    vocabulary_size: int
    temperature: float

    @staticmethod
    def holding(
        states: Sequence[PromptState], max_new_tokens: int, vocabulary_size: int, temperature: float
    ) -> "Grid":
        """The smallest one for these prompts."""
        rows = max(len(state.tree.questions) for state in states)
        width = max(len(question) for state in states for question in state.tree.questions)
        prefix = max(len(state.tree.prefix) for state in states)
        return Grid(
            trees=len(states),
            rows=-(-rows // ROW_STEP) * ROW_STEP,
            prefix=bucket(prefix, KEY_STEPS) if prefix else 0,
            columns=bucket(width + max_new_tokens, TOKEN_STEPS),
            tokens=max_new_tokens,
            vocabulary_size=vocabulary_size,
            temperature=temperature,
        )

    def bytes(self, states: Sequence[PromptState]) -> int:
        """Of all keys and values."""
        positions = self.trees * (self.prefix + self.rows * self.columns)
        return positions * sum(
            2 * key.shape[1] * key.shape[3] * key.element_size() for key, _ in states[0].rest
        )


class TokenStep(ByLayer):
    """The rows of a grid, and a step that chooses a token for each and feeds it."""

    def __init__(self, model: TreeModel, grid: Grid, state: PromptState) -> None:
        self.model, self.grid = model, grid
        trees, batch, device = grid.trees, grid.trees * grid.rows, model.device
        example, _ = state.rest[0]
        shapes = [(key.shape[1], key.shape[3], value.shape[3]) for key, value in state.rest]
        zeros = example.new_zeros
        self.prefix_keys = [zeros(trees, heads, grid.prefix, size) for heads, size, _ in shapes]
        self.prefix_values = [zeros(trees, heads, grid.prefix, size) for heads, _, size in shapes]
        self.keys = [zeros(batch, heads, grid.columns, size) for heads, size, _ in shapes]
        self.values = [zeros(batch, heads, grid.columns, size) for heads, _, size in shapes]
        self.hidden_BD = state.question_end_GD.new_zeros(batch, state.question_end_GD.shape[1])
        self.prefix_length_S = torch.zeros(trees, dtype=torch.int64, device=device)
        self.length_B = torch.zeros(batch, dtype=torch.int64, device=device)
        self.ended_B = torch.zeros(batch, dtype=torch.bool, device=device)
        self.position_1 = torch.zeros(1, dtype=torch.int64, device=device)
        self.eos_1 = torch.zeros(1, dtype=torch.int64, device=device)
        self.written_BM = torch.zeros(batch, grid.tokens, dtype=torch.int64, device=device)
        self.uniform_BM = torch.zeros(batch, grid.tokens, dtype=torch.float64, device=device)
        self._rows_B = torch.arange(batch, device=device)
        self._prefix_column_P = torch.arange(grid.prefix, device=device)
        self._column_C = torch.arange(grid.columns, device=device)
        self._unread_mask = torch.zeros(1, 1, 1, 1, dtype=model.dtype, device=device)
        self._run: Callable[[], None] = self.step

    @torch.no_grad()
    def record(self) -> None:
        """Record the step as a CUDA graph.

        Raises RuntimeError if the model does something that cannot be recorded, or the record gives something else.
        """
        start_BD = torch.randn_like(self.hidden_BD)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # libraries set themselves up in the first calls
                stepped_BD = self._stepped_from(start_BD, self.step)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        self.check(self._stepped_from(start_BD, graph.replay), stepped_BD)
        self._run = graph.replay

    def _stepped_from(self, hidden_BD: Tensor, step: Callable[[], None]) -> Tensor:
        self._start_over()
        self.hidden_BD.copy_(hidden_BD)
        step()
        return self.hidden_BD.clone()

    @staticmethod
    def check(recorded_BD: Tensor, stepped_BD: Tensor) -> None:
        """Raises RuntimeError unless both hidden states are the same up to rounding."""
        difference = (recorded_BD - stepped_BD).float().norm() / stepped_BD.float().norm()
        if not difference < MOST_DIFFERENCE:
            raise RuntimeError(
                f"what was recorded differs from what it was recorded from by {difference:.1%}"
            )

    def _start_over(self) -> None:
        for number in (self.prefix_length_S, self.length_B, self.ended_B, self.position_1):
            number.zero_()

    def load(self, states: Sequence[PromptState], eos_token_id: int, uniform_BM: np.ndarray) -> list[int]:
        """Put prompts into the grid; returns the rows, in order, that are questions. `uniform_BM` are theirs."""
        self._start_over()
        self.ended_B.fill_(True)
        self.eos_1.fill_(eos_token_id)
        rows: list[int] = []
        for tree, state in enumerate(states):
            length = len(state.tree.prefix)
            self.prefix_length_S[tree] = length
            for layer, (key, value) in enumerate(state.prefix.layers if length else []):
                self.prefix_keys[layer][tree, :, :length] = key[0]
                self.prefix_values[layer][tree, :, :length] = value[0]
            first = tree * self.grid.rows
            self._load_questions(state, first)
            rows += range(first, first + len(state.tree.questions))
        self.ended_B[rows] = False
        self.uniform_BM[rows] = torch.from_numpy(uniform_BM).to(self.uniform_BM)
        return rows

    def _load_questions(self, state: PromptState, first: int) -> None:
        """The questions of a tree into rows from `first` on, left-aligned."""
        lengths = np.array([len(question) for question in state.tree.questions])
        row = np.repeat(np.arange(len(lengths)) + first, lengths)
        column = np.concatenate([np.arange(length) for length in lengths])
        device = self.model.device
        row_R, column_R = torch.from_numpy(row).to(device), torch.from_numpy(column).to(device)
        for layer, (key, value) in enumerate(state.rest):
            self.keys[layer][row_R, :, column_R] = key[0].transpose(0, 1)
            self.values[layer][row_R, :, column_R] = value[0].transpose(0, 1)
        place = slice(first, first + len(lengths))
        self.length_B[place] = torch.from_numpy(lengths).to(device)
        self.hidden_BD[place] = state.question_end_GD

    @torch.no_grad()
    def write(self) -> Tensor:
        """Tokens (B, M) of all rows; those after a row's end-of-sequence token mean nothing."""
        for position in range(self.grid.tokens):
            self._run()
            if position % LOOK_EVERY == LOOK_EVERY - 1 and bool(self.ended_B.all()):
                break
        return self.written_BM

    @torch.no_grad()
    def step(self) -> None:
        """Choose the next token of every row, and feed it."""
        grid, model = self.grid, self.model
        logp_BV = model.head().log_probs(self.hidden_BD, grid.vocabulary_size)
        uniform_B = self.uniform_BM.index_select(1, self.position_1)[:, 0]
        tokens_B = choose_tokens(logp_BV, grid.temperature, uniform_B)
        self.written_BM.index_copy_(1, self.position_1, tokens_B[:, None])
        self.ended_B.logical_or_(tokens_B == self.eos_1)
        self._prefix_mask = additive(self._prefix_column_P >= self.prefix_length_S[:, None], torch.float32)
        self._own_mask = additive(self._column_C > self.length_B[:, None], torch.float32)
        position_B = self.prefix_length_S.repeat_interleave(grid.rows) + self.length_B
        output = model.decoder(
            input_ids=tokens_B[None],
            position_ids=position_B[None],
            attention_mask=self._unread_mask,
            use_cache=False,
            tree=self,
        )
        self.hidden_BD.copy_(output.last_hidden_state[0])
        self.length_B.add_(1)
        self.position_1.add_(1)

    def layer_pass(self, layer: int) -> "GridLayerPass":
        return GridLayerPass(
            (self.prefix_keys[layer], self.prefix_values[layer]),
            (self.keys[layer], self.values[layer]),
            (self._prefix_mask, self._own_mask),
            (self._rows_B, self.length_B),
        )

    def take(self, layer: int, new: KeyValue) -> None:
        """Nothing is left to do: keys and values are in their places."""


class GridLayerPass(LayerPass):
    """One layer of a step: `prefix` (S, K, P, D), `own` (B, K, C, D), additive masks (S, P) and (B, C), and the
    `places` of the new tokens, (B) each."""

    def __init__(
        self, prefix: KeyValue, own: KeyValue, masks: tuple[Tensor, Tensor], places: tuple[Tensor, Tensor]
    ) -> None:
        self.prefix, self.own, self.masks, self.places = prefix, own, masks, places

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Store keys and values, attend to the tree's prefix and to the row's own tokens."""
        self.new = (key, value)
        rows_B, column_B = self.places
        for buffer, new in zip(self.own, (key, value), strict=True):
            buffer[rows_B, :, column_B] = new[0].transpose(0, 1)
        keys, values = self.own
        prefix_keys, prefix_values = self.prefix
        prefix_mask, own_mask = self.masks
        heads, batch, size = query.shape[1:]
        trees, key_heads, prefix, _ = prefix_keys.shape
        grid = (trees, batch // trees)
        # (H, B, D) → trees, key/value heads, and the queries of one head of one tree side by side, row by row
        by_row_BKnD = query[0].transpose(0, 1).reshape(batch, key_heads, heads // key_heads, size)
        by_tree_SKQD = by_row_BKnD.unflatten(0, grid).transpose(1, 2).flatten(2, 3).contiguous()
        own_BKnC = wide_product(by_row_BKnD, keys.mT) * scale + own_mask[:, None, None]
        prefix_SKQP = wide_product(by_tree_SKQD, prefix_keys.mT) * scale + prefix_mask[:, None, None]
        own_SKQC = own_BKnC.unflatten(0, grid).transpose(1, 2).flatten(2, 3)
        weights_SKQX = torch.cat([prefix_SKQP, own_SKQC], dim=-1).softmax(-1).to(value.dtype)
        of_prefix_SKQP, of_own_SKQC = weights_SKQX[..., :prefix], weights_SKQX[..., prefix:]
        of_own_BKnC = of_own_SKQC.unflatten(2, (grid[1], -1)).transpose(1, 2).flatten(0, 1)
        shared_SRKnD = (of_prefix_SKQP @ prefix_values).unflatten(2, (grid[1], -1)).transpose(1, 2)
        output_BKnD = shared_SRKnD.flatten(0, 1) + of_own_BKnC @ values
        return output_BKnD.reshape(batch, heads, -1).transpose(0, 1)[None]


# Recorded steps by model and grid.
_RECORDED: WeakKeyDictionary[TreeModel, OrderedDict[Grid, tuple[TokenStep, list[int]]]] = WeakKeyDictionary()
_UNFIT: WeakSet[TreeModel] = WeakSet()  # whose step cannot be recorded


def write_by_graph(
    model: TreeModel,
    states: Sequence[PromptState],
    *,
    eos_token_id: int,
    vocabulary_size: int,
    max_new_tokens: int,
    temperature: float,
    uniform_BM: np.ndarray,
) -> list[Completion] | None:
    """A completion of every question of every tree, in order; None where the step cannot be recorded, or would need
    too much memory. `uniform_BM` are the uniform numbers of each question and token."""
    grid = Grid.holding(states, max_new_tokens, vocabulary_size, temperature)
    if model in _UNFIT or grid.bytes(states) > MOST_BYTES:
        return None
    step = _recorded(model, grid, states[0])
    if step is None:
        return None
    rows = step.load(states, eos_token_id, uniform_BM)
    return [ended_at(tokens, eos_token_id) for tokens in step.write()[rows].tolist()]


def ended_at(tokens: list[int], eos_token_id: int) -> Completion:
    """The tokens up to the first end-of-sequence token, which is part of them."""
    if eos_token_id in tokens:
        tokens = tokens[: tokens.index(eos_token_id) + 1]
    return tuple(tokens)


def can_record(model: TreeModel) -> bool:
    """Whether steps of this model are worth recording: on a GPU, by its attention interface, whole on one device."""
    is_whole = not model.sharding.is_sharded
    return is_whole and model.device.type == "cuda" and model.layout == "tree" and model.attention == "flex"


def _recorded(model: TreeModel, grid: Grid, state: PromptState) -> TokenStep | None:
    steps = _RECORDED.setdefault(model, OrderedDict())
    addresses = [parameter.data_ptr() for parameter in model.model.parameters()]
    if grid in steps:
        step, recorded_at = steps.pop(grid)
        if recorded_at == addresses:
            steps[grid] = step, recorded_at
            return step
    while len(steps) >= MOST_GRIDS:
        steps.popitem(last=False)
    step = TokenStep(model, grid, state)
    try:
        step.record()
    except RuntimeError as error:
        _UNFIT.add(model)
        log.warning(f"Tokens are written one kernel at a time, which is slower: {error}")
        return None
    steps[grid] = step, addresses
    return step
