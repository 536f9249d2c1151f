"""Wrong neighbours of a gold query: small edits that an unlucky database would let pass as right.

The edits are those of Zhong et al. 2020 (Semantic Evaluation for Text-to-SQL with Distilled Test Suites): drop a
predicate, change a comparison or a constant, swap an aggregate or a set operation, drop or turn an order, drop
DISTINCT, LIMIT or GROUP BY. They are made on tokens, so whatever else the query holds stays as it was.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from distilsql.databases.sql_tokens import dotted_tokens

_NUMBER = re.compile(r"\d+(\.\d+)?")
_COMPARISONS = {
    "=": ("!=", ">="),
    "!=": ("=",),
    "<>": ("=",),
    ">": (">=", "<"),
    "<": ("<=", ">"),
    ">=": (">", "<="),
    "<=": ("<", ">="),
}
_AGGREGATES = {
    "max": ("min", "avg"),
    "min": ("max", "avg"),
    "sum": ("avg", "max"),
    "avg": ("sum", "max"),
    "count": ("max", "sum"),
}
_SET_OPERATIONS = {
    "union": ("intersect", "except"),
    "intersect": ("union", "except"),
    "except": ("intersect", "union"),
}
_CONNECTIVES = {"and": ("or",), "or": ("and",)}
_CLAUSES = frozenset(("where", "group", "having", "order", "limit", "union", "intersect", "except"))

Tokens = Sequence[str]


def neighbours(gold_sql: str) -> tuple[str, ...]:
    """Queries one edit away from the gold, each once, in a fixed order. Some may mean the same as the gold."""
    tokens = dotted_tokens(gold_sql)
    gold = join(tokens)
    edited = (join(candidate) for candidate in _edits(tokens))
    return tuple(dict.fromkeys(candidate for candidate in edited if candidate != gold))


def join(tokens: Tokens) -> str:
    """No space stands between a word and its parenthesis: to MySQL `count (` is no function."""
    parts = list(tokens[:1])
    for before, token in pairwise(tokens):
        touches = token == "(" and re.fullmatch(r"[\w.$]+", before)
        parts.append(token if touches else f" {token}")
    return "".join(parts)


def constants(sql: str) -> Iterator[tuple[str, str | int | float]]:
    """(column, value) for each constant that `sql` compares a column with; the column's name without its alias.

    LIKE patterns come without their wildcards. The column is '' where none stands right before the operator.
    """
    tokens = dotted_tokens(sql)
    for index, token in enumerate(tokens):
        value = _constant(token)
        if value is not None:
            yield _compared_column(tokens[:index]), value


def with_ties_broken(sql: str, direction: str) -> str:
    """The same query, but rows that its ORDER BYs leave tied come by their own columns, in `direction` (asc, desc).

    Where the two directions give different results, the query's result is SQLite's choice among ties.
    """
    tokens = dotted_tokens(sql)
    for index in reversed([i for i, token in enumerate(tokens) if token.lower() == "order"]):
        end = _end_of_part(tokens, index + 1, _CLAUSES)
        keys = ", ".join(f"{n} {direction}" for n in range(1, _count_selected(tokens, index) + 1))
        tokens[end:end] = [",", keys]
    return join(tokens)


def _count_selected(tokens: Tokens, order: int) -> int:
    """How many columns the SELECT of the ORDER BY at `order` names; 1 for a star."""
    depth = columns = 0
    for token in reversed(tokens[:order]):
        depth += (token == ")") - (token == "(")
        if depth == 0 and token == ",":
            columns += 1
        if depth == 0 and token.lower() in ("from", *_SET_OPERATIONS):
            columns = 0
        if depth == 0 and token.lower() == "select":
            return columns + 1
    return 1


def _constant(token: str) -> str | int | float | None:
    if token[0] in "'\"" and len(token) > 1:
        return token[1:-1].replace(token[0] * 2, token[0]).strip("%")
    if _NUMBER.fullmatch(token):
        return float(token) if "." in token else int(token)
    return None


def _compared_column(before: Tokens) -> str:
    operators = {*_COMPARISONS, "==", "like", "between", "in", "not", "and", "(", ","}
    for token in reversed(before[-8:]):
        is_constant = token[0] in "'\"" or _NUMBER.fullmatch(token)
        if token.lower() not in operators and not is_constant:
            return token.rpartition(".")[2].lower() if re.fullmatch(r"[\w.]+", token) else ""
    return ""


def _edits(tokens: Tokens) -> Iterator[list[str]]:
    for index, token in enumerate(tokens):
        word = token.lower()
        for changed in (*_swaps(tokens, index, word), *_changed_constants(token)):
            yield [*tokens[:index], changed, *tokens[index + 1 :]]
        if word == "distinct":
            yield [*tokens[:index], *tokens[index + 1 :]]
        if word in ("asc", "desc"):
            yield [*tokens[:index], "desc" if word == "asc" else "asc", *tokens[index + 1 :]]
        if word in ("order", "limit", "group", "having", "where"):
            yield _without_clause(tokens, index)
        if word in ("where", "having", "and", "or"):
            yield from _without_condition(tokens, index)


def _swaps(tokens: Tokens, index: int, word: str) -> tuple[str, ...]:
    if word in _AGGREGATES and tokens[index + 1 : index + 2] == ["("]:
        # count(*) has no other aggregate that takes a star.
        return () if tokens[index + 2 : index + 3] == ["*"] else _AGGREGATES[word]
    if word == "and" and _closes_between(tokens, index):
        return ()
    return _COMPARISONS.get(word) or _SET_OPERATIONS.get(word) or _CONNECTIVES.get(word) or ()


def _changed_constants(token: str) -> tuple[str, ...]:
    value = _constant(token)
    if isinstance(value, int | float):
        return (str(value + 1), str(value - 1) if value > 0 else str(value + 2))
    return ()


def _end_of_part(tokens: Tokens, start: int, stops: frozenset[str]) -> int:
    """Where the part that begins at `start` ends: at one of `stops`, or where its parenthesis closes."""
    depth = 0
    for index in range(start, len(tokens)):
        word = tokens[index].lower()
        depth += (word == "(") - (word == ")")
        ends_here = depth == 0 and word in stops and not (word == "and" and _closes_between(tokens, index))
        if depth < 0 or ends_here:
            return index
    return len(tokens)


def _closes_between(tokens: Tokens, index: int) -> bool:
    """Whether the AND at `index` belongs to a BETWEEN."""
    depth = 0
    for token in reversed(tokens[:index]):
        word = token.lower()
        depth += (word == ")") - (word == "(")
        if depth < 0 or (depth == 0 and word in ("and", "or", "where", "having", "on")):
            return False
        if depth == 0 and word == "between":
            return True
    return False


def _without_clause(tokens: Tokens, start: int) -> list[str]:
    end = _end_of_part(tokens, start + 1, _CLAUSES)
    return [*tokens[:start], *tokens[end:]]


def _without_condition(tokens: Tokens, start: int) -> Iterator[list[str]]:
    """Drop the condition after the WHERE, AND or OR at `start`, together with the connective next to it."""
    if tokens[start].lower() == "and" and _closes_between(tokens, start):
        return
    end = _end_of_part(tokens, start + 1, _CLAUSES | {"and", "or"})
    if tokens[start].lower() in ("and", "or"):
        yield [*tokens[:start], *tokens[end:]]
    elif end < len(tokens) and tokens[end].lower() in ("and", "or"):
        yield [*tokens[: start + 1], *tokens[end + 1 :]]
