"""Linear layers whose weights are laid out for the CPU once, instead of at every call.

Decoding multiplies a few rows by every weight of the model at every token. In bfloat16, PyTorch hands such a product
to oneDNN, which reads a weight about twice as fast when it has been packed into its own blocked layout beforehand.
`PackedLinears` keeps packed copies of a model's linear weights and packs again what has changed since.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# oneDNN chooses the layout for about this many rows; any number of rows can be multiplied.
PACKED_FOR_ROWS = 16


def packs(weight: Tensor) -> bool:
    """Whether products with this weight gain from packing: bfloat16 on a CPU that multiplies bfloat16."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and torch.backends.mkldnn.is_available()
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


class PackedWeight:
    """The packed copy of one weight (outputs, inputs), renewed when the weight was written to."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        self._weight_OI = weight_OI
        self._bias_O = bias_O
        self._packed: Any = None
        self._version = -1

    def __call__(self, input_XI: Tensor) -> Tensor:
        """input · weightᵀ + bias, without gradient."""
        return torch.ops.mkldnn._linear_pointwise(input_XI, self._packed, self._bias_O, "none", [], "")

    def renew(self) -> None:
        # An optimizer step, like every in-place write, counts the version of a parameter up.
        if self._packed is None or self._version != self._weight_OI._version:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self._weight_OI.detach(), PACKED_FOR_ROWS)
            self._version = self._weight_OI._version


class PackedLinears:
    """Packed copies of all plain linear layers of `decoder`. They take as much memory as the weights do."""

    def __init__(self, decoder: nn.Module) -> None:
        # A subclass, or a layer whose forward was replaced, computes something else.
        self._layers = [
            (layer, PackedWeight(layer.weight, layer.bias))
            for layer in decoder.modules()
            if type(layer) is nn.Linear and "forward" not in vars(layer) and packs(layer.weight)
        ]

    def renew(self) -> None:
        """Pack the weights that have changed since they were packed."""
        for _, packed in self._layers:
            packed.renew()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The decoder's linear layers multiply with their packed weights in here, without gradient."""
        for layer, packed in self._layers:
            vars(layer)["forward"] = packed  # found before the class's own forward
        try:
            yield
        finally:
            for layer, _ in self._layers:
                del vars(layer)["forward"]
