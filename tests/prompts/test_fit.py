import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distilsql.data.example import Example
from distilsql.databases.database import Database
from distilsql.databases.schema import Schema
from distilsql.prompts.codes import Prompt, PromptOptions, build_prefix, build_suffix
from distilsql.prompts.fit import fit_prefix, fit_prompt

OPTIONS = PromptOptions()
QUESTION = "What is field 7 3 of part 7?"
GOLD = "SELECT field_7_13 FROM part_7 AS T1 JOIN part_2 AS T2 ON T1.id = T2.id"
quick = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def count(text: str) -> int:
    return len(text.split())


def names(schema: Schema) -> set[tuple[str, str]]:
    return {(table.name, column.name) for table in schema.tables for column in table.columns}


def ask(number: int = 0, text: str = QUESTION) -> Example:
    return Example(f"x/{number}", "wide", text, GOLD)


def test_a_prefix_that_fits_is_whole(wide: Database) -> None:
    fitted = fit_prefix(wide, OPTIONS, count, 10_000)
    assert fitted.text == build_prefix(wide, OPTIONS)
    assert (fitted.rule, fitted.cut, fitted.schema) == ("whole", (), wide.schema)
    assert fit_prefix(wide, OPTIONS, count, fitted.tokens).rule == "whole"


def test_without_a_question_values_go_before_comments_and_comments_before_columns(concerts: Database) -> None:
    whole, rules = count(build_prefix(concerts, OPTIONS)), []
    for budget in range(whole, 20, -1):
        fitted = fit_prefix(concerts, OPTIONS, count, budget)
        assert fitted.tokens <= budget
        if fitted.rule not in rules:
            rules.append(fitted.rule)
            assert ("values :" in fitted.text) == (fitted.rule == "whole")
            assert ("comment :" in fitted.text) == (fitted.rule in ("whole", "without values"))
    assert rules == ["whole", "without values", "without values and comments", "fewer columns"]


def test_keys_are_the_last_columns_to_go(wide: Database) -> None:
    fitted = fit_prefix(wide, OPTIONS, count, 500)
    assert fitted.rule == "fewer columns"
    assert {(f"part_{number}", "id") for number in range(12)} <= names(fitted.schema)


@quick
@given(st.integers(1, 3000), st.sampled_from([None, QUESTION]))
def test_the_report_says_exactly_what_is_missing(
    wide: Database, cache: Path, budget: int, question: str | None
) -> None:
    fitted = fit_prefix(wide, OPTIONS, count, budget, question=question, cache_folder=cache)
    assert fitted.tokens == count(fitted.text)
    assert fitted.tokens <= budget or len(names(fitted.schema)) == 1
    gone = {name for name in names(wide.schema) if f"{name[0]}.{name[1]} (" not in fitted.text}
    assert gone == names(wide.schema) - names(fitted.schema)
    reported = {entry for entry in fitted.cut if entry.startswith(("table", "column"))}
    shown_tables = {table for table, _ in names(fitted.schema)}
    assert reported == {
        f"column {table}.{column}" if table in shown_tables else f"table {table}" for table, column in gone
    }
    assert (fitted.rule == "whole") == (not fitted.cut)


@quick
@given(st.integers(60, 3000), st.integers(0, 400))
def test_a_larger_budget_shows_no_less(wide: Database, cache: Path, budget: int, more: int) -> None:
    for question in (None, QUESTION):
        one = fit_prefix(wide, OPTIONS, count, budget, question=question, cache_folder=cache)
        other = fit_prefix(wide, OPTIONS, count, budget + more, question=question, cache_folder=cache)
        assert names(one.schema) <= names(other.schema)


def test_with_a_question_what_it_names_is_what_is_left(wide: Database, cache: Path) -> None:
    fitted = fit_prefix(wide, OPTIONS, count, 60, question=QUESTION, cache_folder=cache)
    assert ("part_7", "field_7_3") in names(fitted.schema)
    assert "part_7.field_7_3 ( text | values : value 7 )" in fitted.text


def fitted_prompt(
    database: Database, cache: Path, example: Example, budget: int, **changes: object
) -> Prompt:
    training_seed = changes.pop("training_seed", None)
    options = replace(OPTIONS, **changes)  # type: ignore[arg-type]
    return fit_prompt(
        example, database, options, count, budget, training_seed=training_seed, cache_folder=cache
    )  # type: ignore[arg-type]


def test_questions_share_the_whole_prefix_while_it_fits(wide: Database, cache: Path) -> None:
    prompts = [fitted_prompt(wide, cache, ask(0, text), 10_000, max_prefix_tokens=10_000) for text in "abc"]
    assert {prompt.prefix for prompt in prompts} == {build_prefix(wide, OPTIONS)}
    assert prompts[0].suffix == build_suffix(ask(0, "a"), wide, OPTIONS, cache_folder=cache)
    assert {(prompt.rule, prompt.cut) for prompt in prompts} == {("whole", ())}


@pytest.mark.parametrize("schema_filter", ["when_needed", "always", "never"])
@pytest.mark.parametrize("training_seed", [None, 3])
@pytest.mark.parametrize("budget", [120, 400, 700])
def test_prompts_keep_to_the_budget_whatever_the_filter(
    wide: Database, cache: Path, schema_filter: str, training_seed: int | None, budget: int
) -> None:
    prompt = fitted_prompt(
        wide,
        cache,
        ask(),
        budget + 20,
        schema_filter=schema_filter,
        training_seed=training_seed,
        max_prefix_tokens=budget,
    )
    assert count(prompt.prefix) <= budget
    assert prompt.rule != "whole"
    assert prompt.cut


def test_a_long_question_leaves_less_room_for_the_schema(wide: Database, cache: Path) -> None:
    example = ask(0, "please " * 300 + QUESTION)
    prompt = fitted_prompt(wide, cache, example, 600)
    assert count(prompt.text) <= 600
    assert prompt.suffix.endswith(QUESTION + "\n")


def test_never_filtering_gives_one_prefix_for_all_questions(wide: Database, cache: Path) -> None:
    texts = ["short", QUESTION, "please " * 100]
    prompts = [
        fitted_prompt(wide, cache, ask(0, text), 450, schema_filter="never", max_prefix_tokens=400)
        for text in texts
    ]
    assert len({prompt.prefix for prompt in prompts}) == 1


def test_always_filtering_shows_six_tables_of_ten_columns(wide: Database, cache: Path) -> None:
    prompt = fitted_prompt(wide, cache, ask(), 10_000, schema_filter="always", max_prefix_tokens=10_000)
    assert prompt.rule == "filtered"
    assert prompt.prefix.count("\ntable ") == 6
    assert prompt.prefix.count("part_7.") - prompt.prefix.split("foreign keys")[1].count("part_7.") == 10


def test_a_schema_that_the_filter_keeps_whole_is_whole(concerts: Database, cache: Path) -> None:
    prompt = fitted_prompt(concerts, cache, ask(), 10_000, schema_filter="always")
    assert (prompt.rule, prompt.cut) == ("whole", ())


def test_training_shows_the_gold_among_random_columns_by_its_seed(wide: Database, cache: Path) -> None:
    prompts = [
        fitted_prompt(wide, cache, ask(number), 10_000, schema_filter="always", training_seed=seed)
        for number, seed in [(0, 0), (0, 0), (1, 0), (0, 1)]
    ]
    for prompt in prompts:
        assert prompt.rule == "gold and random"
        assert prompt.prefix.count("\ntable ") == 6
        for column in ("part_7.field_7_13 (", "part_7.id (", "part_2.id ("):
            assert column in prompt.prefix
    assert prompts[0] == prompts[1]
    assert len({prompt.prefix for prompt in prompts}) == 3


def test_tight_training_prompts_keep_the_gold_longest(wide: Database, cache: Path) -> None:
    prompt = fitted_prompt(wide, cache, ask(), 80, training_seed=0, max_prefix_tokens=60)
    assert prompt.rule == "fewer columns"
    for column in ("part_7.field_7_13 (", "part_7.id (", "part_2.id ("):
        assert column in prompt.prefix


def test_matched_values_and_foreign_keys_keep_to_what_is_shown(wide: Database, cache: Path) -> None:
    example = ask(0, "part 7 and its field 7 3 with value 7 or value 3")
    for match in ("part_3.field_3_3 ( value 3 )", "part_7.field_7_3 ( value 7 )"):
        assert match in build_suffix(example, wide, OPTIONS, cache_folder=cache)
    prompt = fitted_prompt(wide, cache, example, 10_000, schema_filter="always", filter_tables=1)
    (table,) = re.findall(r"^table (\w+)", prompt.prefix, re.MULTILINE)
    assert re.findall(r"^(\w+)\.", prompt.suffix, re.MULTILINE) == [table]
    for training_seed in (None, 0, 1):
        prompt = fitted_prompt(
            wide, cache, example, 10_000, schema_filter="always", training_seed=training_seed
        )
        shown = set(re.findall(r"^table (\w+)", prompt.prefix, re.MULTILINE))
        keys = re.findall(r"^(\w+)\.id = (\w+)\.id$", prompt.prefix, re.MULTILINE)
        assert {table for key in keys for table in key} <= shown
