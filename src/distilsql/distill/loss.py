"""The loss over completion positions, from hidden states, without ever holding all logits at once.

Rows are processed in chunks: student and teacher logits of a chunk are computed by their heads, cut to the
shared vocabulary, turned into float32 log-probabilities, and reduced to a loss and to the gradients with
respect to the hidden states (and the student's head, where it is trained). Memory beyond one chunk does not
depend on the number of completion tokens. All row weights are known beforehand, so the gradients are computed
in the forward pass and only scaled in the backward pass.

A teacher with another vocabulary (`bridge.py`) has rows of its own; a chunk then is a few spans of both.

Shapes: N completion positions, D and E hidden sizes of student and teacher, V shared vocabulary, Q the teacher's
positions: N but for another vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from distilsql.distill.bridge import AlignedSpans, Bridge
from distilsql.distill.divergence import Divergence, Positions
from distilsql.distill.head import Head, LogProbsOf, _wide


@dataclass(frozen=True)
class Bridged:
    """For a teacher with another vocabulary: how the two are compared, and on which spans."""

    bridge: Bridge
    aligned: AlignedSpans


@dataclass(frozen=True)
class Distillation:
    """The teacher's side of the loss: its hidden states at the same positions, its head, and the divergence.

    `positions` are for a divergence that reads them. With `bridged`, hidden states are those of the teacher's tokens
    (Q, E), and the bridge takes the divergence's place; a span has the weight of its rows, which is one.
    `temperature` divides both models' logits inside the divergence only. ASSUMED 1, and no T² factor is ever
    applied: the papers name neither.
    """

    hidden_NE: Tensor
    head: LogProbsOf
    divergence: Divergence
    weight_N: Tensor
    temperature: float = 1.0
    positions: Positions | None = None
    bridged: Bridged | None = None

    @property
    def teacher_rows(self) -> int:
        """How many rows the teacher's hidden states need to be for the student's."""
        return len(self.weight_N) if self.bridged is None else len(self.bridged.aligned.teacher_token_Q)


@dataclass(frozen=True)
class Likelihood:
    """The likelihood side of the loss: target tokens and the weight of each position's negative log-likelihood.

    Without `has_value`, weights are rewards of either sign: the term has its gradient and counts as nothing in the sum.
    """

    target_N: Tensor
    weight_N: Tensor
    has_value: bool = True


@dataclass(frozen=True)
class LossParts:
    """`total` carries the gradient; the values (nats, unweighted) per position, or per span, are for logs."""

    total: Tensor
    divergence_N: Tensor
    negative_log_likelihood_N: Tensor


def completion_loss(
    hidden_ND: Float[Tensor, "N D"],
    head: Head,
    *,
    vocabulary_size: int,
    distillation: Distillation | None = None,
    likelihood: Likelihood | None = None,
    chunk_rows: int = 128,
) -> LossParts:
    """Σ_n weight_n · D(p_n, q_n) + Σ_n weight_n · (−log q_n[target_n]) over completion positions, the latter in value
    only where the likelihood `has_value`.

    Raises:
        ValueError: neither term is given, or the rows of teacher states or targets are not those of `hidden_ND`.
    """
    if distillation is None and likelihood is None:
        raise ValueError("completion_loss needs a distillation term, a likelihood term, or both")
    for name, rows, needed in (
        ("teacher hidden states", len(distillation.hidden_NE), distillation.teacher_rows)
        if distillation
        else ("", 0, 0),
        ("weights", len(distillation.weight_N) if distillation else len(hidden_ND), len(hidden_ND)),
        ("targets", len(likelihood.target_N) if likelihood else len(hidden_ND), len(hidden_ND)),
    ):
        if rows != needed:
            raise ValueError(f"{rows} rows of {name} for {needed} student rows")
    total, divergence_N, nll_N = _ChunkedLoss.apply(
        hidden_ND, head.weight_VD, head.bias_V, head, vocabulary_size, distillation, likelihood, chunk_rows
    )
    if distillation is not None and distillation.bridged is not None:
        divergence_N = divergence_N[distillation.bridged.aligned.first_rows]
    return LossParts(total, divergence_N, nll_N)


class _ChunkedLoss(torch.autograd.Function):
    """Loss and gradients of all rows, a chunk of rows at a time."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        head: Head,
        vocabulary_size: int,
        distillation: Distillation | None,
        likelihood: Likelihood | None,
        chunk_rows: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = _wide(hidden_ND.dtype)
        hidden_needs, weight_needs, bias_needs = ctx.needs_input_grad[:3]
        grad_hidden_ND = torch.empty_like(hidden_ND) if hidden_needs else None
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=wide) if weight_needs else None
        grad_bias_V = torch.zeros_like(bias_V, dtype=wide) if bias_needs and bias_V is not None else None
        divergence_N = hidden_ND.new_zeros(len(hidden_ND), dtype=wide)
        nll_N = hidden_ND.new_zeros(len(hidden_ND), dtype=wide)
        wants_gradient = hidden_needs or weight_needs or bias_needs
        for rows, part in _chunks(distillation, len(hidden_ND), chunk_rows):
            grad_logits_RV = _chunk(
                hidden_ND[rows],
                head,
                vocabulary_size,
                part,
                None
                if likelihood is None
                else Likelihood(likelihood.target_N[rows], likelihood.weight_N[rows]),
                divergence_N[rows],
                nll_N[rows],
                wants_gradient,
            )
            if grad_logits_RV is None:
                continue
            grad_logits_RV = head.through_shape(grad_logits_RV, hidden_ND[rows])
            if grad_bias_V is not None:
                grad_bias_V[:vocabulary_size] += grad_logits_RV.sum(0)
            grad_logits_RV = grad_logits_RV.to(hidden_ND.dtype)
            if grad_hidden_ND is not None:
                torch.mm(grad_logits_RV, weight_VD[:vocabulary_size], out=grad_hidden_ND[rows])
            if grad_weight_VD is not None:
                _add_product(grad_weight_VD[:vocabulary_size], grad_logits_RV.T, hidden_ND[rows])
        ctx.save_for_backward(grad_hidden_ND, grad_weight_VD, grad_bias_V)
        ctx.dtypes = (weight_VD.dtype, None if bias_V is None else bias_V.dtype)
        ctx.mark_non_differentiable(divergence_N, nll_N)
        total = divergence_N.new_zeros(())
        if distillation is not None:
            total = total + (divergence_N * distillation.weight_N.to(divergence_N)).sum()
        if likelihood is not None and likelihood.has_value:
            total = total + (nll_N * likelihood.weight_N.to(nll_N)).sum()
        return total, divergence_N, nll_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        scale = grads[0]
        grad_hidden_ND, grad_weight_VD, grad_bias_V = ctx.saved_tensors
        weight_dtype, bias_dtype = ctx.dtypes
        return (
            None if grad_hidden_ND is None else grad_hidden_ND * scale.to(grad_hidden_ND.dtype),
            None if grad_weight_VD is None else (grad_weight_VD * scale).to(weight_dtype),
            None if grad_bias_V is None else (grad_bias_V * scale).to(bias_dtype),
            None,
            None,
            None,
            None,
            None,
        )


def _chunk(
    hidden_RD: Tensor,
    head: Head,
    vocabulary_size: int,
    distillation: Distillation | None,
    likelihood: Likelihood | None,
    divergence_R: Tensor,
    nll_R: Tensor,
    wants_gradient: bool,
) -> Tensor | None:
    """Fill one chunk's per-position values and return the gradient with respect to its logits."""
    gradient_RV: Tensor | None = None
    if distillation is not None:
        temperature = distillation.temperature
        student_RV = head.log_probs(hidden_RD, vocabulary_size, temperature)
        if distillation.bridged is not None:
            bridge, aligned = distillation.bridged.bridge, distillation.bridged.aligned
            teacher_size = bridge.vocabularies.teacher_size
            teacher_QU = distillation.head.log_probs(distillation.hidden_NE, teacher_size, temperature)
            value_R, gradient_RV = bridge.value_and_gradient(teacher_QU, student_RV, aligned)
            divergence_R.copy_(value_R)
        else:
            teacher_RV = distillation.head.log_probs(distillation.hidden_NE, vocabulary_size, temperature)
            divergence_R.copy_(distillation.divergence(teacher_RV, student_RV, distillation.positions))
            if wants_gradient:
                gradient_RV = distillation.divergence.logit_gradient(
                    teacher_RV, student_RV, distillation.positions
                )
        if gradient_RV is not None:
            gradient_RV.mul_(distillation.weight_N.to(student_RV).unsqueeze(-1) / temperature)
    if likelihood is not None:
        if distillation is None or distillation.temperature != 1.0:
            student_RV = head.log_probs(hidden_RD, vocabulary_size)
        target_R1 = likelihood.target_N.to(hidden_RD.device).unsqueeze(-1)
        nll_R.copy_(-student_RV.gather(-1, target_R1).squeeze(-1))
        if wants_gradient:
            weight_R1 = likelihood.weight_N.to(student_RV).unsqueeze(-1)
            likelihood_RV = student_RV.exp_().mul_(weight_R1)
            likelihood_RV.scatter_add_(-1, target_R1, -weight_R1)
            gradient_RV = likelihood_RV if gradient_RV is None else gradient_RV.add_(likelihood_RV)
    return gradient_RV


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right. The product of one chunk is as large as the output layer, so it is not made by itself
    where the sum has its type."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += torch.mm(left, right)


def _chunks(
    distillation: Distillation | None, rows: int, chunk_rows: int
) -> Iterator[tuple[slice, Distillation | None]]:
    """The student's rows a chunk at a time, with what the distillation has for them."""
    if distillation is not None and distillation.bridged is not None:
        for own, teachers, aligned in distillation.bridged.aligned.chunks(chunk_rows):
            yield (
                own,
                replace(
                    distillation,
                    hidden_NE=distillation.hidden_NE[teachers],
                    weight_N=distillation.weight_N[own],
                    bridged=replace(distillation.bridged, aligned=aligned),
                ),
            )
        return
    for start in range(0, rows, chunk_rows):
        own = slice(start, min(start + chunk_rows, rows))
        yield own, None if distillation is None else _rows_of(distillation, own)


def _rows_of(distillation: Distillation, rows: slice) -> Distillation:
    return replace(
        distillation,
        hidden_NE=distillation.hidden_NE[rows],
        weight_N=distillation.weight_N[rows],
        positions=None if distillation.positions is None else distillation.positions.rows(rows),
    )
