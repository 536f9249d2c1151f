"""A forward pass as its layers see it: what one layer needs, and what it leaves behind."""

from torch import Tensor

KeyValue = tuple[Tensor, Tensor]


class LayerPass:
    """What one layer of a pass needs, without the layer's number: compiled layers would each be compiled for theirs.

    `attend` leaves the new tokens' keys and values in `new`.
    """

    new: KeyValue

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attention of all new tokens, (1, H, T, D)."""
        raise NotImplementedError


class ByLayer:
    """A pass that gives each layer what it needs, and takes what it leaves."""

    def layer_pass(self, layer: int) -> LayerPass:
        raise NotImplementedError

    def take(self, layer: int, new: KeyValue) -> None:
        """Leave a layer's keys and values of the new tokens behind."""
        raise NotImplementedError

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attention of all new tokens, (1, H, T, D)."""
        layer_pass = self.layer_pass(layer)
        output = layer_pass.attend(query, key, value, scale)
        self.take(layer, layer_pass.new)
        return output
