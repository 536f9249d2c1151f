"""Master weights, schedule, and state: float32 AdamW whatever the model computes in."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from distilsql.training.optimizer import MasterAdamW, learning_rate_at


def test_a_float32_model_gets_plain_adamw():
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    plain = nn.Linear(4, 3)
    plain.load_state_dict(model.state_dict())
    mine = MasterAdamW(model, learning_rate=0.1, weight_decay=0.01)
    theirs = torch.optim.AdamW(plain.parameters(), lr=0.1, weight_decay=0.01)
    for step in range(3):
        inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(step))
        model(inputs).square().sum().backward()
        mine.step(0.1)
        plain(inputs).square().sum().backward()
        theirs.step()
        theirs.zero_grad()
    torch.testing.assert_close(model.weight, plain.weight)


def test_small_updates_are_not_lost_in_bfloat16():
    model = nn.Linear(1, 1, bias=False).bfloat16()
    nn.init.ones_(model.weight)
    optimizer = MasterAdamW(model, learning_rate=1e-4, weight_decay=0.0)
    for _ in range(100):
        model(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()
        optimizer.step(1e-4)
    # Each step is far below bfloat16's spacing at 1 (1/128); only their sum, about 0.01, is visible.
    assert optimizer.masters[0].item() == pytest.approx(0.99, abs=1e-3)
    assert model.weight.item() < 1


def test_micro_batches_accumulate_in_float32():
    model = nn.Linear(1, 1, bias=False).bfloat16()
    optimizer = MasterAdamW(model, learning_rate=1.0, weight_decay=0.0)
    for value in [256.0] + [1.0] * 16:
        model(torch.full((1, 1), value, dtype=torch.bfloat16)).sum().backward()
    assert model.weight.grad is None
    assert optimizer.gradients()[0].item() == 272


def test_state_restores_to_the_bit():
    def run(stop: int | None) -> torch.Tensor:
        torch.manual_seed(0)
        model = nn.Linear(4, 3).bfloat16()
        optimizer = MasterAdamW(model, learning_rate=0.1, weight_decay=0.0)
        for step in range(6):
            if step == stop:
                tensors = {name: tensor.clone() for name, tensor in optimizer.state().items()}
                model = nn.Linear(4, 3).bfloat16()
                optimizer = MasterAdamW(model, learning_rate=0.1, weight_decay=0.0)
                optimizer.load(tensors)
            inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(step)).bfloat16()
            model(inputs).square().sum().backward()
            optimizer.step(0.1)
        return model.weight.detach()

    assert torch.equal(run(None), run(3))


def test_schedule_warms_up_and_falls_as_a_cosine():
    rates = [learning_rate_at(step, 100, 1.0, 0.1, 0.2) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert max(rates) == 1.0
    assert all(later <= earlier for earlier, later in pairwise(rates[10:]))
    assert rates[55] == pytest.approx(0.6)
    assert rates[-1] == pytest.approx(0.2, abs=0.001)
    assert learning_rate_at(0, 1, 1.0, 0.0, 0.0) == 1.0
