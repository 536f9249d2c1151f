"""The chunked loss: equals the plain computation in value and in every gradient, whatever the chunk."""

import pytest
import torch
import torch.nn.functional as F

from distilsql.distill.divergence import Positions
from distilsql.distill.divergences import DIVERGENCES
from distilsql.distill.head import Head
from distilsql.distill.loss import Distillation, Likelihood, completion_loss

N, D, E, V = 7, 5, 6, 13


def inputs(dtype=torch.float64, vocabulary=V):
    generator = torch.Generator().manual_seed(0)
    rand = lambda *shape: torch.randn(*shape, generator=generator, dtype=dtype)  # noqa: E731
    hidden = rand(N, D).requires_grad_()
    weight = rand(vocabulary, D).requires_grad_()
    bias = rand(vocabulary).requires_grad_()
    teacher_hidden, teacher_weight = rand(N, E), rand(vocabulary + 3, E)
    weights = torch.rand(N, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, V, (N,), generator=generator)
    return hidden, weight, bias, teacher_hidden, teacher_weight, weights, targets


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("chunk_rows", [1, 3, 100])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_equals_the_plain_computation(name, chunk_rows, temperature):
    hidden, weight, bias, teacher_hidden, teacher_weight, weights, targets = inputs()
    divergence, odd = DIVERGENCES[name], torch.arange(N) % 2 == 1
    positions = Positions(targets, odd, torch.arange(N) % 3 == 1)
    parts = completion_loss(
        hidden,
        Head(weight, bias),
        vocabulary_size=V,
        distillation=Distillation(
            teacher_hidden, Head(teacher_weight), divergence, weights, temperature, positions
        ),
        likelihood=Likelihood(targets, 0.5 * weights),
        chunk_rows=chunk_rows,
    )
    (3 * parts.total).backward()
    got = [tensor.grad.clone() for tensor in (hidden, weight, bias)]
    for tensor in (hidden, weight, bias):
        tensor.grad = None
    logits = F.linear(hidden, weight, bias)
    teacher = torch.log_softmax(F.linear(teacher_hidden, teacher_weight)[:, :V] / temperature, -1)
    plain = (divergence(teacher, torch.log_softmax(logits / temperature, -1), positions) * weights).sum()
    plain = plain + 0.5 * (F.cross_entropy(logits, targets, reduction="none") * weights).sum()
    (3 * plain).backward()
    assert parts.total.item() == pytest.approx(plain.item(), rel=1e-12)
    for mine, tensor in zip(got, (hidden, weight, bias), strict=True):
        torch.testing.assert_close(mine, tensor.grad)


def test_gradcheck_in_float64():
    hidden, weight, bias, teacher_hidden, teacher_weight, weights, targets = inputs()

    def loss(hidden, weight, bias):
        return completion_loss(
            hidden,
            Head(weight, bias),
            vocabulary_size=V,
            distillation=Distillation(
                teacher_hidden, Head(teacher_weight), DIVERGENCES["reverse-kl"], weights
            ),
            likelihood=Likelihood(targets, weights),
            chunk_rows=2,
        ).total

    assert torch.autograd.gradcheck(loss, (hidden, weight, bias))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_scaled_and_capped_logits_in_value_and_gradient(temperature):
    hidden, weight, bias, teacher_hidden, teacher_weight, weights, targets = inputs()
    divergence, teacher_head = DIVERGENCES["reverse-kl"], Head(teacher_weight, scale=0.5, cap=3.0)
    parts = completion_loss(
        hidden,
        Head(weight, bias, scale=0.25, cap=1.5),
        vocabulary_size=V,
        distillation=Distillation(teacher_hidden, teacher_head, divergence, weights, temperature),
        likelihood=Likelihood(targets, weights),
        chunk_rows=3,
    )
    got = torch.autograd.grad(parts.total, (hidden, weight, bias))
    logits = 1.5 * torch.tanh(0.25 * F.linear(hidden, weight, bias) / 1.5)
    teacher = 3 * torch.tanh(0.5 * F.linear(teacher_hidden, teacher_weight)[:, :V] / 3)
    logps = [torch.log_softmax(each / temperature, -1) for each in (teacher, logits)]
    plain = ((divergence(*logps) + F.cross_entropy(logits, targets, reduction="none")) * weights).sum()
    torch.testing.assert_close(parts.total, plain)
    torch.testing.assert_close(got, torch.autograd.grad(plain, (hidden, weight, bias)))


def test_vocabulary_is_cut_before_the_softmax_and_gets_no_gradient_beyond():
    hidden, weight, bias, *_, weights, targets = inputs(vocabulary=V + 4)
    likelihood = Likelihood(targets, weights)
    parts = completion_loss(hidden, Head(weight, bias), vocabulary_size=V, likelihood=likelihood)
    parts.total.backward()
    cut = F.cross_entropy(F.linear(hidden, weight[:V], bias[:V]), targets, reduction="none")
    torch.testing.assert_close(parts.negative_log_likelihood_N, cut)
    assert weight.grad[V:].abs().max() == 0
    assert bias.grad[V:].abs().max() == 0


def test_a_frozen_head_gets_no_gradient():
    hidden, weight, _, _, _, weights, targets = inputs()
    frozen = weight.detach()
    completion_loss(
        hidden, Head(frozen), vocabulary_size=V, likelihood=Likelihood(targets, weights)
    ).total.backward()
    assert frozen.grad is None
    assert hidden.grad is not None


def test_bfloat16_inputs_are_judged_in_float32():
    hidden, weight, _, _, _, weights, _ = inputs()
    # The teacher's logits equal the student's: rounding in bfloat16 probabilities would show as a negative KL.
    head = Head(weight.detach().bfloat16())
    parts = completion_loss(
        hidden.detach().bfloat16(),
        head,
        vocabulary_size=V,
        distillation=Distillation(hidden.detach().bfloat16(), head, DIVERGENCES["reverse-kl"], weights),
    )
    assert parts.divergence_N.dtype == torch.float32
    assert parts.divergence_N.abs().max() < 1e-6


def test_rows_that_do_not_match_are_refused():
    hidden, weight, _, _, _, weights, targets = inputs()
    with pytest.raises(ValueError, match="6 rows of targets for 7"):
        completion_loss(hidden, Head(weight), vocabulary_size=V, likelihood=Likelihood(targets[:-1], weights))
    with pytest.raises(ValueError, match="needs a distillation term"):
        completion_loss(hidden, Head(weight), vocabulary_size=V)
