"""The prompts of a benchmark: one prefix for each database where it fits, one for each question where it must be."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from distilsql.data.example import Example
from distilsql.databases.database import Database
from distilsql.prompts.budget import (
    Budget,
    CountTokens,
    FittedPrefix,
    fit_prefix,
    fit_to_gold,
    fit_to_question,
)
from distilsql.prompts.codes import Prompt, PromptOptions, build_suffix, question_text


def build_prompts(
    examples: Sequence[Example],
    databases: Mapping[str, Database],
    options: PromptOptions,
    *,
    count_tokens: CountTokens,
    training: bool = False,
    seed: int = 0,
    cache_folder: Path | None = None,
) -> tuple[Prompt, ...]:
    """One Prompt for each example, in order, every prefix within `options.max_prefix_tokens`.

    Where the schema filter applies, `training` shows the gold's columns among random ones (by `seed` and the
    example's id) instead of the most relevant to the question. Raises DataError if a budget cannot be kept.
    """
    builder = _Builder(
        databases, options, Budget(options.max_prefix_tokens, count_tokens), training, seed, cache_folder
    )
    return tuple(builder.prompt(example) for example in examples)


def describe_cuts(prompts: Sequence[Prompt]) -> str:
    """A sentence on how many prompts the budget or the filter touched, and by which rule."""
    counts = Counter(prompt.rule for prompt in prompts)
    touched = len(prompts) - counts.pop("whole", 0)
    if not touched:
        return f"All {len(prompts):,} prompts show their whole schema."
    rules = ", ".join(f"{rule} {count:,}" for rule, count in counts.most_common())
    return f"{touched:,} of {len(prompts):,} prompts were cut: {rules}."


@dataclass
class _Builder:
    databases: Mapping[str, Database]
    options: PromptOptions
    budget: Budget
    training: bool
    seed: int
    cache_folder: Path | None
    shared: dict[str, FittedPrefix] = field(default_factory=dict)

    def prompt(self, example: Example) -> Prompt:
        database = self.databases[example.db_id]
        prefix = self._prefix(example, database)
        shown = replace(database, schema=prefix.schema)
        suffix = build_suffix(example, shown, self.options, cache_folder=self.cache_folder)
        return Prompt(prefix.text, suffix, prefix.rule, prefix.cut)

    def _prefix(self, example: Example, database: Database) -> FittedPrefix:
        if self.options.schema_filter == "always":
            return self._own_prefix(example, database)
        if example.db_id not in self.shared:
            self.shared[example.db_id] = fit_prefix(
                database, self.options, self.budget.count, self.budget.tokens
            )
        shared = self.shared[example.db_id]
        if shared.rule == "whole" or self.options.schema_filter == "never":
            return shared
        return self._own_prefix(example, database)

    def _own_prefix(self, example: Example, database: Database) -> FittedPrefix:
        if self.training:
            rng = random.Random(f"{self.seed}/{example.example_id}")
            return fit_to_gold(database, self.options, self.budget, example.gold_sql, rng)
        text = question_text(example)
        return fit_to_question(database, self.options, self.budget, text, self.cache_folder)
