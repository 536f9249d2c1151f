"""Packed weights: the same products, renewed when the weights change, and nothing left behind in the model."""

import pytest
import torch
from torch import nn

from distilsql.models.decoding import start_decoding
from distilsql.models.packed_linear import PackedLinears, PackedWeight, packs
from distilsql.models.tree import Branch
from distilsql.models.tree_model import TreeModel
from distilsql.training.optimizer import MasterAdamW
from families import make_model, random_tree

needs_packing = pytest.mark.skipif(
    not packs(torch.zeros(1, 1, dtype=torch.bfloat16)), reason="this CPU does not multiply bfloat16 by oneDNN"
)


def layer_and_input(bias):
    torch.manual_seed(0)
    return nn.Linear(48, 80, bias=bias, dtype=torch.bfloat16), torch.randn(5, 48, dtype=torch.bfloat16)


@needs_packing
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_a_packed_product_is_the_linear_layers(bias):
    layer, rows = layer_and_input(bias)
    packed = PackedWeight(layer)
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
@torch.no_grad()
def test_a_weight_that_was_exchanged_is_packed_again():
    layer, rows = layer_and_input(False)
    packed = PackedWeight(layer)
    packed.renew()
    layer.weight = nn.Parameter(layer.weight.flip(0))
    packed.renew()
    torch.testing.assert_close(packed(rows), nn.functional.linear(rows, layer.weight))


@needs_packing
def test_decoding_follows_an_optimizer_step():
    """Hidden states of a decoding step are those of the model as it is, before and after its weights change."""
    model = make_model("llama", seed=1, spread=3.0).bfloat16()
    runner = TreeModel(model)
    optimizer = MasterAdamW(model, learning_rate=0.1, weight_decay=0.0)
    tree, _ = random_tree(3, questions=2)
    for _ in range(2):
        state = runner.run_prompts(tree)
        decoding, _ = start_decoding(runner, [state], max_new_tokens=1)
        mine = decoding.step(torch.tensor([7, 8]))
        sequences = [
            [*tree.prefix, *question, token] for question, token in zip(tree.questions, (7, 8), strict=True)
        ]
        for row, ids in zip(mine, sequences, strict=True):
            whole = model.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
            assert torch.cosine_similarity(row.float(), whole.float(), dim=0) > 0.999
        runner.completion_hidden(tree, [Branch(0, (5, 6, 7))]).float().sum().backward()
        optimizer.step(0.1)
