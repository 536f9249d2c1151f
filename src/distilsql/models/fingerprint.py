"""A model's fingerprint: equal for equal weights and configuration, whatever folder they came from."""

import hashlib
import json
from itertools import chain
from typing import Any

import torch

from distilsql.models.sharding import whole_tensor

# Where a model was found and what wrote it; neither changes what it computes.
_INCIDENTAL = ("_name_or_path", "transformers_version")


@torch.no_grad()
def model_fingerprint(causal_lm: Any) -> str:
    """SHA-256 (hex) over the configuration and over the bytes of all parameters and buffers as they are loaded.

    The loaded bytes and not the files: a merged adapter, cut layers and the precision are then part of it, and no
    time stamp has to be believed. It reads every weight once, about 1.5 GB a second.
    """
    config = {key: value for key, value in causal_lm.config.to_dict().items() if key not in _INCIDENTAL}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in chain(causal_lm.named_parameters(), causal_lm.named_buffers()):
        tensor = whole_tensor(tensor)
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """SHA-256 (hex) over the vocabulary, the special tokens and how text is split; calling a tokenizer changes none."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(backend.to_str()) if backend is not None else {}
    for kept_from_last_call in ("padding", "truncation"):
        rules.pop(kept_from_last_call, None)
    known = [type(tokenizer).__name__, tokenizer.get_vocab(), tokenizer.special_tokens_map, rules]
    return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()


def tensor_bytes(tensor: torch.Tensor) -> Any:
    """The bytes of a tensor in row-major order (an array of uint8), without a copy where it lies so already."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy()
