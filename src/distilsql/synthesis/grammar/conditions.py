"""Conditions: which rows a query is about, as SQL and as words that follow the entity's noun."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlglot import exp

from distilsql.synthesis.grammar.comparisons import Comparison, compare
from distilsql.synthesis.grammar.draft import Mentions, Topic, mention
from distilsql.synthesis.world import Attribute, Entity, Relation


@dataclass(frozen=True)
class Condition:
    """`joins` are the relations to parents that `where` speaks of; `attributes` those of the entity itself: nobody asks
    for the city of what is in Oslo."""

    where: exp.Expr | None = None
    words: tuple[str, ...] = ("",)
    joins: tuple[Relation, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    mentions: Mentions = ()


EVERYTHING = Condition()


def one(topic: Topic) -> Condition | None:
    comparison = compare(topic)
    return None if comparison is None else of(comparison)


def of(comparison: Comparison) -> Condition:
    return Condition(comparison.where, comparison.words, (), (comparison.attribute,), comparison.mentions)


def two(topic: Topic) -> Condition | None:
    """Both of two comparisons, or at least one of them."""
    first = compare(topic)
    second = first and compare(topic, avoid=(first.attribute,))
    if first is None or second is None:
        return None
    joint = topic.dice.weighted({"and": 3.0, "or": 2.0})
    join = exp.and_ if joint == "and" else exp.or_
    words = tuple(f"{a} {joint} {b}" for a in first.words for b in second.words)
    return Condition(
        join(first.where, second.where, copy=False),
        words,
        (),
        (first.attribute, second.attribute),
        (*first.mentions, *second.mentions),
    )


def of_parent(topic: Topic) -> Condition | None:
    """What the row that each row refers to is like."""
    relation = topic.pick_relation(topic.world.parents(topic.entity))
    if relation is None:
        return None
    parent = topic.world.entities[relation.parent]
    comparison = compare(topic.about(parent, relation))
    if comparison is None or not comparison.limits:
        return None
    noun, attribute = relation.noun, comparison.attribute
    words = tuple(f"whose {noun} has {attribute.noun} {limit}" for limit in comparison.limits)
    mentions = (*comparison.mentions, (noun,))
    if parent.label == (attribute,) and isinstance(comparison.where, exp.EQ):
        words = tuple(f"whose {noun} is {limit}" for limit in comparison.limits)
        mentions = (*comparison.mentions[-1:], (noun,))
    return Condition(comparison.where, words, (relation,), (), mentions)


def beyond_average(topic: Topic) -> Condition | None:
    number = topic.number()
    if number is None:
        return None
    operator, side = topic.dice.pick(((exp.GT, "above"), (exp.LT, "below")))
    average = topic.sql.select(exp.Avg(this=topic.sql.column(number))).from_(topic.sql.table(topic.entity))
    words = (
        f"whose {number.noun} {number.verb} {side} the average {number.noun} of all {topic.entity.many}",
        f"with {number.noun} {side} the average over all {topic.entity.many}",
    )
    where = operator(this=topic.sql.column(number), expression=average.subquery(copy=False))
    return Condition(where, words, (), (number,), (mention(number), (side,), ("average",)))


def by_children(topic: Topic) -> Condition | None:
    """Rows that have, or lack, rows of another table, referring to them or linked to them."""
    direct = [(relation, None) for relation in topic.world.children(topic.entity)]
    found = topic.dice.pick([*direct, *topic.world.links(topic.entity)] or [None])  # type: ignore[list-item]
    if found is None:
        return None
    relation, other = found
    named = topic.world.entities[other.parent if other else relation.child]
    lacking = topic.dice.chance(0.5)
    inner = (
        one(topic.about(named, other or relation)) if topic.dice.chance(0.6) or not lacking else EVERYTHING
    )
    if inner is None or (not lacking and inner.where is None):
        return None
    where = _has(topic, relation, other, named, inner, lacking=lacking)
    starts = (
        (f"without any {named.many}", f"with no {named.many}")
        if lacking
        else (f"with at least one {named.one}",)
    )
    words = tuple(f"{start} {ending}".strip() for start in starts for ending in inner.words)
    return Condition(where, words, (), (), ((named.one, named.many), *inner.mentions))


def _has(
    topic: Topic,
    relation: Relation,
    other: Relation | None,
    named: Entity,
    inner: Condition,
    *,
    lacking: bool,
) -> exp.Expr:
    """`key [NOT] IN (SELECT …)`; EXISTS where keys are composite, and where a NULL would make NOT IN empty."""
    sql = topic.sql
    correlated = len(relation.columns) > 1 or (lacking and relation.has_nulls) or topic.dice.chance(0.15)
    selected: exp.Expr = (
        exp.Literal.number(1) if correlated else sql.named(relation.child, relation.columns[0])
    )
    select = sql.select(selected).from_(sql.table(relation.child), copy=False)
    if other is not None and inner.where is not None:
        select = sql.joined(select, other, to=named.name)
    conditions = [*(sql.matching(relation) if correlated else []), *([inner.where] if inner.where else [])]
    if conditions:
        select = select.where(*conditions, copy=False)
    where: exp.Expr
    if correlated:
        where = exp.Exists(this=select)
    else:
        where = exp.In(
            this=sql.named(relation.parent, relation.parent_columns[0]), query=select.subquery(copy=False)
        )
    return exp.Not(this=where) if lacking else where


Draw = Callable[[Topic], Condition | None]
SIMPLE: dict[Draw | None, float] = {None: 4.0, one: 4.0, two: 0.7}
FILTERS: dict[Draw | None, float] = {
    one: 5.0,
    two: 4.0,
    of_parent: 4.0,
    beyond_average: 1.2,
    by_children: 2.5,
}


def draw(topic: Topic, kinds: dict[Draw | None, float]) -> Condition | None:
    """A condition of one of `kinds` (None stands for all rows), or None where the entity allows none like it."""
    kind = topic.dice.weighted(kinds)
    return kind(topic) if kind else EVERYTHING


def source(topic: Topic, select: exp.Select, condition: Condition) -> exp.Select:
    """`select` FROM the entity, joined to what the condition speaks of, WHERE it holds."""
    select = select.from_(topic.sql.table(topic.entity), copy=False)
    for relation in condition.joins:
        select = topic.sql.joined(select, relation, to=relation.parent)
    return select.where(condition.where, copy=False) if condition.where is not None else select


def things(entity: Entity, condition: Condition = EVERYTHING) -> dict[str, tuple[str, ...]]:
    return {"thing": (entity.one,), "things": (entity.many,), "mod": condition.words}
