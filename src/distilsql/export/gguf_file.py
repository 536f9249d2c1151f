"""GGUF files for llama.cpp and Ollama, of models of the Llama and Qwen2 families."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distilsql.errors import ModelError
from distilsql.export.kinds import Quantization
from distilsql.export.pretokenizer import pretokenizer_name

_FAMILIES = {"llama": "llama", "qwen2": "qwen2"}
# Quantised numbers share a scale in blocks of this many.
_BLOCK = 32
_FILE_TYPES = {
    "f16": "MOSTLY_F16",
    "bf16": "MOSTLY_BF16",
    "q8_0": "MOSTLY_Q8_0",
    "q5_1": "MOSTLY_Q5_1",
    "q4_0": "MOSTLY_Q4_0",
}
_OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_IN_A_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def check_exportable(config: Any, path: str) -> str:
    """llama.cpp's name of the family. Raises ModelError for a family, or positions, that are not written here."""
    family = _FAMILIES.get(config.model_type)
    if family is None:
        raise ModelError(
            f"{path} is of the family {config.model_type}, and GGUF is written of {' and '.join(_FAMILIES)} models; "
            "export without --gguf and use the safetensors."
        )
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") != "default" or getattr(config, "use_sliding_window", False):
        raise ModelError(
            f"{path} scales its positions ({rope.get('rope_type')}) or attends in a window, which is not written into "
            "GGUF here; export without --gguf and use the safetensors."
        )
    return family


def write_gguf(model: Any, tokenizer: Any, path: Path, quantization: Quantization, *, name: str) -> None:
    """Write the model as one GGUF file in `quantization`; embeddings and output in q8_0 where it has fewer bits, norms
    and biases in float32.

    Raises:
        ModelError: a family or tokenizer that llama.cpp would read otherwise.
    """
    import gguf

    family = check_exportable(model.config, name)
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    splitting = pretokenizer_name(spec, name)
    writer = gguf.GGUFWriter(path, family)
    try:
        writer.add_name(name)
        writer.add_file_type(getattr(gguf.LlamaFileType, _FILE_TYPES[quantization]))
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        _add_shape(writer, model.config)
        _add_tokenizer(writer, spec, tokenizer, splitting, model.config.vocab_size)
        for tensor_name, tensor in _tensors(model):
            kind = _kind(tensor_name, tensor, quantization)
            qtype = getattr(gguf.GGMLQuantizationType, kind)
            data = gguf.quantize(np.ascontiguousarray(tensor.float().numpy()), qtype)
            writer.add_tensor(tensor_name, data, raw_dtype=qtype)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _kind(name: str, tensor: Tensor, quantization: Quantization) -> str:
    """How a tensor is stored, as gguf names it."""
    if tensor.dim() == 1:
        return "F32"
    if quantization in ("f16", "bf16"):
        return quantization.upper()
    if tensor.shape[-1] % _BLOCK:
        return "F16"
    is_outside = name in ("token_embd.weight", "output.weight")
    return "Q8_0" if is_outside else quantization.upper()


def _add_shape(writer: Any, config: Any) -> None:
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = getattr(config, "rope_parameters", None) or {}
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10000.0)))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(
    writer: Any, spec: Mapping[str, Any], tokenizer: Any, splitting: str, vocabulary_size: int
) -> None:
    import gguf

    normal, unused = gguf.TokenType.NORMAL, gguf.TokenType.UNUSED
    tokens = [f"[PAD{number}]" for number in range(vocabulary_size)]
    kinds = [unused] * vocabulary_size
    for token, number in spec["model"]["vocab"].items():
        tokens[number], kinds[number] = token, normal
    for added in spec["added_tokens"]:
        tokens[added["id"]] = added["content"]
        kinds[added["id"]] = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in spec["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitting)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(begins_with_bos(tokenizer))
    writer.add_add_eos_token(False)


def begins_with_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer puts BOS before a text, as in the prompts of training."""
    first = tokenizer("a").input_ids[:1]
    return bool(first) and first[0] == tokenizer.bos_token_id


def _tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Every tensor by llama.cpp's name; an output layer that is the embedding is left out, as llama.cpp expects."""
    config = model.config
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        yield _llama_name(name), _in_its_order(name, tensor.detach(), config)


def _llama_name(name: str) -> str:
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    _, layers, number, rest = name.split(".", 3)
    part, _, kind = rest.rpartition(".")
    if layers != "layers" or part not in _IN_A_LAYER:
        raise ModelError(
            f"The model has a tensor {name}, which is not known of its family; no GGUF is written."
        )
    return f"blk.{number}.{_IN_A_LAYER[part]}.{kind}"


def _in_its_order(name: str, tensor: Tensor, config: Any) -> Tensor:
    """Of Llama's queries and keys, the rows: a pair that is turned together stands side by side in llama.cpp, half a
    head apart in `transformers`. Qwen2 is turned there as here."""
    heads = {
        "q_proj": config.num_attention_heads,
        "k_proj": config.num_key_value_heads,
    }.get(name.split(".")[-2])
    if config.model_type != "llama" or heads is None:
        return tensor
    return tensor.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2).contiguous()


def count_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
