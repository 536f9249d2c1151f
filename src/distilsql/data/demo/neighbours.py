"""Neighbours of a query: what a model that nearly got it right would write.

A query is of use in a benchmark only if running it tells it apart from these; the generator keeps no other.
"""

import re
import sqlite3

_SWAPS = (
    (r" > ", " < "),
    (r" < ", " > "),
    (r" ASC\b", " DESC"),
    (r" DESC\b", " ASC"),
    (r" AND ", " OR "),
    (r" OR ", " AND "),
    (r" NOT IN ", " IN "),
    (r"(?<!NOT) IN ", " NOT IN "),
    (r"\bavg\(", "max("),
    (r"\bmax\(", "avg("),
    (r"\bmin\(", "avg("),
    (r"\bsum\(", "avg("),
    (r"\bDISTINCT ", ""),
    (r" LIMIT \d+", ""),
    (r" HAVING .*", ""),
    (r" WHERE (?:[^()]|\((?:[^()]|\([^()]*\))*\))*?(?= GROUP| ORDER|$)", ""),
    (r"(\(SELECT \w+ FROM \w+) WHERE [^()]*\)", r"\1)"),
    (r" (AND|OR) .*?(?= GROUP| ORDER|\)|$)", ""),
    (r"(?<=WHERE )[^()]*? (AND|OR) ", ""),
)
# Where the first row of an order is asked for, rows that tie would make the answer an accident.
_TIE = re.compile(r" ORDER BY count\(\*\) (ASC|DESC) LIMIT 1$")


def neighbours(sql: str) -> tuple[str, ...]:
    """Queries that differ from `sql` in one thing."""
    changed = (re.sub(pattern, replacement, sql, count=1) for pattern, replacement in _SWAPS)
    return tuple(dict.fromkeys(query for query in changed if query != sql))


def is_telling(sql: str, connection: sqlite3.Connection) -> bool:
    """Whether the result is there, is not an accident of ties, and differs from every neighbour's."""
    result = _run(sql, connection)
    if not result or all(value is None or value == 0 for row in result for value in row):
        return False
    if tie := _TIE.search(sql):
        # Groups come in the order of their name, so turning the tie-break round shows a tie.
        grouped = sql[sql.index(" GROUP BY ") + len(" GROUP BY ") : tie.start()]
        broken = f"{sql[: tie.start()]} ORDER BY count(*) {tie[1]}, {grouped} "
        if _run(f"{broken}ASC LIMIT 1", connection) != _run(f"{broken}DESC LIMIT 1", connection):
            return False
    ordered = " ORDER BY " in sql
    return all(not _same(result, _run(other, connection), ordered) for other in neighbours(sql))


def _run(sql: str, connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    return connection.execute(sql).fetchall()


def _same(left: list[tuple[object, ...]], right: list[tuple[object, ...]], ordered: bool) -> bool:
    return left == right if ordered else sorted(map(repr, left)) == sorted(map(repr, right))
