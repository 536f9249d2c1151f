"""Whatever the schema, the question and the budget: a prompt keeps to its budget and leaves no room unused."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from distilsql.data.example import Example
from distilsql.databases.database import Database
from distilsql.databases.schema import introspect
from distilsql.prompts.codes import PromptOptions, build_prefix, build_suffix
from distilsql.prompts.fit import fit_prompt, shared_prefix

WORDS = ("city", "status", "price", "name", "colour", "owner", "code", "note")
VALUES = ("Rome", "open", "blue", "Ann Lee", "closed")
quick = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def count(text: str) -> int:
    return len(text.split())


@st.composite
def scripts(draw: st.DrawFn) -> str:
    """The script of a database whose tables share names of columns and values."""
    script = ""
    for number in range(draw(st.integers(1, 8))):
        columns = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6, unique=True))
        declared = ", ".join(f"{name} TEXT" for name in columns)
        script += f"CREATE TABLE t{number} (id INTEGER PRIMARY KEY, {declared});\n"
        for row in range(draw(st.integers(0, 3))):
            cells = ", ".join(f"'{draw(st.sampled_from(VALUES))}'" for _ in columns)
            script += f"INSERT INTO t{number} VALUES ({row}, {cells});\n"
    return script


questions = st.lists(st.sampled_from([*WORDS, *VALUES, "t1", "of", "which"]), min_size=1, max_size=8).map(
    " ".join
)
budgets = st.integers(30, 260)


def shown_columns(prefix: str) -> list[str]:
    """Each shown column as `table.column`."""
    return [
        part.split(" (")[0].strip()
        for part in prefix.replace("[", ",").split(",")
        if " ( " in part and "." in part
    ]


def database_of(folder: Path, script: str) -> Database:
    path = folder / "random.sqlite"
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"BEGIN; {script}; COMMIT;")  # one write to disk
    return Database(path.stem, path, introspect(path))


@quick
@given(
    scripts(),
    questions,
    budgets,
    st.sampled_from(["when_needed", "always", "fixed"]),
    st.sampled_from([None, 1]),
)
def test_a_prompt_keeps_to_its_budget(
    tmp_path: Path, script: str, question: str, budget: int, schema_filter: str, seed: int | None
) -> None:
    database = database_of(tmp_path, script)
    example = Example("x", database.db_id, question, "SELECT name FROM t0")
    options = PromptOptions(schema_filter=schema_filter, max_prefix_tokens=max(budget - 20, 1))  # type: ignore[arg-type]
    prompt = fit_prompt(
        example, database, options, count, budget, training_seed=seed, cache_folder=tmp_path / "cache"
    )
    assert count(prompt.text) <= budget or len(shown_columns(prompt.prefix)) == 1
    assert prompt.suffix.endswith(question + "\n")


@pytest.mark.slow
@quick
@given(scripts(), questions, budgets)
def test_the_next_relevant_column_would_not_have_fitted(
    tmp_path: Path, script: str, question: str, budget: int
) -> None:
    """The granularity is a column with what is known of it and the values of it that the question mentions."""
    database = database_of(tmp_path, script)
    cache = tmp_path / "cache"
    example = Example("x", database.db_id, question, "")
    options = PromptOptions(max_prefix_tokens=budget)
    prompt = fit_prompt(example, database, options, count, budget, cache_folder=cache)
    shown = shown_columns(prompt.prefix)
    for more in range(budget + 1, budget + 40):
        wider = fit_prompt(
            example, database, PromptOptions(max_prefix_tokens=more), count, more, cache_folder=cache
        )
        if shown_columns(wider.prefix) != shown:
            assert set(shown) <= set(shown_columns(wider.prefix))
            assert count(wider.text) > budget
            break


@pytest.mark.slow
@quick
@given(scripts(), st.lists(questions, min_size=2, max_size=3), budgets)
def test_a_fixed_cut_depends_on_no_question_and_uses_its_room(
    tmp_path: Path, script: str, texts: list[str], budget: int
) -> None:
    database = database_of(tmp_path, script)
    options = PromptOptions(schema_filter="fixed", max_prefix_tokens=budget)
    first = [("t0", introspect(database.path).tables[0].columns[-1].name)]
    shared = shared_prefix(database, options, count, first)
    assume(shared.rule == "fixed cut" and shared.tokens <= budget)
    prompts = [
        fit_prompt(
            Example(str(number), database.db_id, text, ""),
            database,
            options,
            count,
            budget + 60,
            shared=shared,
            cache_folder=tmp_path / "cache",
        )
        for number, text in enumerate(texts)
    ]
    assert {prompt.prefix for prompt in prompts} == {shared.text}
    assert ".".join(first[0]) in shown_columns(shared.text)
    # One thing more, a column or a column's values, would not have fitted.
    for more in range(1, 40):
        wider = shared_prefix(
            database, PromptOptions(schema_filter="fixed", max_prefix_tokens=budget + more), count, first
        )
        if wider.text != shared.text:
            assert wider.tokens > budget
            assert set(shown_columns(shared.text)) <= set(shown_columns(wider.text))
            break


def test_values_that_many_tables_share_do_not_starve_the_schema(tmp_path: Path) -> None:
    names = ["customer", *(f"log_{number}" for number in range(60))]
    script = "".join(
        f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, name TEXT, city TEXT, status TEXT);"
        f"INSERT INTO {name} VALUES (1, 'n{name}', 'Rome', 'open');"
        for name in names
    )
    database = database_of(tmp_path, script)
    example = Example("x", "random", "Names of customers in Rome whose status is open", "")
    for budget in (400, 800):
        prompt = fit_prompt(
            example,
            database,
            PromptOptions(max_prefix_tokens=budget),
            count,
            budget,
            cache_folder=tmp_path / "c",
        )
        assert prompt.rule == "filtered"
        assert {"customer.name", "customer.status"} <= set(shown_columns(prompt.prefix))
        assert "customer.status ( open )" in prompt.suffix


def test_a_fixed_cut_shows_what_training_uses_with_its_values(tmp_path: Path) -> None:
    script = "".join(
        f"CREATE TABLE t{number} (id INTEGER PRIMARY KEY, {', '.join(f'c{column} TEXT' for column in range(9))});"
        f"INSERT INTO t{number} (id, c7) VALUES (1, 'used{number}');"
        for number in range(20)
    )
    database = database_of(tmp_path, script)
    options = PromptOptions(schema_filter="fixed", max_prefix_tokens=400)
    fitted = shared_prefix(database, options, count, [("t13", "c7"), ("gone", "x")])
    assert fitted.rule == "fixed cut"
    assert "t13.c7 ( text | values : used13 )" in fitted.text
    assert "values of" in " ".join(fitted.cut)
    assert {f"t{number}.id" for number in range(20)} <= set(shown_columns(fitted.text))


def test_a_question_too_long_for_the_shared_prefix_has_a_prompt_of_its_own(
    wide: Database, cache: Path
) -> None:
    options = PromptOptions(schema_filter="fixed", max_prefix_tokens=400)
    long = Example("x", "wide", "please " * 100 + "field 7 3 of part 7", "")
    prompt = fit_prompt(long, wide, options, count, 450, cache_folder=cache)
    assert count(prompt.text) <= 450
    assert prompt.prefix != shared_prefix(wide, options, count).text
    assert "part_7.field_7_3" in prompt.prefix


def test_values_that_do_not_fit_beside_a_shared_prefix_are_left_out(wide: Database, cache: Path) -> None:
    example = Example("x", "wide", " ".join(f"value {number}" for number in range(12)), "")
    options = PromptOptions(schema_filter="fixed", max_prefix_tokens=5000)
    prefix = count(build_prefix(wide, options))
    whole = build_suffix(example, wide, options, cache_folder=cache)
    prompt = fit_prompt(example, wide, options, count, prefix + count(whole) - 1, cache_folder=cache)
    assert prompt.prefix == build_prefix(wide, options)
    assert prompt.suffix.count("value") == whole.count("value") - 1


def test_every_name_runs_as_it_is_shown_with_sqlites_quoting(tmp_path: Path) -> None:
    path = tmp_path / "odd.sqlite"
    names = [
        "order",
        "group by",
        "2024",
        "a.b",
        "a`b",
        'a"b',
        "a'b",
        "[c]",
        "net (€)",
        "two\nlines",
        "Straße",
        "x-y",
    ]
    with closing(sqlite3.connect(path)) as connection:
        declared = ", ".join('"' + name.replace('"', '""') + '" INT' for name in names)
        connection.execute(f'CREATE TABLE "select" ({declared})')
        connection.execute(f'INSERT INTO "select" VALUES ({", ".join(map(str, range(len(names))))})')
        connection.commit()
        database = Database("odd", path, introspect(path))
        options = PromptOptions(include_types=False, include_values=False, quoting="sqlite")
        line = build_prefix(database, options).split("\n", 1)[1].rsplit("\nforeign keys", 1)[0]
        table, columns = line.removeprefix("table ").removesuffix(" ]").split(" , columns = [ ")
        shown = columns.split(" , ")
        assert len(shown) == len(names)
        for number, column in enumerate(shown):
            assert connection.execute(f"SELECT {column} FROM {table}").fetchall() == [(number,)], column
    assert "`select`.straße" in shown
    assert "`select`.`a.b`" in shown
