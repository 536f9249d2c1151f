"""Escape text from a database or a model, so that a terminal shows its control characters and does not obey them."""

import unicodedata

# Cc: control characters. Cf: invisible ones, among them those that change the text direction. Cs: lone surrogates,
# which cannot be printed. Zl, Zp: line and paragraph separators.
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
# Joiners that scripts and emoji need.
_KEPT = frozenset("\u200c\u200d")


def shown(value: object, *, keep_lines: bool = False) -> str:
    """`value` as text with control characters escaped as in Python (`\\x1b`, `\\n`); with `keep_lines`, line breaks and
    tabs are kept."""
    text = str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spelled(character, keep_lines) for character in text)


def _spelled(character: str, keep_lines: bool) -> str:
    if keep_lines and character in "\n\t":
        return character
    if unicodedata.category(character) in _HIDDEN and character not in _KEPT:
        return ascii(character)[1:-1]
    return character
