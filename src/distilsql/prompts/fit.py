"""Keeping a prompt within its token budget, by a named rule and never silently.

CodeS cuts a prompt that is too long from the left, which loses schema. Here the least relevant goes first:

| rule | what the prefix shows |
|---|---|
| whole | the whole schema |
| without values | the whole schema without sample values |
| without values and comments | the whole schema without sample values and comments |
| filtered | the tables and columns most relevant to the question |
| gold and random | in training: what the gold uses, filled up at random to the size of the filter, shuffled |
| fewer columns | as many columns as fit, in the order of relevance; keys first where there is no question |
"""

import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from distilsql.data.example import Example
from distilsql.databases.database import Database
from distilsql.databases.schema import Schema, Table
from distilsql.databases.values import ColumnName
from distilsql.prompts.codes import (
    Prompt,
    PromptOptions,
    build_prefix,
    build_suffix,
    matched_in,
    question_text,
)
from distilsql.prompts.relevance import gold_columns, key_columns, most_relevant, relevance, restrict

CutRule = Literal[
    "whole", "without values", "without values and comments", "filtered", "gold and random", "fewer columns"
]
CountTokens = Callable[[str], int]
T = TypeVar("T")


@dataclass(frozen=True)
class FittedPrefix:
    """A prefix of `tokens` tokens, the rule that made it fit, and what that cut (nothing for "whole").

    `schema` is what the prefix shows, which the suffix must keep to.
    """

    text: str
    tokens: int
    rule: CutRule
    cut: tuple[str, ...]
    schema: Schema


@dataclass(frozen=True)
class Budget:
    """At most `tokens` tokens, counted by `count` (the tokenizer's, without its special tokens)."""

    tokens: int
    count: CountTokens


def fit_prompt(
    example: Example,
    database: Database,
    options: PromptOptions,
    count_tokens: CountTokens,
    budget_tokens: int,
    *,
    training_seed: int | None = None,
    cache_folder: Path | None = None,
) -> Prompt:
    """The prompt of `example` in at most `budget_tokens`, its prefix in at most `options.max_prefix_tokens` too.

    The prefix is the same for all questions of a database as long as the whole schema fits, and always where
    `options.schema_filter` is "never". Otherwise it is filtered: by relevance to the question, or, given a
    `training_seed`, to what the gold uses among others drawn by that seed and the example's id. A prompt that no
    rule can make short enough comes out as short as the rules go. `cache_folder` is where value indexes are kept.
    """
    suffix = build_suffix(example, database, options, cache_folder=cache_folder)
    room = min(options.max_prefix_tokens, budget_tokens - count_tokens(suffix))
    budget = Budget(room, count_tokens)
    whole = _show(database, database.schema, options, "whole", budget)
    if whole.tokens <= room and options.schema_filter != "always":
        return Prompt(whole.text, suffix)
    if options.schema_filter == "never":
        # Not `room`: that depends on the question, and this prefix must not.
        fitted = fit_prefix(database, options, count_tokens, options.max_prefix_tokens)
    elif training_seed is not None:
        rng = random.Random(f"{training_seed}/{example.example_id}")
        fitted = fit_to_gold(database, options, budget, example.gold_sql, rng)
    else:
        fitted = fit_to_question(database, options, budget, question_text(example), cache_folder)
    shown = replace(database, schema=fitted.schema)
    suffix = build_suffix(example, shown, options, cache_folder=cache_folder)
    return Prompt(fitted.text, suffix, fitted.rule, fitted.cut)


def fit_prefix(
    database: Database,
    options: PromptOptions,
    count_tokens: CountTokens,
    budget_tokens: int,
    *,
    question: str | None = None,
    cache_folder: Path | None = None,
) -> FittedPrefix:
    """The fullest prefix of at most `budget_tokens`.

    Without a `question` the result is the same for all questions of the database: sample values go first, then
    comments, then the columns that are no keys, the last of each table first. With one, the schema is filtered
    by relevance to it. Only where a single column is too much does the result exceed the budget: see its `tokens`.
    """
    budget = Budget(budget_tokens, count_tokens)
    whole = _show(database, database.schema, options, "whole", budget)
    if whole.tokens <= budget_tokens:
        return whole
    if question is None:
        return fit_to_database(database, options, budget)
    return fit_to_question(database, options, budget, question, cache_folder)


def fit_to_database(database: Database, options: PromptOptions, budget: Budget) -> FittedPrefix:
    """The prefix for every question of a database whose whole schema exceeds the budget."""
    bare = replace(options, include_values=False)
    barest = replace(bare, include_comments=False)
    steps: tuple[tuple[CutRule, PromptOptions, tuple[str, ...]], ...] = (
        ("without values", bare, ("sample values",)),
        ("without values and comments", barest, ("sample values", "comments")),
    )
    for rule, fewer, cut in steps:
        fitted = replace(_show(database, database.schema, fewer, rule, budget), cut=cut)
        if fitted.tokens <= budget.tokens:
            return fitted
    fitted = _fewer_columns(database, database.schema, barest, budget, _keys_first(database.schema))
    return replace(fitted, cut=("sample values", "comments", *fitted.cut))


def fit_to_question(
    database: Database,
    options: PromptOptions,
    budget: Budget,
    question: str,
    cache_folder: Path | None = None,
) -> FittedPrefix:
    """The prefix that shows what is most relevant to `question`."""
    matched = matched_in(database, question, options, cache_folder) if options.include_matched_values else {}
    scores = relevance(database.schema, question, matched)
    schema = most_relevant(database.schema, scores, options.filter_tables, options.filter_columns)
    fitted = _show(database, schema, options, "whole" if schema == database.schema else "filtered", budget)
    if fitted.tokens <= budget.tokens:
        return fitted
    order = sorted(_names(schema), key=lambda name: -(scores.tables[name[0]] + scores.columns[name]))
    return _fewer_columns(database, schema, options, budget, order)


def fit_to_gold(
    database: Database, options: PromptOptions, budget: Budget, gold_sql: str, rng: random.Random
) -> FittedPrefix:
    """The prefix for training on `gold_sql`: the columns it uses among others drawn by `rng`, in shuffled order.

    CodeS trains so because at prediction time the filter keeps some columns that are not needed.
    """
    gold = gold_columns(database.schema, gold_sql)
    schema = _gold_and_random(database.schema, gold, options, rng)
    fitted = _show(database, schema, options, "gold and random", budget)
    if fitted.tokens <= budget.tokens:
        return fitted
    order = sorted(_names(schema), key=lambda name: name not in gold)
    return _fewer_columns(database, schema, options, budget, order)


def _gold_and_random(
    schema: Schema, gold: set[ColumnName], options: PromptOptions, rng: random.Random
) -> Schema:
    used = {table for table, _ in gold}
    tables = _fill_up(schema.tables, lambda table: table.name in used, options.filter_tables, rng)
    chosen = tuple(_shuffled_columns(table, gold, options, rng) for table in tables)
    shuffled = Schema(chosen, schema.foreign_keys)
    return restrict(shuffled, set(_names(shuffled)))


def _shuffled_columns(
    table: Table, gold: set[ColumnName], options: PromptOptions, rng: random.Random
) -> Table:
    columns = _fill_up(
        table.columns, lambda column: (table.name, column.name) in gold, options.filter_columns, rng
    )
    return replace(table, columns=tuple(columns))


def _fill_up(items: Sequence[T], is_needed: Callable[[T], bool], size: int, rng: random.Random) -> list[T]:
    needed = [item for item in items if is_needed(item)]
    others = [item for item in items if not is_needed(item)]
    chosen = needed + rng.sample(others, max(0, min(len(others), size - len(needed))))
    rng.shuffle(chosen)
    return chosen


def _fewer_columns(
    database: Database, schema: Schema, options: PromptOptions, budget: Budget, order: Sequence[ColumnName]
) -> FittedPrefix:
    """Show as many columns of `schema` as fit, taken in `order`."""

    def show(count: int) -> FittedPrefix:
        return _show(database, restrict(schema, set(order[:count])), options, "fewer columns", budget)

    counts = range(1, len(order) + 1)
    fitting = bisect_right(counts, budget.tokens, key=lambda count: show(count).tokens)
    return show(max(fitting, 1))


def _keys_first(schema: Schema) -> list[ColumnName]:
    keys = key_columns(schema)
    places = {name: place for table in schema.tables for place, name in enumerate(_names(Schema((table,))))}
    return sorted(places, key=lambda name: (name not in keys, places[name]))


def _show(
    database: Database, schema: Schema, options: PromptOptions, rule: CutRule, budget: Budget
) -> FittedPrefix:
    text = build_prefix(replace(database, schema=schema), options)
    return FittedPrefix(text, budget.count(text), rule, _missing(database.schema, schema), schema)


def _missing(whole: Schema, shown: Schema) -> tuple[str, ...]:
    """The tables that are not shown, and the columns that are not shown of those that are."""
    kept = set(_names(shown))
    tables = {table for table, _ in kept}
    gone = [f"table {table.name}" for table in whole.tables if table.name not in tables]
    gone += [
        f"column {table}.{column}"
        for table, column in _names(whole)
        if table in tables and (table, column) not in kept
    ]
    return tuple(gone)


def _names(schema: Schema) -> list[ColumnName]:
    return [(table.name, column.name) for table in schema.tables for column in table.columns]
