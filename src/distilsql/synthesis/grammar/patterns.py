"""Patterns: all kinds of query, how often each is drawn, and how hard it is."""

import re
from collections import Counter
from collections.abc import Callable

from sqlglot import exp

from distilsql.data.dice import Dice
from distilsql.synthesis.grammar import grouped, joined, sets, single
from distilsql.synthesis.grammar.draft import ColumnName, Draft, Topic
from distilsql.synthesis.grammar.sql import Sql
from distilsql.synthesis.grammar.wordings import WORDINGS
from distilsql.synthesis.world import World

Pattern = Callable[[Topic], Draft | None]
# What people ask most is most frequent.
PATTERNS: dict[Pattern, float] = {
    single.list_rows: 8.0,
    single.all_columns: 0.6,
    single.count: 5.0,
    single.aggregate: 3.0,
    single.several_aggregates: 1.0,
    single.spread: 0.4,
    single.distinct: 1.8,
    single.order: 2.0,
    single.top: 3.5,
    single.extreme: 0.8,
    single.share: 0.8,
    single.per_year: 0.8,
    single.than_another: 0.5,
    grouped.group_count: 1.8,
    grouped.group_aggregate: 1.8,
    grouped.two_groups: 0.4,
    grouped.having_count: 1.2,
    grouped.having_aggregate: 0.7,
    grouped.most_common: 1.4,
    grouped.best_group: 0.6,
    grouped.average_size: 0.4,
    grouped.best_of_group: 0.5,
    grouped.group_then_sort: 0.5,
    joined.pair: 2.4,
    joined.per_parent: 2.0,
    joined.parent_having: 1.4,
    joined.parent_most: 1.5,
    joined.parent_aggregate: 1.2,
    joined.parent_of_top: 1.3,
    joined.by_parent_group: 1.2,
    joined.chain: 1.4,
    joined.link_list: 0.9,
    joined.link_count: 1.2,
    joined.average_children: 0.3,
    sets.values_of_groups: 1.0,
    sets.parents_of_groups: 0.9,
    sets.shared_values: 0.4,
}
# "class A and class B": the A is no article.
_AFTER_A_NAME = r"(and|or|is|are|of|in|at|above|on|equal|either|each|other|as)\b"
LEVELS = ("easy", "medium", "hard", "extra")


def draw_draft(
    world: World, sql: Sql, dice: Dice, uses: Counter[ColumnName]
) -> tuple[Draft, tuple[ColumnName, ...]] | None:
    """A draft and the columns it asks about, or None where the entity that was drawn allows none of the pattern.

    Entities are drawn by how much can be said of them, and less often the more was asked about them. One that has
    nothing but what it refers to counts as asked about as often as the others are on average.
    """
    if not world.topics:
        return None
    asked = Counter[str]()
    for (table, _), times in uses.items():
        asked[table] += times
    shares = {
        position: len(entity.spoken) / (1 + asked[entity.name] / len(entity.spoken))
        if entity.spoken
        else 1 / (1 + asked.total() / len(world.topics))
        for position, entity in enumerate(world.topics)
    }
    topic = Topic(world, world.topics[dice.weighted(shares)], dice, sql, uses)
    draft = dice.weighted(PATTERNS)(topic)
    return None if draft is None else (draft, tuple(topic.picked))


def word(draft: Draft, times: int, dice: Dice) -> list[str]:
    """The draft's query asked up to `times` times, never twice in the same words, each saying all that it must."""
    questions: dict[str, None] = {}
    for _ in range(6 * times):
        if len(questions) < times:
            phrases = {slot: dice.pick(options) for slot, options in draft.phrases.items()}
            question = tidy(dice.pick(WORDINGS[draft.pattern]).format(**phrases))
            if says_everything(question, draft):
                questions[question] = None
    return list(questions)


def says_everything(question: str, draft: Draft) -> bool:
    """Whether every constant, output and condition of the query is in the question, in one form or another."""
    said = question.lower()
    return all(any(form.lower() in said for form in forms) for forms in draft.mentions)


def tidy(text: str) -> str:
    """Close the gap that an empty condition leaves, and let "a" stand before no vowel."""
    text = re.sub(r" (?=[ ,.?;:])", "", text)
    return re.sub(rf"\b([Aa]) (?=(?!uni|use|euro|one\b|{_AFTER_A_NAME})[aeiou])", r"\1n ", text)


def level(query: exp.Expr) -> str:
    """How hard a query is: by its joins, groups, orders, nested queries and set operations, counted."""
    points = len(list(query.find_all(exp.Join))) + len(list(query.find_all(exp.Group)))
    points += (
        bool(query.find(exp.Order)) + bool(query.find(exp.Having)) + 2 * bool(query.find(exp.SetOperation))
    )
    points += 2 * (len(list(query.find_all(exp.Select))) > 1) + 2 * bool(query.find(exp.With, exp.Window))
    points += len(list(query.find_all(exp.And, exp.Or)))
    return LEVELS[min(points, 5) // 2 if points > 1 else points and 1]
