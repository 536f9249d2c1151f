"""Loading, cutting and saving models: ordinary `transformers` folders in and out, clear refusals."""

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer

from distilsql.errors import ModelError
from distilsql.models.load import (
    add_lora,
    check_positions,
    check_same_tokenizer,
    evenly_spaced,
    keep_layers,
    load_model,
    load_tokenizer,
    save_model,
    shared_vocabulary_size,
)
from distilsql.models.prefix_cache import PrefixCache
from distilsql.models.tiny import train_tokenizer
from distilsql.models.tree_model import TreeModel
from families import make_model


def test_keeping_layers_gives_an_ordinary_smaller_model(family, tmp_path):
    model = make_model(family)
    ids = torch.tensor([[4, 5, 6]])
    whole = model(input_ids=ids, output_hidden_states=True).hidden_states
    assert keep_layers(model, [0, 2]) == [0, 2]
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.config.num_hidden_layers == 2
    hidden = loaded(input_ids=ids, output_hidden_states=True, use_cache=True).hidden_states
    # The first kept layer is the model's own first layer: its output is unchanged.
    torch.testing.assert_close(hidden[1], whole[1])
    torch.testing.assert_close(loaded(input_ids=ids).logits, model(input_ids=ids).logits)


def test_evenly_spaced_keeps_the_ends():
    assert evenly_spaced(3, 5) == [0, 2, 4]
    assert evenly_spaced(15, 30)[0] == 0
    assert evenly_spaced(15, 30)[-1] == 29
    assert len(set(evenly_spaced(15, 30))) == 15
    for bad in (0, 6):
        with pytest.raises(ModelError, match="keep_layers"):
            evenly_spaced(bad, 5)


@pytest.mark.parametrize("layers", [[0, 0], [2, 1], [0, 3], [-1], []])
def test_impossible_layers_are_refused(layers):
    with pytest.raises(ModelError, match="keep_layers"):
        keep_layers(make_model("llama"), layers)


def test_vocabulary_is_cut_to_the_tokenizer_and_too_few_outputs_are_refused(tiny_models):
    tokenizer = load_tokenizer(tiny_models["student"])
    model = load_model(tiny_models["student"], "float32")
    assert shared_vocabulary_size(model, None, tokenizer) == len(tokenizer)
    model.resize_token_embeddings(len(tokenizer) + 64, mean_resizing=False)
    assert shared_vocabulary_size(model, model, tokenizer) == len(tokenizer)
    model.resize_token_embeddings(len(tokenizer) - 1, mean_resizing=False)
    with pytest.raises(ModelError, match="output tokens but its tokenizer"):
        shared_vocabulary_size(model, None, tokenizer)


def test_another_tokenizer_is_refused_with_the_cure(tiny_models):
    mine = load_tokenizer(tiny_models["student"])
    check_same_tokenizer(mine, load_tokenizer(tiny_models["teacher"]), "teacher")
    other = train_tokenizer(["entirely different words about trains and boats"] * 3, 300)
    with pytest.raises(ModelError, match="one model family"):
        check_same_tokenizer(mine, other, "teacher")


def test_a_teacher_with_another_eos_token_is_refused(tiny_models):
    """As an Instruct model does beside a base model of the same vocabulary."""
    student, teacher = (load_tokenizer(tiny_models[role]) for role in ("student", "teacher"))
    teacher.eos_token = "<pad>"
    with pytest.raises(ModelError, match=r"<eos>.*nowhere/teacher is <pad>.*tokenizer_config\.json"):
        check_same_tokenizer(student, teacher, "nowhere/teacher")


def test_a_teacher_whose_tokenizer_adds_a_bos_token_is_refused(tiny_models, tmp_path):
    student, teacher = (load_tokenizer(tiny_models[role]) for role in ("student", "teacher"))
    teacher.backend_tokenizer.post_processor = TemplateProcessing(
        single="<mask> $A", special_tokens=[("<mask>", teacher.convert_tokens_to_ids("<mask>"))]
    )
    with pytest.raises(ModelError, match=r"text “a” with a, that of the teacher nowhere/teacher with <mask>"):
        check_same_tokenizer(student, teacher, "nowhere/teacher")


@pytest.mark.parametrize(
    ("name", "has_more"),
    [
        ("llama", True),
        ("qwen2", True),
        ("granite", True),
        ("gpt2", False),
        ("opt", False),
        ("codegen", False),
    ],
)
def test_missing_positions_are_refused_and_untrained_ones_reported(name, has_more):
    model = make_model(name)
    assert check_positions(model, 128, "a/model") == ""
    ids = torch.arange(129)[None] % 97
    if has_more:
        assert "a/model knows 128 positions" in check_positions(model, 129, "a/model")
        model(input_ids=ids)
        return
    with pytest.raises(IndexError):
        model(input_ids=ids)
    with pytest.raises(ModelError, match=r"128 positions.*take 129.*max_prompt_tokens"):
        check_positions(model, 129, "a/model")


def test_missing_models_and_tokenizers_are_named(tmp_path, tiny_models):
    with pytest.raises(ModelError, match="nowhere"):
        load_model(tmp_path / "nowhere", "float32")
    with pytest.raises(ModelError, match="nowhere"):
        load_tokenizer(tmp_path / "nowhere")


def test_lora_trains_the_adapter_only_and_merges_to_the_same_function(tiny_models, tmp_path):
    tokenizer = load_tokenizer(tiny_models["student"])
    model = add_lora(load_model(tiny_models["student"], "float32"), rank=2, scale=4.0)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora" in name for name in trained)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    ids = torch.tensor([[4, 5, 6]])
    before = model(input_ids=ids).logits
    save_model(model, tokenizer, tmp_path, merge_adapter=True)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(merged(input_ids=ids).logits, before, atol=1e-5, rtol=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize(("trained_on", "put_on"), [(2, 3), (3, 2)])
def test_an_adapter_of_a_model_with_more_or_fewer_layers_is_refused(
    tiny_models, tmp_path, trained_on, put_on
):
    folders = {}
    for layers in (2, 3):
        model = load_model(tiny_models["teacher"], "float32")
        keep_layers(model, layers)
        folders[layers] = tmp_path / str(layers)
        model.save_pretrained(folders[layers])
    model = load_model(folders[trained_on], "float32")
    add_lora(model, rank=2, scale=4.0, targets=["q_proj"]).save_pretrained(tmp_path / "adapter")
    load_model(folders[trained_on], "float32", adapter=tmp_path / "adapter")
    with pytest.raises(ModelError, match="does not fit"):
        load_model(folders[put_on], "float32", adapter=tmp_path / "adapter")


def test_prefix_cache_stays_in_budget_and_right_after_it_overflows():
    model = TreeModel(make_model("llama"))
    prefixes = {key: tuple(range(10 + key, 20 + key)) for key in range(5)}
    one = model.run_prefix(prefixes[0]).bytes()
    cache = PrefixCache(model, budget_bytes=2 * one)
    for key in (0, 1, 0, 2, 3, 4, 0):
        state = cache.get(key, prefixes[key])
        torch.testing.assert_close(state.layers[1][0], model.run_prefix(prefixes[key]).layers[1][0])
        assert cache.used_bytes <= 2 * one
        assert len(cache) <= 2
    nothing_fits = PrefixCache(model, budget_bytes=one - 1)
    nothing_fits.get(0, prefixes[0])
    assert len(nothing_fits) == 0


def test_the_least_recently_used_prefix_leaves():
    model = TreeModel(make_model("llama"))
    one = model.run_prefix((4,) * 10).bytes()
    cache = PrefixCache(model, budget_bytes=2 * one)
    first = cache.get(0, (4,) * 10)
    for key in (1, 0, 2):  # 1 is the least recently used when 2 arrives
        cache.get(key, (4 + key,) * 10)
    assert cache.get(0, (4,) * 10) is first, "not computed again"
