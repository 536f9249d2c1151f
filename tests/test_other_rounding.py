"""The stand-in for another processor: its own last bits, the same ones every time."""

import torch

from other_rounding import OtherRounding


def products(seed: int, dtype: torch.dtype, rows: int = 40) -> torch.Tensor:
    draws = torch.Generator().manual_seed(0)
    left, right = (torch.randn(size, 50, generator=draws).to(dtype) for size in (40, 60))
    with OtherRounding(seed):
        return torch.nn.functional.linear(left[:rows], right)


def test_a_processor_repeats_itself_and_differs_from_others_and_in_a_batch():
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        assert torch.equal(products(1, dtype), products(1, dtype))
        assert not torch.equal(products(1, dtype), products(2, dtype))
        assert not torch.equal(products(1, dtype)[:9], products(1, dtype, rows=9))


def test_only_last_bits_differ():
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        one, other = (products(seed, dtype).double() for seed in (1, 2))
        assert ((one - other).abs() <= 8 * torch.finfo(dtype).eps * one.abs()).all()


def test_gradients_are_rounded_too():
    def gradient(seed: int) -> torch.Tensor:
        weight = torch.ones(7, 5, requires_grad=True)
        with OtherRounding(seed):
            (torch.arange(15.0).sqrt().view(3, 5) @ weight.T).square().sum().backward()
        assert weight.grad is not None
        return weight.grad

    assert not torch.equal(gradient(1), gradient(2))
    torch.testing.assert_close(gradient(1), gradient(2), rtol=1e-5, atol=0)
