"""Patterns about the rows of one entity: lists, counts, aggregates, orders, extremes, shares."""

from sqlglot import exp

from distilsql.synthesis.grammar.comparisons import compare
from distilsql.synthesis.grammar.conditions import (
    EVERYTHING,
    FILTERS,
    SIMPLE,
    draw,
    of_parent,
    one,
    source,
    things,
    two,
)
from distilsql.synthesis.grammar.draft import Constant, Draft, Topic, listed, mention, said_of
from distilsql.synthesis.grammar.sql import AGGREGATES
from distilsql.synthesis.roles import Role
from distilsql.synthesis.world import Attribute

FUNCTION_WORDS = {
    "avg": ("average", "mean"),
    "max": ("highest", "maximum"),
    "min": ("lowest", "minimum"),
    "sum": ("total",),
}
ORDINALS = {1: "second", 2: "third"}


def list_rows(topic: Topic) -> Draft | None:
    condition = draw(topic, {**FILTERS, None: 1.5})
    outputs = topic.outputs(condition.attributes) if condition else []
    if condition is None or not outputs:
        return None
    query = source(topic, topic.sql.select(*map(topic.sql.column, outputs)), condition)
    phrases = {**things(topic.entity, condition), **said_of(outputs)}
    return Draft("list", query, phrases, (*condition.mentions, *map(mention, outputs)))


def all_columns(topic: Topic) -> Draft | None:
    condition = draw(topic, {one: 3.0, two: 1.0})
    if condition is None:
        return None
    query = source(topic, topic.sql.select(exp.Star()), condition)
    return Draft("all_columns", query, things(topic.entity, condition), condition.mentions)


def count(topic: Topic) -> Draft | None:
    condition = draw(topic, {**FILTERS, None: 0.4})
    if condition is None:
        return None
    query = source(topic, topic.sql.select(topic.sql.count()), condition)
    return Draft("count", query, things(topic.entity, condition), condition.mentions)


def draw_function(topic: Topic, number: Attribute, avoid: tuple[str, ...] = ()) -> str:
    shares = {"avg": 3.0, "max": 2.0, "min": 1.5, "sum": 1.5 if number.profile.is_additive else 0.0}
    return topic.dice.weighted({name: share for name, share in shares.items() if name not in avoid})


def applied(topic: Topic, function: str, number: Attribute) -> exp.Expr:
    return AGGREGATES[function](this=topic.sql.column(number))


def aggregate(topic: Topic) -> Draft | None:
    condition = draw(topic, {**SIMPLE, of_parent: 2.0})
    number = topic.number(condition.attributes) if condition else None
    if condition is None or number is None:
        return None
    function = draw_function(topic, number)
    query = source(topic, topic.sql.select(applied(topic, function, number)), condition)
    phrases = {"agg": FUNCTION_WORDS[function], "num": (number.noun,), **things(topic.entity, condition)}
    return Draft("aggregate", query, phrases, (*condition.mentions, mention(number)))


def several_aggregates(topic: Topic) -> Draft | None:
    condition = draw(topic, SIMPLE)
    number = topic.number(condition.attributes) if condition else None
    if condition is None or number is None:
        return None
    functions: list[str] = []
    for _ in range(topic.dice.between(2, 3)):
        functions.append(draw_function(topic, number, avoid=tuple(functions)))
    query = source(topic, topic.sql.select(*(applied(topic, name, number) for name in functions)), condition)
    said = listed([FUNCTION_WORDS[name][0] for name in functions])
    phrases = {"aggs": (said,), "num": (number.noun,), **things(topic.entity, condition)}
    return Draft("several_aggregates", query, phrases, (*condition.mentions, mention(number)))


def spread(topic: Topic) -> Draft | None:
    condition = draw(topic, SIMPLE)
    number = topic.number(condition.attributes) if condition else None
    if condition is None or number is None:
        return None
    difference = exp.Sub(this=applied(topic, "max", number), expression=applied(topic, "min", number))
    query = source(topic, topic.sql.select(difference), condition)
    phrases = {"num": (number.noun,), **things(topic.entity, condition)}
    return Draft("spread", query, phrases, (*condition.mentions, mention(number)))


def distinct(topic: Topic) -> Draft | None:
    condition = draw(topic, {**SIMPLE, of_parent: 1.5})
    kinds = [*topic.entity.of_role(Role.CATEGORY, Role.CODE, Role.YEAR), *topic.codes()]
    column = topic.pick(kinds, condition.attributes) if condition else None
    if condition is None or column is None or column.has_nulls:
        return None
    phrases = {"cat": (column.noun,), "cats": (column.nouns,), **things(topic.entity, condition)}
    mentions = (*condition.mentions, mention(column))
    if topic.dice.chance(0.5):
        query = source(topic, topic.sql.select(topic.sql.column(column)).distinct(copy=False), condition)
        return Draft("distinct", query, phrases, mentions)
    counted = topic.sql.count(topic.sql.column(column), distinct=True)
    return Draft("count_distinct", source(topic, topic.sql.select(counted), condition), phrases, mentions)


def direction_words(column: Attribute, *, descending: bool) -> tuple[str, ...]:
    if column.role is Role.AMOUNT:
        return (
            ("in descending order", "from high to low")
            if descending
            else ("in ascending order", "from low to high")
        )
    if column.role in (Role.DATE, Role.YEAR):
        return ("from the latest to the earliest",) if descending else ("from the earliest to the latest",)
    return ("in reverse alphabetical order",) if descending else ("in alphabetical order",)


def degree_words(column: Attribute, *, descending: bool) -> tuple[str, ...]:
    if column.role in (Role.DATE, Role.YEAR):
        return ("latest", "most recent") if descending else ("earliest",)
    return ("highest", "greatest") if descending else ("lowest", "smallest")


def ordered(topic: Topic, column: Attribute, *, descending: bool) -> exp.Ordered:
    return topic.sql.ordered(topic.sql.column(column), descending=descending)


def order(topic: Topic) -> Draft | None:
    condition = draw(topic, SIMPLE)
    outputs = topic.outputs(condition.attributes) if condition else []
    by = topic.sortable()
    if condition is None or not outputs or (by is None or topic.dice.chance(0.25)):
        by = topic.pick([a for a in topic.entity.label if not a.has_nulls])
    if condition is None or not outputs or by is None:
        return None
    descending = topic.dice.chance(0.5)
    query = source(topic, topic.sql.select(*map(topic.sql.column, outputs)), condition)
    query = query.order_by(ordered(topic, by, descending=descending), copy=False)
    phrases = {"by": (by.noun,), "direction": direction_words(by, descending=descending)}
    phrases |= {**things(topic.entity, condition), **said_of(outputs)}
    return Draft("order", query, phrases, (*condition.mentions, *map(mention, outputs), mention(by)))


def top(topic: Topic) -> Draft | None:
    """The first row, or the first few, or the second or third, by an amount or a date."""
    condition = draw(topic, {**SIMPLE, of_parent: 1.5})
    by = topic.sortable(condition.attributes) if condition else None
    outputs = topic.outputs(condition.attributes) if condition else []
    if condition is None or by is None or not outputs:
        return None
    descending = topic.dice.chance(0.6)
    skipped = topic.dice.weighted({0: 9.0, 1: 0.8, 2: 0.3})
    how_many = 1 if skipped or topic.dice.chance(0.6) else topic.dice.between(2, 5)
    query = source(topic, topic.sql.select(*map(topic.sql.column, outputs)), condition)
    query = query.order_by(ordered(topic, by, descending=descending), copy=False).limit(how_many, copy=False)
    if skipped:
        query = query.offset(skipped, copy=False)
    rank = f"{ORDINALS[skipped]} " if skipped else ""
    phrases = {"by": (by.noun,), "k": (str(how_many),), **things(topic.entity, condition), **said_of(outputs)}
    phrases["degree"] = tuple(rank + degree for degree in degree_words(by, descending=descending))
    pattern = "top" if how_many == 1 else "top_some"
    return Draft(pattern, query, phrases, (*condition.mentions, *map(mention, outputs), mention(by)))


def extreme(topic: Topic) -> Draft | None:
    """Every row that has the highest or lowest value, ties and all."""
    by = topic.pick(topic.entity.of_role(Role.AMOUNT, Role.YEAR, Role.DATE))
    outputs = topic.outputs([by] if by else [])
    if by is None or not outputs:
        return None
    descending = topic.dice.chance(0.6)
    best = topic.sql.select(applied(topic, "max" if descending else "min", by))
    best = best.from_(topic.sql.table(topic.entity), copy=False)
    where = exp.EQ(this=topic.sql.column(by), expression=best.subquery(copy=False))
    query = source(topic, topic.sql.select(*map(topic.sql.column, outputs)), EVERYTHING).where(
        where, copy=False
    )
    phrases = {"by": (by.noun,), "degree": degree_words(by, descending=descending), **said_of(outputs)}
    return Draft("extreme", query, {**things(topic.entity), **phrases}, (*map(mention, outputs), mention(by)))


def share(topic: Topic) -> Draft | None:
    comparison = compare(topic)
    condition = draw(topic, {None: 5.0, one: 1.0}) if comparison else None
    if comparison is None or condition is None or comparison.attribute in condition.attributes:
        return None
    query = source(topic, topic.sql.select(topic.sql.percentage(comparison.where)), condition)
    phrases = {**things(topic.entity, condition), "those": comparison.words}
    return Draft("share", query, phrases, (*condition.mentions, *comparison.mentions))


def per_year(topic: Topic) -> Draft | None:
    """How many rows there are for each year of a date."""
    date = topic.pick(topic.entity.of_role(Role.DATE))
    condition = draw(topic, {None: 3.0, one: 2.0}) if date else None
    if date is None or condition is None or date in condition.attributes or date.has_nulls:
        return None
    year = topic.sql.year_of(date)
    query = source(topic, topic.sql.select(year, topic.sql.count()), condition).group_by(
        year.copy(), copy=False
    )
    phrases = {"date": (date.noun,), **things(topic.entity, condition)}
    return Draft("per_year", query, phrases, (*condition.mentions, mention(date)))


def than_another(topic: Topic) -> Draft | None:
    """Rows beyond one that is called by its name."""
    label = topic.entity.label
    number = topic.pick(topic.entity.of_role(Role.AMOUNT))
    outputs = topic.outputs([number] if number else [])
    if number is None or not outputs or len(label) != 1 or not label[0].profile.is_unique:
        return None
    named = topic.dice.pick(label[0].profile.values or (None,))
    if named is None:
        return None
    inner = topic.sql.select(topic.sql.column(number)).from_(topic.sql.table(topic.entity), copy=False)
    inner = inner.where(
        exp.EQ(this=topic.sql.column(label[0]), expression=topic.sql.literal(named)), copy=False
    )
    operator, side = topic.dice.pick(((exp.GT, "higher"), (exp.LT, "lower")))
    where = operator(this=topic.sql.column(number), expression=inner.subquery(copy=False))
    query = source(topic, topic.sql.select(*map(topic.sql.column, outputs)), EVERYTHING).where(
        where, copy=False
    )
    phrases = {
        "num": (number.noun,),
        "side": (side,),
        "label": (label[0].noun,),
        "value": (f'"{named!s}"', str(named)),
    }
    return Draft(
        "than_another",
        query,
        {**things(topic.entity), **said_of(outputs), **phrases},
        (*map(mention, outputs), mention(number), Constant((str(named),), str(named))),
    )
