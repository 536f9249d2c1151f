"""Patterns about groups of one entity's rows: counts and aggregates per group, groups that are large, the largest."""

from sqlglot import exp

from distilsql.synthesis.grammar.comparisons import round_limits
from distilsql.synthesis.grammar.conditions import SIMPLE, Condition, draw, one, source, things
from distilsql.synthesis.grammar.draft import Draft, Mentions, Phrases, Topic, mention
from distilsql.synthesis.grammar.single import FUNCTION_WORDS, applied, draw_function
from distilsql.synthesis.roles import Role
from distilsql.synthesis.world import Attribute

MORE_THAN, AT_LEAST = (("more than", "over"), exp.GT), (("at least",), exp.GTE)
FEWER_THAN = (("fewer than", "less than"), exp.LT)


def _grouping(topic: Topic) -> tuple[Condition, Attribute, dict[str, tuple[str, ...]], Mentions] | None:
    condition = draw(topic, SIMPLE)
    column = topic.group(condition.attributes) if condition else None
    if condition is None or column is None or column.has_nulls:
        return None
    words = {"cat": (column.noun,), "cats": (column.nouns,), **things(topic.entity, condition)}
    return condition, column, words, (*condition.mentions, mention(column))


def _grouped(topic: Topic, condition: Condition, by: Attribute, *selected: exp.Expr) -> exp.Select:
    query = source(topic, topic.sql.select(*selected), condition)
    return query.group_by(topic.sql.column(by), copy=False)


def group_count(topic: Topic) -> Draft | None:
    found = _grouping(topic)
    if found is None:
        return None
    condition, column, words, mentions = found
    query = _grouped(topic, condition, column, topic.sql.column(column), topic.sql.count())
    return Draft("group_count", query, words, mentions)


def group_aggregate(topic: Topic) -> Draft | None:
    found = _grouping(topic)
    number = topic.number(found[0].attributes) if found else None
    if found is None or number is None:
        return None
    condition, column, words, mentions = found
    function = draw_function(topic, number)
    query = _grouped(topic, condition, column, topic.sql.column(column), applied(topic, function, number))
    words |= {"agg": FUNCTION_WORDS[function], "num": (number.noun,)}
    return Draft("group_aggregate", query, words, (*mentions, mention(number)))


def two_groups(topic: Topic) -> Draft | None:
    """Rows counted by two columns at once."""
    found = _grouping(topic)
    other = topic.group((*found[0].attributes, found[1])) if found else None
    if found is None or other is None or other.has_nulls:
        return None
    condition, column, words, mentions = found
    columns = [topic.sql.column(column), topic.sql.column(other)]
    query = _grouped(topic, condition, column, *columns, topic.sql.count())
    query = query.group_by(topic.sql.column(other), copy=False)
    words["other"] = (other.noun,)
    return Draft("two_groups", query, words, (*mentions, mention(other)))


def having_count(topic: Topic) -> Draft | None:
    found = _grouping(topic)
    if found is None:
        return None
    condition, column, words, mentions = found
    usual = max(1, round(topic.entity.row_count / max(column.profile.distinct, 1)))
    limit = topic.dice.between(max(2, usual // 2), max(2, min(usual + 3, 60)))
    said, operator = topic.dice.weighted({MORE_THAN: 3.0, AT_LEAST: 2.0, FEWER_THAN: 1.0})
    query = _grouped(topic, condition, column, topic.sql.column(column))
    query = query.having(operator(this=topic.sql.count(), expression=topic.sql.literal(limit)), copy=False)
    words |= {"cmp": said, "k": (str(limit),)}
    return Draft("having_count", query, words, (*mentions, (str(limit),)))


def having_aggregate(topic: Topic) -> Draft | None:
    found = _grouping(topic)
    number = topic.number((*found[0].attributes, found[1])) if found else None
    limits = round_limits(number, margin=6) if number else []
    if found is None or number is None or not limits:
        return None
    condition, column, words, mentions = found
    limit = topic.dice.pick(limits)
    said, operator = topic.dice.pick(((("above", "higher than"), exp.GT), (("below", "lower than"), exp.LT)))
    average = exp.Avg(this=topic.sql.column(number))
    query = _grouped(topic, condition, column, topic.sql.column(column))
    query = query.having(operator(this=average, expression=topic.sql.literal(limit)), copy=False)
    words |= {"cmp": said, "k": (str(limit),), "num": (number.noun,)}
    return Draft("having_aggregate", query, words, (*mentions, mention(number), (str(limit),)))


def _first(
    topic: Topic, query: exp.Select, value: exp.Expr, how_many: int, *, descending: bool
) -> exp.Select:
    key = topic.sql.ordered(value, descending=descending)
    return query.order_by(key, copy=False).limit(how_many, copy=False)


def most_common(topic: Topic) -> Draft | None:
    found = _grouping(topic)
    if found is None:
        return None
    condition, column, words, mentions = found
    descending = topic.dice.chance(0.75)
    how_many = 1 if topic.dice.chance(0.7) else topic.dice.between(2, 3)
    query = _grouped(topic, condition, column, topic.sql.column(column))
    query = _first(topic, query, topic.sql.count(), how_many, descending=descending)
    words |= {"rank": ("most",) if descending else ("least",), "k": (str(how_many),)}
    words["number"] = ("most",) if descending else ("fewest",)
    return Draft("most_common" if how_many == 1 else "most_common_some", query, words, mentions)


def best_group(topic: Topic) -> Draft | None:
    """The group that is first by an aggregate."""
    found = _grouping(topic)
    number = topic.number((*found[0].attributes, found[1])) if found else None
    if found is None or number is None:
        return None
    condition, column, words, mentions = found
    function = topic.dice.weighted({"avg": 3.0, "sum": 1.5 if number.profile.is_additive else 0.0})
    descending = topic.dice.chance(0.6)
    query = _grouped(topic, condition, column, topic.sql.column(column))
    query = _first(topic, query, applied(topic, function, number), 1, descending=descending)
    words |= {"agg": FUNCTION_WORDS[function], "num": (number.noun,)}
    words["degree"] = ("highest", "largest") if descending else ("lowest", "smallest")
    return Draft("best_group", query, words, (*mentions, mention(number)))


def average_size(topic: Topic) -> Draft | None:
    """The average number of rows of a group."""
    found = _grouping(topic)
    if found is None:
        return None
    condition, column, words, mentions = found
    counted = exp.alias_(topic.sql.count(), "number", copy=False)
    groups = _grouped(topic, condition, column, counted).subquery("sizes", copy=False)
    query = topic.sql.select(exp.Avg(this=exp.column("number"))).from_(groups, copy=False)
    return Draft("average_size", query, words, mentions)


def best_of_group(topic: Topic) -> Draft | None:
    """In each group the row that is first, ties and all: by a window, or by a query about the row's own group."""
    column, by = topic.group(), topic.pick(topic.entity.of_role(Role.AMOUNT))
    label = topic.entity.label
    if column is None or by is None or column.has_nulls or by.has_nulls or not label or column in label:
        return None
    descending, sql = topic.dice.chance(0.65), topic.sql
    outputs = [sql.column(column), *map(sql.column, label)]
    if topic.dice.chance(0.5):
        order = exp.Order(expressions=[sql.ordered(sql.column(by), descending=descending)])
        window = exp.Window(this=exp.Anonymous(this="rank"), partition_by=[sql.column(column)], order=order)
        ranked = sql.select(*outputs, exp.alias_(window, "place", copy=False))
        ranked = ranked.from_(sql.table(topic.entity), copy=False)
        names = [exp.Column(this=sql.identifier(a.name)) for a in (column, *label)]
        query = sql.select(*names).from_("ranked", copy=False).with_("ranked", as_=ranked, copy=False)
        query = query.where(exp.EQ(this=exp.column("place"), expression=exp.Literal.number(1)), copy=False)
    else:
        alias = "other" if topic.entity.name.lower() != "other" else "another"
        other = exp.alias_(sql.table(topic.entity), alias, table=True, copy=False)
        best = (exp.Max if descending else exp.Min)(
            this=exp.Column(this=sql.identifier(by.name), table=alias)
        )
        same = exp.EQ(
            this=exp.Column(this=sql.identifier(column.name), table=alias), expression=sql.column(column)
        )
        inner = sql.select(best).from_(other, copy=False).where(same, copy=False)
        query = sql.select(*outputs).from_(sql.table(topic.entity), copy=False)
        query = query.where(exp.EQ(this=sql.column(by), expression=inner.subquery(copy=False)), copy=False)
    words: Phrases = {
        "cat": (column.noun,),
        "label": (" and ".join(attribute.noun for attribute in label),),
        "num": (by.noun,),
        "degree": ("highest",) if descending else ("lowest",),
        **things(topic.entity),
    }
    return Draft("best_of_group", query, words, (mention(column), mention(by), *map(mention, label)))


def group_then_sort(topic: Topic) -> Draft | None:
    """Counts of groups, sorted by the count."""
    condition = draw(topic, {None: 3.0, one: 1.0})
    column = topic.group(condition.attributes) if condition else None
    if condition is None or column is None or column.has_nulls:
        return None
    descending = topic.dice.chance(0.7)
    query = _grouped(topic, condition, column, topic.sql.column(column), topic.sql.count())
    key = topic.sql.ordered(topic.sql.count(), descending=descending)
    words = {"cat": (column.noun,), "cats": (column.nouns,), **things(topic.entity, condition)}
    words["direction"] = ("from the most to the fewest",) if descending else ("from the fewest to the most",)
    return Draft(
        "group_sorted", query.order_by(key, copy=False), words, (*condition.mentions, mention(column))
    )
