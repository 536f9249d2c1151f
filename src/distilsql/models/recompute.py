"""Activation checkpointing: layers keep only their inputs for the backward pass, which runs them once more."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from distilsql.models.load import decoder_layers


def recompute_activations(causal_lm: Any) -> None:
    """From now on, for passes with gradient. Losses and gradients stay the same to the bit.

    Not `gradient_checkpointing_enable` of transformers, which works in training mode alone, where some models drop out.
    """
    for layer in decoder_layers(causal_lm):
        layer.forward = _recomputed(layer.forward)


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*inputs: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs, **named)
        # Without dropout no random number is drawn.
        return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False, **named)

    return run
