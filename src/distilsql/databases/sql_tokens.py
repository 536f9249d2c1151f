"""The one reader of SQL: its tokens as SQLite's own tokenizer cuts them (src/tokenize.c).

A backslash escapes nothing, a comment may stand anywhere, block comments do not nest and may stay open, and every
character above ASCII is part of a name. sqlglot and sqlparse differ in some of these, so they would find ORDER BY, say,
where the database does not, or miss it. What reproduces an official evaluator does not read by this (Spider's rewrites,
`metrics/execution.py`), nor does the worker, which holds to the standard library and only asks how a statement begins.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Literal, NamedTuple

from distilsql.databases.url import DIALECTS, Engine

Kind = Literal["gap", "text", "quoted", "name", "number", "word", "symbol"]

# An open quote or comment runs to the end, as in SQLite, where it is an error unless it is a comment.
_TOKEN = re.compile(
    r"""(?P<gap> (?: [ \t\n\f\r] | --[^\n]* | /\*.*?(?:\*/|\Z) )+ )
    | (?P<text> [xX]?'(?:[^']|'')*(?:'|\Z) )
    | (?P<quoted> "(?:[^"]|"")*(?:"|\Z) )
    | (?P<name> `(?:[^`]|``)*(?:`|\Z) | \[[^\]]*(?:\]|\Z) )
    | (?P<number> 0[xX][0-9A-Fa-f]+ | (?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)? )
    | (?P<word> [A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]* )
    | (?P<symbol> ->>? | <[<=>] | >[>=] | == | != | \|\| | [?$@#:][A-Za-z0-9_$\x80-\U0010ffff]* | . )""",
    re.VERBOSE | re.DOTALL,
)


class Token(NamedTuple):
    """A piece of a statement as it stands there. `gap` is white space and comments, `text` '…' (and a blob, x'…'),
    `quoted` "…", which SQLite reads as a name or, where there is none, as a text; `name` is `…` or […]."""

    kind: Kind
    text: str
    start: int

    @property
    def keyword(self) -> str:
        """The word in upper case; '' for anything that is not a bare word."""
        return self.text.upper() if self.kind == "word" else ""


def tokenise(sql: str, engine: Engine = "sqlite") -> Iterator[Token]:
    """Every piece of `sql`, gaps too: put together they are `sql` again. Another engine's SQL is cut by sqlglot, which
    knows its quotes and comments; what it cannot cut is one text."""
    if engine != "sqlite":
        yield from _cut_by_sqlglot(sql, engine)
        return
    for match in _TOKEN.finditer(sql):
        yield Token(match.lastgroup, match.group(), match.start())  # type: ignore[arg-type]


def _cut_by_sqlglot(sql: str, engine: Engine) -> Iterator[Token]:
    from sqlglot import tokenize  # slow to load, and not needed for SQLite
    from sqlglot.errors import TokenError

    try:
        cut = tokenize(sql, read=DIALECTS[engine])
    except TokenError:
        yield Token("text", sql, 0)
        return
    end = 0
    for token in cut:
        if token.start > end:
            yield Token("gap", sql[end : token.start], end)
        end = token.end + 1
        text, kind = sql[token.start : end], token.token_type.name
        if kind == "IDENTIFIER":
            yield Token("quoted" if text[0] == '"' else "name", text, token.start)
        elif kind.endswith("STRING"):
            yield Token("text", text, token.start)
        else:  # `ORDER BY` is one of sqlglot's tokens
            for part in tokenise(text):
                yield part._replace(start=token.start + part.start)
    if end < len(sql):
        yield Token("gap", sql[end:], end)


def tokens_of(sql: str, engine: Engine = "sqlite") -> list[Token]:
    """The tokens without the gaps between them."""
    return [token for token in tokenise(sql, engine) if token.kind != "gap"]


def dotted_tokens(sql: str) -> list[str]:
    """The tokens as texts, a name with its qualifier (`t1.name`) in one piece, closing semicolons left out."""
    found: list[str] = []
    end = -1
    for token in tokens_of(sql):
        is_part = token.kind in ("word", "number") or token.text == "."
        touches = token.start == end and is_part
        if touches and re.fullmatch(r"[\w.$]+", found[-1]):
            found[-1] += token.text
        else:
            found.append(token.text)
        end = token.start + len(token.text)
    while found and found[-1] == ";":
        found.pop()
    return found


def orders_its_rows(sql: str, engine: Engine = "sqlite") -> bool:
    """Whether an ORDER BY applies to the result itself, not to a subquery or a window."""
    depth = 0
    tokens = tokens_of(sql, engine)
    for token, following in pairwise(tokens):
        depth += (token.text == "(") - (token.text == ")")
        if depth == 0 and token.keyword == "ORDER" and following.keyword == "BY":
            return True
    return False
