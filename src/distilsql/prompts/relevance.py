"""How relevant the tables and columns of a schema are to a question, and the schema cut down to the relevant ones.

CodeS trains a classifier for this. Ours is lexical: the share of a name's words, weighted by how rare they are in
the schema, that the question has in the same or nearly the same spelling. A column whose values the question
mentions counts as named. Where words are not apart, as in Chinese, a name counts that is part of one.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from unicodedata import normalize

import numpy as np
import regex
from rapidfuzz import fuzz, process

from distilsql.databases.inner_values import folded, inner_values
from distilsql.databases.normalise import normalise_sql
from distilsql.databases.schema import Column, Schema, Table
from distilsql.databases.values import ColumnName

# Names in back-ticks, double quotes and brackets; texts; words.
_PARTS = re.compile(r"""`((?:[^`]|``)+)`|"((?:[^"]|"")+)"|\[([^\]]+)\]|'((?:[^']|'')*)'|(\w+)""")
# The weights were chosen by the recall of gold tables and columns on 1,200 questions of Spider train.
_SAME_WORD = 75  # rapidfuzz ratio from which two spellings count as one word
_COLUMN_SHARE = 0.5  # how much its best columns say about a table, against its own name
_BEST_COLUMNS = 3
_LINK_SHARE = 0.2  # how much it says that a table joins two relevant ones
_KEY_BONUS = 0.05  # between columns the question does not name, keys come first: joins need them


@dataclass(frozen=True)
class Relevance:
    """Scores, higher for more relevant, by table and by (table, column)."""

    tables: Mapping[str, float]
    columns: Mapping[ColumnName, float]


def relevance(schema: Schema, text: str, matched: Collection[ColumnName] = ()) -> Relevance:
    """Score the tables and columns of `schema` for `text`; `matched` are the columns whose values it mentions."""
    named = _NameMatcher(schema, text)
    keys = key_columns(schema)
    columns = {}
    for table in schema.tables:
        for column in table.columns:
            name = (table.name, column.name)
            score = max(named.share(column), float(name in matched))
            columns[name] = score + _KEY_BONUS * (name in keys)
    tables = {table.name: named.share(table) + _from_columns(table, columns) for table in schema.tables}
    return Relevance(_with_links(schema, tables), columns)


def _with_links(schema: Schema, tables: Mapping[str, float]) -> dict[str, float]:
    """Table scores raised for standing between two relevant tables: by the less relevant of the best two."""
    neighbours: dict[str, set[str]] = {table: set() for table in tables}
    for key in schema.foreign_keys:
        neighbours[key.table].add(key.referred_table)
        neighbours[key.referred_table].add(key.table)
    raised = {}
    for table, score in tables.items():
        around = sorted((tables[other] for other in neighbours[table] - {table}), reverse=True)
        raised[table] = score + _LINK_SHARE * (around[1] if len(around) > 1 else 0.0)
    return raised


def _from_columns(table: Table, scores: Mapping[ColumnName, float]) -> float:
    best = sorted((scores[table.name, column.name] for column in table.columns), reverse=True)[:_BEST_COLUMNS]
    return _COLUMN_SHARE * sum(best)


class _NameMatcher:
    """How much of a table's or column's name a text has, from 0 to 1."""

    def __init__(self, schema: Schema, text: str) -> None:
        items: list[Table | Column] = [*schema.tables]
        items += [column for table in schema.tables for column in table.columns]
        counts = Counter(word for item in items for word in set(_name_words(item)))
        self.words = list(counts)
        self.rarity = {word: math.log(1 + len(items) / count) for word, count in counts.items()}
        said = sorted(set(_split(text)))
        similarity = process.cdist(said, self.words, scorer=fuzz.ratio, score_cutoff=_SAME_WORD)
        best = similarity.max(axis=0) / 100 if said else np.zeros(len(self.words))
        self.said = dict(zip(self.words, best.tolist(), strict=True))
        text = normalize("NFKC", text)
        for start, end in inner_values(text, self.said.__contains__):
            self.said[folded(text[start:end])] = 1.0

    def share(self, item: Table | Column) -> float:
        return max(self._share(_split(item.name)), self._share(_split(item.comment)))

    def _share(self, words: list[str]) -> float:
        whole = sum(self.rarity[word] for word in words)
        return sum(self.rarity[word] * self.said[word] for word in words) / whole if whole else 0.0


def _name_words(item: Table | Column) -> list[str]:
    return _split(item.name) + _split(item.comment)


def _split(text: str) -> list[str]:
    """The words of a name or a question, folded: snake_case, camelCase and digits come apart."""
    apart = regex.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    return regex.findall(r"[^\W\d_]+|\d+", folded(apart))


def key_columns(schema: Schema) -> set[ColumnName]:
    """The primary key columns and both ends of every foreign key."""
    keys = {
        (table.name, column.name)
        for table in schema.tables
        for column in table.columns
        if column.is_primary_key
    }
    for key in schema.foreign_keys:
        keys |= {(key.table, key.column), (key.referred_table, key.referred_column)}
    return keys


def most_relevant(schema: Schema, scores: Relevance, tables: int, columns: int) -> Schema:
    """The `tables` best tables with the `columns` best columns of each, in the schema's own order."""
    kept_tables = sorted(schema.tables, key=lambda table: -scores.tables[table.name])[:tables]
    kept: set[ColumnName] = set()
    for table in kept_tables:
        names = [(table.name, column.name) for column in table.columns]
        kept.update(sorted(names, key=lambda name: -scores.columns[name])[:columns])
    return restrict(schema, kept)


def restrict(schema: Schema, columns: Collection[ColumnName]) -> Schema:
    """Only these columns, the tables that have one of them, and the foreign keys between those tables."""
    tables = []
    for table in schema.tables:
        kept = tuple(column for column in table.columns if (table.name, column.name) in columns)
        if kept:
            tables.append(replace(table, columns=kept))
    names = {table.name for table in tables}
    keys = tuple(key for key in schema.foreign_keys if {key.table, key.referred_table} <= names)
    return Schema(tuple(tables), keys)


def _said(sql: str) -> Iterator[str]:
    """The names and words in `sql`, a name in quotes as one. SQLite takes a text for a name where it needs one."""
    for match in _PARTS.finditer(sql):
        back_ticked, quoted, bracketed, text, word = match.groups()
        if text is not None:
            yield text.replace("''", "'")
            yield from re.findall(r"\w+", text)
        elif back_ticked or quoted:
            yield back_ticked.replace("``", "`") if back_ticked else quoted.replace('""', '"')
        else:
            yield bracketed or word


def gold_columns(schema: Schema, sql: str) -> set[ColumnName]:
    """The columns of `schema` that `sql` uses: named in it, and of a table that is named in it.

    A table used without naming a column (`count(*)`) gives its key columns, or its first if it has none.
    """
    said = set(_said(normalise_sql(sql).lower()))
    keys = key_columns(schema)
    found: set[ColumnName] = set()
    for table in schema.tables:
        if table.name.lower() in said:
            names = [(table.name, column.name) for column in table.columns]
            used = [name for name in names if name[1].lower() in said]
            found.update(used or [name for name in names if name in keys] or names[:1])
    return found
