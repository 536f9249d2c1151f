"""Domain: one everyday database of the demo, as data: its tables, what fills them and how people speak of them.

A label names a row (a title, a name) and is unique in its table. A category is a text from a short list. A number is
an integer that no two rows of a table share, so that orders and extremes are never ambiguous. A link refers to the
`id` of another table.
"""

from dataclasses import dataclass

from distilsql.databases.schema import Column, ForeignKey, Schema, Table


@dataclass(frozen=True)
class Label:
    """`values` are the names to draw from; `nouns` are what people call the column."""

    name: str
    values: tuple[str, ...]
    nouns: tuple[str, ...]


@dataclass(frozen=True)
class Category:
    """`own` are ways to say the condition besides the general ones, such as "from {}" for a city."""

    name: str
    values: tuple[str, ...]
    nouns: tuple[str, ...]
    own: tuple[str, ...] = ()


@dataclass(frozen=True)
class Number:
    """Integers `low`, `low + step`, … up to `high`.

    `more`, `less`, `most`, `least` are the column's own adjectives, `over` and `under` the words before a limit.
    """

    name: str
    low: int
    high: int
    step: int = 1
    nouns: tuple[str, ...] = ()
    more: str = ""
    less: str = ""
    most: str = ""
    least: str = ""
    over: tuple[str, ...] = ("above", "over", "more than")
    under: tuple[str, ...] = ("below", "under", "less than")
    additive: bool = True  # a sum of years or ages is nothing people ask for


@dataclass(frozen=True)
class Link:
    """A column `<parent>_id` that refers to the `id` of `parent`."""

    parent: str

    @property
    def name(self) -> str:
        return f"{self.parent}_id"


Spoken = Label | Category | Number  # columns that people speak of
Content = Spoken | Link


@dataclass(frozen=True)
class TableSpec:
    """A table with an `id` and `content` columns; `nouns` are singular words for one row of it."""

    name: str
    row_count: int
    nouns: tuple[str, ...]
    content: tuple[Content, ...]

    @property
    def label(self) -> Label:
        return next(column for column in self.content if isinstance(column, Label))

    @property
    def categories(self) -> tuple[Category, ...]:
        return tuple(column for column in self.content if isinstance(column, Category))

    @property
    def numbers(self) -> tuple[Number, ...]:
        return tuple(column for column in self.content if isinstance(column, Number))

    @property
    def spoken(self) -> tuple[Spoken, ...]:
        return tuple(column for column in self.content if not isinstance(column, Link))

    @property
    def links(self) -> tuple[Link, ...]:
        return tuple(column for column in self.content if isinstance(column, Link))

    @property
    def column_names(self) -> tuple[str, ...]:
        return ("id", *(column.name for column in self.content))


@dataclass(frozen=True)
class Domain:
    """A database; a table comes after every table that it refers to."""

    db_id: str
    tables: tuple[TableSpec, ...]

    def table(self, name: str) -> TableSpec:
        return next(table for table in self.tables if table.name == name)

    @property
    def links(self) -> tuple[tuple[TableSpec, TableSpec], ...]:
        """Every (child, parent) pair of tables."""
        return tuple((child, self.table(link.parent)) for child in self.tables for link in child.links)


def schema_of(domain: Domain) -> Schema:
    """The Schema that introspection of the domain's SQLite file gives."""
    tables = tuple(
        Table(
            table.name,
            (
                Column("id", "integer", is_primary_key=True),
                *(Column(column.name, sql_type(column)) for column in table.content),
            ),
        )
        for table in domain.tables
    )
    # SQLite lists the keys of a table last to first.
    keys = tuple(
        ForeignKey(child.name, link.name, link.parent, "id")
        for child in domain.tables
        for link in reversed(child.links)
    )
    return Schema(tables, keys)


def sql_type(column: Content) -> str:
    return "text" if isinstance(column, Label | Category) else "integer"
