"""Compiled layers give what layers give, and are compiled once for each kind of pass, whatever the lengths."""

import functools

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from distilsql.inference.loading import load_engines
from distilsql.models import compiled_layers
from distilsql.models.compiled_layers import compile_layers
from distilsql.models.generate import GenerationOptions, generate_trees
from distilsql.models.tree_model import TreeModel
from families import (
    VOCABULARY,
    assert_gradients_are_finite,
    assert_kernels_as_padded,
    make_model,
    random_tree,
    with_lora,
)
from tiny_world import own_cache_folder, recipe, world

__all__ = ["own_cache_folder", "recipe", "world"]

BLOCK_FAMILIES = ["llama", "qwen2", "gpt2", "opt"]


@pytest.fixture
def counter(monkeypatch):
    """Counts compilations, and runs what was traced as it is."""
    found = CompileCounter()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=found))
    compiled_layers.compiled_layer.cache_clear()
    torch._dynamo.reset()
    yield found
    compiled_layers.compiled_layer.cache_clear()
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(
    ("family", "lora"),
    [("qwen2", False), *((family, True) for family in BLOCK_FAMILIES)],
)
def test_each_kind_of_pass_is_compiled_once_and_gives_the_same(family, lora, counter):
    network = make_model(family)
    if lora:
        network = with_lora(network, spread=0.1)
    model = TreeModel(network, attention="flex")
    compile_layers(model.causal_lm)
    counts = []
    with torch.no_grad():
        trees = [random_tree(seed) for seed in range(8)]
        # A length of one is compiled apart; no prompt of a database is so short.
        for tree, branches in [each for each in trees if len(each[0].prefix) > 1][:4]:
            hidden = model.completion_hidden(tree, branches)
            in_steps = model.run_branches(model.run_prompts(tree, model.run_prefix(tree.prefix)), branches)
            counts.append(counter.frame_count)
            padded = TreeModel(network, layout="padded").completion_hidden(tree, branches)
            torch.testing.assert_close(hidden, padded, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(in_steps, padded, atol=1e-5, rtol=1e-5)
    assert counts == [3] * 4  # with no past, with a prefix, with prefix and questions


@pytest.mark.compiled
def test_a_layer_that_is_not_on_a_tree_is_as_it_was(counter):
    network = make_model("llama")
    token_ids = torch.tensor([[5, 6, 7]])
    before = network(input_ids=token_ids).logits
    compile_layers(network)
    assert torch.equal(network(input_ids=token_ids).logits, before)
    options = GenerationOptions(eos_token_id=2, vocabulary_size=VOCABULARY, max_new_tokens=3)
    tree, _ = random_tree(1)
    generate_trees(TreeModel(network), [tree], options)
    assert counter.frame_count == 0


@pytest.mark.parametrize("asked", [False, True])
def test_a_recipe_asks_for_it(asked, recipe):
    engines = load_engines(recipe("rkd", f"train.compile={str(asked).lower()}"), torch.device("cpu"))
    for model in (engines.student, engines.teacher):
        layers = model.decoder.layers
        assert ["forward" in vars(layer) for layer in layers] == [asked] * len(layers)


# ---- on a GPU ------------------------------------------------------------------------------------------------

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="compiled for a CUDA device")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_compiled_layers_equal_padded_in_loss_and_every_gradient(lora):
    network = make_model("qwen2", head_size=16)
    model = TreeModel((with_lora(network) if lora else network).to("cuda"))
    compile_layers(model.causal_lm)
    for seed in range(3):
        assert_kernels_as_padded(model, *random_tree(seed))


@pytest.mark.gpu
@needs_gpu
def test_compiled_layers_are_recorded_and_write_the_same():
    options = GenerationOptions(eos_token_id=2, vocabulary_size=VOCABULARY, max_new_tokens=12)
    trees = [random_tree(seed, questions=count)[0] for seed, count in ((5, 3), (7, 6))]
    network = make_model("qwen2", seed=2, spread=3.0, head_size=16).to("cuda")
    expected = generate_trees(TreeModel(network), trees, options)
    model = TreeModel(network)
    compile_layers(model.causal_lm)
    assert generate_trees(model, trees, options) == expected


@pytest.mark.gpu
@needs_gpu
def test_compiled_layers_train_on_trees_of_every_length_without_a_nan():
    network = make_model("qwen2", head_size=16).to("cuda", torch.bfloat16)
    model = TreeModel(network)
    compile_layers(model.causal_lm)
    assert_gradients_are_finite(model, trees=16)
