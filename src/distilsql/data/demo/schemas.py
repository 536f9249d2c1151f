"""Databases drawn from the vocabulary: two or three tables that refer to each other, as many as are asked for.

A word with two meanings in one table ("oldest" of a year and of an age) would make a question ambiguous, so a table
takes no two columns that share a word.
"""

from collections.abc import Iterator

from distilsql.data.demo.domain import Category, Content, Domain, Label, Link, Number, Spoken, TableSpec
from distilsql.data.demo.vocabulary import KINDS, Kind
from distilsql.data.dice import Dice

# A table by itself is known by its noun and its columns; these decide whether a model has seen it.
TableKey = tuple[str, frozenset[str]]

# What a database looks like: for each table, in the order they are made, the earlier tables that it refers to.
SHAPES: dict[tuple[tuple[int, ...], ...], float] = {
    ((), (0,)): 6.0,  # authors, and their books
    ((), (0,), (1,)): 2.0,  # a chain: stages, bands on them, songs by these
    ((), (), (0, 1)): 2.0,  # one table that refers to two
    ((), (0,), (0,)): 1.0,  # two tables that refer to one
}
REFERRED_ROWS, REFERRING_ROWS = (20, 24), (40, 48)


def draw_domain(number: int, seed: str) -> Domain:
    """The database `number` of a seed. No two of its tables share a noun."""
    dice = Dice(f"{seed}/schema/{number}")
    while True:
        tables = _draw_tables(dice, dice.weighted(SHAPES))
        if tables is not None:
            return Domain("_".join([*(table.name for table in tables), str(number)]), tables)


def draw_domains(seed: str) -> Iterator[Domain]:
    """Databases without end, each with other tables than all before it."""
    known: set[frozenset[TableKey]] = set()
    number = 0
    while True:
        domain = draw_domain(number, seed)
        number += 1
        keys = frozenset(table_key(table) for table in domain.tables)
        if keys not in known:
            known.add(keys)
            yield domain


def table_key(table: TableSpec) -> TableKey:
    return table.name, frozenset(column.name for column in table.spoken)


def _draw_tables(dice: Dice, shape: tuple[tuple[int, ...], ...]) -> tuple[TableSpec, ...] | None:
    """Tables of that shape; None where the dice found kinds or nouns that do not go together."""
    kinds = _draw_kinds(dice, shape)
    if kinds is None:
        return None
    referred = {parent for parents in shape for parent in parents}
    tables: list[TableSpec] = []
    for place, (kind, parents) in enumerate(zip(kinds, shape, strict=True)):
        nouns = dice.pick(kind.nouns)
        if any(set(nouns) & set(table.nouns) for table in tables):
            return None
        links = tuple(Link(tables[parent].name) for parent in parents)
        tables.append(_draw_table(dice, kind, nouns, links, place in referred))
    return tuple(tables)


def _draw_kinds(dice: Dice, shape: tuple[tuple[int, ...], ...]) -> list[Kind] | None:
    names = [dice.pick(list(KINDS)) for _ in shape]
    fits = all(
        names[parent] in KINDS[names[place]].parents
        for place, parents in enumerate(shape)
        for parent in parents
    )
    return [KINDS[name] for name in names] if fits else None


def _draw_table(
    dice: Dice, kind: Kind, nouns: tuple[str, ...], links: tuple[Link, ...], is_referred: bool
) -> TableSpec:
    label = dice.pick(kind.labels)
    if is_referred:
        label = Label(label.name, kind.few, label.nouns)
    columns: list[Spoken] = [label]
    wanted = dice.between(2, 3)
    for concept in dice.shuffled(kind.columns):
        column = dice.pick(concept)
        taken = set(nouns).union(*map(said_of, columns))
        if len(columns) <= wanted and not taken & said_of(column):
            columns.append(column)
    low, high = REFERRED_ROWS if is_referred else REFERRING_ROWS
    row_count = min(dice.between(low, high), len(label.values))
    content: tuple[Content, ...] = (*dice.shuffled(columns), *links)
    return TableSpec(nouns[0], row_count, nouns, content)


def said_of(column: Spoken) -> set[str]:
    """Everything by which a question may speak of a column: its name, nouns, adjectives and ways to say a value."""
    said = {column.name, *column.nouns}
    if isinstance(column, Number):
        said |= {column.more, column.less, column.most, column.least}
    if isinstance(column, Category):
        said |= set(column.own) | set(column.values)
    return said - {""}
