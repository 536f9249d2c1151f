"""Patterns of two queries taken together: both, one but not the other, either."""

from collections.abc import Sequence

from sqlglot import exp

from distilsql.synthesis.grammar.comparisons import Comparison, compare, compare_attribute
from distilsql.synthesis.grammar.conditions import EVERYTHING, of, source, things
from distilsql.synthesis.grammar.draft import Draft, Topic, mention, said_of
from distilsql.synthesis.roles import Role
from distilsql.synthesis.world import Attribute, Relation

_OPERATIONS: dict[str, type[exp.SetOperation]] = {"both": exp.Intersect, "but_not": exp.Except}


def _combined(kind: type[exp.SetOperation], left: exp.Select, right: exp.Select) -> exp.SetOperation:
    return kind(this=left, expression=right, distinct=True)


def _two_comparisons(topic: Topic, avoid: tuple[Attribute, ...]) -> tuple[Comparison, Comparison] | None:
    """Two that differ, mostly of one column: "in 2014" and "in 2015"."""
    alone = tuple(topic.entity.of_role(Role.NAME, Role.TEXT))  # no two rows share a name
    first = compare(topic, (*avoid, *alone))
    if first is None:
        return None
    again = topic.dice.chance(0.7)
    second = (
        compare_attribute(topic, first.attribute)
        if again
        else compare(topic, (*avoid, *alone, first.attribute))
    )
    if second is None or second.where == first.where:
        return None
    return first, second


def values_of_groups(topic: Topic) -> Draft | None:
    """The values of a column that some rows have, and others too, or no others."""
    column = topic.pick([a for a in topic.entity.of_role(Role.CATEGORY, Role.CODE) if not a.has_nulls])
    pair = _two_comparisons(topic, (column,)) if column else None
    if column is None or pair is None:
        return None
    kind = topic.dice.pick(("both", "but_not"))
    first, second = pair
    left, right = (
        source(topic, topic.sql.select(topic.sql.column(column)), of(comparison)) for comparison in pair
    )
    words = {
        **things(topic.entity),
        "cat": (column.noun,),
        "cats": (column.nouns,),
        "first": first.words,
        "second": second.words,
    }
    mentions = (mention(column), *first.mentions, *second.mentions)
    return Draft(f"values_{kind}", _combined(_OPERATIONS[kind], left, right), words, mentions)


def parents_of_groups(topic: Topic) -> Draft | None:
    """Rows that have children of one kind, and of another, or none of the other."""
    relations: Sequence[Relation] = topic.world.children(topic.entity)
    relation, label = topic.pick_relation(relations), topic.entity.label
    if relation is None or len(label) != 1 or not label[0].profile.is_unique:
        return None
    child = topic.world.entities[relation.child]
    pair = _two_comparisons(topic.about(child), ())
    if pair is None:
        return None
    kind = topic.dice.pick(("both", "but_not"))
    queries = []
    for comparison in pair:
        query = topic.sql.select(topic.sql.column(label[0])).from_(topic.sql.table(topic.entity), copy=False)
        query = topic.sql.joined(query, relation, to=child.name)
        queries.append(query.where(comparison.where, copy=False))
    said = said_of(label)
    words = {
        **things(topic.entity),
        "label": said["attr"],
        "labels": said["attrs"],
        "child": (child.one,),
        "children": (child.many,),
        "first": pair[0].words,
        "second": pair[1].words,
    }
    mentions = (mention(label[0]), (child.one, child.many), *pair[0].mentions, *pair[1].mentions)
    return Draft(f"parents_{kind}", _combined(_OPERATIONS[kind], *queries), words, mentions)


def shared_values(topic: Topic) -> Draft | None:
    """What is found in a column of one table, of another, or of both: cities of customers and of shops."""
    mine = topic.pick(
        [a for a in topic.entity.of_role(Role.CATEGORY, Role.NAME) if a.noun not in ("name", "title")]
    )
    if mine is None or mine.has_nulls:
        return None
    others = [
        attribute
        for entity in topic.world.topics
        if entity.name != topic.entity.name
        for attribute in entity.of_role(Role.CATEGORY, Role.NAME)
        if attribute.noun == mine.noun and not attribute.has_nulls
    ]
    other = topic.pick(others)
    if other is None:
        return None
    kind, operation = topic.dice.weighted(
        {("either", exp.Union): 2.0, ("both", exp.Intersect): 1.5, ("but_not", exp.Except): 1.0}
    )
    far = topic.world.entities[other.table]
    left = source(topic, topic.sql.select(topic.sql.column(mine)), EVERYTHING)
    right = topic.sql.select(topic.sql.column(other)).from_(topic.sql.table(far), copy=False)
    words = {**things(topic.entity), "cats": (mine.nouns,), "others": (far.many,)}
    mentions = (mention(mine), (topic.entity.many,), (far.many,))
    return Draft(f"shared_{kind}", _combined(operation, left, right), words, mentions)
