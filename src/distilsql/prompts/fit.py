"""Keeping a prompt within its token budget, by a named rule and never silently.

CodeS cuts a prompt that is too long from the left, which loses schema. Here the least relevant goes first:

| rule | what the prefix shows |
|---|---|
| whole | the whole schema |
| fixed cut | the same for all questions: what training uses and keys, with all that is known of them, then the rest |
| without values | the whole schema without sample values |
| without values and comments | the whole schema without sample values and comments |
| filtered | the tables and columns most relevant to the question |
| gold and random | in training: what the gold uses, filled up at random to the size of the filter, shuffled |
| fewer columns | as many columns as fit, in the order of relevance; keys first where there is no question |

Matched values are those of the columns that are shown. They are cut only where a prompt would not fit with one column,
or beside the prefix that all questions of its database share.
"""

import random
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
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
    matched_in,
    options_for,
    question_text,
    suffix_of,
)
from distilsql.prompts.relevance import gold_columns, key_columns, most_relevant, relevance, restrict

CutRule = Literal[
    "whole",
    "fixed cut",
    "without values",
    "without values and comments",
    "filtered",
    "gold and random",
    "fewer columns",
]
CountTokens = Callable[[str], int]
Matches = Mapping[ColumnName, tuple[str, ...]]
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
    """At most `prefix_tokens` tokens for a prefix, and `tokens` for it and its suffix, counted by `count` (the
    tokenizer's, without its special tokens). `suffix` is the one that goes with what a prefix shows."""

    count: CountTokens
    prefix_tokens: int
    tokens: int
    suffix: Callable[[Schema], str] = lambda shown: ""

    def holds(self, fitted: FittedPrefix) -> bool:
        if fitted.tokens > self.prefix_tokens:
            return False
        return fitted.tokens + self.count(self.suffix(fitted.schema)) <= self.tokens


def fit_prompt(
    example: Example,
    database: Database,
    options: PromptOptions,
    count_tokens: CountTokens,
    budget_tokens: int,
    *,
    shared: FittedPrefix | None = None,
    training_seed: int | None = None,
    cache_folder: Path | None = None,
) -> Prompt:
    """The prompt of `example` in at most `budget_tokens`, its prefix in at most `options.max_prefix_tokens` too.

    The prefix is the same for all questions of a database as long as the whole schema fits, and where
    `options.schema_filter` is "fixed" or "never" also if it does not: it is `shared` then, by default
    `shared_prefix(…)` without columns of its own. Otherwise it is filtered: by relevance to the question, or, given a
    `training_seed`, to what the gold uses among others drawn by that seed and the example's id. So is, but with
    "never", that of a question too long to stand beside the shared prefix. A prompt that no rule can make short enough
    comes out as short as the rules go. `cache_folder` is where value indexes are kept.
    """
    text, options = question_text(example), options_for(database, options)
    matched = matched_in(database, text, options, cache_folder) if options.include_matched_values else {}

    def suffix(shown: Schema, matches: Matches = matched) -> str:
        return suffix_of(text, shown, matches, options)

    budget = Budget(count_tokens, options.max_prefix_tokens, budget_tokens, suffix)
    if options.schema_filter in ("fixed", "never"):
        shared = shared or shared_prefix(database, options, count_tokens)
        matches = _values_that_fit(matched, shared, budget, suffix)
        if matches is not None or options.schema_filter == "never":
            return Prompt(shared.text, suffix(shared.schema, matches or {}), shared.rule, shared.cut)
    elif options.schema_filter == "when_needed":
        whole = _show(database, database.schema, options, "whole", budget)
        if budget.holds(whole):
            return Prompt(whole.text, suffix(whole.schema))
    if training_seed is not None:
        rng = random.Random(f"{training_seed}/{example.example_id}")
        fitted = fit_to_gold(database, options, budget, example.gold_sql, rng)
    else:
        fitted = fit_to_question(database, options, budget, text, matched)
    matches = _values_that_fit(matched, fitted, budget, suffix) or {}
    return Prompt(fitted.text, suffix(fitted.schema, matches), fitted.rule, fitted.cut)


def shared_prefix(
    database: Database,
    options: PromptOptions,
    count_tokens: CountTokens,
    first: Sequence[ColumnName] = (),
) -> FittedPrefix:
    """The fullest prefix of at most `options.max_prefix_tokens` that is the same for all questions of the database.

    Where the whole schema is too long, `options.schema_filter` "fixed" shows the columns `first`, keys, and the rest as
    far as there is room; anything else cuts by the schema alone.
    """
    budget = Budget(count_tokens, options.max_prefix_tokens, options.max_prefix_tokens)
    whole = _show(database, database.schema, options, "whole", budget)
    if budget.holds(whole):
        return whole
    if options.schema_filter == "fixed":
        return fit_to_training(database, options, budget, first)
    return fit_to_database(database, options, budget)


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
    budget = Budget(count_tokens, budget_tokens, budget_tokens)
    whole = _show(database, database.schema, options, "whole", budget)
    if budget.holds(whole):
        return whole
    if question is None:
        return fit_to_database(database, options, budget)
    matched = matched_in(database, question, options, cache_folder) if options.include_matched_values else {}
    return fit_to_question(database, options, budget, question, matched)


def fit_to_database(database: Database, options: PromptOptions, budget: Budget) -> FittedPrefix:
    """The prefix for every question of a database whose whole schema exceeds the budget, by the schema alone."""
    bare = replace(options, include_values=False)
    barest = replace(bare, include_comments=False)
    steps: tuple[tuple[CutRule, PromptOptions, tuple[str, ...]], ...] = (
        ("without values", bare, ("sample values",)),
        ("without values and comments", barest, ("sample values", "comments")),
    )
    for rule, fewer, cut in steps:
        fitted = replace(_show(database, database.schema, fewer, rule, budget), cut=cut)
        if budget.holds(fitted):
            return fitted
    fitted = _fewer_columns(database, database.schema, barest, budget, _keys_first(database.schema))
    return replace(fitted, cut=("sample values", "comments", *fitted.cut))


def fit_to_training(
    database: Database, options: PromptOptions, budget: Budget, first: Sequence[ColumnName]
) -> FittedPrefix:
    """The prefix for every question of a database whose whole schema exceeds the budget, by what training uses.

    The columns `first` and the keys come before all others; of each of the two groups, the columns before their
    comments, and these before their sample values. As much of this order is shown as fits, one thing at a time.
    """
    known = set(_names(database.schema))
    used = list(dict.fromkeys([*(name for name in first if name in known), *_keys(database.schema)]))
    others = [name for name in _names(database.schema) if name not in set(used)]
    order = [(part, name) for group in (used, others) for part in _PARTS for name in group]

    def show(count: int) -> FittedPrefix:
        shown: dict[str, set[ColumnName]] = {part: set() for part in _PARTS}
        for part, name in order[:count]:
            shown[part].add(name)
        return _show_parts(database, options, budget, shown)

    return show(_most(len(order), lambda count: budget.holds(show(count))))


_PARTS = ("column", "comment", "values")


def _show_parts(
    database: Database, options: PromptOptions, budget: Budget, shown: Mapping[str, set[ColumnName]]
) -> FittedPrefix:
    schema = restrict(database.schema, shown["column"])
    tables = [_with_comments(table, shown["comment"]) for table in schema.tables]
    schema = replace(schema, tables=tuple(tables))
    text = build_prefix(replace(database, schema=schema), options, with_values=shown["values"])
    bare = [f"{part} of {len(shown['column'] - shown[part])} columns" for part in _PARTS[1:]]
    cut = (*(said for said in bare if " of 0 " not in said), *_missing(database.schema, schema))
    return FittedPrefix(text, budget.count(text), "fixed cut", cut, schema)


def _with_comments(table: Table, commented: set[ColumnName]) -> Table:
    columns = tuple(
        column if (table.name, column.name) in commented else replace(column, comment="")
        for column in table.columns
    )
    return replace(table, columns=columns)


def fit_to_question(
    database: Database, options: PromptOptions, budget: Budget, question: str, matched: Matches
) -> FittedPrefix:
    """The prefix that shows what is most relevant to `question`, which mentions the values `matched`."""
    scores = relevance(database.schema, question, matched)
    schema = most_relevant(database.schema, scores, options.filter_tables, options.filter_columns)
    fitted = _show(database, schema, options, "whole" if schema == database.schema else "filtered", budget)
    if budget.holds(fitted):
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
    if budget.holds(fitted):
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

    return show(_most(len(order), lambda count: budget.holds(show(count))))


def _most(most: int, fits: Callable[[int], bool]) -> int:
    """The largest count from 1 to `most` that fits, found by halving: the next does not fit. 1 if none does."""
    counts = range(1, most + 1)
    return max(bisect_right(counts, False, key=lambda count: not fits(count)), 1)


def _values_that_fit(
    matched: Matches,
    fitted: FittedPrefix,
    budget: Budget,
    suffix: Callable[[Schema, Matches], str],
) -> dict[ColumnName, tuple[str, ...]] | None:
    """As many matched values of the shown columns as fit beside a prefix, each column's best first; None if the
    question does not fit without any."""
    values = [
        (rank, name, value)
        for name in _names(fitted.schema)
        for rank, value in enumerate(matched.get(name, ()))
    ]
    values.sort(key=lambda entry: entry[0])  # stable: the best value of every column, then the second best, …

    def of(count: int) -> dict[ColumnName, tuple[str, ...]]:
        kept: dict[ColumnName, tuple[str, ...]] = {}
        for _, name, value in values[:count]:
            kept[name] = (*kept.get(name, ()), value)
        return kept

    def fits(count: int) -> bool:
        return fitted.tokens + budget.count(suffix(fitted.schema, of(count))) <= budget.tokens

    if not fits(0):
        return None
    return of(_most(len(values), fits)) if values and fits(1) else {}


def _keys(schema: Schema) -> list[ColumnName]:
    keys = key_columns(schema)
    return [name for name in _names(schema) if name in keys]


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
