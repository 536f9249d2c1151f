"""Sampling: some rows of a table, whatever its size, without a scan of it.

Of a large table half are its first rows and half are spread over it: by row number in SQLite and DuckDB, by page in
PostgreSQL, by the primary key in MySQL, where that is one whole number; where it is one column of another kind, they
are its last rows. A view has its first rows alone, as has a table without row numbers, pages or key.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from distilsql.databases.job import Cell, Execution, Outcome, Row
from distilsql.databases.schema import Column, Table
from distilsql.databases.url import Engine
from distilsql.synthesis.source import Source

# A longer text is cut when it is sampled, and taken for free text.
LONGEST_SAMPLED_TEXT = 120
# Of a page of PostgreSQL so many rows are looked for: the first ones may have been deleted.
ROWS_OF_A_PAGE = 4
_TEXT = re.compile(r"(tiny|medium|long)?text|(var|bp|n|nvar)?char|string|citext|clob")
# Nobody compares these with a constant, and one cell may be as large as a file.
_NOT_SAID = re.compile(
    r"json|struct|map\b|union|xml|(tiny|medium|long)?blob|bytea|(var)?binary|bit|ts(vector|query)|geo|point|polygon"
)
_SIZES: Mapping[Engine, str] = {
    "duckdb": "SELECT table_name, estimated_size, NULL FROM duckdb_tables() WHERE database_name = current_database() "
    "AND list_contains(current_schemas(true), schema_name) "
    "ORDER BY list_position(current_schemas(true), schema_name) DESC",
    "mysql": "SELECT table_name, table_rows, NULL FROM information_schema.tables "
    "WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE'",
    # Of a partitioned table the largest partition: the same page of each is read.
    "postgresql": """
SELECT c.relname, greatest(c.reltuples, part.rows, 0)::bigint,
coalesce(part.bytes, pg_relation_size(c.oid)) / current_setting('block_size')::int
FROM pg_class c LEFT JOIN LATERAL (SELECT sum(greatest(l.reltuples, 0)) AS rows, max(pg_relation_size(l.oid)) AS bytes
FROM pg_partition_tree(c.oid) p JOIN pg_class l ON l.oid = p.relid WHERE p.isleaf) part ON true
WHERE c.relkind IN ('r', 'm', 'p') AND pg_table_is_visible(c.oid) AND c.relnamespace::regnamespace::text !~ '^pg_'""",
}


@dataclass(frozen=True)
class TableSample:
    """Some rows of a table, in an order that depends only on them. `rows` may be all (`is_whole`); `row_count` is
    then exact, else an estimate. `failure` says why there are none, where the table could not be read."""

    rows: tuple[Row, ...]
    row_count: int
    is_whole: bool
    failure: str = ""


@dataclass(frozen=True)
class _Size:
    """Of a table, by the engine's own account. `pages` are PostgreSQL's."""

    rows: int
    pages: int


@dataclass(frozen=True)
class Sampler:
    """`sizes` are of the tables that are known to be no views."""

    source: Source
    sizes: Mapping[str, _Size]

    def sample(self, table: Table, count: int) -> TableSample:
        """Up to `count` rows; none of a view that takes too long to compute. Raises DatabaseUnavailable."""
        first = self._select(table, f"LIMIT {count + 1}")
        if first.outcome is not Outcome.ROWS:
            return TableSample((), 0, is_whole=False, failure=f"{first.outcome.value}: {first.message}")
        rows = first.rows
        if len(rows) <= count:
            return TableSample(_in_order(rows), len(rows), is_whole=True)
        half = count // 2
        spread, size = ((), 0) if table.is_view else _SPREAD[self.source.engine](self, table, half)
        kept = [*rows[:half], *spread] if spread else rows[:count]
        return TableSample(_in_order(kept), max(size, len(rows)), is_whole=False)

    def _select(self, table: Table, rest: str) -> Execution:
        cells = ", ".join(self._cell(column) for column in table.columns)
        return self.source.read(f"SELECT {cells} FROM {self.source.quoted(table.name)} {rest}")

    def _rows(self, table: Table, rest: str) -> tuple[Row, ...]:
        found = self._select(table, rest)
        return found.rows if found.outcome is Outcome.ROWS else ()

    def _first(self, table: Table, name: str, count: int) -> str:
        """The row numbers of the first rows, which are in the sample already."""
        return f"SELECT {name} FROM {self.source.quoted(table.name)} LIMIT {count}"

    def _numbers(self, sql: str) -> list[int] | None:
        """The one row of a query, if it is all whole numbers."""
        found = self.source.read(sql)
        row = found.rows[0] if found.outcome is Outcome.ROWS and found.rows else (None,)
        numbers = [cell for cell in row if isinstance(cell, int)]
        return numbers if len(numbers) == len(row) else None

    def _cell(self, column: Column) -> str:
        name = self.source.quoted(column.name)
        if self.source.engine == "sqlite":
            return (
                f"CASE typeof({name}) WHEN 'text' THEN substr({name}, 1, {LONGEST_SAMPLED_TEXT}) "
                f"WHEN 'blob' THEN x'' ELSE {name} END"
            )
        if _NOT_SAID.match(column.type) or column.type.endswith("]"):
            return "NULL"
        if _TEXT.match(column.type):
            text = name if self.source.engine == "mysql" else f"CAST({name} AS text)"
            return f"left({text}, {LONGEST_SAMPLED_TEXT})"
        return name

    def _by_number(self, table: Table, count: int) -> tuple[tuple[Row, ...], int]:
        """SQLite finds its highest row number without a scan; DuckDB's are counted from 0."""
        own = {column.name.lower() for column in table.columns}
        names = [name for name in ("rowid", "_rowid_", "oid") if name not in own]
        names = names if self.source.engine == "sqlite" else names[:1] if "rowid" not in own else []
        if not names:
            return (), self._estimate(table)
        highest = self._estimate(table)
        if self.source.engine == "sqlite":
            found = self._numbers(f"SELECT max({names[0]}) FROM {self.source.quoted(table.name)}")
            if found is None:  # WITHOUT ROWID
                return (), 0
            (highest,) = found
        listed = ", ".join(map(str, _spread(count, highest, count)))
        first = self._first(table, names[0], count)
        return self._rows(table, f"WHERE {names[0]} IN ({listed}) AND {names[0]} NOT IN ({first})"), highest

    def _by_page(self, table: Table, count: int) -> tuple[tuple[Row, ...], int]:
        size = self.sizes.get(table.name)
        if size is None:  # another server's table
            return (), 0
        pages = _spread(0, max(size.pages - 1, 0), count)
        places = ", ".join(f'"({page},{place})"' for page in pages for place in range(1, ROWS_OF_A_PAGE + 1))
        first = self._first(table, "ctid", count)
        rows = self._rows(table, f"WHERE ctid = ANY('{{{places}}}'::tid[]) AND ctid NOT IN ({first})")
        if len(rows) > count:
            rows = tuple(rows[number * len(rows) // count] for number in range(count))
        return rows, size.rows or self._rows_by_pages(table, size.pages)

    def _rows_by_pages(self, table: Table, pages: int) -> int:
        """Of a table that was never analysed: as dense as its first pages."""
        first = f"SELECT ctid FROM {self.source.quoted(table.name)} LIMIT 1000"
        found = self._numbers(
            f"SELECT count(*), 1 + max((ctid::text::point)[0])::bigint FROM ({first}) AS first"
        )
        return found[0] * pages // found[1] if found else 0

    def _by_key(self, table: Table, count: int) -> tuple[tuple[Row, ...], int]:
        key = [column for column in table.columns if column.is_primary_key]
        if len(key) != 1:
            return (), self._estimate(table)
        name, quoted = self.source.quoted(key[0].name), self.source.quoted(table.name)
        ends = None
        if "int" in key[0].type:
            ends = self._numbers(f"SELECT min({name}), max({name}) FROM {quoted}")
        if ends is None:
            found = self._rows(table, f"ORDER BY {name} DESC LIMIT {count}")
        else:
            listed = ", ".join(map(str, _spread(ends[0], ends[1], count)))
            found = self._rows(table, f"WHERE {name} IN ({listed})")
        # Rows of a table with a key that are equal are the same row.
        first = set(self._rows(table, f"LIMIT {count}"))
        return tuple(row for row in found if row not in first), self._estimate(table)

    def _estimate(self, table: Table) -> int:
        size = self.sizes.get(table.name)
        return size.rows if size else 0


_Spread = Callable[[Sampler, Table, int], tuple[tuple[Row, ...], int]]
# Up to so many rows that are spread over a table, and how many rows it has, as far as known.
_SPREAD: Mapping[Engine, _Spread] = {
    "sqlite": Sampler._by_number,
    "duckdb": Sampler._by_number,
    "postgresql": Sampler._by_page,
    "mysql": Sampler._by_key,
}


def _spread(lowest: int, highest: int, count: int) -> Sequence[int]:
    return sorted({lowest + number * (highest - lowest) // max(count - 1, 1) for number in range(count)})


def _in_order(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Two engines, and one before and after a row was rewritten, give the same rows in different orders."""
    return tuple(sorted(rows, key=lambda row: tuple(map(_rank, row))))


def _rank(cell: Cell) -> tuple[int, float, str]:
    if isinstance(cell, int | float):
        return 1, cell, ""
    return (0, 0.0, "") if cell is None else (2, 0.0, str(cell))


def make_sampler(source: Source) -> Sampler:
    """Raises DatabaseUnavailable."""
    if source.engine == "sqlite":
        return Sampler(source, {})
    found = source.read(_SIZES[source.engine])
    return Sampler(
        source,
        {
            str(name): _Size(int(rows or 0), int(pages or 0))  # type: ignore[arg-type]
            for name, rows, pages in found.rows
        },
    )
