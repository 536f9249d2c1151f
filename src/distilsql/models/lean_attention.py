"""Attention of few tokens to a prefix that all rows share and to their own tokens, in few operations, for a CPU.

The fused kernel that `attend_rows` calls twice, and the merging of its two results, are made for many queries: for one,
starting them takes most of the time. Without gradient.

Shapes: B rows, L new tokens in each, H query heads, K key/value heads, n = H/K, F = n·L, P prefix tokens, C buffer
columns, D head size.
"""

import torch
from torch import Tensor

from distilsql.models.layer_pass import KeyValue


def attend_few(
    query_1HND: Tensor, prefix: KeyValue | None, own: KeyValue, own_mask_B1FC: Tensor, scale: float
) -> Tensor:
    """What `attend_rows` computes where all rows continue one prefix: new tokens side by side, (1, H, B·L, D)."""
    batch, (key_heads, columns) = len(own_mask_B1FC), own[0].shape[1:3]
    heads, length = query_1HND.shape[1], query_1HND.shape[2] // batch
    query_BHLD = (query_1HND[0] * scale).unflatten(1, (batch, length)).transpose(0, 1)
    query_BKFD = query_BHLD.reshape(batch, key_heads, heads // key_heads * length, -1)
    scores_BKFC = query_BKFD @ own[0].mT + own_mask_B1FC
    if prefix is None:
        output_BKFD = scores_BKFC.softmax(-1) @ own[1]
    else:
        scores_BKFP = _by_row(_by_head(query_BKFD) @ prefix[0][0].mT, batch)
        weights = torch.cat([scores_BKFP, scores_BKFC], dim=-1).softmax(-1)
        shared_BKFP, own_BKFC = weights.split((weights.shape[-1] - columns, columns), dim=-1)
        output_BKFD = own_BKFC @ own[1] + _by_row(_by_head(shared_BKFP) @ prefix[1][0], batch)
    output_BHLD = output_BKFD.reshape(batch, heads, length, -1)
    return output_BHLD.transpose(0, 1).flatten(1, 2).unsqueeze(0)


def _by_head(rows_BKFX: Tensor) -> Tensor:
    """All rows of one key/value head below one another, (K, B·F, X): one product for all of them."""
    return rows_BKFX.transpose(0, 1).flatten(1, 2)


def _by_row(heads_KNX: Tensor, batch: int) -> Tensor:
    return heads_KNX.unflatten(1, (batch, -1)).transpose(0, 1)
