"""Translation: a completion in the student's tokens as the teacher reads it, and the other way round, by its text."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import torch

from distilsql.distill.alignment import Span, align
from distilsql.distill.bridge import AlignedSpans, Vocabularies, vocabularies
from distilsql.models.token_text import TokenTexts, common_tokens
from distilsql.models.tree import Completion

_KEPT = 20_000  # translated completions


@dataclass(frozen=True)
class Translated:
    """A completion in the student's tokens and in the teacher's, with their spans."""

    student: Completion
    teacher: Completion
    spans: tuple[Span, ...]

    def aligned(self) -> AlignedSpans:
        """The spans that can be compared."""
        return AlignedSpans(
            tuple(span for span in self.spans if span.can_be_compared),
            torch.tensor(self.student, dtype=torch.int64),
            torch.tensor(self.teacher, dtype=torch.int64),
        )


class Translator:
    """Between the student's tokens and those of a teacher with another tokenizer.

    EOS stands for EOS wherever it is (ASSUMED), each in its own spelling; everything between is translated by its text.
    With one vocabulary on both sides tokens stay as they are: a student need not cut its text as the tokenizer would.

    Raises:
        ModelError: a tokenizer whose tokens' texts cannot be told (`TokenTexts`).
    """

    def __init__(self, student: Any, teacher: Any, student_name: str, teacher_name: str) -> None:
        self._student, self._teacher = TokenTexts(student, student_name), TokenTexts(teacher, teacher_name)
        self._student_eos, self.teacher_eos = int(student.eos_token_id), int(teacher.eos_token_id)
        self.teacher_tokenizer = teacher
        pairs = common_tokens(self._student, self._teacher, self._student_eos, self.teacher_eos)
        self.vocabularies: Vocabularies = vocabularies(pairs, self._student.size, self._teacher.size)
        known = self.vocabularies
        self._is_one_vocabulary = known.are_the_same and bool((known.student_C == known.teacher_C).all())
        self.of = lru_cache(maxsize=_KEPT)(self._translated)

    @property
    def teacher_size(self) -> int:
        return self._teacher.size

    def _translated(self, completion: Completion) -> Translated:
        if self._is_one_vocabulary:
            return Translated(completion, completion, _token_by_token(len(completion)))
        teacher: list[int] = []
        spans: list[Span] = []
        start = 0
        for is_eos, run in groupby(completion, key=self._student_eos.__eq__):
            tokens = tuple(run)
            if is_eos:
                read = (self.teacher_eos,) * len(tokens)
                found = list(_token_by_token(len(tokens)))
            else:
                pieces = self._student.pieces(tokens)
                read = self._teacher.tokens(_text(pieces))
                found = align(pieces, self._teacher.pieces(read))
            spans += [span.moved(start, len(teacher)) for span in found]
            teacher += read
            start += len(tokens)
        return Translated(completion, tuple(teacher), tuple(spans))

    def to_student(self, completion: Sequence[int]) -> Completion:
        """A completion that the teacher wrote, in the student's tokens."""
        if self._is_one_vocabulary:
            return tuple(completion)
        written: list[int] = []
        for is_eos, run in groupby(completion, key=self.teacher_eos.__eq__):
            tokens = tuple(run)
            text = "" if is_eos else _text(self._teacher.pieces(tokens))
            written += (self._student_eos,) * len(tokens) if is_eos else self._student.tokens(text)
        return tuple(written)


def _token_by_token(count: int) -> tuple[Span, ...]:
    return tuple(Span(n, n + 1, n, n + 1) for n in range(count))


def _text(pieces: Sequence[bytes]) -> str:
    """Bytes that are no UTF-8, as a student may write them, are read as the sign of replacement."""
    return b"".join(pieces).decode("utf-8", errors="replace")
