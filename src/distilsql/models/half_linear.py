"""Linear layers with weights of sixteen bits (float16), for decoding in float32: half of the bytes are read at a step.

FBGEMM multiplies them with inputs of float32, and adds up in float32. Float16 has more digits than bfloat16, in which
most models are published, so of their weights hardly any is rounded (those below 6e-5 in size, by 3e-8 at most).
"""

import functools
from typing import Any

import torch
from torch import Tensor

from distilsql.models.packed_linear import PackedWeight

_LARGEST = torch.finfo(torch.float16).max


@functools.cache
def has_half_products() -> bool:
    """Whether this build of PyTorch multiplies so on this processor: x86 alone, so far."""
    try:
        packed = torch.ops.quantized.linear_prepack_fp16(torch.ones(2, 3), None)
        return bool(torch.ops.quantized.linear_dynamic_fp16(torch.ones(1, 3), packed).eq(3).all())
    except (RuntimeError, AttributeError):
        return False


def fits_half(weight: Tensor) -> bool:
    """Whether products with this weight gain from float16 here."""
    is_float32 = weight.device.type == "cpu" and weight.dtype == torch.float32
    return is_float32 and has_half_products() and float(weight.detach().abs().amax()) < _LARGEST


class HalfWeight(PackedWeight):
    """A linear layer's weight in float16, renewed when the layer has another one."""

    def __call__(self, input_XI: Tensor) -> Tensor:
        """input · weightᵀ + bias, without gradient."""
        output_XO: Tensor = torch.ops.quantized.linear_dynamic_fp16(input_XI, self._packed)
        return output_XO if self._layer.bias is None else output_XO + self._layer.bias

    def _pack(self, weight_OI: Tensor) -> Any:
        return torch.ops.quantized.linear_prepack_fp16(weight_OI, None)
