"""Keys between tables: declared ones as groups of columns, and undeclared ones, found by names and values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distilsql.databases.job import Cell, Outcome
from distilsql.databases.schema import Schema, Table
from distilsql.synthesis.identifiers import expanded, plural_of, singular_of, words_of
from distilsql.synthesis.source import Source

# How many of a column's values are looked for in the table that it may refer to.
LOOKED_UP = 50
# Rows of a table without a primary key that they are looked for in.
LOOKED_INTO = 100_000
# Of the values looked up; a row whose parent was deleted does not make a key none.
FOUND_SHARE = 0.9
_KEY_WORDS = frozenset(["id", "uid", "code", "key", "number", "no", "nr", "num", "ref"])


@dataclass(frozen=True)
class Key:
    """The columns of `child` that hold a row's `parent_columns` of `parent`; several for a composite key."""

    child: str
    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]
    is_declared: bool = True


def declared_keys(schema: Schema) -> list[Key]:
    """The foreign keys of a Schema, which lists them column by column: neighbours in the list that refer to different
    columns of one table are one key where together they are more than either, a composite one."""
    primary = {t.name: {c.name for c in t.columns if c.is_primary_key} for t in schema.tables}
    keys: list[Key] = []
    for found in schema.foreign_keys:
        last = keys[-1] if keys else None
        if (
            last is not None
            and (last.child, last.parent) == (found.table, found.referred_table)
            and len(primary[found.referred_table]) > 1
            and found.referred_column not in last.parent_columns
            and {found.referred_column, *last.parent_columns} <= primary[found.referred_table]
        ):
            columns = (*last.columns, found.column)
            keys[-1] = Key(last.child, columns, last.parent, (*last.parent_columns, found.referred_column))
        else:
            keys.append(Key(found.table, (found.column,), found.referred_table, (found.referred_column,)))
    return list(dict.fromkeys(keys))


def inferred_keys(
    source: Source,
    declared: Sequence[Key],
    samples: Mapping[str, Mapping[str, Sequence[Cell]]],
    unique: Mapping[str, Sequence[str]],
) -> list[Key]:
    """Keys that are not declared. `samples[table][column]` are cells, `unique[table]` the columns that a row could be
    referred to by, likeliest first.

    A column is taken for a key if its name says which table it refers to and its values are found there.
    """
    taken = {(key.child, column) for key in declared for column in key.columns}
    by_name: dict[str, list[tuple[Table, str]]] = {}
    entities = {singular_of(" ".join(words_of(table.name))) for table in source.schema.tables}
    for table in source.schema.tables:
        for referred in unique[table.name][:2]:
            for name in _referring_names(table.name, referred, entities):
                by_name.setdefault(name, []).append((table, referred))
    keys = []
    for table in source.schema.tables:
        for column in table.columns:
            own = column.name in unique[table.name][:1] and len(unique[table.name]) == 1
            if (table.name, column.name) in taken or table.is_view or own:
                continue
            name = "".join(expanded(words_of(column.name), entities))
            cells = [cell for cell in samples[table.name].get(column.name, ()) if cell is not None]
            for parent, referred in by_name.get(name, ()):
                if parent.name == table.name or parent.is_view or not cells:
                    continue
                if _are_found(source, cells, parent, referred, samples[parent.name].get(referred, ())):
                    keys.append(Key(table.name, (column.name,), parent.name, (referred,), is_declared=False))
                    break
    return keys


def _referring_names(table: str, column: str, entities: set[str]) -> set[str]:
    """What a column that refers to `table.column` would be called, in full and in one piece."""
    entity = singular_of(" ".join(words_of(table)))
    noun = "".join(expanded(entity.split(), entities))
    own = expanded(words_of(column), entities)
    joined = "".join(own)
    if own[-1] not in _KEY_WORDS:
        return {joined} if len(own) > 1 and noun in joined else set()
    names = {noun, noun + own[-1], noun + "id"}
    if len(own) > 1:
        names.add(joined)
    last = entity.split()[-1]
    return names | {last + own[-1], plural_of(noun) + own[-1]}


def _are_found(
    source: Source, cells: Sequence[Cell], parent: Table, referred: str, known: Sequence[Cell]
) -> bool:
    wanted = list(dict.fromkeys(cells))[:LOOKED_UP]
    missing = [cell for cell in wanted if cell not in set(known)]
    if missing:
        name = source.quoted(referred)
        listed = ", ".join(map(source.literal, missing))
        rows = _looked_into(source, parent, referred)
        found = source.read(f"SELECT DISTINCT {name} FROM {rows} WHERE {name} IN ({listed})")
        missing = missing[len(found.rows) :] if found.outcome is Outcome.ROWS else missing
    return len(missing) <= (1 - FOUND_SHARE) * len(wanted)


def _looked_into(source: Source, parent: Table, referred: str) -> str:
    """The table, for a FROM clause; its first rows where neither an index nor a count of steps bounds the search."""
    table = source.quoted(parent.name)
    key = [column.name for column in parent.columns if column.is_primary_key]
    if source.engine == "sqlite" or key == [referred]:
        return table
    return f"(SELECT {source.quoted(referred)} FROM {table} LIMIT {LOOKED_INTO}) AS first_rows"
