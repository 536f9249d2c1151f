"""Packed weights: the same products, renewed when the weights change, and nothing left behind in the model."""

import pytest
import torch
from families import VOCABULARY, make_model, random_tree
from torch import nn

from distilsql.models.generate import GenerationOptions, generate
from distilsql.models.packed_linear import PackedLinears, PackedWeight, packs
from distilsql.models.tree_model import TreeModel

needs_packing = pytest.mark.skipif(
    not packs(torch.zeros(1, 1, dtype=torch.bfloat16)), reason="this CPU does not multiply bfloat16 by oneDNN"
)
GREEDY = GenerationOptions(eos_token_id=2, vocabulary_size=VOCABULARY, max_new_tokens=8)


def layer_and_input(bias):
    torch.manual_seed(0)
    return nn.Linear(48, 80, bias=bias, dtype=torch.bfloat16), torch.randn(5, 48, dtype=torch.bfloat16)


@needs_packing
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_a_packed_product_is_the_linear_layers(bias):
    layer, rows = layer_and_input(bias)
    packed = PackedWeight(layer.weight, layer.bias)
    packed.renew()
    exact = rows.double() @ layer.weight.double().T + (layer.bias.double() if bias else 0)
    torch.testing.assert_close(packed(rows).double(), exact, rtol=1e-2, atol=1e-2)


@needs_packing
@torch.no_grad()
def test_a_weight_that_was_written_to_is_packed_again():
    layer, rows = layer_and_input(False)
    linears = PackedLinears(nn.Sequential(layer))
    linears.renew()
    layer.weight.mul_(2)
    linears.renew()
    with linears.in_place():
        torch.testing.assert_close(layer(rows), nn.functional.linear(rows, layer.weight))


@needs_packing
def test_layers_are_themselves_again_afterwards_even_after_an_error():
    layer, rows = layer_and_input(True)
    linears = PackedLinears(nn.Sequential(layer))
    linears.renew()
    with pytest.raises(KeyError), linears.in_place():
        raise KeyError
    assert layer(rows).requires_grad


def test_other_precisions_and_replaced_forwards_are_left_alone():
    assert not packs(torch.zeros(1, 1))
    layer, _ = layer_and_input(False)
    layer.forward = own = lambda rows: rows
    with PackedLinears(nn.Sequential(layer)).in_place():
        assert layer.forward is own


@needs_packing
def test_completions_follow_an_optimizer_step():
    """After the weights change, generation is that of a model loaded with the new weights."""
    model = make_model("llama", seed=1, spread=3.0).bfloat16()
    tree, _ = random_tree(3, questions=4)
    runner = TreeModel(model)
    before = generate(runner, tree, GREEDY)
    other = make_model("llama", seed=2, spread=3.0).bfloat16()
    with torch.no_grad():
        for parameter, new in zip(model.parameters(), other.parameters(), strict=True):
            parameter.copy_(new)
    after = generate(runner, tree, GREEDY)
    assert after == generate(TreeModel(other), tree, GREEDY) != before
