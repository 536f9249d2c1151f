"""Attention in few operations is attention over the prefix and the row's own tokens together."""

import pytest
import torch

from distilsql.models.attention import additive, attend_rows
from distilsql.models.lean_attention import attend_few


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("prefix_tokens", [0, 7])
def test_it_is_what_rows_attend_to(batch, length, prefix_tokens):
    torch.manual_seed(0)
    heads, key_heads, size, columns = 6, 2, 8, 9
    query = torch.randn(1, heads, batch * length, size, dtype=torch.float64)
    own = tuple(torch.randn(batch, key_heads, columns, size, dtype=torch.float64) for _ in range(2))
    prefix = None
    if prefix_tokens:
        prefix = tuple(torch.randn(1, key_heads, prefix_tokens, size, dtype=torch.float64) for _ in range(2))
    filled = torch.randint(1, columns - length + 1, (batch, 1)) + torch.arange(length)
    hidden = torch.arange(columns) > filled[:, :, None]
    mask = additive(hidden, torch.float64).repeat(1, heads // key_heads, 1).unsqueeze(1)
    expected = attend_rows(query, [(batch, prefix)], own, mask, 0.3)
    torch.testing.assert_close(attend_few(query, prefix, own, mask, 0.3), expected)
