"""Attention on a PromptTree by parts, as an attention implementation of `transformers`.

A token after the prefix attends to the whole prefix (no mask at all) and to its own question's tokens (a small
masked batch, one row per question). The two parts are computed by fused kernels that also return their
log-sum-exp and are merged exactly:

    out = Σ_i exp(lse_i − lse) · out_i,   lse = logaddexp_i lse_i.

The backward pass calls each kernel's own backward with the merged output and the merged lse, which is the exact
gradient of the merged softmax. A dense mask over the same tokens would compute every pair, most of them forbidden.

Models run with the implementation named `IMPLEMENTATION`; a forward call without `tree=` behaves as SDPA.

Shapes: H query heads, K key/value heads (H = K · n), P prefix tokens, R tokens after it, G question groups,
A padded queries and C padded keys of a group, D head size. Tensors carry a leading batch dimension of 1.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from distilsql.errors import ModelError
from distilsql.models.layer_pass import KeyValue, LayerPass
from distilsql.models.tree import GroupLayout

IMPLEMENTATION = "distilsql_tree"


class TreeContext:
    """What the attention layers of one forward pass need, and what they leave behind.

    `past_prefix` and `past_rest` hold a (keys, values) pair per layer for tokens run before; the new tokens'
    pairs are appended to `new_prefix` and `new_rest` layer by layer.

    Not a dataclass: FSDP rebuilds those among a forward's arguments, and what a layer leaves in a copy is lost.
    """

    def __init__(
        self,
        new_prefix_length: int,
        groups: GroupLayout | None,
        past_prefix: list[KeyValue] | None,
        past_rest: list[KeyValue] | None,
    ) -> None:
        self.new_prefix_length, self.groups = new_prefix_length, groups
        self.past_prefix, self.past_rest = past_prefix, past_rest
        self.new_prefix: list[KeyValue] = []
        self.new_rest: list[KeyValue] = []

    def keep(self, layer: int, prefix: KeyValue, rest: KeyValue) -> None:
        """Leave a layer's new keys and values behind: the first time only, for a layer runs again where its activations
        are recomputed in the backward pass."""
        if layer < len(self.new_rest):
            return
        if self.new_prefix_length:
            self.new_prefix.append(prefix)
        self.new_rest.append(rest)


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    tree: Any = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function that `transformers` calls: query (1, H, T, D), key and value (1, K, T, D)."""
    if tree is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if dropout:
        raise ValueError("attention on a tree has no dropout: put the model in eval mode")
    if kwargs.get("softcap") or kwargs.get("s_aux") is not None:
        raise ModelError(
            f"{type(module).__name__} caps its attention scores or adds a sink to them, which attention by parts or "
            "by blocks does not support: use train.share_prefix = auto."
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if isinstance(tree, LayerPass):
        output = tree.attend(query, key, value, scale)
    else:
        output = tree.attend(module.layer_idx, query, key, value, scale)
    return output.transpose(1, 2).contiguous(), None


def attend_on_tree(
    context: TreeContext, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float
) -> Tensor:
    """Attention of all new tokens of one pass, (1, H, T, D)."""
    prefix_length = context.new_prefix_length
    outputs: list[Tensor] = []
    if prefix_length:
        prefix = (key[:, :, :prefix_length], value[:, :, :prefix_length])
        repeats = query.shape[1] // key.shape[1]
        outputs.append(
            F.scaled_dot_product_attention(
                query[:, :, :prefix_length],
                prefix[0].repeat_interleave(repeats, 1),
                prefix[1].repeat_interleave(repeats, 1),
                is_causal=True,
                scale=scale,
            )
        )
    else:
        prefix = context.past_prefix[layer] if context.past_prefix else (key[:, :, :0], value[:, :, :0])
    rest = (key[:, :, prefix_length:], value[:, :, prefix_length:])
    context.keep(layer, prefix, rest)
    if context.groups is not None and rest[0].shape[2]:
        keys, values = rest
        if context.past_rest:
            keys = torch.cat([context.past_rest[layer][0], keys], dim=2)
            values = torch.cat([context.past_rest[layer][1], values], dim=2)
        outputs.append(
            _attend_by_group(query[:, :, prefix_length:], prefix, (keys, values), context.groups, scale)
        )
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)


def _attend_by_group(
    query_1HRD: Tensor, prefix: KeyValue, rest: KeyValue, groups: GroupLayout, scale: float
) -> Tensor:
    query_GHAD = _pack(query_1HRD, groups.query_index_GA)
    key_GKCD = _pack(rest[0], groups.key_index_GC)
    value_GKCD = _pack(rest[1], groups.key_index_GC)
    return MergedAttention.apply(
        query_1HRD, query_GHAD, prefix[0], prefix[1], key_GKCD, value_GKCD, groups, scale
    )


def _pack(tensor_1HSD: Tensor, index_GA: Tensor) -> Tensor:
    """Gather tokens into groups: (1, H, S, D) and (G, A) → (G, H, A, D)."""
    picked_HNGD = tensor_1HSD[0].index_select(1, index_GA.reshape(-1))
    heads, _, size = picked_HNGD.shape
    return picked_HNGD.view(heads, *index_GA.shape, size).transpose(0, 1)


class MergedAttention(torch.autograd.Function):
    """Softmax attention over (prefix keys ∪ own group's keys), merged from two kernel calls.

    The query comes in both layouts, as rows (1, H, R, D) for the prefix and packed (G, H, A, D) for the groups;
    autograd adds the two gradients up.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query_1HRD: Tensor,
        query_GHAD: Tensor,
        prefix_key: Tensor,
        prefix_value: Tensor,
        group_key: Tensor,
        group_value: Tensor,
        groups: GroupLayout,
        scale: float,
    ) -> Tensor:
        heads = query_1HRD.shape[1]
        key_heads = group_key.shape[1]
        mask_GAC = _folded(groups.mask_GAC, query_1HRD.dtype, heads // key_heads)
        packed, packed_lse = _kernel(
            _fold(query_GHAD, key_heads), group_key, group_value, mask_GAC.to(group_key.device), scale
        )
        output = _unpack(_unfold(packed, heads), groups)
        lse = _unpack(_unfold(packed_lse.unsqueeze(-1), heads), groups).squeeze(-1)
        has_prefix = prefix_key.shape[2] > 0
        if has_prefix:
            shared, shared_lse = _kernel(_fold(query_1HRD, key_heads), prefix_key, prefix_value, None, scale)
            output, lse = merge(
                _unfold(shared, heads), _unfold(shared_lse.unsqueeze(-1), heads).squeeze(-1), output, lse
            )
        ctx.save_for_backward(
            query_1HRD, query_GHAD, prefix_key, prefix_value, group_key, group_value, output, lse, mask_GAC
        )
        ctx.groups, ctx.scale, ctx.has_prefix = groups, scale, has_prefix
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, query_packed, prefix_key, prefix_value, group_key, group_value, output, lse, mask = (
            ctx.saved_tensors
        )
        grad_output = grads[0]
        heads, key_heads = query.shape[1], group_key.shape[1]
        groups: GroupLayout = ctx.groups
        grad_query_rows = grad_prefix_key = grad_prefix_value = None
        if ctx.has_prefix:
            folded, grad_prefix_key, grad_prefix_value = _kernel_backward(
                _fold(grad_output, key_heads),
                _fold(query, key_heads),
                prefix_key,
                prefix_value,
                _fold(output, key_heads),
                _fold(lse.unsqueeze(-1), key_heads).squeeze(-1),
                None,
                ctx.scale,
            )
            grad_query_rows = _unfold(folded, heads)
        # Padded queries get no gradient, so they leave the keys' gradients alone.
        real = groups.query_is_real_GA[:, None, :, None].to(grad_output.device)
        packed_grad = torch.where(real, _pack(grad_output, groups.query_index_GA), 0)
        packed_lse = _pack(lse.unsqueeze(-1), groups.query_index_GA)
        folded, grad_group_key, grad_group_value = _kernel_backward(
            _fold(packed_grad, key_heads),
            _fold(query_packed, key_heads),
            group_key,
            group_value,
            _fold(_pack(output, groups.query_index_GA), key_heads),
            _fold(packed_lse, key_heads).squeeze(-1),
            mask,
            ctx.scale,
        )
        return (
            grad_query_rows,
            _unfold(folded, heads),
            grad_prefix_key,
            grad_prefix_value,
            grad_group_key,
            grad_group_value,
            None,
            None,
        )


def attend_rows(
    query_1HND: Tensor,
    prefixes: Sequence[tuple[int, KeyValue | None]],
    own: KeyValue,
    own_mask_B1FC: Tensor,
    scale: float,
) -> Tensor:
    """Attention of L new tokens in each of B rows, side by side in (1, H, B·L, D), to the prefix that a row shares
    with its neighbours and to the row's own keys (B, K, C, D) where the additive mask, folded to F = n·L, lets them.

    `prefixes` are (number of rows, keys and values (1, K, P, D) or None where there is no prefix), in row order.
    Without gradient: this is decoding.
    """
    heads, key_heads = query_1HND.shape[1], own[0].shape[1]
    batch = len(own_mask_B1FC)
    length = query_1HND.shape[2] // batch
    query_BHLD = query_1HND[0].unflatten(1, (batch, length)).transpose(0, 1)
    output, lse = _kernel(_fold(query_BHLD, key_heads), own[0], own[1], own_mask_B1FC, scale)
    output = _side_by_side(_unfold(output, heads))
    if all(prefix is None for _, prefix in prefixes):
        return output
    lse = _side_by_side(_unfold(lse.unsqueeze(-1), heads)).squeeze(-1)
    sizes = [rows * length for rows, _ in prefixes]
    shared = [
        _attend_prefix(query, prefix, scale)
        for query, (_, prefix) in zip(query_1HND.split(sizes, dim=2), prefixes, strict=True)
    ]
    shared_output = torch.cat([each for each, _ in shared], dim=2)
    shared_lse = torch.cat([each for _, each in shared], dim=2)
    return merge(shared_output, shared_lse, output, lse)[0]


def _attend_prefix(query_1HRD: Tensor, prefix: KeyValue | None, scale: float) -> tuple[Tensor, Tensor]:
    """Attention of R tokens to one prefix: output (1, H, R, D) and log-sum-exp (1, H, R)."""
    heads = query_1HRD.shape[1]
    if prefix is None:
        # Attention to nothing weighs nothing when it is merged.
        nothing = query_1HRD.new_full(query_1HRD.shape[:3], float("-inf"), dtype=torch.float32)
        return torch.zeros_like(query_1HRD), nothing
    output, lse = _kernel(_fold(query_1HRD, prefix[0].shape[1]), prefix[0], prefix[1], None, scale)
    return _unfold(output, heads), _unfold(lse.unsqueeze(-1), heads).squeeze(-1)


def _side_by_side(tensor_BHLD: Tensor) -> Tensor:
    """(B, H, L, D) → (1, H, B·L, D)."""
    return tensor_BHLD.transpose(0, 1).flatten(1, 2).unsqueeze(0)


def merge(output_a: Tensor, lse_a: Tensor, output_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """Merge two softmax attentions over disjoint keys: outputs (..., D), log-sum-exps (...)."""
    lse = torch.logaddexp(lse_a, lse_b)
    share_a = (lse_a - lse).exp().unsqueeze(-1).to(output_a.dtype)
    share_b = (lse_b - lse).exp().unsqueeze(-1).to(output_b.dtype)
    return output_a * share_a + output_b * share_b, lse


def _fold(tensor: Tensor, key_heads: int) -> Tensor:
    """Queries of one key/value head side by side: (B, K·n, S, D) → (B, K, n·S, D)."""
    batch, heads, length, size = tensor.shape
    return tensor.reshape(batch, key_heads, heads // key_heads * length, size)


def _unfold(tensor: Tensor, heads: int) -> Tensor:
    batch, key_heads, folded, size = tensor.shape
    return tensor.reshape(batch, heads, folded * key_heads // heads, size)


def _unpack(tensor_GHAD: Tensor, groups: GroupLayout) -> Tensor:
    """Groups back to rows: (G, H, A, D) → (1, H, R, D)."""
    group_count, heads, width, size = tensor_GHAD.shape
    rows_HND = tensor_GHAD.transpose(0, 1).reshape(heads, group_count * width, size)
    return rows_HND.index_select(1, groups.row_R).unsqueeze(0)


def _folded(mask_GAC: Tensor, dtype: torch.dtype, repeats: int) -> Tensor:
    """Boolean mask → additive mask for folded queries, (G, 1, n·A, C)."""
    return additive(~mask_GAC, dtype).repeat(1, repeats, 1).unsqueeze(1)


def additive(hidden: Tensor, dtype: torch.dtype, lowest: float = float("-inf")) -> Tensor:
    """A mask that is added to scores: `lowest` where a key is hidden, 0 elsewhere."""
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, lowest)


def _kernel(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> KeyValue:
    """Attention, (B, K, S, D), and its log-sum-exp (B, K, S): fused on a CPU, written out elsewhere.

    Kernels for GPUs share the work out over rows and heads, and in decoding there are few of either: a product of
    matrices, which is also split over the keys, is faster.
    """
    if query.device.type != "cpu":
        return attend_written_out(query, key, value, mask, scale)
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, False, attn_mask=mask, scale=scale
    )


def attend_written_out(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float
) -> KeyValue:
    """The same from its definition, with float32 scores, or wider where the model is. Without gradient."""
    scores = wide_product(query, key.mT) * scale
    if mask is not None:
        scores = scores + mask
    lse = scores.logsumexp(-1)
    return (scores - lse.unsqueeze(-1)).exp().to(value.dtype) @ value, lse


def wide_product(left: Tensor, right: Tensor) -> Tensor:
    """left (B, K, S, D) · right (B, K, D, C) as matrix units add it up: in float32, and in float64 for float64."""
    if left.dtype in (torch.float32, torch.float64):
        return left @ right
    if left.is_cuda:
        return torch.bmm(left.flatten(0, 1), right.flatten(0, 1), out_dtype=torch.float32).unflatten(
            0, left.shape[:2]
        )
    return left.float() @ right.float()


def _kernel_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    lse: Tensor,
    mask: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    # The kernel reads lse as it wrote it: length before heads in memory.
    lse = lse.transpose(1, 2).contiguous().transpose(1, 2)
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, query, key, value, output, lse, 0.0, False, attn_mask=mask, scale=scale
    )


AttentionInterface.register(IMPLEMENTATION, tree_attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
