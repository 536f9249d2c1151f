"""What is written into GGUF files: every weight in its place, and nothing that llama.cpp would read otherwise."""

import json

import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen2Config

from distilsql.errors import ModelError
from distilsql.export.gguf_file import check_exportable, write_gguf
from distilsql.export.pretokenizer import pretokenizer_name
from distilsql.models.load import load_tokenizer

gguf = pytest.importorskip("gguf")
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.fixture(scope="module")
def tokenizer(tiny_models):
    return load_tokenizer(tiny_models["student"])


def model_of(config_class, tokenizer, **options):
    torch.manual_seed(0)
    config = config_class(vocab_size=len(tokenizer), eos_token_id=0, bos_token_id=None, **SHAPE, **options)
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():  # biases and norms that are not 0 and 1
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(len(name)))
    return model.eval()


def read(path):
    reader = gguf.GGUFReader(path)
    tensors = {each.name: gguf.dequantize(each.data, each.tensor_type) for each in reader.tensors}
    return tensors, {each.name: each.tensor_type.name for each in reader.tensors}, reader


@pytest.mark.parametrize(
    ("config_class", "tied"), [(LlamaConfig, True), (LlamaConfig, False), (Qwen2Config, True)]
)
def test_every_weight_is_in_the_file(config_class, tied, tokenizer, tmp_path):
    model = model_of(config_class, tokenizer, tie_word_embeddings=tied)
    write_gguf(model, tokenizer, tmp_path / "x.gguf", "f16", name="x")
    tensors, kinds, _ = read(tmp_path / "x.gguf")
    weights = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    assert ("output.weight" in tensors) == (not tied)
    count = sum(tensor.size for tensor in tensors.values())
    assert count == sum(p.numel() for p in model.parameters())
    assert np.allclose(tensors["token_embd.weight"], weights["model.embed_tokens.weight"], atol=1e-3)
    assert np.allclose(
        tensors["blk.1.ffn_down.weight"], weights["model.layers.1.mlp.down_proj.weight"], atol=1e-3
    )
    assert np.array_equal(tensors["output_norm.weight"], weights["model.norm.weight"])
    own, written = weights["model.layers.0.self_attn.k_proj.weight"], tensors["blk.0.attn_k.weight"]
    assert np.allclose(np.sort(own, axis=0), np.sort(written, axis=0), atol=1e-3), "the same rows"
    assert np.allclose(own, written, atol=1e-3) == (config_class is Qwen2Config), (
        "Llama's are in another order"
    )
    if config_class is Qwen2Config:
        assert np.array_equal(tensors["blk.0.attn_q.bias"], weights["model.layers.0.self_attn.q_proj.bias"])
        assert kinds["blk.0.attn_q.bias"] == "F32"


@pytest.mark.parametrize(
    ("quantization", "inside", "outside", "error"),
    [
        ("bf16", "BF16", "BF16", 1e-2),
        ("q8_0", "Q8_0", "Q8_0", 1e-2),
        ("q5_1", "Q5_1", "Q8_0", 0.05),
        ("q4_0", "Q4_0", "Q8_0", 0.15),
    ],
)
def test_weights_are_in_as_many_bits_as_asked_for(quantization, inside, outside, error, tokenizer, tmp_path):
    model = model_of(Qwen2Config, tokenizer)
    write_gguf(model, tokenizer, tmp_path / "x.gguf", quantization, name="x")
    tensors, kinds, _ = read(tmp_path / "x.gguf")
    assert (kinds["blk.0.ffn_up.weight"], kinds["token_embd.weight"]) == (inside, outside)
    assert kinds["blk.0.attn_norm.weight"] == "F32"
    own = model.state_dict()["model.layers.0.mlp.up_proj.weight"].numpy()
    assert np.abs(tensors["blk.0.ffn_up.weight"] - own).max() < error * np.abs(own).max() + 1e-3


def test_the_tokenizer_is_in_the_file(tokenizer, tmp_path):
    write_gguf(model_of(LlamaConfig, tokenizer), tokenizer, tmp_path / "x.gguf", "f16", name="x")
    fields = read(tmp_path / "x.gguf")[2].fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    assert tokens[: len(tokenizer)] == tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    assert fields["tokenizer.ggml.pre"].contents() == "gpt-2"
    assert fields["tokenizer.ggml.eos_token_id"].contents() == tokenizer.eos_token_id
    assert fields["tokenizer.ggml.add_bos_token"].contents() is False


def test_families_and_positions_that_are_not_written_are_refused():
    with pytest.raises(ModelError, match="of the family gpt2"):
        check_exportable(GPT2Config(), "x")
    scaled = LlamaConfig(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0})
    with pytest.raises(ModelError, match="scales its positions"):
        check_exportable(scaled, "x")


def test_tokenizers_that_llama_cpp_has_no_name_for_are_refused(tokenizer):
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    assert pretokenizer_name(spec, "x") == "gpt-2"
    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])
    other = json.loads(json.dumps(spec))
    other["pre_tokenizer"] = json.loads(digits.__getstate__())
    assert pretokenizer_name(other, "x") == "smollm"
    for change, words in (
        ({"pre_tokenizer": {"type": "Whitespace"}}, "splits texts by Whitespace"),
        ({"pre_tokenizer": {**spec["pre_tokenizer"], "add_prefix_space": True}}, "a way of its own"),
        ({"pre_tokenizer": None}, "a way of its own"),
        ({"normalizer": {"type": "Lowercase"}}, "Lowercase"),
        ({"model": {**spec["model"], "type": "Unigram"}}, "Unigram"),
    ):
        with pytest.raises(ModelError, match=words):
            pretokenizer_name({**spec, **change}, "x")
