"""Spans use every token of both sequences, in order, spell the same text, and cannot be cut further."""

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from distilsql.distill.alignment import Span, align

# Few letters, so that texts agree often; bytes that are no UTF-8 among them.
TEXT = st.lists(st.sampled_from([b"a", b"b", b" ", b"\xc3", b"\xa9"]), max_size=20).map(b"".join)


@st.composite
def cut(draw, text: bytes) -> list[bytes]:
    """The text in pieces, some of them empty."""
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return (
        [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)] if text or places else []
    )


def check_partition(spans: list[Span], student: list[bytes], teacher: list[bytes]) -> None:
    ends = [(0, 0), *((span.student_stop, span.teacher_stop) for span in spans)]
    assert [(span.student_start, span.teacher_start) for span in spans] == ends[:-1]
    assert ends[-1] == (len(student), len(teacher))
    for span in spans:
        mine, theirs = (
            b"".join(student[span.student_start : span.student_stop]),
            b"".join(teacher[span.teacher_start : span.teacher_stop]),
        )
        assert (mine == theirs) is span.has_same_text


@given(st.data())
def test_two_ways_to_cut_one_text(data):
    text = data.draw(TEXT)
    student, teacher = data.draw(cut(text)), data.draw(cut(text))
    spans = align(student, teacher)
    check_partition(spans, student, teacher)
    assert all(span.has_same_text for span in spans)
    # Not to be cut further: a place where both cut is a place where a span ends.
    both = set(accumulate(map(len, student))) & set(accumulate(map(len, teacher))) - {0}
    ends = {sum(map(len, student[: span.student_stop])) for span in spans} - {0}
    assert ends == both


@given(st.data())
def test_what_differs_is_one_span(data):
    student, teacher = data.draw(TEXT.flatmap(cut)), data.draw(TEXT.flatmap(cut))
    spans = align(student, teacher)
    check_partition(spans, student, teacher)
    differing = [span for span in spans if not span.has_same_text]
    assert len(differing) == (b"".join(student) != b"".join(teacher))


@given(TEXT.flatmap(cut))
def test_the_same_cuts_are_spans_of_one_token(pieces):
    pieces = [piece for piece in pieces if piece]
    assert align(pieces, pieces) == [Span(n, n + 1, n, n + 1) for n in range(len(pieces))]


def test_by_hand():
    assert align([b"SEL", b"ECT", b" n", b"ame"], [b"SELECT", b" na", b"me"]) == [
        Span(0, 2, 0, 1),
        Span(2, 4, 1, 3),
    ]
    changed = align([b"a", b"\xff", b" b"], [b"a", b"\xef\xbf\xbd", b" ", b"b"])
    assert changed == [Span(0, 1, 0, 1), Span(1, 2, 1, 2, has_same_text=False), Span(2, 3, 2, 4)]
    assert [span.can_be_compared for span in changed] == [True, False, True]
    assert align([], []) == []
    assert not align([b""], [])[0].can_be_compared
