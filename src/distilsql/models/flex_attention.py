"""Attention on a PromptTree as a FlexAttention block mask: the tree on GPUs.

`visible` (models/tree.py) is written once more as a `mask_mod` over six index tensors: question, branch and depth
of each query token and of each key token. A block of 128 × 128 pairs that no query of it may see is never
computed, one that every query sees is computed without a mask, so a prefix costs what causal attention costs and
questions cost nothing to each other.

Kernels are compiled once per shape, so lengths come from a short list (`bucket`). Tokens that fill a length up see
themselves and are seen by nobody; their three numbers say that, too (`padding_nodes`), not by a second
rule. Models run with the attention implementation of `attention.py`, whose function calls `FlexContext.attend`.

Shapes: T new tokens filled up, S keys filled up (past prefix, past rest, new tokens, filling), H query heads, K
key/value heads, D head size. Tensors carry a leading batch dimension of 1.
"""

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_mask, flex_attention

from distilsql.models.attention import TreeContext
from distilsql.models.layer_pass import ByLayer, KeyValue, LayerPass
from distilsql.models.tree import Nodes, PassLayout

# FlexAttention's own block size. Lengths are whole blocks: kernels for a last block that is only partly there have
# a record of NaNs in their backward pass, and passes under 128 rows take another kernel with other limits.
BLOCK = 128
# Lengths between one power of two and the next. New tokens are filled up finely, since a filling token runs through
# the whole model; keys coarsely, since a block of filling keys is skipped and only its shape counts.
TOKEN_STEPS, KEY_STEPS = 4, 2
# torch's default is 8 shapes per function, after which it silently runs FlexAttention uncompiled, with the whole
# score matrix in memory. Trees of up to 8,192 tokens in one pass have 19 shapes, each with and without gradient.
SHAPE_LIMIT = 256
# Pairs of a query and a key that are looked at at once for a block mask.
MOST_PAIRS = 2**27

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class FlexContext(ByLayer, TreeContext):
    """TreeContext of a filled-up pass: `token_count` new tokens are real, `key_filling` keys follow the new ones."""

    def __init__(
        self,
        new_prefix_length: int,
        past_prefix: list[KeyValue] | None,
        past_rest: list[KeyValue] | None,
        *,
        token_count: int,
        key_filling: int,
        mask: BlockMask,
    ) -> None:
        super().__init__(new_prefix_length, None, past_prefix, past_rest)
        self.token_count, self.key_filling, self.mask = token_count, key_filling, mask

    def layer_pass(self, layer: int) -> "FlexLayerPass":
        past = [layers[layer] for layers in (self.past_prefix, self.past_rest) if layers]
        return FlexLayerPass(past, self.key_filling, self.mask)

    def take(self, layer: int, new: KeyValue) -> None:
        """Leave a layer's keys and values of the real tokens behind."""
        key, value = new
        split, end = self.new_prefix_length, self.token_count
        self.keep(
            layer,
            (key[:, :, :split], value[:, :, :split]),
            (key[:, :, split:end], value[:, :, split:end]),
        )


class FlexLayerPass(LayerPass):
    """One layer of a filled-up pass. `past` are the keys and values of passes before."""

    def __init__(self, past: list[KeyValue], key_filling: int, mask: BlockMask) -> None:
        self.past, self.key_filling, self.mask = past, key_filling, mask

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        self.new = (key, value)
        keys = _joined([pair[0] for pair in self.past], key, self.key_filling)
        values = _joined([pair[1] for pair in self.past], value, self.key_filling)
        return attend_by_blocks(query, keys, values, self.mask, scale)


def flex_pass(
    layout: PassLayout,
    past_prefix: list[KeyValue] | None,
    past_rest: list[KeyValue] | None,
    device: torch.device,
) -> tuple[PassLayout, FlexContext]:
    """A pass filled up to its bucket, and the context its attention layers run in."""
    token_count = len(layout.nodes)
    past = Nodes.joined([layout.past_prefix, layout.past])
    filled_count = bucket(token_count, TOKEN_STEPS)
    # Without a past the keys are the new tokens as they are, and nothing is copied.
    key_count = bucket(len(past) + filled_count, KEY_STEPS) if len(past) else filled_count
    key_filling = key_count - len(past) - filled_count
    nodes = Nodes.joined([layout.nodes, padding_nodes(filled_count - token_count)])
    keys = Nodes.joined([past, nodes, padding_nodes(key_filling, first=filled_count - token_count)])
    mask = tree_block_mask(nodes, keys, device)
    filled = PassLayout(
        np.pad(layout.token_ids_T, (0, filled_count - token_count)), nodes, layout.past_prefix, layout.past
    )
    context = FlexContext(
        layout.new_prefix_length,
        past_prefix,
        past_rest,
        token_count=token_count,
        key_filling=key_filling,
        mask=mask,
    )
    return filled, context


def bucket(count: int, steps: int) -> int:
    """The smallest allowed length that holds `count` tokens: whole blocks, `steps` lengths per power of two.

    Two blocks at least: what is compiled for lengths in general is compiled apart for one.
    """
    blocks = max(2, -(-count // BLOCK))
    step = max(1, (1 << blocks.bit_length() - 1) // steps)
    return -(-blocks // step) * step * BLOCK


def padding_nodes(count: int, first: int = 0) -> Nodes:
    """Nodes that see themselves alone and that no token of a tree sees, under `visible` as it stands.

    Each has a question of its own (−2, −3, …; `first` continues the numbering), and lies above the root, where
    the prefix, at depth 0 and below, is out of its sight.
    """
    own_question = -2 - np.arange(first, first + count, dtype=np.int64)
    minus_one = np.full(count, -1, dtype=np.int64)
    return Nodes(own_question, minus_one, minus_one)


def tree_block_mask(query: Nodes, key: Nodes, device: torch.device) -> BlockMask:
    """The block mask of `visible`; both numbers of tokens are whole blocks.

    As torch's `create_block_mask` makes it, which takes longer to start its kernels than the layers of a small model.
    """
    queries, keys = _index_tensors(query, device), _index_tensors(key, device)
    sees = _mask_mod(queries, keys)
    rows, columns = len(query) // BLOCK, len(key) // BLOCK
    key_index = torch.arange(len(key), device=device)
    seen_counts = []
    at_once = max(1, MOST_PAIRS // len(key) // BLOCK) * BLOCK
    for query_index in torch.arange(len(query), device=device).split(at_once):
        seen_QK = sees(key_index, key_index, query_index[:, None], key_index)
        seen_counts.append(seen_QK.view(-1, BLOCK, columns, BLOCK).sum((1, 3), dtype=torch.int32))
    seen_count = torch.cat(seen_counts).view(1, 1, rows, columns)
    full = seen_count == BLOCK * BLOCK
    some = (seen_count > 0) & ~full
    return BlockMask.from_kv_blocks(
        *_in_order(some),
        *_in_order(full),
        BLOCK_SIZE=BLOCK,
        mask_mod=sees,
        seq_lengths=(len(query), len(key)),
    )


def _in_order(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of each row are set, and all columns, those of set blocks first."""
    return blocks.sum(-1, dtype=torch.int32), blocks.int().argsort(dim=-1, descending=True, stable=True).int()


def _mask_mod(queries: tuple[Tensor, Tensor, Tensor], keys: tuple[Tensor, Tensor, Tensor]) -> MaskMod:
    """`visible` for one query and one key by index, as FlexAttention compiles it into its kernels."""
    query_question, query_branch, query_depth = queries
    key_question, key_branch, key_depth = keys

    def sees(batch: Tensor, head: Tensor, query_index: Tensor, key_index: Tensor) -> Tensor:
        question, branch = key_question[key_index], key_branch[key_index]
        return (
            (key_depth[key_index] <= query_depth[query_index])
            & ((question == -1) | (question == query_question[query_index]))
            & ((branch == -1) | (branch == query_branch[query_index]))
        )

    return sees


def attend_by_blocks(query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, scale: float) -> Tensor:
    """Masked attention, query (1, H, T, D), key and value (1, K, S, D): the compiled kernel on CUDA.

    Elsewhere the same mask written out, through SDPA: torch's FlexAttention has no gradient on a CPU.
    """
    grouped = query.shape[1] != key.shape[1]
    if torch.compiler.is_compiling():  # as part of a layer
        return flex_attention(query, key, value, block_mask=mask, scale=scale, enable_gqa=grouped)  # type: ignore[return-value]
    if query.is_cuda:
        return compiled_flex_attention()(query, key, value, block_mask=mask, scale=scale, enable_gqa=grouped)
    allowed = create_mask(mask.mask_mod, None, None, query.shape[2], key.shape[2], device=query.device)
    return F.scaled_dot_product_attention(query, key, value, allowed, scale=scale, enable_gqa=grouped)


@functools.cache
def compiled_flex_attention() -> Callable[..., Any]:
    """One compiled function for all layers, models and trees of a process, with static shapes."""
    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.config.recompile_limit = max(limit, SHAPE_LIMIT)
    return torch.compile(flex_attention, dynamic=False)


def fits_flex_attention(config: Any, device: torch.device) -> bool:
    """Whether compiled FlexAttention runs on this device for this model's head size.

    Triton's matrix products need heads of at least 16; sizes between powers of two are compiled by some versions
    of torch only, and above 256 a block does not fit into shared memory.
    """
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    size = head_size(config)
    return 16 <= size <= 256 and size.bit_count() == 1 and torch.cuda.get_device_capability(device) >= (8, 0)


def head_size(config: Any) -> int:
    """Dimensions of one attention head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _index_tensors(nodes: Nodes, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    numbers = np.stack([nodes.question_T, nodes.branch_T, nodes.depth_T]).astype(np.int32)
    question, branch, depth = torch.from_numpy(numbers).to(device)
    return question, branch, depth


def _joined(past: list[Tensor], new: Tensor, filling: int) -> Tensor:
    """Keys (or values) of all passes in the order of the mask: past, new, filling."""
    parts = [*past, new]
    if filling:
        parts.append(new.new_zeros(*new.shape[:2], filling, new.shape[3]))
    return torch.cat(parts, dim=2) if len(parts) > 1 else new
