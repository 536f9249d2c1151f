"""Using models that are already in memory as if they had been loaded."""

import copy
from typing import Any

import torch
from torch import nn

from distilsql.errors import ModelError
from distilsql.models.load import DTYPES, Precision, is_spread


def taken_from_memory(model: Any, precision: Precision, *, shares_weights: bool = False) -> nn.Module:
    """A model equal to the one that `load_model` would give for the folder that `model` saves; `model` stays as it is.

    With `shares_weights`, for a model that is only read, weights that lie in `precision` already are not copied. Only
    what `check_in_memory` lets pass can be taken.
    """
    taken: dict[int, Any] = {}
    for parameter in model.parameters():
        tensor = _in_precision(parameter, precision)
        if not shares_weights and tensor.data_ptr() == parameter.data_ptr():
            tensor = tensor.clone()
        # A loaded model is trainable; code that only reads it freezes it.
        taken[id(parameter)] = nn.Parameter(tensor, requires_grad=tensor.is_floating_point())
    for module in model.modules():
        # As loading does, what is not saved (the frequencies of rotary positions) keeps its precision.
        saved = {name for name in module._buffers if name not in module._non_persistent_buffers_set}
        for name in saved:
            buffer = module._buffers[name]
            if buffer is not None:
                taken[id(buffer)] = _in_precision(buffer, precision).clone()
    copied: nn.Module = copy.deepcopy(model, taken)
    return copied.eval()


def _in_precision(tensor: torch.Tensor, precision: Precision) -> torch.Tensor:
    detached = tensor.detach()
    return detached.to(DTYPES[precision]) if detached.is_floating_point() else detached


def check_in_memory(model: Any, role: str) -> None:
    """Raises ModelError unless the model is a whole causal LM of `transformers`: a PEFT model, say, or one that is
    quantised or spread is not."""
    if not hasattr(model, "get_output_embeddings") or not hasattr(model, "config"):
        raise ModelError(
            f"The {role} given is a {type(model).__name__}; give a causal LM of transformers (AutoModelForCausalLM)."
        )
    if hasattr(model, "merge_and_unload"):
        raise ModelError(f"The {role} given is a PEFT model; give the model that merge_and_unload() returns.")
    if getattr(model, "is_quantized", False) or is_spread(model):
        raise ModelError(
            f"The {role} given is quantised or spread over devices; give its path instead, with teacher.quantization "
            "or teacher.device_map."
        )
