"""The query in what a model wrote. Chat models put it into a fence, behind their thoughts, or between sentences.

The rule, in this order; what already begins as a query loses only what stands behind it:

1. thoughts: everything up to the last `</think>` (`</thinking>`, `</reasoning>`); all of it where they have no end;
2. fence: of the blocks between ``` that begin as a query the last one, as who reasons aloud ends with the answer
   (ASSUMED);
3. prose: the first place at the beginning of a line, behind a colon or behind a backquote where a query begins;
4. behind the query: a closing fence; what follows its semicolon and is no statement; a paragraph of words.

A statement that SQLite runs comes out as it is: none begins otherwise than with one of SQLite's words, and none goes on
behind its semicolon.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from distilsql.databases.sql_tokens import Token, tokens_of

Wrapping = Literal["thoughts", "fence", "prose"]

_STATEMENTS = frozenset(
    """ALTER ANALYZE ATTACH BEGIN COMMIT CREATE DELETE DETACH DROP END EXPLAIN INSERT PRAGMA REINDEX RELEASE REPLACE
    ROLLBACK SAVEPOINT SELECT UPDATE VACUUM VALUES WITH""".split()  # noqa: SIM905
)
_GOES_ON = frozenset(
    """AND AS ASC BETWEEN COLLATE CROSS DESC ELSE END ESCAPE EXCEPT FROM FULL GLOB GROUP HAVING IN INNER INTERSECT IS
    ISNULL JOIN LEFT LIKE LIMIT MATCH NATURAL NOT NOTNULL OFFSET ON OR ORDER OUTER OVER REGEXP RIGHT SELECT THEN UNION
    USING VALUES WHEN WHERE WINDOW""".split()  # noqa: SIM905
)
_THOUGHTS_END = re.compile(r"</(?:think|thinking|reasoning)>", re.IGNORECASE)
_THOUGHTS_BEGIN = re.compile(r"\s*<(?:think|thinking|reasoning)>", re.IGNORECASE)
_FENCE = re.compile(r"```[ \t]*(?:\w*[ \t]*\r?\n|sql(?:ite)?\s)?(.*?)(?:```|\Z)", re.IGNORECASE | re.DOTALL)
_CLOSING_FENCE = re.compile(r"\n[ \t]*```\w*[ \t]*(?:\n|\Z)")
_PLACE = re.compile(r"(?:^|[:`])[\s*>`]*(?=(?:select|with|values)\b)", re.IGNORECASE | re.MULTILINE)
_PARAGRAPH = re.compile(r"\n[ \t\r]*\n\s*(?=[A-Z*#>-])")


@dataclass(frozen=True)
class WrittenSql:
    """A query, and what it was stripped of, as far as it was anything."""

    sql: str
    stripped: tuple[Wrapping, ...] = ()


def query_in(text: str) -> WrittenSql:
    """The query in `text`; `text` itself where nothing in it is known for one, '' where a model only thought."""
    stripped: list[Wrapping] = []
    if not _begins_as_statement(text) and (said := without_thoughts(text)) != text:
        text = said
        stripped.append("thoughts")
    blocks = [block for block in map(str, _FENCE.findall(text)) if _begins_as_query(block)]
    if blocks and not (_begins_as_statement(text) and _parses(text)):
        return WrittenSql(_without_tail(blocks[-1])[0], (*stripped, "fence"))
    if not _begins_as_statement(text):
        place = next((p for p in _PLACE.finditer(text) if _begins_as_query(text[p.end() :])), None)
        if place is None:
            return WrittenSql(text, tuple(stripped))
        end = text.find("`", place.end()) if place.group().endswith("`") else -1
        text = text[place.end() :] if end < 0 else text[place.end() : end]
        stripped.append("prose")
    sql, tail = _without_tail(text)
    return WrittenSql(sql, tuple(dict.fromkeys([*stripped, *tail])))


def without_thoughts(text: str) -> str:
    """What a model said after it thought; '' where its thoughts have no end."""
    *thoughts, rest = _THOUGHTS_END.split(text)
    return rest if thoughts else "" if _THOUGHTS_BEGIN.match(text) else text


def is_complete(text: str) -> bool:
    """Whether an answer that begins so has its whole query: it begins with it, and has its semicolon; or with a fence
    around it, which is closed."""
    if text.lstrip().startswith("```"):
        return text.count("```") > 1 and any(map(_begins_as_query, map(str, _FENCE.findall(text))))
    return ";" in text and _begins_as_query(text) and any(token.text == ";" for token in tokens_of(text))


def _begins_as_statement(text: str) -> bool:
    return _begins_as_query(text) or _words(text, 1)[:1] in [[word] for word in _STATEMENTS - {"WITH"}]


def _begins_as_query(text: str) -> bool:
    """SELECT, VALUES, or a WITH that names a table: `With this query …` does not."""
    words = _words(text, 5)
    if words[:1] != ["WITH"]:
        return words[:1] in (["SELECT"], ["VALUES"])
    words = words[2:] if words[1:2] == ["RECURSIVE"] else words[1:]
    return words[1:2] == ["("] or (words[1:2] == ["AS"] and words[2:3] in (["("], ["NOT"], ["MATERIALIZED"]))


def _words(text: str, count: int) -> list[str]:
    return [token.text.upper() for token in tokens_of(text[:2000])[:count]]


def _without_tail(sql: str) -> tuple[str, tuple[Wrapping, ...]]:
    """The query up to the first of its possible ends, and what stood behind it."""
    end, what = min(_ends(sql), default=(len(sql), None))
    return sql[:end], (what,) if what else ()


def _ends(sql: str) -> Iterator[tuple[int, Wrapping]]:
    tokens = tokens_of(sql)
    starts = {token.start for token in tokens}
    for fence in _CLOSING_FENCE.finditer(sql):
        if sql.index("```", fence.start()) in starts and not _parses(sql):
            yield fence.start(), "fence"
    for token, following in pairwise(tokens):
        if token.text == ";":
            if following.text != ";" and following.keyword not in _STATEMENTS:
                yield token.start, "prose"
            break
    for paragraph in _PARAGRAPH.finditer(sql):
        if _is_prose(tokens, paragraph.end()) and not _parses(sql) and _parses(sql[: paragraph.start()]):
            yield paragraph.start(), "prose"


def _is_prose(tokens: list[Token], start: int) -> bool:
    """Whether words begin at `start`, outside quotes and parentheses, with which no query goes on."""
    before = [token for token in tokens if token.start < start]
    behind = next((token for token in tokens if token.start >= start), None)
    depth = sum((token.text == "(") - (token.text == ")") for token in before)
    if not before or behind is None or depth or before[-1].start + len(before[-1].text) > start:
        return False
    return behind.keyword not in _GOES_ON and before[-1].text not in (
        ",",
        "(",
        "=",
        "<",
        ">",
        "+",
        "-",
        "*",
        "/",
        "||",
    )


def _parses(sql: str) -> bool:
    import sqlglot  # slow to load, and needed for few texts
    from sqlglot.errors import SqlglotError

    try:
        return sqlglot.parse_one(sql, dialect="sqlite") is not None
    except (SqlglotError, RecursionError):
        return False
