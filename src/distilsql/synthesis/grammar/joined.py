"""Patterns over the key graph: rows beside those they refer to, parents by their children, links between entities."""

from dataclasses import dataclass

from sqlglot import exp

from distilsql.synthesis.grammar.comparisons import compare
from distilsql.synthesis.grammar.conditions import EVERYTHING, Condition, draw, of, one, things
from distilsql.synthesis.grammar.draft import Draft, Mentions, Phrases, Topic, mention, said_of
from distilsql.synthesis.grammar.grouped import AT_LEAST, FEWER_THAN, MORE_THAN
from distilsql.synthesis.grammar.single import (
    FUNCTION_WORDS,
    applied,
    degree_words,
    draw_function,
    ordered,
)
from distilsql.synthesis.world import Attribute, Entity, Relation


@dataclass(frozen=True)
class Family:
    """The topic's entity joined to `parent`; `condition` is on the entity."""

    relation: Relation
    parent: Entity
    condition: Condition
    words: dict[str, tuple[str, ...]]

    @property
    def mentions(self) -> Mentions:
        return (*self.condition.mentions, (self.relation.noun, self.parent.one, self.parent.many))


def _with_parent(topic: Topic, conditional: float, *, from_parent: bool = False) -> Family | None:
    """`from_parent`: asked from the parent's side, which must be named and related in one way alone."""
    relations = [
        relation
        for relation in topic.world.parents(topic.entity)
        if topic.world.entities[relation.parent].spoken
        and (not from_parent or (relation.is_only and not relation.is_unique))
        and (not from_parent or _name_of(topic.world.entities[relation.parent]))
    ]
    relation = topic.pick_relation(relations)
    if relation is None:
        return None
    condition = draw(topic, {None: 1 - conditional, one: conditional})
    if condition is None:
        return None
    parent = topic.world.entities[relation.parent]
    words = {
        **things(topic.entity, condition),
        "rel": (relation.noun,),
        "parent": (parent.one,),
        "parents": (parent.many,),
    }
    return Family(relation, parent, condition, words)


def _name_of(parent: Entity) -> tuple[Attribute, ...]:
    """What a row is called in a result: its label, else its key of one column."""
    return parent.label or tuple(a for a in parent.attributes if parent.key == (a.name,))


def _labelled(parent: Entity) -> dict[str, tuple[str, ...]]:
    """The slots `label` and `labels`."""
    said = said_of(_name_of(parent))
    return {"label": said["attr"], "labels": said["attrs"]}


def _joined(topic: Topic, family: Family, *selected: exp.Expr) -> exp.Select:
    query = topic.sql.select(*selected).from_(topic.sql.table(topic.entity), copy=False)
    query = topic.sql.joined(query, family.relation, to=family.parent.name)
    where = family.condition.where
    return query.where(where, copy=False) if where is not None else query


def _by_parent(topic: Topic, parent: Entity) -> list[exp.Expr]:
    """What to group by so that each parent is one group: its name, and its key where names may repeat."""
    name = _name_of(parent)
    is_unique = any(attribute.profile.is_unique for attribute in name)
    key = [] if is_unique else [topic.sql.named(parent.name, column) for column in parent.key]
    known = {attribute.name for attribute in name}
    return [*(k for k in key if k.name not in known), *map(topic.sql.column, name)]


def pair(topic: Topic) -> Draft | None:
    """Columns of each row beside one of the row that it refers to."""
    family = _with_parent(topic, 0.55)
    outputs = topic.outputs(family.condition.attributes) if family else []
    if family is None or not outputs:
        return None
    theirs = topic.about(family.parent, family.relation).outputs()[:2]
    if not theirs:
        return None
    query = _joined(topic, family, *map(topic.sql.column, [*outputs, *theirs]))
    said = said_of(theirs)
    words = {**family.words, **said_of(outputs), "parent_attr": said["attr"]}
    return Draft("pair", query, words, (*family.mentions, *map(mention, [*outputs, *theirs])))


def per_parent(topic: Topic) -> Draft | None:
    """How many rows each parent has; those without any are left out, or counted too."""
    family = _with_parent(topic, 0.4, from_parent=True)
    if family is None:
        return None
    sql, name = topic.sql, _name_of(family.parent)
    words = {**family.words, **_labelled(family.parent)}
    mentions = (*family.mentions, *map(mention, name))
    if family.condition is EVERYTHING and topic.dice.chance(0.4):
        counted = sql.count(sql.named(topic.entity.name, family.relation.columns[0]))
        query = sql.select(*map(sql.column, name), counted).from_(sql.table(family.parent), copy=False)
        query = sql.joined(query, family.relation, to=topic.entity.name, kind="left")
        return Draft(
            "per_parent_all", query.group_by(*_by_parent(topic, family.parent), copy=False), words, mentions
        )
    query = _joined(topic, family, *map(sql.column, name), sql.count())
    return Draft("per_parent", query.group_by(*_by_parent(topic, family.parent), copy=False), words, mentions)


def parent_having(topic: Topic) -> Draft | None:
    family = _with_parent(topic, 0.35, from_parent=True)
    if family is None:
        return None
    usual = max(1, round(topic.entity.row_count / max(family.parent.row_count, 1)))
    limit = topic.dice.between(max(1, usual // 2), usual + 3)
    limit = max(limit, 2) if topic.dice.chance(0.7) else limit
    said, operator = topic.dice.weighted({MORE_THAN: 3.0, AT_LEAST: 2.0, FEWER_THAN: 0.7})
    if operator is exp.LT:
        said = ("at least one but fewer than",)
    name = _name_of(family.parent)
    query = _joined(topic, family, *map(topic.sql.column, name)).group_by(
        *_by_parent(topic, family.parent), copy=False
    )
    query = query.having(operator(this=topic.sql.count(), expression=topic.sql.literal(limit)), copy=False)
    words = {**family.words, **_labelled(family.parent), "cmp": said, "k": (str(limit),)}
    words["things"] = (topic.entity.one,) if limit == 1 else (topic.entity.many,)
    return Draft("parent_having", query, words, (*family.mentions, *map(mention, name), (str(limit),)))


def parent_most(topic: Topic) -> Draft | None:
    family = _with_parent(topic, 0.35, from_parent=True)
    if family is None:
        return None
    how_many = 1 if topic.dice.chance(0.7) else topic.dice.between(2, 3)
    name = _name_of(family.parent)
    query = _joined(topic, family, *map(topic.sql.column, name)).group_by(
        *_by_parent(topic, family.parent), copy=False
    )
    query = query.order_by(topic.sql.ordered(topic.sql.count(), descending=True), copy=False)
    words = {**family.words, **_labelled(family.parent), "k": (str(how_many),)}
    pattern = "parent_most" if how_many == 1 else "parent_most_some"
    return Draft(pattern, query.limit(how_many, copy=False), words, (*family.mentions, *map(mention, name)))


def parent_aggregate(topic: Topic) -> Draft | None:
    family = _with_parent(topic, 0.3, from_parent=True)
    number = topic.number(family.condition.attributes) if family else None
    if family is None or number is None:
        return None
    function, name = draw_function(topic, number), _name_of(family.parent)
    query = _joined(topic, family, *map(topic.sql.column, name), applied(topic, function, number))
    words = {
        **family.words,
        **_labelled(family.parent),
        "agg": FUNCTION_WORDS[function],
        "num": (number.noun,),
    }
    query = query.group_by(*_by_parent(topic, family.parent), copy=False)
    return Draft("parent_aggregate", query, words, (*family.mentions, *map(mention, name), mention(number)))


def parent_of_top(topic: Topic) -> Draft | None:
    """The row that the first row in an order refers to."""
    family = _with_parent(topic, 0.25)
    by = topic.sortable(family.condition.attributes) if family else None
    theirs = topic.about(family.parent, family.relation).outputs()[:2] if family else []
    if family is None or by is None or not theirs or family.relation.has_nulls:
        return None
    descending = topic.dice.chance(0.6)
    query = _joined(topic, family, *map(topic.sql.column, theirs))
    query = query.order_by(ordered(topic, by, descending=descending), copy=False).limit(1, copy=False)
    words = {**family.words, "parent_attr": said_of(theirs)["attr"], "by": (by.noun,)}
    words["degree"] = degree_words(by, descending=descending)
    return Draft("parent_of_top", query, words, (*family.mentions, *map(mention, theirs), mention(by)))


def by_parent_group(topic: Topic) -> Draft | None:
    """How many rows there are, or what an amount of theirs is, for each value of a column of their parents."""
    family = _with_parent(topic, 0.35)
    column = topic.about(family.parent, family.relation).group() if family else None
    if family is None or column is None or column.has_nulls:
        return None
    words = {**family.words, "cat": (column.noun,)}
    number = topic.number(family.condition.attributes)
    value: exp.Expr = topic.sql.count()
    mentions, pattern = (*family.mentions, mention(column)), "parent_group"
    if number is not None and topic.dice.chance(0.4):
        function = draw_function(topic, number)
        value, pattern = applied(topic, function, number), "parent_group_aggregate"
        words |= {"agg": FUNCTION_WORDS[function], "num": (number.noun,)}
        mentions = (*mentions, mention(number))
    query = _joined(topic, family, topic.sql.column(column), value)
    return Draft(pattern, query.group_by(topic.sql.column(column), copy=False), words, mentions)


def chain(topic: Topic) -> Draft | None:
    """Rows whose parent's parent is of some kind, or what that one is called."""
    family = _with_parent(topic, 0.0)
    if family is None:
        return None
    upper = [r for r in topic.world.parents(family.parent) if r.parent != topic.entity.name]
    relation = topic.pick_relation([r for r in upper if topic.world.entities[r.parent].spoken])
    outputs = topic.outputs()
    if relation is None or not outputs:
        return None
    grand = topic.world.entities[relation.parent]
    words: dict[str, tuple[str, ...]] = {**family.words, **said_of(outputs), "grand": (relation.noun,)}
    mentions = (*family.mentions, (relation.noun,), *map(mention, outputs))
    if topic.dice.chance(0.5):
        comparison = compare(topic.about(grand, relation))
        if comparison is None or not comparison.limits:
            return None
        query = _joined(topic, family, *map(topic.sql.column, outputs))
        query = topic.sql.joined(query, relation, to=grand.name).where(comparison.where, copy=False)
        words["limit"] = tuple(f"{comparison.attribute.noun} {limit}" for limit in comparison.limits)
        return Draft("chain_condition", query, words, (*mentions, *comparison.mentions))
    theirs = topic.about(grand, relation).outputs()[:2]
    if not theirs:
        return None
    query = _joined(topic, family, *map(topic.sql.column, [*outputs, *theirs]))
    words["grand_attr"] = said_of(theirs)["attr"]
    return Draft(
        "chain", topic.sql.joined(query, relation, to=grand.name), words, (*mentions, *map(mention, theirs))
    )


def _linked(topic: Topic) -> tuple[Relation, Relation, Entity, Condition, Phrases, Mentions] | None:
    """The entity, a link, and what it is linked to, with a condition on that."""
    links = topic.world.links(topic.entity)
    if not links or not _name_of(topic.entity):
        return None
    mine, other = topic.dice.pick(links)
    far = topic.world.entities[other.parent]
    comparison = compare(topic.about(far, other)) if topic.dice.chance(0.4) else None
    condition = of(comparison) if comparison else EVERYTHING
    words = {
        "thing": (topic.entity.one,),
        "all": (topic.entity.many,),
        "other": (far.one,),
        "others": (far.many,),
        "mod": condition.words,
        **_labelled(topic.entity),
    }
    mentions = (*condition.mentions, (topic.entity.one, topic.entity.many), (far.one, far.many))
    return mine, other, far, condition, words, (*mentions, *map(mention, _name_of(topic.entity)))


def _through_link(
    topic: Topic,
    mine: Relation,
    other: Relation,
    far: Entity | None,
    condition: Condition,
    *selected: exp.Expr,
) -> exp.Select:
    query = topic.sql.select(*selected).from_(topic.sql.table(topic.entity), copy=False)
    query = topic.sql.joined(query, mine, to=mine.child)
    if far is not None:
        query = topic.sql.joined(query, other, to=far.name)
    return query.where(condition.where, copy=False) if condition.where is not None else query


def link_list(topic: Topic) -> Draft | None:
    found = _linked(topic)
    theirs = topic.about(found[2], found[1]).outputs()[:1] if found else []
    if found is None or not theirs:
        return None
    mine, other, far, condition, words, mentions = found
    selected = map(topic.sql.column, [*_name_of(topic.entity), *theirs])
    query = _through_link(topic, mine, other, far, condition, *selected)
    words = {**words, "other_attr": (theirs[0].noun,)}
    return Draft("link_list", query, words, (*mentions, mention(theirs[0])))


def link_count(topic: Topic) -> Draft | None:
    """How many of another entity each row is linked to; or the row that is linked to most."""
    found = _linked(topic)
    if found is None:
        return None
    mine, other, far, condition, words, mentions = found
    read = far if condition.where is not None else None
    name = [topic.sql.column(attribute) for attribute in _name_of(topic.entity)]
    if topic.dice.chance(0.6):
        query = _through_link(topic, mine, other, read, condition, *name, topic.sql.count())
        return Draft(
            "link_count", query.group_by(*_by_parent(topic, topic.entity), copy=False), words, mentions
        )
    query = _through_link(topic, mine, other, read, condition, *name)
    query = query.group_by(*_by_parent(topic, topic.entity), copy=False)
    key = topic.sql.ordered(topic.sql.count(), descending=True)
    return Draft("link_most", query.order_by(key, copy=False).limit(1, copy=False), words, mentions)


def average_children(topic: Topic) -> Draft | None:
    """The parents that have more than the average number of rows: a query with a name of its own (CTE)."""
    family = _with_parent(topic, 0.0, from_parent=True)
    if family is None or len(_name_of(family.parent)) != 1:
        return None
    sql, name = topic.sql, _name_of(family.parent)
    number = exp.alias_(sql.count(), "number", copy=False)
    counts = _joined(topic, family, *map(sql.column, name), number).group_by(
        *_by_parent(topic, family.parent), copy=False
    )
    average = sql.select(exp.Avg(this=exp.column("number"))).from_("counts", copy=False)
    query = sql.select(exp.Column(this=sql.identifier(name[0].name))).from_("counts", copy=False)
    query = query.where(
        exp.GT(this=exp.column("number"), expression=average.subquery(copy=False)), copy=False
    )
    words = {**family.words, **_labelled(family.parent)}
    query = query.with_("counts", as_=counts, copy=False)
    return Draft("above_average_count", query, words, (*family.mentions, *map(mention, name)))
