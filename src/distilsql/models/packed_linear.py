"""Linear layers whose weights are laid out for the CPU once, instead of at every call.

Decoding multiplies a few rows by every weight of the model at every token. In bfloat16, PyTorch hands such a product
to oneDNN, which reads a weight about twice as fast when it has been packed into its own blocked layout beforehand.
`PackedLinears` keeps packed copies of a model's linear weights and packs again what has changed since.
"""

from collections.abc import Callable, Iterator
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
    """The packed copy of a linear layer's weight (outputs, inputs), renewed when the layer has another one."""

    def __init__(self, layer: nn.Linear) -> None:
        self._layer = layer
        self._packed: Any = None
        self._made_from: tuple[int, int] | None = None

    def __call__(self, input_XI: Tensor) -> Tensor:
        """input · weightᵀ + bias, without gradient."""
        return torch.ops.mkldnn._linear_pointwise(input_XI, self._packed, self._layer.bias, "none", [], "")

    def renew(self) -> None:
        """Pack the weight unless that is done. An in-place write, such as an optimizer's, is seen by the version of
        the parameter; one through `parameter.data` is not."""
        weight = self._layer.weight
        if self._made_from != (weight.data_ptr(), weight._version):
            self._packed = self._pack(weight.detach())
            self._made_from = (weight.data_ptr(), weight._version)

    def _pack(self, weight_OI: Tensor) -> Any:
        return torch.ops.mkldnn._reorder_linear_weight(weight_OI, PACKED_FOR_ROWS)


class PackedLinears:
    """Copies of the weights of plain linear layers of `decoder`, as far as `packed_where` says that they gain from it.
    Packed ones take as much memory as the weights do."""

    def __init__(
        self,
        decoder: nn.Module,
        kind: type[PackedWeight] = PackedWeight,
        packed_where: Callable[[Tensor], bool] = packs,
    ) -> None:
        # A subclass computes something else.
        self._layers = [
            (layer, kind(layer))
            for layer in decoder.modules()
            if type(layer) is nn.Linear and packed_where(layer.weight)
        ]

    def renew(self) -> None:
        """Pack the weights that have changed since they were packed."""
        for _, packed in self._layers:
            packed.renew()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The decoder's linear layers multiply with their packed weights in here, without gradient.

        Only for one thread at a time: in here, the layers of the model are changed.
        """
        # A layer whose forward somebody replaced computes something else.
        own = [(layer, packed) for layer, packed in self._layers if "forward" not in vars(layer)]
        try:
            for layer, packed in own:
                vars(layer)["forward"] = packed  # found before the class's own forward
            yield
        finally:
            for layer, _ in own:
                vars(layer).pop("forward", None)
