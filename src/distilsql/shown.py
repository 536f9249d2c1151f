"""Text from a database or a model as a person may see it: what it holds, not what a terminal would do with it."""

import unicodedata

# Cc: control characters. Cf: invisible ones, among them those that turn the direction of what follows. Cs: halves of
# pairs, which no terminal takes. Zl, Zp: line breaks that are none in a table.
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
# Joiners that scripts and emoji need.
_KEPT = frozenset("\u200c\u200d")


def shown(value: object, *, keep_lines: bool = False) -> str:
    """`value` as text in which control characters are spelled as Python spells them (`\\x1b`, `\\n`); with
    `keep_lines`, line breaks and tabs stay."""
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
