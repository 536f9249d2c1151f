"""Packed weights: the same products, renewed when the weights change, and nothing left behind in the model."""

import pytest
import torch
from torch import nn

from distilsql.errors import ModelError
from distilsql.models.decoding import start_decoding
from distilsql.models.half_linear import HalfWeight, fits_half, has_half_products
from distilsql.models.int8_linear import Int8Weight
from distilsql.models.packed_linear import PackedLinears, PackedWeight, packs
from distilsql.models.tree import Branch
from distilsql.models.tree_model import TreeModel
from distilsql.training.optimizer import MasterAdamW
from families import make_model, random_tree

needs_packing = pytest.mark.skipif(
    not packs(torch.zeros(1, 1, dtype=torch.bfloat16)), reason="this CPU does not multiply bfloat16 by oneDNN"
)
needs_half = pytest.mark.skipif(
    not has_half_products(), reason="this processor does not multiply float32 by float16"
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


@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_a_weight_of_eight_bits_is_off_by_half_its_step_and_by_rounding(bias):
    torch.manual_seed(0)
    layer, rows = nn.Linear(64, 96, bias=bias), torch.randn(2, 3, 64)
    in_int8 = Int8Weight(layer)
    in_int8.renew()
    step_O = layer.weight.abs().amax(1) / 127
    # The largest weight may be cut by as much as its scale is rounded; inputs and outputs are in bfloat16.
    bound_XO = 0.51 * rows.abs().sum(-1, keepdim=True) * step_O + 2**-6 * (rows.abs() @ layer.weight.abs().T)
    off_XO = (in_int8(rows) - layer(rows)).abs()
    assert off_XO.shape == (2, 3, 96)
    assert (off_XO <= bound_XO).all()
    assert off_XO.max() > 0
    layer.weight.mul_(-2)
    in_int8.renew()
    torch.testing.assert_close(in_int8(rows), layer(rows), rtol=0, atol=2 * float(bound_XO.max()))


@needs_half
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_a_weight_of_sixteen_bits_is_off_by_its_rounding(bias):
    torch.manual_seed(0)
    layer, rows = nn.Linear(64, 96, bias=bias), torch.randn(2, 3, 64)
    in_half = HalfWeight(layer)
    in_half.renew()
    rounded = nn.functional.linear(rows, layer.weight.half().float(), layer.bias)
    torch.testing.assert_close(in_half(rows), rounded, rtol=1e-5, atol=1e-5)
    assert not torch.equal(in_half(rows), layer(rows))
    layer.weight.copy_(layer.weight.bfloat16())  # as models are published
    in_half.renew()
    torch.testing.assert_close(in_half(rows), layer(rows), rtol=1e-5, atol=1e-5)


def test_a_weight_that_float16_cannot_hold_is_left_alone():
    assert not fits_half(torch.full((2, 3), 7e4))
    assert not fits_half(torch.ones(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize(
    ("weights", "apart"), [pytest.param("float16", 1e-3, marks=needs_half), ("int8", 0.1)]
)
def test_decoding_in_fewer_bits_is_close_and_leaves_the_model_as_it_was(family, weights, apart):
    model = make_model(family, seed=1, spread=3.0)
    runner = TreeModel(model)
    tree, _ = random_tree(3, questions=2)
    state = runner.run_prompts(tree)
    before = [parameter.clone() for parameter in model.parameters()]

    def decoded():
        decoding, _ = start_decoding(runner, [state], 4)
        return decoding.log_probs(decoding.step(torch.tensor([5, 6])), 40)

    whole = decoded()
    runner.decode_in(weights)
    in_few_bits = decoded()
    assert not torch.equal(whole, in_few_bits)
    assert (whole.exp() - in_few_bits.exp()).abs().max() < apart
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("weights", ["float16", "int8"])
def test_fewer_bits_are_refused_where_they_cannot_be_computed(weights):
    with pytest.raises(ModelError, match="leave out --weights"):
        TreeModel(make_model("llama").double()).decode_in(weights)
