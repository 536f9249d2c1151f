"""Attention by parts against plain softmax attention in float64, in value and gradient."""

import pytest
import torch

from distilsql.models.attention import (
    TreeContext,
    _kernel,
    attend_on_tree,
    attend_written_out,
    merge,
    wide_product,
)
from distilsql.models.tree import Nodes, PassLayout, branch_nodes, prefix_nodes, question_nodes, visible
from families import random_tree


@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_parts_equal_plain_attention_with_the_visibility_mask(key_heads, seed):
    heads, size, scale = 4, 8, 0.3
    tree, branches = random_tree(seed)
    nodes = Nodes.joined([prefix_nodes(len(tree.prefix)), question_nodes(tree), branch_nodes(tree, branches)])
    layout = PassLayout(nodes.depth_T, nodes)
    generator = torch.Generator().manual_seed(seed)
    rand = lambda count: torch.randn(1, count, len(nodes), size, generator=generator, dtype=torch.float64)  # noqa: E731
    query, key, value = (rand(count).requires_grad_() for count in (heads, key_heads, key_heads))
    upstream = rand(heads)

    context = TreeContext(layout.new_prefix_length, layout.groups(), None, None)
    output = attend_on_tree(context, 0, query, key, value, scale)
    output.backward(upstream)
    mine = [output.detach(), *(tensor.grad.clone() for tensor in (query, key, value))]

    for tensor in (query, key, value):
        tensor.grad = None
    allowed = torch.from_numpy(visible(nodes, nodes))
    repeats = heads // key_heads
    scores = query @ key.repeat_interleave(repeats, 1).transpose(-1, -2) * scale
    weights = scores.masked_fill(~allowed, float("-inf")).softmax(-1)
    plain = weights @ value.repeat_interleave(repeats, 1)
    plain.backward(upstream)
    # The kernels keep the log-sum-exp in float32, so agreement in float64 inputs is to float32's precision.
    for got, expected in zip(mine, [plain.detach(), query.grad, key.grad, value.grad], strict=True):
        torch.testing.assert_close(got, expected, atol=2e-6, rtol=2e-5)


def test_merging_two_halves_is_the_whole_softmax():
    torch.manual_seed(0)
    scores, values = torch.randn(3, 10, dtype=torch.float64), torch.randn(10, 4, dtype=torch.float64)
    halves = []
    for part in (slice(0, 4), slice(4, 10)):
        halves += [scores[:, part].softmax(-1) @ values[part], scores[:, part].logsumexp(-1)]
    output, lse = merge(*halves)
    torch.testing.assert_close(output, scores.softmax(-1) @ values)
    torch.testing.assert_close(lse, scores.logsumexp(-1))


def test_a_token_sees_its_ancestors_and_nothing_else():
    tree, branches = random_tree(1)
    nodes = Nodes.joined([prefix_nodes(len(tree.prefix)), question_nodes(tree), branch_nodes(tree, branches)])
    allowed = visible(nodes, nodes)
    for token in range(len(nodes)):
        # Ancestors number exactly the depth, and the token itself.
        assert allowed[token].sum() == nodes.depth_T[token] + 1
        assert allowed[token, token]
    assert not (allowed & ~(nodes.depth_T[None, :] <= nodes.depth_T[:, None])).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_written_out_is_what_the_fused_kernel_computes(dtype, masked):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, rows, 16, generator=generator).to(dtype) for rows in (5, 40, 40))
    mask = None
    if masked:
        mask = torch.zeros(2, 1, 5, 40, dtype=dtype).masked_fill(torch.arange(40) > 17, float("-inf"))
    output, lse = attend_written_out(query, key, value, mask, 0.3)
    expected, expected_lse = _kernel(query, key, value, mask, 0.3)
    rounding = 2e-2 if dtype == torch.bfloat16 else 1e-5
    assert output.dtype == dtype
    torch.testing.assert_close(output, expected, atol=rounding, rtol=rounding)
    torch.testing.assert_close(lse.double(), expected_lse.double(), atol=1e-4, rtol=1e-4)


def test_products_of_narrow_numbers_are_added_up_in_float32():
    left, right = (
        torch.ones(1, 1, 1, 4096, dtype=torch.bfloat16),
        torch.ones(1, 1, 4096, 1, dtype=torch.bfloat16),
    )
    # Added up in bfloat16 it would stop growing at 256.
    assert wide_product(left, right * 1.0078125).item() == pytest.approx(4096 * 1.0078125, rel=1e-5)
