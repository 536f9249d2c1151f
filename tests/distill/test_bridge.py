"""Bridged losses: as an independent computation in float64 has them, exact where vocabularies agree."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from distilsql.distill.alignment import Span
from distilsql.distill.bridge import AlignedSpans, Bridge, Vocabularies, joined, vocabularies
from distilsql.distill.divergences import DIVERGENCES
from distilsql.distill.head import Head
from distilsql.distill.loss import Bridged, Distillation, Likelihood, completion_loss

V, U, D, E = 7, 9, 5, 4
# Student's 0, 2, 3, 6 are the teacher's 4, 1, 8, 0.
PAIRS = [(0, 4), (2, 1), (3, 8), (6, 0)]
# Of one token each, two of the student's for one, one for three, a span that cannot be compared left out, two for two.
SPANS = (Span(0, 1, 0, 1), Span(1, 3, 1, 2), Span(3, 4, 2, 5), Span(6, 8, 6, 8))
ROWS, TEACHER_ROWS = 8, 9
PLAIN = [name for name, divergence in DIVERGENCES.items() if not divergence.reads_positions]


def drawn(*shape, seed=0, requires_grad=False):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(requires_grad)


def tokens(size, rows, seed):
    return torch.randint(0, size, (rows,), generator=torch.Generator().manual_seed(seed))


def aligned() -> AlignedSpans:
    return AlignedSpans(SPANS, tokens(V, ROWS, 1), tokens(U, TEACHER_ROWS, 2))


def spread(logits: np.ndarray, own_tokens, start: int, stop: int) -> np.ndarray:
    """P over a span: the first token's distribution times the probability of the later tokens."""
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return p[start] * math.prod(p[row, own_tokens[row]] for row in range(start + 1, stop))


def uld_by_hand(p: np.ndarray, q: np.ndarray) -> float:
    size = max(len(p), len(q))
    return sum(
        abs(a - b)
        for a, b in zip(
            sorted([*p, *[0.0] * (size - len(p))], reverse=True),
            sorted([*q, *[0.0] * (size - len(q))], reverse=True),
            strict=True,
        )
    )


def divergence_by_hand(name: str, p: np.ndarray, q: np.ndarray) -> float:
    kl = lambda a, b: float(np.sum(a * np.log(a / b)))  # noqa: E731
    return {
        "forward-kl": lambda: kl(p, q),
        "reverse-kl": lambda: kl(q, p),
        "jensen-shannon": lambda: 0.5 * kl(p, (p + q) / 2) + 0.5 * kl(q, (p + q) / 2),
        "total-variation": lambda: 0.5 * float(np.abs(p - q).sum()),
    }[name]()


def by_hand(
    kind: str, teacher: np.ndarray, student: np.ndarray, spans: AlignedSpans, weight: float
) -> list[float]:
    """The value of each span, from logits."""
    values = []
    for span in spans.spans:
        p = spread(teacher, spans.teacher_token_Q.tolist(), span.teacher_start, span.teacher_stop)
        q = spread(student, spans.student_token_R.tolist(), span.student_start, span.student_stop)
        if kind == "uld":
            values.append(weight * uld_by_hand(p, q))
            continue
        both = np.array([p[theirs] for _, theirs in PAIRS]), np.array([q[mine] for mine, _ in PAIRS])
        alone = (
            [p[u] for u in range(U) if u not in {theirs for _, theirs in PAIRS}],
            [q[v] for v in range(V) if v not in {mine for mine, _ in PAIRS}],
        )
        coarse = [np.append(common, 1 - common.sum()) for common in both]
        values.append(divergence_by_hand(kind, *coarse) + weight * uld_by_hand(*alone))
    return values


def bridge(kind: str, weight: float = 0.7) -> Bridge:
    return Bridge(vocabularies(PAIRS, V, U), None if kind == "uld" else DIVERGENCES[kind], weight)


def loss_of(kind, hidden, weight, teacher_hidden, teacher_weight, spans, *, chunk_rows=100, temperature=1.0):
    weights = spans.weights(torch.linspace(0.5, 1.5, len(spans.spans), dtype=torch.float64))
    return completion_loss(
        hidden,
        Head(weight),
        vocabulary_size=V,
        distillation=Distillation(
            teacher_hidden,
            Head(teacher_weight),
            DIVERGENCES["reverse-kl"],
            weights,
            temperature,
            bridged=Bridged(bridge(kind), spans),
        ),
        likelihood=Likelihood(spans.student_token_R, torch.full((len(hidden),), 0.1, dtype=torch.float64)),
        chunk_rows=chunk_rows,
    )


@pytest.mark.parametrize("kind", ["uld", "forward-kl", "reverse-kl", "jensen-shannon", "total-variation"])
@pytest.mark.parametrize("chunk_rows", [1, 3, 100])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_values_are_those_of_an_independent_computation(kind, chunk_rows, temperature):
    hidden, weight, teacher_hidden, teacher_weight = (
        drawn(ROWS, D, seed=1),
        drawn(V, D, seed=2),
        drawn(TEACHER_ROWS, E, seed=3),
        drawn(U + 2, E, seed=4),
    )
    spans = aligned()
    parts = loss_of(
        kind,
        hidden,
        weight,
        teacher_hidden,
        teacher_weight,
        spans,
        chunk_rows=chunk_rows,
        temperature=temperature,
    )
    teacher = F.linear(teacher_hidden, teacher_weight[:U]).numpy() / temperature
    expected = by_hand(kind, teacher, F.linear(hidden, weight).numpy() / temperature, spans, 0.7)
    assert parts.divergence_N.tolist() == pytest.approx(expected, rel=1e-9)
    nll = F.cross_entropy(F.linear(hidden, weight), spans.student_token_R, reduction="none")
    weighed = float(np.dot(expected, np.linspace(0.5, 1.5, len(SPANS)))) + 0.1 * nll.sum().item()
    assert parts.total.item() == pytest.approx(weighed, rel=1e-9)
    assert min(expected) >= 0


# No gradient flows through adaptive KL's weights, by its definition.
@pytest.mark.parametrize("kind", ["uld", *(name for name in PLAIN if name != "adaptive-kl")])
@pytest.mark.parametrize("chunk_rows", [pytest.param(1, marks=pytest.mark.slow), 100])
def test_gradients_reach_every_token_of_a_span(kind, chunk_rows):
    """Against differences of the value, in float64: hidden states and output layer."""
    hidden, weight = drawn(ROWS, D, seed=1, requires_grad=True), drawn(V, D, seed=2, requires_grad=True)
    teacher_hidden, teacher_weight = drawn(TEACHER_ROWS, E, seed=3), drawn(U, E, seed=4)

    def loss(hidden, weight):
        return loss_of(
            kind,
            hidden,
            weight,
            teacher_hidden,
            teacher_weight,
            aligned(),
            chunk_rows=chunk_rows,
            temperature=1.5,
        ).total

    assert torch.autograd.gradcheck(loss, (hidden, weight), eps=1e-6, atol=1e-6)
    later, outside = (
        2,
        5,
    )  # the second token of a span; a row that is in no span has the likelihood's gradient alone
    loss(hidden, weight).backward()
    probability = torch.softmax(F.linear(hidden[outside], weight), -1)
    probability[aligned().student_token_R[outside]] -= 1
    torch.testing.assert_close(hidden.grad[outside], 0.1 * probability @ weight)
    probability = torch.softmax(F.linear(hidden[later], weight), -1)
    probability[aligned().student_token_R[later]] -= 1
    assert not torch.allclose(hidden.grad[later], 0.1 * probability @ weight)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_vocabulary_on_both_sides_is_the_ordinary_loss(name, dtype):
    hidden, weight = (drawn(6, D, seed=1).to(dtype), drawn(V, D, seed=2).to(dtype))
    teacher_hidden, teacher_weight = drawn(6, E, seed=3).to(dtype), Head(drawn(V, E, seed=4).to(dtype))
    spans = AlignedSpans(tuple(Span(n, n + 1, n, n + 1) for n in range(6)), tokens(V, 6, 1), tokens(V, 6, 1))
    same = Bridge(vocabularies([(token, token) for token in range(V)], V, V), DIVERGENCES[name])
    found = []
    for bridged in (None, Bridged(same, spans)):
        own = hidden.clone().requires_grad_()
        distillation = Distillation(
            teacher_hidden, teacher_weight, DIVERGENCES[name], torch.linspace(1, 2, 6), 1.3, bridged=bridged
        )
        parts = completion_loss(own, Head(weight), vocabulary_size=V, distillation=distillation)
        parts.total.backward()
        found.append((parts.total, parts.divergence_N, own.grad))
    for ordinary, bridged in zip(*found, strict=True):
        torch.testing.assert_close(ordinary, bridged, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["uld", *PLAIN])
def test_equal_distributions_are_nothing_apart(kind, request):
    """The teacher's tokens are the student's in another order, and some of them count as unknown to the other."""
    logp = torch.log_softmax(drawn(3, V, seed=5), -1)
    order = torch.tensor([3, 1, 6, 0, 2, 5, 4])
    known = [(int(order[theirs]), theirs) for theirs in range(5)]
    one = Bridge(vocabularies(known, V, V), None if kind == "uld" else DIVERGENCES[kind])
    later = torch.tensor([0.0, -0.4, -3.0], dtype=torch.float64)
    value, slope = one.value_and_slope(logp[:, order], later, logp, later)
    torch.testing.assert_close(value, torch.zeros(3, dtype=torch.float64), atol=1e-5, rtol=0)
    # No direction goes down from there: for smooth divergences the projected gradient is nothing.
    # Logit distillation has a kink there, from which the last bit of a probability leads away.
    is_exact = request.config.getoption("--rounding") is None
    if is_exact and kind not in ("uld", "total-variation", "adaptive-kl"):
        torch.testing.assert_close(
            slope - (logp + later[:, None]).exp() * (slope.sum(-1) / later.exp())[:, None],
            torch.zeros_like(slope),
            atol=1e-9,
            rtol=0,
        )


def test_a_teacher_that_knows_more_tokens_keeps_forward_kl_finite():
    """The student cannot give what only the teacher knows any probability."""
    known = Vocabularies(
        torch.arange(3), torch.arange(3), torch.tensor([], dtype=torch.int64), torch.arange(3, 5)
    )
    student, teacher = torch.log_softmax(drawn(2, 3, seed=1), -1), torch.log_softmax(drawn(2, 5, seed=2), -1)
    nothing = torch.zeros(2, dtype=torch.float64)
    value, slope = Bridge(known, DIVERGENCES["forward-kl"]).value_and_slope(
        teacher, nothing, student, nothing
    )
    assert torch.isfinite(value).all()
    assert torch.isfinite(slope).all()


def test_spans_of_completions_are_joined_row_after_row():
    both = joined([aligned(), aligned()])
    assert both.spans[len(SPANS)] == Span(ROWS, ROWS + 1, TEACHER_ROWS, TEACHER_ROWS + 1)
    assert both.weights(torch.arange(8.0)).tolist()[:9] == [0, 1, 1, 2, 0, 0, 3, 3, 4]
    covered = [rows for rows, _, _ in both.chunks(3)]
    assert (covered[0].start, covered[-1].stop) == (0, 2 * ROWS)
    assert all(one.stop == other.start for one, other in pairwise(covered))
