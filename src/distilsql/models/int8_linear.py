"""Linear layers in eight bits a weight, for decoding: a step of few rows takes as long as its weights take to be read.

Each output has a scale of its own, and its weights are rounded to whole multiples of it, 127 at most. Inputs and
outputs are rounded to bfloat16, since that kernel is the fast one, on processors without bfloat16 too. What all this
changes is measured, not promised: `bench/serve.py --weights int8` counts the completions that stay the same.
"""

import torch
from torch import Tensor

from distilsql.models.packed_linear import PackedWeight


def fits_int8(weight: Tensor) -> bool:
    """Whether products with this weight can be computed from eight bits here."""
    return weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.bfloat16)


class Int8Weight(PackedWeight):
    """A linear layer's weight in eight bits, renewed when the layer has another one."""

    def __call__(self, input_XI: Tensor) -> Tensor:
        """input · weightᵀ + bias, without gradient."""
        rounded_OI, scale_O = self._packed
        input_NI = input_XI.reshape(-1, input_XI.shape[-1]).bfloat16()
        output_NO = torch._weight_int8pack_mm(input_NI, rounded_OI, scale_O).to(input_XI.dtype)
        output_XO = output_NO.view(*input_XI.shape[:-1], -1)
        return output_XO if self._layer.bias is None else output_XO + self._layer.bias

    def _pack(self, weight_OI: Tensor) -> tuple[Tensor, Tensor]:
        scale_O = (weight_OI.float().abs().amax(dim=1).clamp(min=1e-12) / 127).bfloat16()
        rounded_OI = (weight_OI.float() / scale_O.float()[:, None]).round().clamp(-127, 127)
        return rounded_OI.to(torch.int8), scale_O
