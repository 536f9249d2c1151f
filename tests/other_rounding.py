"""Stands for another processor: `pytest --rounding 3` changes the last bits of what torch computes.

Processors, vector widths and numbers of threads add the same numbers in another order, and what a test asserts has to
hold on all of them. Here the result of every operation that sums, or that processors approximate, is moved by up to two
units in the last place, as the seed and the shape choose: a computation repeated gives the same bits, a batch and its
single rows do not. Only the process of the tests is changed, not those that they start.
"""

import functools
import zlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode

ROUNDED = {
    "mm", "addmm", "bmm", "baddbmm", "_softmax", "_log_softmax", "_softmax_backward_data",
    "_log_softmax_backward_data", "logsumexp", "sum", "mean", "exp", "log", "tanh", "rsqrt", "silu", "gelu",
    "native_layer_norm", "embedding_dense_backward", "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention_for_cpu_backward",
}  # fmt: skip
LARGEST_MOVE = 4  # halves of the spacing at 1
# Sums of bfloat16 are kept in float32: only the few that lie between two values are rounded otherwise.
BFLOAT16_SHARE = 0.02


class OtherRounding(TorchDispatchMode):
    """While it is entered, this thread computes as processor number `seed` would."""

    def __init__(self, seed: int):
        super().__init__()
        self.seed = seed

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ not in ROUNDED:
            return result
        if isinstance(result, torch.Tensor):
            return self.moved(result)
        return tuple(self.moved(each) if isinstance(each, torch.Tensor) else each for each in result)

    def moved(self, values: torch.Tensor) -> torch.Tensor:
        if not values.is_floating_point() or values.device.type != "cpu":
            return values
        factors = factors_of(self.seed, tuple(values.shape), values.dtype)
        return (values.to(factors.dtype) * factors).to(values.dtype)


@functools.lru_cache(maxsize=4096)
def factors_of(seed: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """What a result of this shape is multiplied by, in no less than float32."""
    generator = torch.Generator().manual_seed(zlib.crc32(repr((seed, shape)).encode()))
    moves = torch.randint(-LARGEST_MOVE, LARGEST_MOVE + 1, shape, generator=generator)
    if dtype == torch.bfloat16:
        moves = moves.sign() * (torch.rand(shape, generator=generator) < BFLOAT16_SHARE)
    factors = 1 + moves.double() * (torch.finfo(dtype).eps / 2)
    return factors.to(torch.promote_types(dtype, torch.float32))
