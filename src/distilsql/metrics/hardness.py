"""Spider's hardness of a gold query, and which clauses it has, from one reading of its tokens.

The level depends on counts of components (Yu et al. 2018; the official evaluator's `eval_hardness`), so the
query is split into clauses and conditions and not parsed further. Only the first SELECT counts: of a set
operation's other side, and of nested queries, the official rules see that they exist and nothing else.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from distilsql.databases.sql_tokens import dotted_tokens

Hardness = Literal["easy", "medium", "hard", "extra"]
LEVELS: tuple[Hardness, ...] = ("easy", "medium", "hard", "extra")

_AGGREGATES = frozenset(("max", "min", "count", "sum", "avg"))
_SET_OPERATIONS = frozenset(("union", "intersect", "except"))
_CLAUSES = frozenset(("select", "from", "where", "group", "having", "order", "limit"))
_JOINING = frozenset(("join", ","))

Tokens = list[str]


@dataclass
class Clauses:
    """One SELECT cut at its clause keywords; nested parentheses stay inside the clause they stand in."""

    parts: dict[str, Tokens] = field(default_factory=dict)
    has_set_operation: bool = False


@lru_cache(maxsize=8192)
def hardness(gold_sql: str) -> Hardness:
    """The official level of a gold query. Never fails: what cannot be read as a clause counts as nothing."""
    clauses = _split_clauses(_tokens(gold_sql))
    components, nested, others = _components(clauses), _nested(clauses), _others(clauses)
    if components <= 1 and others == 0 and nested == 0:
        return "easy"
    if nested == 0 and ((others <= 2 and components <= 1) or (components <= 2 and others < 2)):
        return "medium"
    if nested == 0 and ((others > 2 and components <= 2) or (components == 3 and others <= 2)):
        return "hard"
    if nested <= 1 and components <= 1 and others == 0:
        return "hard"
    return "extra"


@lru_cache(maxsize=8192)
def clauses_of(gold_sql: str) -> tuple[str, ...]:
    """What a query is made of, to group scores by: of JOIN, WHERE, GROUP BY, HAVING, ORDER BY, LIMIT, …

    A query that has none of them is `plain`.
    """
    tokens = _tokens(gold_sql)
    clauses = _split_clauses(tokens)
    words = {"WHERE": "where", "GROUP BY": "group", "HAVING": "having", "ORDER BY": "order", "LIMIT": "limit"}
    found = [name for name, word in words.items() if word in clauses.parts]
    if _count_tables(clauses) > 1:
        found.insert(0, "JOIN")
    if "distinct" in tokens:
        found.append("DISTINCT")
    if clauses.has_set_operation:
        found.append("set operation")
    if tokens.count("select") > 1 + sum(token in _SET_OPERATIONS for token in tokens):
        found.append("nested query")
    return tuple(found) or ("plain",)


def _tokens(sql: str) -> Tokens:
    return [token if token[0] in "'\"`[" else token.lower() for token in dotted_tokens(sql)]


def _with_depth(tokens: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Each token with its depth in parentheses; a parenthesis has the depth of what surrounds it."""
    depth = 0
    for token in tokens:
        depth -= token == ")"
        yield token, depth
        depth += token == "("


def _split_clauses(tokens: Tokens) -> Clauses:
    clauses, current = Clauses(), ""
    for token, depth in _with_depth(tokens):
        if depth == 0 and token in _SET_OPERATIONS:
            clauses.has_set_operation = True
            break
        if depth == 0 and token in _CLAUSES:
            current = token
            clauses.parts[current] = []
        elif current:
            clauses.parts[current].append(token)
    return clauses


def _split(tokens: Sequence[str], separators: frozenset[str]) -> list[Tokens]:
    """Cut at separators outside parentheses. No tokens make no part."""
    parts: list[Tokens] = [[]]
    for token, depth in _with_depth(tokens):
        if depth == 0 and token in separators:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts if tokens else []


def _conditions(tokens: Sequence[str]) -> tuple[list[Tokens], Tokens]:
    """The conditions of a WHERE, HAVING or ON and the connectives between them; BETWEEN keeps its AND."""
    conditions: list[Tokens] = [[]]
    connectives: Tokens = []
    awaits_and = False
    for token, depth in _with_depth(tokens):
        if depth == 0 and token == "between":
            awaits_and = True
        if depth == 0 and token in ("and", "or") and not (token == "and" and awaits_and):
            conditions.append([])
            connectives.append(token)
            continue
        if depth == 0 and token == "and":
            awaits_and = False
        conditions[-1].append(token)
    return (conditions if tokens else []), connectives


def _join_conditions(clauses: Clauses) -> Tokens:
    """The ON conditions of all joins, as one list joined by AND."""
    conditions: Tokens = []
    for unit in _split(clauses.parts.get("from", []), _JOINING):
        on = _split(unit, frozenset(("on",)))[1:]
        for part in on:
            conditions += ["and", *part] if conditions else part
    return conditions


def _filters(clauses: Clauses) -> list[tuple[list[Tokens], Tokens]]:
    parts = (_join_conditions(clauses), clauses.parts.get("where", []), clauses.parts.get("having", []))
    return [_conditions(part) for part in parts]


def _count_tables(clauses: Clauses) -> int:
    return len(_split(clauses.parts.get("from", []), _JOINING))


def _components(clauses: Clauses) -> int:
    """The official `count_component1`: WHERE, GROUP BY, ORDER BY, LIMIT, each join, each OR, each LIKE."""
    count = sum(word in clauses.parts for word in ("where", "group", "order", "limit"))
    count += max(0, _count_tables(clauses) - 1)
    for conditions, connectives in _filters(clauses):
        count += connectives.count("or")
        count += sum(_has_operator(condition, "like") for condition in conditions)
    return count


def _has_operator(condition: Tokens, operator: str) -> bool:
    return any(token == operator and depth == 0 for token, depth in _with_depth(condition))


def _nested(clauses: Clauses) -> int:
    """The official `count_component2`: queries inside conditions, plus one for a set operation."""
    count = int(clauses.has_set_operation)
    for conditions, _ in _filters(clauses):
        count += sum(_count_nested(condition) for condition in conditions)
    return count


def _count_nested(condition: Tokens) -> int:
    """Values of a condition that are queries; queries inside those do not count again."""
    pairs = zip(_with_depth(condition), condition[1:], strict=False)
    return sum(token == "(" and depth == 0 and following == "select" for (token, depth), following in pairs)


def _others(clauses: Clauses) -> int:
    """The official `count_others`: more than one aggregate, selected column, WHERE condition, GROUP BY column."""
    comma = frozenset((",",))
    selected = _split([t for t in clauses.parts.get("select", []) if t != "distinct"], comma)
    grouped = _split(clauses.parts.get("group", []), comma)
    where, _ = _conditions(clauses.parts.get("where", []))
    return sum(
        (_count_aggregates(clauses, selected) > 1, len(selected) > 1, len(where) > 1, len(grouped) > 1)
    )


def _count_aggregates(clauses: Clauses, selected: list[Tokens]) -> int:
    """Aggregates as the official rule counts them.

    Its counter reads the first field of whatever it is given. Of a condition that is the NOT flag and of HAVING's
    connective a letter, so each negated condition of WHERE and HAVING and each AND or OR in HAVING counts as one
    too.
    """
    having, connectives = _conditions(clauses.parts.get("having", []))
    where, _ = _conditions(clauses.parts.get("where", []))
    count = sum(column[0] in _AGGREGATES for column in selected if column)
    count += sum(
        token in _AGGREGATES for token, depth in _with_depth(clauses.parts.get("order", [])) if depth == 0
    )
    return count + len(connectives) + sum(_has_operator(condition, "not") for condition in where + having)
