"""Alignment: where two tokenizers cut one text at the same places.

A *span* is a run of the student's tokens and a run of the teacher's that spell the same bytes and cannot be cut
further: no token boundary of one inside it is a boundary of the other. Spans follow one another and use every token of
both sequences.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise


@dataclass(frozen=True)
class Span:
    """Tokens `student_start` up to `student_stop` of one sequence, `teacher_start` up to `teacher_stop` of the other.

    `has_same_text` is False for the one span that holds what a tokenizer did not spell as it was given.
    """

    student_start: int
    student_stop: int
    teacher_start: int
    teacher_stop: int
    has_same_text: bool = True

    @property
    def student_tokens(self) -> int:
        return self.student_stop - self.student_start

    @property
    def teacher_tokens(self) -> int:
        return self.teacher_stop - self.teacher_start

    @property
    def can_be_compared(self) -> bool:
        """Both models predict it: its text is the same, and each has at least one token of it."""
        return self.has_same_text and self.student_tokens > 0 and self.teacher_tokens > 0

    def moved(self, student_by: int, teacher_by: int) -> "Span":
        return Span(
            self.student_start + student_by,
            self.student_stop + student_by,
            self.teacher_start + teacher_by,
            self.teacher_stop + teacher_by,
            self.has_same_text,
        )


def align(student: Sequence[bytes], teacher: Sequence[bytes]) -> list[Span]:
    """The spans of two token sequences, each token given as the bytes that it stands for.

    Where the texts differ (a tokenizer normalises, or a student wrote bytes that are no UTF-8), the tokens that their
    common beginning and their common end leave over are one span whose text is not the same. Tokens of no bytes belong
    to the span that follows them, or to the last.
    """
    student_text, teacher_text = b"".join(student), b"".join(teacher)
    student_cut, teacher_cut = _boundaries(student), _boundaries(teacher)
    head = _common_length(student_text, teacher_text)
    # Bytes of the common end, without those of the common beginning.
    tail = min(
        _common_length(student_text[::-1], teacher_text[::-1]),
        min(len(student_text), len(teacher_text)) - head,
    )
    more = len(teacher_text) - len(student_text)
    cuts = [(cut, cut) for cut in student_cut if cut <= head and cut in teacher_cut]
    if student_text != teacher_text:
        ends = [cut for cut in student_cut if cut >= len(student_text) - tail and cut + more in teacher_cut]
        cuts += [(cut, cut + more) for cut in ends if (cut, cut + more) not in cuts]
    # The last cut is where the texts end, behind tokens of no bytes too.
    starts = [(student_cut[mine], teacher_cut[theirs]) for mine, theirs in cuts[:-1]]
    bounds = [*starts, (len(student), len(teacher))] if student or teacher else []
    if len(bounds) == 1:
        bounds.insert(0, (0, 0))
    return [
        Span(a, b, c, d, b"".join(student[a:b]) == b"".join(teacher[c:d]))
        for (a, c), (b, d) in pairwise(bounds)
    ]


def _boundaries(pieces: Sequence[bytes]) -> dict[int, int]:
    """From the number of bytes before a token to the number of tokens before it, the least where there are several."""
    found: dict[int, int] = {}
    for tokens, length in enumerate(accumulate(map(len, pieces), initial=0)):
        found.setdefault(length, tokens)
    return found


def _common_length(one: bytes, other: bytes) -> int:
    """How many bytes two texts begin with alike."""
    if one == other:
        return len(one)
    return next(
        (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
