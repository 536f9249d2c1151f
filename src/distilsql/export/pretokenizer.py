"""Which of llama.cpp's tokenizers reads a text as a model's own does. It knows them by name; what splits a text
otherwise is refused. Imports no torch.

A byte-level BPE tokenizer is its vocabulary, its merges, and how it splits a text before it merges. That splitting is
written into tokenizer.json, and llama.cpp has it by a name for each family of models.
"""

from typing import Any

from distilsql.errors import ModelError

_BYTES = {"type": "ByteLevel", "add_prefix_space": False}
# The expressions that llama.cpp's names stand for (llama-vocab.cpp).
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


_KNOWN: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [{**_BYTES, "use_regex": True}],
    "smollm": [{"type": "Digits", "individual_digits": True}, {**_BYTES, "use_regex": True}],
    "qwen2": [_split(_QWEN2), {**_BYTES, "use_regex": False}],
    "llama-bpe": [_split(_LLAMA3), {**_BYTES, "use_regex": False}],
}
# Qwen2 normalises to NFC, which llama.cpp does not do: texts in NFC are read alike, and databases' are nearly always.
_NORMALIZERS = (None, {"type": "NFC"})


def pretokenizer_name(tokenizer: dict[str, Any], path: str) -> str:
    """llama.cpp's name for the splitting of a tokenizer.json. Raises ModelError where it has none."""
    model = tokenizer["model"]
    if model["type"] != "BPE":
        raise _unknown(path, f"it is of the kind {model['type']}, and byte-level BPE is what is written here")
    if tokenizer.get("normalizer") not in _NORMALIZERS:
        raise _unknown(path, f"it normalises texts ({tokenizer['normalizer'].get('type')})")
    spec = tokenizer.get("pre_tokenizer") or {}
    steps = spec.get("pretokenizers", [spec]) if spec.get("type") == "Sequence" else [spec]
    found = [_decisive(step) for step in steps]
    for name, known in _KNOWN.items():
        if found == [_decisive(step) for step in known]:
            return "llama-bpe" if name == "llama-bpe" and model.get("ignore_merges") else name
    raise _unknown(
        path, f"it splits texts by {', '.join(str(step.get('type')) for step in steps)} in a way of its own"
    )


def _decisive(step: dict[str, Any]) -> dict[str, Any]:
    """Without what only matters for where a token stood in the text."""
    return {key: value for key, value in step.items() if key not in ("trim_offsets",)}


def _unknown(path: str, why: str) -> ModelError:
    return ModelError(
        f"llama.cpp has no name for the tokenizer of {path}: {why}. It would read other tokens than the model was "
        "trained on, so no GGUF is written; export without --gguf and use the safetensors."
    )
