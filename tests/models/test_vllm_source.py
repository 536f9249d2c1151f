"""vLLM as the writer, against a stand-in of its interface: the same completions, the newest weights, no vLLM needed."""

import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from distilsql.errors import ModelError
from distilsql.models.generate import GenerationOptions, uniform_stream
from distilsql.models.load import add_lora, load_model, load_tokenizer
from distilsql.models.tree import PromptTree
from distilsql.models.tree_model import TreeModel
from distilsql.models.vllm_source import VllmSource, save_weights
from families import generate

TREE = PromptTree((4, 5, 6, 7), ((8, 9), (10,), (11, 12, 13)))


@pytest.fixture
def make(tiny_models, vllm):
    """A source, its model, and greedy options whose EOS the model really writes."""

    def build(lora: bool = False) -> tuple[VllmSource, TreeModel, GenerationOptions]:
        tokenizer = load_tokenizer(tiny_models["student"])
        model = load_model(tiny_models["student"], "float32")
        if lora:
            model = add_lora(model, rank=2, scale=4.0)
            disturb(model)
        tree_model = TreeModel(model)
        source = VllmSource(model, tokenizer, precision="float32", memory_share=0.3, max_tokens=64)
        never = GenerationOptions(len(tokenizer) + 1, len(tokenizer), 12)
        eos = generate(tree_model, TREE, never)[0][4]
        return source, tree_model, GenerationOptions(eos, len(tokenizer), 12)

    return build


def disturb(model) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


def streams(count: int):
    return [uniform_stream(3, row) for row in range(count)]


@pytest.mark.parametrize("returns_stop_token", [True, False])
@pytest.mark.parametrize("lora", [True, False])
def test_greedy_completions_are_those_of_the_built_in_generator(
    make, vllm, monkeypatch, lora, returns_stop_token
):
    monkeypatch.setattr(vllm.LLM, "returns_stop_token", returns_stop_token)
    source, model, options = make(lora)
    expected = generate(model, TREE, options)
    assert source.generate_all([TREE], options) == expected
    assert any(tokens[-1] == options.eos_token_id for tokens in expected), "one ends"


def test_refreshing_writes_with_the_new_weights_and_only_then(make):
    source, model, options = make()
    before = source.generate_all([TREE], options)
    disturb(model.model)
    assert source.generate_all([TREE], options) == before
    source.refresh()
    after = source.generate_all([TREE], options)
    assert after == generate(model, TREE, options)
    assert after != before


def test_saving_for_vllm_merges_a_copy_and_leaves_the_model_as_it_is(make, tmp_path):
    _, model, _ = make(lora=True)
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    ids = torch.tensor([[4, 5, 6]])
    save_weights(model.model, tmp_path)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path)
    model.causal_lm.set_attn_implementation("eager")
    torch.testing.assert_close(
        saved(input_ids=ids).logits, model.model(input_ids=ids).logits, atol=1e-5, rtol=1e-5
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in model.model.state_dict().items())


def test_several_trees_are_one_call(make, vllm):
    source, model, options = make()
    other = PromptTree((20, 21), ((22,), (23, 24)))
    assert source.generate_all([TREE, other], options) == [
        *generate(model, TREE, options),
        *generate(model, other, options),
    ]
    assert [len(call) for call in vllm.LLM.started[0].calls] == [5]


def test_a_sample_belongs_to_its_stream_whatever_it_is_drawn_beside(make):
    source, _, greedy = make()
    options = GenerationOptions(greedy.eos_token_id, greedy.vocabulary_size, 12, temperature=1.0)
    together = source.generate_all([TREE], options, streams=streams(3))
    alone = [
        source.generate_all(
            [PromptTree(TREE.prefix, (question,))], options, streams=[uniform_stream(3, row)]
        )[0]
        for row, question in enumerate(TREE.questions)
    ]
    assert together == alone
    assert len(set(together)) == 3
    for missing in (None, streams(2)):
        with pytest.raises(ValueError, match="random stream"):
            source.generate_all([TREE], options, streams=missing)


def test_padding_of_the_output_layer_is_never_written(make):
    source, model, options = make()
    size = options.vocabulary_size
    model.model.resize_token_embeddings(size + 64, mean_resizing=False)
    with torch.no_grad():
        model.model.get_output_embeddings().weight[size:] = (
            5 * model.model.get_output_embeddings().weight[:64]
        )
    source.refresh()
    written = source.generate_all([TREE], options)
    assert all(token < size for tokens in written for token in tokens)


def test_a_cache_that_stays_full_is_refused(make, vllm, monkeypatch):
    source, _, _ = make()
    monkeypatch.setattr(vllm.LLM, "empties_cache", False)
    source.refresh()
    with pytest.raises(ModelError, match="prefix cache"):
        source.refresh()


def test_without_the_package_the_command_is_named(tiny_models, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ModelError, match=r"pip install 'distilsql\[vllm\]'"):
        VllmSource(None, None, precision="float32", memory_share=0.3, max_tokens=64)
