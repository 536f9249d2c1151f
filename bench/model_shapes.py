"""Models with random weights in the shapes of real ones, and the operations that they take."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Qwen2Config

TOY = "toy"


@dataclass(frozen=True)
class Shape:
    """A model's size, and a Qwen2 of it."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_heads: int
    vocabulary: int
    tied: bool

    @property
    def head_weights(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def weights(self) -> int:
        """All of them; biases and norms are too few to count."""
        return self.layer_weights + self.head_weights * (1 if self.tied else 2)

    @property
    def key_size(self) -> int:
        """Numbers in the keys of one token and layer; as many are in its values."""
        return self.hidden // self.heads * self.key_heads

    @property
    def layer_weights(self) -> int:
        """Weights of all linear layers but the output layer."""
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * self.key_size
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    def config(self) -> Any:
        return Qwen2Config(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_heads,
            max_position_embeddings=32768,
            tie_word_embeddings=self.tied,
            bos_token_id=0,
            eos_token_id=1,
        )


SHAPES = {
    TOY: Shape(2, 64, 128, 4, 2, 512, True),
    "135m": Shape(30, 576, 1536, 9, 3, 49_152, True),  # SmolLM2
    "0.5b": Shape(24, 896, 4864, 14, 2, 151_936, True),
    "1.5b": Shape(28, 1536, 8960, 12, 2, 151_936, True),
    "7b": Shape(28, 3584, 18_944, 28, 4, 152_064, False),
    "32b": Shape(64, 5120, 27_648, 40, 8, 152_064, False),
}


def random_model(shape: str | Shape, device: torch.device, dtype: torch.dtype) -> Any:
    """Weights of standard deviation 0.02, made on the device."""
    config = (SHAPES[shape] if isinstance(shape, str) else shape).config()
    torch.manual_seed(0)
    with device, default_dtype(dtype):
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def forward_operations(shape: Shape, tokens: float, pairs: float, read: float) -> float:
    """Floating-point operations of a forward pass: 2 per weight and token; 4 per hidden dimension, layer and `pairs` of
    tokens that attend; the output layer at `read` positions. A backward pass takes twice as many."""
    attention = 4 * shape.layers * shape.hidden * pairs
    return 2 * shape.layer_weights * tokens + attention + 2 * shape.head_weights * read


def causal_pairs(past: float, new: float) -> float:
    """Pairs of which one is among `new` tokens and the other is it, or comes before it, `past` tokens included."""
    return new * past + new * (new + 1) / 2
