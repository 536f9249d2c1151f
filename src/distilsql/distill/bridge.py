"""Divergences across two vocabularies: a teacher's and a student's distributions over aligned spans of one text.

A span (`alignment.py`) of several tokens has the distribution of its first token times the probability of the tokens
that follow it in the text, as in TRL's GOLD ("observed" merging):

    P(y) = p_first(y) · Π_later p_j(x_j)

Two ways to compare P of teacher and student (docs/methods/bridged.md):

- ULD (Boizard et al. 2024): both sorted, the largest first, the shorter filled up with zeros; Σ |difference|, the
  Wasserstein-1 distance where moving mass costs the same between any two tokens;
- hybrid (TRL's GOLD): a divergence where both vocabularies have the token, with all other probability as one outcome
  more (ASSUMED: so it is a divergence of two distributions, never negative), plus ULD on the tokens that one has alone.

Shapes: M spans, R and Q the student's and the teacher's rows, V and U their vocabularies, C tokens that both have.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distilsql.distill.alignment import Span
from distilsql.distill.divergence import Divergence

TeacherLogProbs = Float[Tensor, "M U"]
StudentLogProbs = Float[Tensor, "M V"]
PerSpan = Float[Tensor, " M"]

# Least probability of the outcome that stands for all other tokens: forward KL is not finite where the student's is 0.
LEAST_OTHER = 1e-8


@dataclass(frozen=True)
class Vocabularies:
    """What two vocabularies share: token `student_C[c]` of one is token `teacher_C[c]` of the other.

    `student_alone` and `teacher_alone` are the tokens that only one of them has.
    """

    student_C: Int[Tensor, " C"]
    teacher_C: Int[Tensor, " C"]
    student_alone: Tensor
    teacher_alone: Tensor

    @property
    def student_size(self) -> int:
        return len(self.student_C) + len(self.student_alone)

    @property
    def teacher_size(self) -> int:
        return len(self.teacher_C) + len(self.teacher_alone)

    @property
    def are_the_same(self) -> bool:
        return not len(self.student_alone) and not len(self.teacher_alone)

    def on(self, device: torch.device) -> "Vocabularies":
        """The same with its tensors on `device`."""
        return Vocabularies(
            self.student_C.to(device),
            self.teacher_C.to(device),
            self.student_alone.to(device),
            self.teacher_alone.to(device),
        )


def vocabularies(pairs: Sequence[tuple[int, int]], student_size: int, teacher_size: int) -> Vocabularies:
    """From (student's, teacher's) ids of the tokens that both have."""
    mine, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    alone = (
        sorted(set(range(size)) - set(ids)) for ids, size in ((mine, student_size), (theirs, teacher_size))
    )
    return Vocabularies(*(torch.tensor(ids, dtype=torch.int64) for ids in (mine, theirs, *alone)))


@dataclass(frozen=True)
class AlignedSpans:
    """The spans of a tree's completions that can be compared, by rows of its student's and teacher's hidden states.

    `student_token_R` and `teacher_token_Q` are the completions' tokens, which those rows predict.
    """

    spans: tuple[Span, ...]
    student_token_R: Int[Tensor, " R"]
    teacher_token_Q: Int[Tensor, " Q"]

    def weights(self, weight_M: Float[Tensor, " M"]) -> Float[Tensor, " R"]:
        """A weight for each span as one for each row of the student."""
        weight_R = weight_M.new_zeros(len(self.student_token_R))
        for span, weight in zip(self.spans, weight_M, strict=True):
            weight_R[span.student_start : span.student_stop] = weight
        return weight_R

    @property
    def first_rows(self) -> list[int]:
        return [span.student_start for span in self.spans]

    def chunks(self, rows: int) -> Iterator[tuple[slice, slice, "AlignedSpans"]]:
        """Consecutive spans of at most `rows` rows of each model (one span at least), with the rows of student and
        teacher that they are in; together these are all rows of the student."""
        student_start = teacher_start = 0
        held: list[Span] = []
        for span in self.spans:
            if held and max(span.student_stop - student_start, span.teacher_stop - teacher_start) > rows:
                yield self._part(held, student_start, span.student_start, teacher_start, span.teacher_start)
                student_start, teacher_start, held = span.student_start, span.teacher_start, []
            held.append(span)
        ends = len(self.student_token_R), len(self.teacher_token_Q)
        yield self._part(held, student_start, ends[0], teacher_start, ends[1])

    def _part(
        self, held: Sequence[Span], a: int, b: int, c: int, d: int
    ) -> tuple[slice, slice, "AlignedSpans"]:
        moved = tuple(span.moved(-a, -c) for span in held)
        return (
            slice(a, b),
            slice(c, d),
            AlignedSpans(moved, self.student_token_R[a:b], self.teacher_token_Q[c:d]),
        )


@dataclass(frozen=True)
class Bridge:
    """How distributions over two vocabularies are compared; a `divergence` of None means ULD over all tokens.

    `uld_weight` multiplies the ULD part.
    """

    vocabularies: Vocabularies
    divergence: Divergence | None
    uld_weight: float = 1.0

    def value_and_gradient(
        self, teacher_QU: Float[Tensor, "Q U"], student_RV: Float[Tensor, "R V"], aligned: AlignedSpans
    ) -> tuple[Float[Tensor, " R"], Float[Tensor, "R V"]]:
        """Per row of the student: the span's value at its first row and 0 at others; and the gradient of the span's
        value with respect to the row's logits (R, V)."""
        value_R = student_RV.new_zeros(len(student_RV))
        if not aligned.spans:
            return value_R, torch.zeros_like(student_RV)
        device = student_RV.device
        first_M = torch.tensor(aligned.first_rows, device=device)
        teacher_first_M = torch.tensor([span.teacher_start for span in aligned.spans], device=device)
        student_spans = [(span.student_start, span.student_stop) for span in aligned.spans]
        teacher_spans = [(span.teacher_start, span.teacher_stop) for span in aligned.spans]
        value_M, slope_MV = self.value_and_slope(
            teacher_QU[teacher_first_M],
            _later(teacher_QU, aligned.teacher_token_Q, teacher_spans),
            student_RV[first_M],
            _later(student_RV, aligned.student_token_R, student_spans),
        )
        value_R[first_M] = value_M
        # The first token's logits through its softmax; a later token's through log q_j(x_j), which adds to every log P.
        total_M = slope_MV.sum(-1)
        gradient_RV = student_RV.exp()
        factor_R = student_RV.new_zeros(len(student_RV))
        for (start, stop), total in zip(student_spans, total_M, strict=True):
            factor_R[start:stop] = total
        gradient_RV.mul_(-factor_R.unsqueeze(-1))
        gradient_RV[first_M] += slope_MV
        later_L = _later_rows(student_spans).to(device)
        token_L = aligned.student_token_R.to(device)[later_L]
        gradient_RV[later_L, token_L] += factor_R[later_L]
        return value_R, gradient_RV

    def value_and_slope(
        self,
        teacher_MU: TeacherLogProbs,
        teacher_later_M: PerSpan,
        student_MV: StudentLogProbs,
        student_later_M: PerSpan,
    ) -> tuple[PerSpan, StudentLogProbs]:
        """The value of each span, and its slope P_v · ∂/∂P_v over the student's vocabulary.

        Given are both distributions of the spans' first tokens and the log-probability of the tokens after it (0 where
        there are none).
        """
        value_M, slope_MV = student_MV.new_zeros(len(student_MV)), torch.zeros_like(student_MV)
        teacher_MU = teacher_MU + teacher_later_M.unsqueeze(-1)
        student_MV = student_MV + student_later_M.unsqueeze(-1)
        known = self.vocabularies
        if self.divergence is None:
            distance_M, slope_MV = uld(teacher_MU, student_MV)
            return self.uld_weight * distance_M, self.uld_weight * slope_MV
        common_teacher = [teacher_MU[:, known.teacher_C]]
        common_student = [student_MV[:, known.student_C]]
        later_M = torch.stack([teacher_later_M, student_later_M])
        has_other = not known.are_the_same or bool((later_M != 0).any())
        if has_other:
            common_teacher.append(_other(teacher_MU[:, known.teacher_alone], teacher_later_M))
            common_student.append(_other(student_MV[:, known.student_alone], student_later_M))
        p, q = torch.cat(common_teacher, -1), torch.cat(common_student, -1)
        value_M = value_M + self.divergence(p, q)
        slope = self.divergence.slope(p, q)
        if has_other:
            # The other outcome has what the common tokens leave: its own slope is theirs, in their proportions.
            slope = slope[:, :-1] - slope[:, -1:] * (q[:, :-1] - q[:, -1:]).exp()
        slope_MV[:, known.student_C] = slope
        if len(known.student_alone) or len(known.teacher_alone):
            distance_M, slope_alone = uld(
                teacher_MU[:, known.teacher_alone], student_MV[:, known.student_alone]
            )
            value_M = value_M + self.uld_weight * distance_M
            slope_MV[:, known.student_alone] = self.uld_weight * slope_alone
        return value_M, slope_MV


def uld(teacher_MU: Tensor, student_MV: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_i |P_(i) − Q_(i)| over log-probabilities, each sorted and the shorter one filled up with zeros, and its slope
    Q_v · ∂/∂Q_v (M, V). Boizard et al. 2024, eq. 6; the sums need not be 1."""
    teacher_M = teacher_MU.exp().sort(dim=-1, descending=True).values
    student_sorted, order_MV = student_MV.exp().sort(dim=-1, descending=True, stable=True)
    both = min(teacher_M.shape[-1], student_sorted.shape[-1])
    difference = student_sorted.clone()
    difference[:, :both] -= teacher_M[:, :both]
    distance_M = difference.abs().sum(-1) + teacher_M[:, both:].sum(-1)
    slope_MV = torch.zeros_like(student_MV).scatter_(-1, order_MV, student_sorted * difference.sign())
    return distance_M, slope_MV


def _other(alone_MS: Tensor, later_M: Tensor) -> Tensor:
    """log of 1 − Σ P over the common tokens (M, 1): P of the tokens that only this vocabulary has (`alone_MS`, logs),
    and the probability that what follows the first token is another text."""
    never = torch.full_like(later_M, -torch.inf)
    other_text_M = torch.where(later_M < 0, torch.log(-torch.expm1(later_M)), never)
    alone_M = torch.logsumexp(alone_MS, -1) if alone_MS.shape[-1] else never
    least = torch.full_like(later_M, LEAST_OTHER).log()
    return torch.maximum(torch.logaddexp(other_text_M, alone_M), least).unsqueeze(-1)


def _later_rows(spans: Sequence[tuple[int, int]]) -> Int[Tensor, " L"]:
    return torch.tensor([row for start, stop in spans for row in range(start + 1, stop)], dtype=torch.int64)


def _later(logp_RV: Tensor, token_R: Tensor, spans: Sequence[tuple[int, int]]) -> Tensor:
    """Σ log p_j(x_j) over the tokens after the first of each span (M)."""
    rows_L = _later_rows(spans).to(logp_RV.device)
    span_L = torch.tensor(
        [number for number, (start, stop) in enumerate(spans) for _ in range(start + 1, stop)],
        dtype=torch.int64,
        device=logp_RV.device,
    )
    logp_L = logp_RV[rows_L, token_R.to(logp_RV.device)[rows_L]]
    return logp_RV.new_zeros(len(spans)).index_add_(0, span_L, logp_L)


def span_weights(parts: Sequence[AlignedSpans], weight_N: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Weights of the completions' positions: each completion's total is divided equally among its spans.

    So a completion's mean is over its spans, as in TRL, and it has the same weight as without a bridge.
    """
    lengths = [len(part.student_token_R) for part in parts]
    found = []
    for part, own_N in zip(parts, weight_N.split(lengths), strict=True):
        count = len(part.spans)
        found.append(part.weights(own_N.sum().expand(count) / max(count, 1)))
    return torch.cat(found)


def joined(parts: Sequence[AlignedSpans]) -> AlignedSpans:
    """The spans of several completions, rows after rows."""
    spans: list[Span] = []
    mine = theirs = 0
    for part in parts:
        spans += [span.moved(mine, theirs) for span in part.spans]
        mine, theirs = mine + len(part.student_token_R), theirs + len(part.teacher_token_Q)
    return AlignedSpans(
        tuple(spans),
        torch.cat([part.student_token_R for part in parts]),
        torch.cat([part.teacher_token_Q for part in parts]),
    )
