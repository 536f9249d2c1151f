"""The decoder in few operations computes what the model does, for rows of several trees, one token or several each."""

import pytest
import torch
from torch import nn

from distilsql.models.decoding import start_decoding
from distilsql.models.lean_decoder import LeanDecoder, fits_lean
from distilsql.models.tree_model import TreeModel
from families import PlainWeight, make_model, random_tree


def decoded(runner, states):
    """Hidden states of a step, of a block whose end is forgotten, and of a step after a row has left."""
    decoding, _ = start_decoding(runner, states, 8)
    rows = len(decoding)
    found = [decoding.step(torch.arange(5, 5 + rows))]
    found.append(decoding.extend(torch.arange(3 * rows).view(rows, 3) + 10).flatten(0, 1))
    decoding.rewind(torch.arange(rows) % 3)
    decoding.keep(torch.tensor([rows - 1, 0]))
    found.append(decoding.step(torch.tensor([20, 21])))
    return torch.cat(found)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize("questions", [1, 3])
@torch.no_grad()
def test_hidden_states_are_the_models(family, questions):
    model = make_model(family, seed=1, spread=3.0).double()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.normal_()
    runner = TreeModel(model)
    states = [runner.run_prompts(random_tree(seed, questions=questions)[0]) for seed in (3, 4)]
    whole = decoded(runner, states)
    assert fits_lean(model)
    runner.lean = LeanDecoder(model.base_model, PlainWeight)
    torch.testing.assert_close(decoded(runner, states), whole, rtol=1e-4, atol=1e-4)
    for parameter in model.parameters():  # what it computes with is its own copy
        if parameter.ndim == 2 and parameter.shape[0] != model.config.vocab_size:
            parameter.zero_()
    torch.testing.assert_close(decoded(runner, states), whole, rtol=1e-4, atol=1e-4)


def test_what_is_computed_otherwise_does_not_fit():
    assert not fits_lean(make_model("gpt2"))
    hooked = make_model("llama")
    hooked.base_model.layers[0].mlp.register_forward_hook(lambda module, inputs, output: output)
    assert not fits_lean(hooked)
    replaced = make_model("llama")
    replaced.base_model.layers[1].self_attn.forward = lambda *given, **more: None
    assert not fits_lean(replaced)
    adapted = make_model("llama")
    adapted.base_model.layers[1].mlp.up_proj = nn.Sequential(adapted.base_model.layers[1].mlp.up_proj)
    assert not fits_lean(adapted)
    assert fits_lean(make_model("llama"))
    assert not fits_lean(make_model("llama"), lambda weight: weight.shape[0] != weight.shape[1])
    assert not fits_lean(make_model("llama").bfloat16())
    other = make_model("llama")
    other.config.hidden_act = "gelu"
    assert not fits_lean(other)
    sliding = make_model("qwen2")
    sliding.config.layer_types = ["full_attention", "sliding_attention", "full_attention"]
    assert not fits_lean(sliding)


@pytest.mark.parametrize(("tokens", "threads"), [(1, 1), (15, 1), (16, 2)])
def test_few_tokens_wake_no_other_thread(tokens, threads):
    """A sleeping thread wakes more slowly than this one computes."""
    before, seen = torch.get_num_threads(), set()

    def attend(number, query, key, value, scale):
        seen.add(torch.get_num_threads())
        return query

    decoder = LeanDecoder(make_model("llama").base_model, PlainWeight)
    torch.set_num_threads(2)
    try:
        decoder(torch.arange(tokens), torch.arange(tokens), attend)
        assert (seen, torch.get_num_threads()) == ({threads}, 2)
    finally:
        torch.set_num_threads(before)
