"""Conditions: which rows a query is about, as SQL and as words.

A Condition restricts the rows of one table. Its words follow the noun: "books *from Oslo*", "books *whose price is
above 20*". A condition on the rows' parent needs a join; every other one stands alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distilsql.data.demo.domain import Category, Link, Number, Spoken, TableSpec
from distilsql.data.demo.rows import FilledDomain, Value
from distilsql.data.dice import Dice
from distilsql.data.plural import plural


@dataclass(frozen=True)
class Condition:
    """`sql` follows WHERE (empty: all rows); `words` are ways to say it; `parent` is the table to join, if any.

    Column names in `sql` are bare without a join and carry their table's name with one. `columns` are those of the
    table itself: nobody asks for the city of what is in Oslo.
    """

    sql: str = ""
    words: tuple[str, ...] = ("",)
    parent: TableSpec | None = None
    columns: frozenset[str] = frozenset()


EVERYTHING = Condition()


@dataclass(frozen=True)
class Comparison:
    """`column operator value`, such as `price > 20`."""

    column: Spoken
    operator: str
    value: Value

    def sql(self, table_name: str = "") -> str:
        name = f"{table_name}.{self.column.name}" if table_name else self.column.name
        literal = f"'{self.value}'" if isinstance(self.value, str) else str(self.value)
        return f"{name} {self.operator} {literal}"

    def limits(self) -> tuple[str, ...]:
        """The words after the column's noun: "Oslo", "above 20"."""
        if not isinstance(self.column, Number):
            return (str(self.value),)
        words = self.column.over if self.operator == ">" else self.column.under
        return tuple(f"{word} {self.value}" for word in words)

    def words(self) -> tuple[str, ...]:
        """The words after the table's noun: "from Oslo", "whose price is above 20", "with price above 20"."""
        said = [f"{start} {limit}" for limit in self.limits() for start in self._starts()]
        return (*said, *(own.format(self.value) for own in self._own_words() if own))

    def _starts(self) -> list[str]:
        return [f"{start.format(noun)}" for noun in self.column.nouns for start in ("whose {} is", "with {}")]

    def _own_words(self) -> tuple[str, ...]:
        if isinstance(self.column, Category):
            # Said as often as the general ways.
            return self.column.own * 2
        if isinstance(self.column, Number):
            return (self.column.more if self.operator == ">" else self.column.less,) * 3
        return ()


def draw_comparison(filled: FilledDomain, table: TableSpec, dice: Dice, avoid: str = "") -> Comparison:
    """A comparison of one of the table's category or number columns (not `avoid`) with a value that matters."""
    columns = [c for c in table.spoken if c is not table.label and c.name != avoid]
    if not columns:
        return Comparison(table.label, "=", dice.pick(filled.values(table, table.label.name)))
    column = dice.pick(columns)
    values = filled.values(table, column.name)
    if isinstance(column, Number):
        return Comparison(column, dice.pick("><"), dice.pick(round_limits(values)))
    return Comparison(column, "=", dice.pick(sorted(set(values))))


def round_limits(values: Sequence[Value], margin: float = 0.2) -> tuple[int, ...]:
    """At most eight round numbers among `values`, leaving out the lowest and the highest `margin` of them.

    Limits near the ends would select nearly all rows or nearly none.
    """
    ordered = sorted(int(value) for value in values)
    low, high = ordered[int(len(ordered) * margin)], ordered[int(len(ordered) * (1 - margin))]
    for unit in (1, 5, 10, 20, 50, 100, 200, 500, 1000):
        limits = tuple(range(-(-low // unit) * unit, high + 1, unit))
        if len(limits) <= 8:
            return limits
    raise ValueError(f"no round limits between {low} and {high}")


def one(filled: FilledDomain, table: TableSpec, dice: Dice) -> Condition | None:
    comparison = draw_comparison(filled, table, dice)
    return Condition(comparison.sql(), comparison.words(), columns=frozenset({comparison.column.name}))


def two(filled: FilledDomain, table: TableSpec, dice: Dice) -> Condition | None:
    """Both of two conditions, or at least one of them."""
    first = draw_comparison(filled, table, dice)
    second = draw_comparison(filled, table, dice, avoid="" if dice.chance(0.2) else first.column.name)
    joint = dice.pick(("and", "or"))
    if first.column is second.column and (joint == "and" or first == second):
        return None
    words = tuple(f"{one} {joint} {other}" for one in first.words() for other in second.words())
    columns = frozenset({first.column.name, second.column.name})
    return Condition(f"{first.sql()} {joint.upper()} {second.sql()}", words, columns=columns)


def of_parent(filled: FilledDomain, table: TableSpec, dice: Dice) -> Condition | None:
    """A condition on the row that a link of `table` refers to."""
    parent = draw_parent(filled, table, dice)
    if parent is None:
        return None
    nouns, label = parent.nouns, parent.label
    if dice.chance(0.3):
        comparison = Comparison(label, "=", dice.pick(filled.values(parent, label.name)))
        words = [f"{start} {noun} {comparison.value}" for noun in nouns for start in ("of", "of the")]
        words += [f"whose {noun} is {comparison.value}" for noun in nouns]
    else:
        comparison = draw_comparison(filled, parent, dice)
        words = [f"of {plural(noun)} {said}" for noun in nouns for said in comparison.words()]
        words += [
            f"whose {noun} has {column} {limit}"
            for noun in nouns
            for column in comparison.column.nouns
            for limit in comparison.limits()
        ]
    return Condition(comparison.sql(parent.name), tuple(words), parent)


def beyond_average(filled: FilledDomain, table: TableSpec, dice: Dice) -> Condition | None:
    if not table.numbers:
        return None
    column = dice.pick(table.numbers)
    operator, side = dice.pick(((">", "above"), ("<", "below")))
    words = [
        form.format(noun=noun, side=side)
        for noun in column.nouns
        for form in (
            "with {side} average {noun}",
            "with {noun} {side} average",
            "whose {noun} is {side} the average",
        )
    ]
    return Condition(f"{column.name} {operator} (SELECT avg({column.name}) FROM {table.name})", tuple(words))


def by_children(filled: FilledDomain, table: TableSpec, dice: Dice) -> Condition | None:
    """Rows that have, or lack, rows of another table that refer to them."""
    children = [child for child, parent in filled.domain.links if parent is table]
    if not children:
        return None
    child = dice.pick(children)
    lacking = dice.chance(0.6)
    inner = draw_comparison(filled, child, dice) if dice.chance(0.7) or not lacking else None
    where, said = (f" WHERE {inner.sql()}", inner.words()) if inner else ("", ("",))
    starts = ("without any {}", "with no {}") if lacking else ("with at least one {}", "having some {}")
    words = []
    for noun in child.nouns:
        for start in starts:
            words += [
                f"{start.format(plural(noun) if lacking else noun)} {ending}".strip() for ending in said
            ]
    operator = "NOT IN" if lacking else "IN"
    return Condition(f"id {operator} (SELECT {table.name}_id FROM {child.name}{where})", tuple(words))


def draw_parent(filled: FilledDomain, table: TableSpec, dice: Dice) -> TableSpec | None:
    links: tuple[Link, ...] = table.links
    return filled.domain.table(dice.pick(links).parent) if links else None


Draw = Callable[[FilledDomain, TableSpec, Dice], Condition | None]
SIMPLE: dict[Draw | None, float] = {None: 4.0, one: 4.0}
ANY: dict[Draw | None, float] = {
    None: 2.0,
    one: 6.0,
    two: 5.0,
    of_parent: 4.0,
    beyond_average: 2.0,
    by_children: 4.0,
}


def draw_condition(
    kinds: dict[Draw | None, float], filled: FilledDomain, table: TableSpec, dice: Dice
) -> Condition | None:
    """A condition of one of `kinds` (None stands for no condition), or None where the table allows none like it."""
    kind = dice.weighted(kinds)
    return kind(filled, table, dice) if kind else EVERYTHING
