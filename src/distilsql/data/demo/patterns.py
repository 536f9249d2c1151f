"""Patterns: the kinds of query people ask, each drawing SQL and the phrases that its wordings speak of.

House style of the SQL: keywords in capitals, functions and names in small letters, no aliases; bare column names in
a query on one table, `table.column` wherever tables are joined, and a join always from the child to its parent.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

from distilsql.data.demo import conditions
from distilsql.data.demo.conditions import ANY, EVERYTHING, SIMPLE, Condition, draw_condition
from distilsql.data.demo.domain import Category, Content, Number, Spoken, TableSpec
from distilsql.data.demo.rows import FilledDomain
from distilsql.data.demo.wordings import AGGREGATES, DIRECTIONS, FEWER_THAN, MORE_THAN
from distilsql.data.dice import Dice
from distilsql.data.plural import plural

Phrases = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Draft:
    """A query: its SQL, the key of its wordings, and for every slot of a wording the phrases that fit."""

    pattern: str
    sql: str
    phrases: Phrases


@dataclass(frozen=True)
class Topic:
    """What a query is about: a database, one of its tables, and the dice that decide the rest."""

    filled: FilledDomain
    table: TableSpec
    dice: Dice

    def name(self, column: Content, condition: Condition) -> str:
        return f"{self.table.name}.{column.name}" if condition.parent else column.name

    def source(self, condition: Condition) -> str:
        """FROM … [JOIN …] [WHERE …]."""
        join = _join(self.table, condition.parent) if condition.parent else self.table.name
        return f"FROM {join}" + (f" WHERE {condition.sql}" if condition.sql else "")

    def number(self, condition: Condition) -> Number | None:
        """One of the table's numbers that the condition is not about, if there is one."""
        free = [column for column in self.table.numbers if column.name not in condition.columns]
        return self.dice.pick(free) if free else None

    def category(self, condition: Condition) -> Category | None:
        """One of the table's categories that the condition is not about, if there is one."""
        free = [column for column in self.table.categories if column.name not in condition.columns]
        return self.dice.pick(free) if free else None

    def things(self, condition: Condition = EVERYTHING) -> dict[str, tuple[str, ...]]:
        nouns = self.table.nouns
        return {"thing": nouns, "things": plurals(nouns), "mod": condition.words}


def _join(child: TableSpec, parent: TableSpec) -> str:
    return f"{child.name} JOIN {parent.name} ON {child.name}.{parent.name}_id = {parent.name}.id"


def plurals(nouns: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(plural(noun) for noun in nouns)


def _attributes(topic: Topic, condition: Condition) -> tuple[str, dict[str, tuple[str, ...]]]:
    """The selected columns as SQL, and what they are called: mostly the label, at times another or two."""
    label = topic.table.label
    others = [c for c in topic.table.spoken if c is not label and c.name not in condition.columns]
    columns: tuple[Spoken, ...] = (label,)
    if others:
        other = topic.dice.pick(others)
        columns = topic.dice.weighted({(label,): 6.0, (other,): 2.0, (label, other): 2.0})
    words = {
        "attr": _joined([column.nouns for column in columns]),
        "attrs": _joined([plurals(column.nouns) for column in columns]),
    }
    return ", ".join(topic.name(column, condition) for column in columns), words


def _joined(nouns: list[tuple[str, ...]]) -> tuple[str, ...]:
    """Every way to say one noun, or two with "and" between."""
    return tuple(" and ".join(chosen) for chosen in product(*nouns))


def list_rows(topic: Topic) -> Draft | None:
    condition = draw_condition({**ANY, None: 1.0}, topic.filled, topic.table, topic.dice)
    if condition is None:
        return None
    columns, words = _attributes(topic, condition)
    return Draft("list", f"SELECT {columns} {topic.source(condition)}", {**topic.things(condition), **words})


def count(topic: Topic) -> Draft | None:
    condition = draw_condition({**ANY, None: 0.3}, topic.filled, topic.table, topic.dice)
    if condition is None:
        return None
    return Draft("count", f"SELECT count(*) {topic.source(condition)}", topic.things(condition))


def _aggregate(column: Number, dice: Dice, avoid: str = "") -> str:
    names = [name for name in AGGREGATES if name != avoid and (name != "sum" or column.additive)]
    return dice.pick(names)


def aggregate(topic: Topic) -> Draft | None:
    condition = draw_condition({**SIMPLE, conditions.of_parent: 3.0}, topic.filled, topic.table, topic.dice)
    if condition is None or (column := topic.number(condition)) is None:
        return None
    function = _aggregate(column, topic.dice)
    sql = f"SELECT {function}({topic.name(column, condition)}) {topic.source(condition)}"
    words = {"agg": AGGREGATES[function], "num": column.nouns}
    return Draft("aggregate", sql, {**topic.things(condition), **words})


def two_aggregates(topic: Topic) -> Draft | None:
    condition = draw_condition(SIMPLE, topic.filled, topic.table, topic.dice)
    if condition is None or (column := topic.number(condition)) is None:
        return None
    first = _aggregate(column, topic.dice)
    second = _aggregate(column, topic.dice, avoid=first)
    sql = f"SELECT {first}({column.name}), {second}({column.name}) {topic.source(condition)}"
    words = {"agg": AGGREGATES[first], "other_agg": AGGREGATES[second], "num": column.nouns}
    return Draft("two_aggregates", sql, {**topic.things(condition), **words})


def distinct(topic: Topic) -> Draft | None:
    condition = draw_condition({**SIMPLE, conditions.of_parent: 2.0}, topic.filled, topic.table, topic.dice)
    if condition is None or (column := topic.category(condition)) is None:
        return None
    name = topic.name(column, condition)
    words = {"cat": column.nouns, "cats": plurals(column.nouns), **topic.things(condition)}
    if topic.dice.chance(0.5):
        return Draft("distinct", f"SELECT DISTINCT {name} {topic.source(condition)}", words)
    return Draft("count_distinct", f"SELECT count(DISTINCT {name}) {topic.source(condition)}", words)


def group(topic: Topic) -> Draft | None:
    """A count or an aggregate for each value of a category."""
    condition = draw_condition(SIMPLE, topic.filled, topic.table, topic.dice)
    if condition is None or (column := topic.category(condition)) is None:
        return None
    dice = topic.dice
    words = {"cat": column.nouns, "cats": plurals(column.nouns), **topic.things(condition)}
    tail = f"{topic.source(condition)} GROUP BY {column.name}"
    number = topic.number(condition)
    if number is None or dice.chance(0.5):
        return Draft("group_count", f"SELECT {column.name}, count(*) {tail}", words)
    function = _aggregate(number, dice)
    words |= {"agg": AGGREGATES[function], "num": number.nouns}
    return Draft("group_aggregate", f"SELECT {column.name}, {function}({number.name}) {tail}", words)


def having(topic: Topic) -> Draft | None:
    """The values of a category whose group is large or small enough, or high or low enough on average."""
    condition = draw_condition(SIMPLE, topic.filled, topic.table, topic.dice)
    if condition is None or (column := topic.category(condition)) is None:
        return None
    dice = topic.dice
    words = {"cat": column.nouns, "cats": plurals(column.nouns), **topic.things(condition)}
    start = f"SELECT {column.name} {topic.source(condition)} GROUP BY {column.name} HAVING"
    number = topic.number(condition)
    if number is None or dice.chance(0.6):
        limit = dice.between(2, 12)
        operator, said = dice.pick(((">", MORE_THAN), ("<", FEWER_THAN)))
        words |= {"cmp": said, "k": (str(limit),)}
        return Draft("having_count", f"{start} count(*) {operator} {limit}", words)
    limits = conditions.round_limits(topic.filled.values(topic.table, number.name), margin=0.35)
    operator, around = dice.pick(((">", number.over), ("<", number.under)))
    limit = dice.pick(limits)
    words |= {"agg": AGGREGATES["avg"], "num": number.nouns, "cmp": around, "k": (str(limit),)}
    return Draft("having_aggregate", f"{start} avg({number.name}) {operator} {limit}", words)


def order(topic: Topic) -> Draft | None:
    condition = draw_condition(SIMPLE, topic.filled, topic.table, topic.dice)
    if condition is None or not topic.table.numbers:
        return None
    columns, words = _attributes(topic, condition)
    number, direction = topic.dice.pick(topic.table.numbers), topic.dice.pick(("ASC", "DESC"))
    words |= {"num": number.nouns, "direction": DIRECTIONS[direction], **topic.things(condition)}
    return Draft(
        "order", f"SELECT {columns} {topic.source(condition)} ORDER BY {number.name} {direction}", words
    )


def _extreme(number: Number, direction: str, things: Phrases, how_many: int = 1) -> tuple[str, ...]:
    """What the first rows in an order are called: "the oldest author from Norway", "the 3 books with the …"."""
    own, degree = (number.most, "highest") if direction == "DESC" else (number.least, "lowest")
    nouns, start = (things["thing"], "the") if how_many == 1 else (things["things"], f"the {how_many}")
    said = [
        f"{start} {noun} {mod} with the {degree} {n}"
        for noun in nouns
        for mod in things["mod"]
        for n in number.nouns
    ]
    if own:
        said += [
            f"{start} {own} {noun} {mod}" for noun in nouns for mod in things["mod"] for _ in number.nouns
        ]
    return tuple(said)


def top(topic: Topic) -> Draft | None:
    """The first row, or the first few, by a number."""
    condition = draw_condition({**SIMPLE, conditions.of_parent: 1.5}, topic.filled, topic.table, topic.dice)
    if condition is None or not topic.table.numbers:
        return None
    columns, words = _attributes(topic, condition)
    number, direction = topic.dice.pick(topic.table.numbers), topic.dice.pick(("ASC", "DESC"))
    how_many = 1 if topic.dice.chance(0.6) else topic.dice.between(2, 5)
    words["the_top"] = _extreme(number, direction, topic.things(condition), how_many)
    name = topic.name(number, condition)
    sql = f"SELECT {columns} {topic.source(condition)} ORDER BY {name} {direction} LIMIT {how_many}"
    return Draft("top" if how_many == 1 else "top_some", sql, words)


def most_common(topic: Topic) -> Draft | None:
    condition = draw_condition(SIMPLE, topic.filled, topic.table, topic.dice)
    if condition is None or (column := topic.category(condition)) is None:
        return None
    direction, rank = topic.dice.pick((("DESC", "most"), ("DESC", "most"), ("ASC", "least")))
    sql = f"SELECT {column.name} {topic.source(condition)} GROUP BY {column.name} ORDER BY count(*) {direction} LIMIT 1"
    return Draft("most_common", sql, {"cat": column.nouns, "rank": (rank,), **topic.things(condition)})


@dataclass(frozen=True)
class Family:
    """A child table joined to its parent, with a condition on the child that carries table names."""

    parent: TableSpec
    source: str
    columns: frozenset[str]
    words: dict[str, tuple[str, ...]]


def _family(topic: Topic, conditional_share: float) -> Family | None:
    parent = conditions.draw_parent(topic.filled, topic.table, topic.dice)
    if parent is None:
        return None
    source, condition = f"FROM {_join(topic.table, parent)}", EVERYTHING
    if topic.dice.chance(conditional_share):
        comparison = conditions.draw_comparison(topic.filled, topic.table, topic.dice)
        sql, columns = comparison.sql(topic.table.name), frozenset({comparison.column.name})
        condition = Condition(sql, comparison.words(), parent, columns)
        source += f" WHERE {condition.sql}"
    words = {**topic.things(condition), "parent": parent.nouns, "parents": plurals(parent.nouns)}
    words |= {"label": parent.label.nouns, "labels": plurals(parent.label.nouns)}
    return Family(parent, source, condition.columns, words)


def pair(topic: Topic) -> Draft | None:
    """A column of each row beside one of its parent."""
    family = _family(topic, 0.6)
    if family is None:
        return None
    column = topic.dice.pick([c for c in topic.table.spoken if c.name not in family.columns])
    other = topic.dice.pick(family.parent.spoken)
    sql = f"SELECT {topic.table.name}.{column.name}, {family.parent.name}.{other.name} {family.source}"
    words = {"attr": column.nouns, "attrs": plurals(column.nouns)}
    words |= {"parent_attr": other.nouns, "parent_attrs": plurals(other.nouns)}
    return Draft("pair", sql, {**family.words, **words})


def per_parent(topic: Topic) -> Draft | None:
    """Parents by how many rows refer to them: the counts, those over a limit, or the one with most."""
    family = _family(topic, 0.5)
    if family is None:
        return None
    name = f"{family.parent.name}.{family.parent.label.name}"
    kind = topic.dice.pick(("parent_count", "parent_having", "parent_most"))
    grouped = f"{family.source} GROUP BY {name}"
    if kind == "parent_count":
        return Draft(kind, f"SELECT {name}, count(*) {grouped}", family.words)
    if kind == "parent_most":
        return Draft(kind, f"SELECT {name} {grouped} ORDER BY count(*) DESC LIMIT 1", family.words)
    limit = topic.dice.between(1, 5)
    operator, said = topic.dice.pick(((">", MORE_THAN), ("<", FEWER_THAN)))
    words = {**family.words, "cmp": said, "k": (str(limit),)}
    return Draft(kind, f"SELECT {name} {grouped} HAVING count(*) {operator} {limit}", words)


def parent_of_top(topic: Topic) -> Draft | None:
    family = _family(topic, 0.3)
    if family is None or not topic.table.numbers:
        return None
    column = topic.dice.pick(family.parent.spoken)
    number, direction = topic.dice.pick(topic.table.numbers), topic.dice.pick(("ASC", "DESC"))
    sql = (
        f"SELECT {family.parent.name}.{column.name} {family.source} "
        f"ORDER BY {topic.table.name}.{number.name} {direction} LIMIT 1"
    )
    words = {
        **family.words,
        "the_top": _extreme(number, direction, family.words),
        "parent_attr": column.nouns,
    }
    return Draft("parent_of_top", sql, words)


def parent_group(topic: Topic) -> Draft | None:
    """How many rows there are for each category of their parents."""
    family = _family(topic, 0.4)
    if family is None or not family.parent.categories:
        return None
    column = topic.dice.pick(family.parent.categories)
    name = f"{family.parent.name}.{column.name}"
    sql = f"SELECT {name}, count(*) {family.source} GROUP BY {name}"
    return Draft("parent_group", sql, {**family.words, "cat": column.nouns})


Pattern = Callable[[Topic], Draft | None]

# How often each is asked; what most people ask most is most frequent.
PATTERNS: dict[Pattern, float] = {
    list_rows: 8.0,
    count: 5.0,
    aggregate: 3.0,
    two_aggregates: 1.0,
    distinct: 1.5,
    group: 2.5,
    having: 2.0,
    order: 2.0,
    top: 3.0,
    most_common: 1.0,
    pair: 2.0,
    per_parent: 2.5,
    parent_of_top: 1.5,
    parent_group: 1.0,
}
EASY, HARD = (
    frozenset({"list", "count", "aggregate", "distinct", "two_aggregates"}),
    frozenset(
        {
            "parent_count",
            "parent_having",
            "parent_most",
            "parent_of_top",
            "parent_group",
        }
    ),
)


def difficulty(draft: Draft) -> str:
    """`easy`: one table, no grouping or order; `hard`: a nested query, or a join with more; `medium`: the rest."""
    if "(SELECT" in draft.sql or draft.pattern in HARD:
        return "hard"
    return "easy" if draft.pattern in EASY and " JOIN " not in draft.sql else "medium"
