"""Decoder layers compiled by `torch.compile`, attention on a tree included.

A layer is a hundred small operations and more, forward and backward, and Python takes longer to start them than a GPU
to run them. Compiled, they are a few kernels. All layers of a model share what is compiled, since the same function is
called with each; numbers of tokens are symbolic, so it is compiled once for each kind of pass (with and without a past,
with and without gradient), not for each length.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.fx.experimental._config
from torch import Tensor, nn

from distilsql.models.layer_pass import ByLayer, KeyValue, LayerPass
from distilsql.models.load import decoder_layers

# Kinds of pass, times student and teacher. torch's default is 8, after which it goes on uncompiled.
KINDS_LIMIT = 64


def compile_layers(causal_lm: Any) -> None:
    """Compile the decoder layers when they first run on a tree by blocks, or in a step that is recorded. They are as
    they were otherwise.

    Raises:
        ModelError: the model does not keep its layers in one list.
    """
    for number, layer in enumerate(decoder_layers(causal_lm)):
        vars(layer)["forward"] = _Compiled(layer, number)


class _Compiled:
    """A layer's forward call: compiled on a tree, its own otherwise."""

    def __init__(self, layer: nn.Module, number: int) -> None:
        self._layer, self._number = layer, number

    def __call__(self, hidden: Tensor, *arguments: Any, tree: Any = None, **options: Any) -> Any:
        layer = self._layer
        if not isinstance(tree, ByLayer):
            if tree is not None:
                options["tree"] = tree
            return type(layer).forward(layer, hidden, *arguments, **options)
        layer_pass = tree.layer_pass(self._number)
        output, new = compiled_layer()(layer, layer_pass, hidden, arguments, options)
        tree.take(self._number, new)
        return output


def run_layer(
    layer: nn.Module,
    layer_pass: LayerPass,
    hidden: Tensor,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
) -> tuple[Any, KeyValue]:
    """A layer's output, and the keys and values of the new tokens."""
    output = type(layer).forward(layer, hidden, *arguments, tree=layer_pass, **options)
    return output, layer_pass.new


@functools.cache
def compiled_layer() -> Callable[..., tuple[Any, KeyValue]]:
    """`run_layer`, compiled; one for all layers and models of a process."""
    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.config.recompile_limit = max(limit, KINDS_LIMIT)
    # Two lengths that happen to be the same in the first pass need not be so in the next.
    torch.fx.experimental._config.use_duck_shape = False
    return torch.compile(run_layer, dynamic=True, fullgraph=True)
