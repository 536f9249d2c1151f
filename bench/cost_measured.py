"""What the parts of a training step take on this processor, each measured by itself in the shapes of a step.

`Pass` is one forward pass through a model; `Machine` is what a cost model asks of a machine, and `Measured` answers for
this one: the median of several runs, of a program that knows nothing of a step.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from model_shapes import Shape, causal_pairs

CHUNK_ROWS = 128  # positions whose logits are in memory at the same time (train.loss_chunk_rows)


@dataclass(frozen=True)
class Pass:
    """A forward pass of `prefix` tokens and of `new` ones of each of `questions`, which attend to `seen` tokens of the
    prefix and to `past` ones of their question as well; the output layer is read at `read` positions."""

    prefix: float
    questions: int
    new: float
    seen: float
    past: float = 0
    read: float = 0

    @property
    def tokens(self) -> float:
        return self.prefix + self.questions * self.new

    @property
    def pairs(self) -> float:
        """Of tokens that attend."""
        return causal_pairs(0, self.prefix) + self.questions * causal_pairs(self.seen + self.past, self.new)

    @property
    def rows_of_chunk(self) -> float:
        return min(CHUNK_ROWS, self.read)

    @property
    def chunks(self) -> float:
        return self.read / self.rows_of_chunk if self.read else 0


class Machine(Protocol):
    """Seconds of each kind of work. Backward is what it adds to forward."""

    @property
    def element_bytes(self) -> int: ...

    @property
    def layer_seconds(self) -> float: ...

    @property
    def host_seconds(self) -> float: ...

    def products(self, shape: Shape, rows: float, *, is_backward: bool = False) -> float:
        """Of all linear layers of all decoder layers."""

    def head(self, shape: Shape, rows: float, *, is_backward: bool = False) -> float:
        """Of the output layer."""

    def attention(self, shape: Shape, one: Pass, *, is_backward: bool = False) -> float:
        """Of all layers."""

    def moved(self, numbers: float, at_once: float, element_bytes: int) -> float:
        """Of operations that read and write so many numbers, in tensors of `at_once`."""

    def exponentials(self, numbers: float) -> float:
        """Of so many numbers in float32."""

    def log_softmax(self, rows: float, vocabulary: int) -> float:
        """Of float32 rows of logits."""


class Measured:
    """This processor. What has been measured once is remembered."""

    layer_seconds = host_seconds = 0.0

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._seconds: dict[str, float] = {}

    @property
    def element_bytes(self) -> int:
        return self._dtype.itemsize

    def found(self) -> dict[str, float]:
        """Seconds of everything that was measured."""
        return dict(self._seconds)

    def products(self, shape: Shape, rows: float, *, is_backward: bool = False) -> float:
        """With weights of its own for each layer, which do not stay in a cache from one to the next."""
        size = round(rows)
        name = f"products {shape.layers} layers {size} rows{_way(is_backward)}"
        return self._measured(name, lambda: self._products(shape, size, is_backward))

    def _products(self, shape: Shape, rows: int, is_backward: bool) -> float:
        hidden, keys, between = shape.hidden, shape.key_size, shape.intermediate
        sizes = [(hidden, hidden), (hidden, keys), (hidden, keys), (hidden, hidden)]
        sizes += [(hidden, between), (hidden, between), (between, hidden)]
        weights = [[self._random(outputs, inputs) for inputs, outputs in sizes] for _ in range(shape.layers)]
        inputs = {size: self._random(rows, size) for size in {hidden, keys, between}}

        def forward() -> None:
            for layer in weights:
                for weight in layer:
                    F.linear(inputs[weight.shape[1]], weight)

        def backward() -> list[Tensor]:
            gradients = []
            for layer in weights:
                for weight in layer:
                    gradient = inputs[weight.shape[0]]
                    torch.mm(gradient, weight)
                    gradients.append(torch.mm(gradient.T, inputs[weight.shape[1]]))
            return gradients

        return median_seconds(backward if is_backward else forward)

    def head(self, shape: Shape, rows: float, *, is_backward: bool = False) -> float:
        size = round(rows)
        name = f"output layer {shape.vocabulary} x {shape.hidden} {size} rows{_way(is_backward)}"
        return self._measured(name, lambda: self._head(shape, size, is_backward))

    def _head(self, shape: Shape, rows: int, is_backward: bool) -> float:
        weight, left = self._random(shape.vocabulary, shape.hidden), self._random(rows, shape.hidden)
        gradient = self._random(rows, shape.vocabulary)
        if not is_backward:
            return median_seconds(lambda: F.linear(left, weight))
        return median_seconds(lambda: (torch.mm(gradient, weight), torch.mm(gradient.T, left)))

    def attention(self, shape: Shape, one: Pass, *, is_backward: bool = False) -> float:
        """As attention by parts has it: the prefix causal, all questions to the prefix, and each to its own tokens."""
        prefix, questions, new = round(one.prefix), one.questions, round(one.new)
        seen, own = round(one.seen), round(one.past + one.new)
        size, repeats = shape.hidden // shape.heads, shape.heads // shape.key_heads
        calls = [(1, shape.heads, prefix, prefix, True, False)] if prefix else []
        calls += [(1, shape.key_heads, repeats * questions * new, seen, False, False)]
        calls += [(questions, shape.key_heads, repeats * new, own, False, True)]
        return shape.layers * sum(self._attention(*call, size, is_backward) for call in calls)

    def _attention(
        self,
        batch: int,
        heads: int,
        queries: int,
        keys: int,
        is_causal: bool,
        has_mask: bool,
        size: int,
        is_backward: bool,
    ) -> float:
        def seconds() -> float:
            query = self._random(batch, heads, queries, size).requires_grad_()
            key, value = (self._random(batch, heads, keys, size).requires_grad_() for _ in range(2))
            mask = torch.zeros(batch, 1, queries, keys, dtype=self._dtype) if has_mask else None

            def forward() -> Tensor:
                return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=is_causal)

            if not is_backward:
                with torch.no_grad():
                    return median_seconds(forward)
            output = forward()
            gradient = torch.ones_like(output)
            return median_seconds(
                lambda: torch.autograd.grad(output, (query, key, value), gradient, retain_graph=True)
            )

        shape = f"{batch} x {heads} x {queries} to {keys}{' causal' if is_causal else ''}"
        return self._measured(f"attention {shape}{_way(is_backward)}", seconds)

    def moved(self, numbers: float, at_once: float, element_bytes: int) -> float:
        """At the rate of a sum of two tensors of that size, which reads two numbers and writes one."""
        dtype = torch.float32 if element_bytes == 4 else self._dtype
        size = round(at_once)

        def seconds() -> float:
            left, right = (torch.randn(size).to(dtype) for _ in range(2))
            return median_seconds(lambda: left + right)

        return numbers / (3 * size) * self._measured(f"sum of {size} {dtype}", seconds)

    def exponentials(self, numbers: float) -> float:
        size = 2**22
        return numbers / size * self._measured("exponentials of 2^22", lambda: _unary(torch.exp, size))

    def log_softmax(self, rows: float, vocabulary: int) -> float:
        size = min(round(rows), CHUNK_ROWS)
        name = f"log-softmax of {size} x {vocabulary}"
        return rows / size * self._measured(name, lambda: _unary(torch.log_softmax, size, vocabulary, dim=-1))

    def _random(self, *size: int) -> Tensor:
        return torch.randn(*size).to(self._dtype)

    def _measured(self, name: str, measure: Callable[[], float]) -> float:
        if name not in self._seconds:
            self._seconds[name] = measure()
        return self._seconds[name]


def _unary(function: Callable[..., Tensor], *size: int, **options: Any) -> float:
    numbers = torch.randn(*size)
    return median_seconds(lambda: function(numbers, **options))


def _way(is_backward: bool) -> str:
    return ", backward" if is_backward else ""


def median_seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """After a first run that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
