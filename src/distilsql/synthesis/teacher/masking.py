"""Masking: values of the database as placeholders, so that a remote model words questions without seeing any."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_PLACEHOLDER = re.compile(r"\bVALUE_(\d+)\b")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True)
class Masked:
    """`question` with placeholders; a query has `raws[i]` for `VALUE_{i+1}`, and the question says `saids[i]`."""

    question: str
    raws: tuple[str, ...]
    saids: tuple[str, ...]

    @property
    def placeholders(self) -> set[str]:
        return {match[0] for match in _PLACEHOLDER.finditer(self.question)}

    def holds(self, text: str) -> bool:
        """Whether a wording of the question has all of its placeholders, and no others."""
        return {match[0] for match in _PLACEHOLDER.finditer(text)} == self.placeholders

    def said(self, text: str) -> str:
        """A wording with the values as the question says them."""
        return _PLACEHOLDER.sub(lambda match: self._value(match, self.saids), text)

    def queried(self, sql: str) -> str:
        """A query with the values: in quotes where the model put quotes, or where they are no numbers."""

        def filled(match: re.Match[str]) -> str:
            raw = self._value(match, self.raws).replace("'", "''")
            in_text = sql[: match.start()].count("'") % 2 == 1
            return raw if in_text or _NUMBER.fullmatch(raw) else f"'{raw}'"

        return _PLACEHOLDER.sub(filled, sql)

    @staticmethod
    def _value(match: re.Match[str], values: tuple[str, ...]) -> str:
        number = int(match[1]) - 1
        return values[number] if number < len(values) else match[0]


def mask(question: str, constants: Sequence[tuple[str, tuple[str, ...]]]) -> Masked | None:
    """The question with a placeholder for each of `constants` (what the query has, the forms it may be said in); None
    where one of them is not found, since it would be shown."""
    raws: list[str] = []
    saids: list[str] = []
    spans: list[tuple[int, int, int]] = []
    # Long ones first: "New York" before "York".
    for raw, forms in sorted(constants, key=lambda constant: -max(map(len, constant[1]))):
        found = next(
            (span for form in sorted(forms, key=len, reverse=True) if (span := _find(question, form, spans))),
            None,
        )
        if found is None:
            return None
        raws.append(raw)
        saids.append(question[found[0] : found[1]])
        spans.append((*found, len(raws)))
    for start, end, number in sorted(spans, reverse=True):
        question = f"{question[:start]}VALUE_{number}{question[end:]}"
    return Masked(question, tuple(raws), tuple(saids))


def _find(question: str, form: str, taken: Sequence[tuple[int, int, int]]) -> tuple[int, int] | None:
    for match in re.finditer(rf"(?<!\w){re.escape(form)}(?!\w)", question, re.IGNORECASE):
        if not any(match.start() < end and start < match.end() for start, end, _ in taken):
            return match.span()
    return None


def unmasked(question: str) -> Masked:
    """For a model that may see the values."""
    return Masked(question, (), ())
