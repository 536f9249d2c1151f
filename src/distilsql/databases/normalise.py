"""One spelling for a SQL query: keywords upper case, names lower case, aliases t1 … t10 resolved.

The text is changed token by token and otherwise left alone, so the query keeps its meaning: string literals and
double-quoted text (which SQLite may read as a string) are never touched, nor the case of MySQL's names, which may tell
two tables apart.
"""

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from distilsql.databases.sql_tokens import tokenise
from distilsql.databases.url import Engine

# Words that are keywords wherever a query uses them bare. Function names are not among them.
_KEYWORDS = frozenset(
    """SELECT DISTINCT ALL FROM WHERE GROUP BY HAVING ORDER ASC DESC LIMIT OFFSET AS ON USING JOIN INNER LEFT RIGHT
    FULL OUTER CROSS NATURAL AND OR NOT IN LIKE GLOB ESCAPE BETWEEN IS ISNULL NOTNULL NULL EXISTS CASE WHEN THEN
    ELSE END UNION INTERSECT EXCEPT WITH RECURSIVE VALUES OVER PARTITION COLLATE""".split()  # noqa: SIM905
)
_AFTER_FROM = frozenset(["WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "UNION", "INTERSECT", "EXCEPT"])

_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
# SQLite takes these as a table's name but not, unquoted, as the qualifier of a column.
_NO_QUALIFIERS = frozenset(["cast", "raise", "current_date", "current_time", "current_timestamp"])
_RESOLVED_ALIAS = re.compile(r"t([1-9]|10)")


@dataclass(frozen=True)
class _Token:
    """`spelling` is in normal form; `gap` says that white space stood before it."""

    kind: str
    spelling: str
    gap: bool

    @property
    def is_name(self) -> bool:
        quoted = self.kind in ("name", "quoted")
        return quoted or (self.kind == "word" and self.spelling not in _KEYWORDS)

    @property
    def name(self) -> str:
        return lower_name(self.spelling.strip('`[]"'))


def lower_name(name: str) -> str:
    """A name in lower case as SQLite compares names: A to Z alone, so that `Ärzte` and `ärzte` stay two tables."""
    return name.translate(_ASCII_LOWER)


def without_comments(sql: str, engine: Engine = "sqlite") -> str:
    """`sql` without comments and with each run of white space as one space. What is quoted is left as it is, line
    breaks in it too: a name without its line break is another name."""
    return "".join(" " if token.kind == "gap" else token.text for token in tokenise(sql, engine)).strip(" ")


def normalise_sql(sql: str, engine: Engine = "sqlite") -> str:
    """`sql` in one spelling, without comments and closing semicolons; it gives the same rows.

    Keywords are upper case; names, functions included, lower case; runs of white space one space. Aliases
    t1 … t10 of tables are replaced by the table's name throughout, unless that would change what some name
    refers to, as in a self-join: then the query keeps all its aliases. A qualifier is taken to mean the innermost
    table of that name (SQLite looks further out if that table lacks the column, which no sane query counts on).
    """
    tokens = _tokens(sql, engine)
    tokens = _without_aliases(tokens) or tokens
    return "".join(" " * token.gap + token.spelling for token in tokens).strip()


def _tokens(sql: str, engine: Engine) -> list[_Token]:
    found: list[_Token] = []
    gap = False
    for kind, spelling, start in tokenise(sql, engine):
        if kind == "gap":
            gap = True
            continue
        if kind in ("word", "name"):
            end = start + len(spelling)
            beside_dot = sql[end : end + 1] == "." or (found and found[-1].spelling == ".")
            is_keyword = kind == "word" and spelling.upper() in _KEYWORDS and not beside_dot
            if is_keyword:
                spelling = spelling.upper()
            elif engine != "mysql" or sql[end : end + 1] == "(":
                spelling = lower_name(spelling)
        found.append(_Token(kind, spelling, gap))
        gap = False
    while found and found[-1].spelling == ";":
        found.pop()
    return found


@dataclass
class _TableUse:
    """A table in a FROM clause: the token positions of its name (none for a subquery) and of its alias."""

    name_at: int | None
    alias_at: int | None

    def exposed(self, tokens: list[_Token], resolved: bool) -> str:
        """The name that columns are qualified by, before or after the aliases are resolved."""
        keeps_alias = not resolved or self.table_at(tokens) is None
        at = self.alias_at if keeps_alias and self.alias_at is not None else self.name_at
        return "" if at is None else tokens[at].name

    def table_at(self, tokens: list[_Token]) -> int | None:
        """Where the name stands that replaces the alias; None if there is no alias to resolve."""
        return self.name_at if _is_resolved_alias(tokens, self.alias_at) else None


@dataclass
class _Scope:
    """One SELECT: the tables of its FROM clause, and the SELECT around it."""

    outer: "_Scope | None"
    tables: list[_TableUse] = field(default_factory=list)

    def find(self, name: str, tokens: list[_Token], resolved: bool) -> _TableUse | None:
        """The table that `name.column` refers to, looked for here and outwards."""
        own = (table for table in self.tables if table.exposed(tokens, resolved) == name)
        return next(own, None) or (self.outer.find(name, tokens, resolved) if self.outer else None)


@dataclass
class _Reading:
    """The SELECTs of a query, and each `qualifier.column` with the SELECT it stands in."""

    scopes: list[_Scope] = field(default_factory=list)
    references: list[tuple[int, _Scope]] = field(default_factory=list)


def _without_aliases(tokens: list[_Token]) -> list[_Token] | None:
    """The query with its aliases t1 … t10 resolved; None if some name would then refer to another table."""
    reading = _read(tokens)
    if reading is None:
        return None
    for scope in reading.scopes:
        names = [table.exposed(tokens, resolved=True) for table in scope.tables]
        if len(set(names)) != len(names):
            return None
    spelled: dict[int, _Token] = {}
    for at, scope in reading.references:
        table = scope.find(tokens[at].name, tokens, resolved=False)
        if table is None:
            return None
        name_at = table.table_at(tokens)
        spelled[at] = tokens[at] if name_at is None else replace(tokens[name_at], gap=tokens[at].gap)
        if spelled[at].spelling in _NO_QUALIFIERS:
            return None
        if scope.find(spelled[at].name, tokens, resolved=True) is not table:
            return None
    dropped = set(_resolved_alias_tokens(tokens, reading.scopes))
    aliases = [at for at in dropped if tokens[at].spelling != "AS"]
    if any(_is_resolved_alias(tokens, _alias_at(tokens, at)) for at in aliases):
        return None  # two aliases of one table are no SQL; without the first, the second would be one
    return [spelled.get(at, token) for at, token in enumerate(tokens) if at not in dropped]


def _resolved_alias_tokens(tokens: list[_Token], scopes: list[_Scope]) -> Iterator[int]:
    for table in (table for scope in scopes for table in scope.tables):
        if table.alias_at is not None and table.table_at(tokens) is not None:
            yield table.alias_at
            if tokens[table.alias_at - 1].spelling == "AS":
                yield table.alias_at - 1


@dataclass
class _Bracket:
    """Where the reader is inside one pair of parentheses: which SELECT, and which part of its FROM clause."""

    outer: _Scope | None
    scope: _Scope | None = None
    in_from: bool = False
    table_next: bool = False


def _read(tokens: list[_Token]) -> _Reading | None:
    """Find the scopes and references of a query; None for a form this reader does not know."""
    reading = _Reading()
    brackets = [_Bracket(None)]
    at = 0
    while at < len(tokens):
        token, here = tokens[at], brackets[-1]
        if token.spelling == "(":
            inner = here.scope or here.outer
            joins = here.table_next  # `FROM (a JOIN b)` lists tables of the scope it stands in
            brackets.append(_Bracket(inner, inner, in_from=joins, table_next=joins))
        elif token.spelling == ")" and len(brackets) > 1:
            closed = brackets.pop()
            if brackets[-1].table_next:
                at = _close_table(tokens, at, closed, brackets[-1])
        elif token.spelling == "SELECT":
            here.scope = _Scope(here.outer)
            here.in_from = here.table_next = False
            reading.scopes.append(here.scope)
        elif token.spelling == "FROM" and here.scope:
            if tokens[at - 1].spelling == "DISTINCT":  # the operator IS DISTINCT FROM
                return None
            here.in_from = here.table_next = True
        elif token.spelling == "JOIN" or (token.spelling == "," and here.in_from):
            here.in_from = here.table_next = True
        elif token.spelling in _AFTER_FROM:
            here.in_from = here.table_next = False
        elif here.table_next and token.is_name and here.scope:
            if _spelling(tokens, at + 1) == ".":
                return None
            alias_at = _alias_at(tokens, at)
            here.scope.tables.append(_TableUse(at, alias_at))
            here.table_next = False
            at = at if alias_at is None else alias_at
        elif token.is_name and _spelling(tokens, at + 1) == "." and here.scope:
            reading.references.append((at, here.scope))
        at += 1
    return reading


def _close_table(tokens: list[_Token], at: int, closed: _Bracket, around: _Bracket) -> int:
    """Take in the subquery (or bracketed join) that ends at `at`; the position of its last token."""
    around.table_next = False
    alias_at = _alias_at(tokens, at)
    if alias_at is None or around.scope is None:
        return at
    around.scope.tables.append(_TableUse(None, alias_at))
    return alias_at


def _alias_at(tokens: list[_Token], at: int) -> int | None:
    """The position of the alias that follows the table or subquery ending at `at`, if there is one."""
    at += 1 + (_spelling(tokens, at + 1) == "AS")
    return at if at < len(tokens) and tokens[at].is_name else None


def _is_resolved_alias(tokens: list[_Token], at: int | None) -> bool:
    return at is not None and _RESOLVED_ALIAS.fullmatch(lower_name(tokens[at].name)) is not None


def _spelling(tokens: list[_Token], at: int) -> str:
    return tokens[at].spelling if at < len(tokens) else ""
