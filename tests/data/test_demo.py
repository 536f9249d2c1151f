"""The demo benchmark: what its generator promises to those who train and measure on it."""

import functools
import hashlib
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import sqlglot

from distilsql.data.benchmark import Benchmark
from distilsql.data.demo import DEMO_SPLITS, build, load_demo
from distilsql.data.demo.build import ask, split_of
from distilsql.data.demo.databases import (
    SEED,
    SEEN,
    UNSEEN,
    apart_from,
    linked_names,
    table_keys,
    teacher_domains,
)
from distilsql.data.demo.domain import Domain, schema_of
from distilsql.data.demo.neighbours import neighbours
from distilsql.data.demo.patterns import PATTERNS, Topic
from distilsql.data.demo.rows import connect, fill
from distilsql.data.demo.schemas import draw_domain, draw_domains, said_of
from distilsql.data.demo.vocabulary import KINDS
from distilsql.data.demo.wordings import WORDINGS
from distilsql.data.dice import Dice
from distilsql.data.example import Example
from distilsql.data.plural import plural
from distilsql.databases.normalise import normalise_sql
from distilsql.databases.schema import introspect
from distilsql.errors import DataError

# The first digits of SHA-256.
PINNED = {
    "train": "16e8c407dc501ea2",
    "noisy": "3636fcd9915eb584",
    "valid": "378e3e6e5485ac61",
    "test": "52dfa89dfb92135e",
}
Rows = list[tuple[object, ...]]
# What the teacher alone reads takes half a minute to generate; `test_teacher_*` draw a part of it. The laboratory's
# splits have tests of their own (test_lab.py).
SPLITS = tuple(split for split in DEMO_SPLITS if split != "teacher-train" and not split.startswith("lab-"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo-root")


@pytest.fixture(scope="module")
def splits(root: Path) -> dict[str, Benchmark]:
    return {split: load_demo(split, root) for split in SPLITS}


def run(benchmark: Benchmark, db_id: str, sql: str) -> Rows:
    return opened(benchmark.databases[db_id].path).execute(sql).fetchall()


@functools.cache
def opened(path: Path) -> sqlite3.Connection:
    """A copy in memory: thousands of queries run on each database."""
    memory = sqlite3.connect(":memory:")
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as stored:
        stored.backup(memory)
    return memory


@pytest.fixture(scope="module", autouse=True)
def _close_opened(root: Path) -> Iterator[None]:
    yield
    for path in root.rglob("*.sqlite"):
        opened(path).close()
    opened.cache_clear()


def canonical(sql: str) -> str:
    return sqlglot.parse_one(sql, dialect="sqlite").sql(dialect="sqlite", normalize=True).lower()


def test_splits_have_their_sizes_and_two_thirds_of_the_test_is_on_seen_databases(
    splits: dict[str, Benchmark],
) -> None:
    sizes = {split: len(benchmark.examples) for split, benchmark in splits.items()}
    assert sizes == {
        "train": 3600,
        "noisy": 3600,
        "valid": 200,
        "test": 1040,
        "test-seen": 720,
        "test-unseen": 320,
    }
    parts = (*splits["test-seen"].examples, *splits["test-unseen"].examples)
    assert Counter(parts) == Counter(splits["test"].examples)
    assert {benchmark.evaluator for benchmark in splits.values()} == {"spider"}
    assert splits["test-seen"].name == "demo:test-seen"


def test_training_never_sees_the_unseen_databases(splits: dict[str, Benchmark]) -> None:
    asked = {split: {example.db_id for example in benchmark.examples} for split, benchmark in splits.items()}
    assert asked["train"] == asked["valid"] == asked["test-seen"]
    assert len(asked["test-unseen"]) == 8
    assert not asked["test-unseen"] & asked["train"]


@pytest.mark.slow
def test_no_query_is_on_two_sides(splits: dict[str, Benchmark]) -> None:
    def queries(split: str) -> set[str]:
        return {canonical(example.gold_sql) for example in splits[split].examples}

    assert not queries("train") & queries("valid")
    assert not queries("train") & queries("test")
    assert not queries("valid") & queries("test")


def test_every_query_is_in_the_split_that_its_sql_says(splits: dict[str, Benchmark]) -> None:
    """On every database, the teacher's too: so nothing that is tested was trained on, in any words."""
    for split in ("train", "valid", "test"):
        assert {split_of(example.gold_sql) for example in splits[split].examples} == {split}
    for domain in teacher_domains()[:5]:
        asked = ask(fill(domain, SEED), {"train": 40})
        assert {split_of(question.gold_sql) for question in asked["train"]} == {"train"}


def test_example_ids_are_unique(splits: dict[str, Benchmark]) -> None:
    for benchmark in splits.values():
        assert len({example.example_id for example in benchmark.examples}) == len(benchmark.examples)


def test_every_gold_runs_and_answers_something(splits: dict[str, Benchmark]) -> None:
    for split in ("train", "valid", "test"):
        benchmark = splits[split]
        for example in benchmark.examples:
            rows = run(benchmark, example.db_id, example.gold_sql)
            assert any(value is not None for row in rows for value in row), example


def test_a_question_has_one_gold(splits: dict[str, Benchmark]) -> None:
    golds: dict[tuple[str, str], set[str]] = {}
    for split in ("train", "valid", "test"):
        for example in splits[split].examples:
            golds.setdefault((example.db_id, example.question.lower()), set()).add(example.gold_sql)
    assert not {question: sqls for question, sqls in golds.items() if len(sqls) > 1}


def test_the_values_of_a_query_are_said_in_its_question(splits: dict[str, Benchmark]) -> None:
    for split in ("train", "valid", "test"):
        for example in splits[split].examples:
            literals = re.findall(r"'([^']*)'|\b(\d+)\b", example.gold_sql.removesuffix(" LIMIT 1"))
            for text, number in literals:
                assert re.search(rf"\b{text or number}\b", example.question), example


def test_questions_are_tidy(splits: dict[str, Benchmark]) -> None:
    for split in ("train", "valid", "test"):
        for example in splits[split].examples:
            assert re.fullmatch(r"[A-Z][A-Za-z0-9, ]*[.?]", example.question), example.question
            assert "  " not in example.question
            assert " ," not in example.question


def test_queries_keep_the_house_style(splits: dict[str, Benchmark]) -> None:
    for example in splits["train"].examples + splits["test"].examples:
        assert normalise_sql(example.gold_sql) == example.gold_sql
        bare = re.sub(r"'[^']*'", "''", example.gold_sql)
        assert " AS " not in bare
        names = re.findall(r"\b[a-z_]+\b(?!\()(?:\.[a-z_]+)?", re.sub(r"(FROM|JOIN) [a-z]+", "", bare))
        assert all(("." in name) == (" JOIN " in bare) for name in names), example.gold_sql


def test_words_and_queries_stay_small_enough_to_learn_from_nothing(splits: dict[str, Benchmark]) -> None:
    words: set[str] = set()
    for split in ("train", "test"):
        for example in splits[split].examples:
            words |= set(re.findall(r"[A-Za-z_]+", f"{example.question} {example.gold_sql}"))
            assert len(re.findall(r"\w+|[^\w\s]", example.gold_sql)) <= 40
    assert len(words) < 550
    for database in splits["test"].databases.values():
        assert 2 <= len(database.schema.tables) <= 3
        assert all(3 <= len(table.columns) <= 7 for table in database.schema.tables)


def test_schema_is_what_the_file_says(splits: dict[str, Benchmark]) -> None:
    for database in splits["test"].databases.values():
        assert introspect(database.path) == database.schema


def test_files_hold_tens_of_rows_and_keep_their_references(splits: dict[str, Benchmark]) -> None:
    for database in splits["test"].databases.values():
        with closing(sqlite3.connect(database.path)) as connection:
            assert not connection.execute("PRAGMA foreign_key_check").fetchall()
            for table in database.schema.tables:
                (count,) = connection.execute(f"SELECT count(*) FROM {table.name}").fetchone()
                assert 20 <= count <= 60


def test_a_query_with_another_value_or_column_gives_another_result(splits: dict[str, Benchmark]) -> None:
    """Independent of the generator's own neighbours: what execution would let pass by accident is rare."""
    benchmark = splits["test"]
    told_apart, compared = 0, 0
    for example in benchmark.examples:
        gold = run(benchmark, example.db_id, example.gold_sql)
        for wrong in changed_values(benchmark, example):
            compared += 1
            told_apart += sorted(map(repr, gold)) != sorted(map(repr, run(benchmark, example.db_id, wrong)))
    assert compared > 300
    assert told_apart / compared > 0.9


def changed_values(benchmark: Benchmark, example: Example) -> list[str]:
    """The gold with one value replaced by another of its column, or one selected column by another."""
    sql, wrong = example.gold_sql, []
    for table, column, operator, value in re.findall(r"(?:(\w+)\.)?(\w+) ([=<>]) ('[^']*'|\d+)", sql):
        owners = [
            t.name
            for t in benchmark.databases[example.db_id].schema.tables
            for c in t.columns
            if c.name == column
        ]
        owner = table or next(name for name in owners if f"FROM {name}" in sql)
        values = sorted(v for (v,) in run(benchmark, example.db_id, f"SELECT DISTINCT {column} FROM {owner}"))
        if operator == "=":
            other = repr(values[values.index(value.strip("'")) - 1])
        else:
            other = str(int(value) + (values[-1] - values[0]) // 4)
        wrong.append(sql.replace(f"{column} {operator} {value}", f"{column} {operator} {other}"))
    if selected := re.match(r"SELECT (\w+) FROM (\w+)(?! JOIN)", sql):
        tables = {table.name: table for table in benchmark.databases[example.db_id].schema.tables}
        columns = [column.name for column in tables[selected[2]].columns if column.name != selected[1]]
        wrong += [sql.replace(selected[1], column, 1) for column in columns if " GROUP BY " not in sql]
    return [other for other in wrong if other != sql]


def test_every_pattern_is_asked_in_four_wordings_or_more() -> None:
    assert all(len(set(wordings)) >= 4 for wordings in WORDINGS.values())
    drafted = set()
    for domain in SEEN:
        filled, dice = fill(domain, "seed"), Dice(domain.db_id)
        for _ in range(40):
            for table in domain.tables:
                drafts = [pattern(Topic(filled, table, dice)) for pattern in PATTERNS]
                for draft in filter(None, drafts):
                    drafted.add(draft.pattern)
                    for wording in WORDINGS[draft.pattern]:
                        wording.format(**{slot: phrases[0] for slot, phrases in draft.phrases.items()})
    assert drafted == set(WORDINGS)


def test_training_asks_queries_in_different_words(splits: dict[str, Benchmark]) -> None:
    questions: dict[tuple[str, str], set[str]] = {}
    for example in splits["train"].examples:
        questions.setdefault((example.db_id, example.gold_sql), set()).add(example.question)
    assert sum(map(len, questions.values())) == len(splits["train"].examples), "no pair occurs twice"
    assert sum(len(asked) == 2 for asked in questions.values()) / len(questions) > 0.5


def test_the_text_is_the_pinned_one(splits: dict[str, Benchmark], root: Path) -> None:
    """Published numbers and the embedded teacher rest on it."""
    found = {}
    for split in PINNED:
        (file,) = (root / "demo").glob(f"*/{split}.jsonl")
        found[split] = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    assert found == PINNED


@pytest.mark.slow
def test_two_generations_are_the_same(splits: dict[str, Benchmark], tmp_path: Path) -> None:
    again = load_demo("test", tmp_path)
    assert again.examples == splits["test"].examples
    for split in ("train", "valid"):
        assert load_demo(split, tmp_path).examples == splits[split].examples
    for db_id, database in again.databases.items():
        with (
            closing(sqlite3.connect(database.path)) as ours,
            closing(sqlite3.connect(splits["test"].databases[db_id].path)) as theirs,
        ):
            assert list(ours.iterdump()) == list(theirs.iterdump())


def test_a_second_load_reads_what_the_first_one_wrote(
    splits: dict[str, Benchmark], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distilsql.data.demo.write_demo", lambda folder: pytest.fail("generated again"))
    assert load_demo("train", root).examples == splits["train"].examples


@pytest.mark.slow
def test_a_generation_that_was_cut_short_leaves_nothing_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_short(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, "ask", cut_short)
        with pytest.raises(KeyboardInterrupt):
            load_demo("train", tmp_path)
    assert list((tmp_path / "demo").iterdir()) == []
    assert len(load_demo("train", tmp_path).examples) == 3600


def test_unknown_split_is_refused_with_the_known_ones(root: Path) -> None:
    with pytest.raises(DataError, match=r"no split 'dev'.*train, noisy, valid, test"):
        load_demo("dev", root)


def test_changed_folder_is_refused_with_file_and_cure(tmp_path: Path) -> None:
    benchmark = load_demo("valid", tmp_path)
    path = benchmark.databases["zoo"].path
    folder = path.parents[2]
    path.unlink()
    with pytest.raises(DataError, match=r"zoo\.sqlite is missing\. Delete the folder"):
        load_demo("train", tmp_path)
    with connect(fill(SEEN[6], "other"), path):
        pass
    (folder / "valid.jsonl").write_text('{"db_id": "zoo"}\n')
    with pytest.raises(DataError, match=r"valid\.jsonl line 1"):
        load_demo("valid", tmp_path)


def test_neighbours_change_one_thing() -> None:
    sql = "SELECT name FROM author WHERE id NOT IN (SELECT author_id FROM book WHERE genre = 'crime')"
    assert set(neighbours(sql)) == {
        "SELECT name FROM author WHERE id IN (SELECT author_id FROM book WHERE genre = 'crime')",
        "SELECT name FROM author",
        "SELECT name FROM author WHERE id NOT IN (SELECT author_id FROM book)",
    }
    sql = "SELECT max(age) FROM author WHERE country = 'Peru' AND age > 30"
    assert set(neighbours(sql)) == {
        "SELECT avg(age) FROM author WHERE country = 'Peru' AND age > 30",
        "SELECT max(age) FROM author WHERE country = 'Peru' AND age < 30",
        "SELECT max(age) FROM author WHERE country = 'Peru' OR age > 30",
        "SELECT max(age) FROM author WHERE country = 'Peru'",
        "SELECT max(age) FROM author WHERE age > 30",
        "SELECT max(age) FROM author",
    }


def test_a_neighbour_never_fails_to_run(splits: dict[str, Benchmark]) -> None:
    benchmark = splits["test"]
    for example in benchmark.examples[:100]:
        for other in neighbours(example.gold_sql):
            run(benchmark, example.db_id, other)


def test_dice_are_the_same_for_ever() -> None:
    dice = Dice("seed")
    drawn = [dice.between(1, 100) for _ in range(5)]
    assert drawn == [Dice("seed").between(1, 100), *drawn[1:]]
    assert sorted(Dice("seed").shuffled(range(9))) == list(range(9))
    assert Dice("seed").weighted({"never": 0.0, "always": 1.0}) == "always"
    with pytest.raises(ValueError, match="cannot take 3 of 2"):
        dice.sample("ab", 3)


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("city", "cities"),
        ("book", "books"),
        ("species", "species"),
        ("number of goals", "numbers of goals"),
        ("pay", "pays"),
        ("class", "classes"),
    ],
)
def test_plural(noun: str, expected: str) -> None:
    assert plural(noun) == expected


def test_unseen_databases_speak_with_column_words_that_the_teacher_knows() -> None:
    known = {
        column.name for domain in teacher_domains() for table in domain.tables for column in table.spoken
    }
    asked = {column.name for domain in UNSEEN for table in domain.tables for column in table.spoken}
    assert asked <= known


# ---- the databases that the teacher alone reads ----------------------------------------------------------------


def test_teacher_reads_hundreds_of_databases_and_nothing_of_the_unseen_ones() -> None:
    tables = {key for domain in UNSEEN for key in table_keys(domain)}
    links = {pair for domain in UNSEEN for pair in linked_names(domain)}
    assert len({domain.db_id for domain in teacher_domains()}) == 400
    for domain in teacher_domains():
        assert not table_keys(domain) & tables
        assert not linked_names(domain) & links
    drawn = [frozenset(table_keys(domain)) for domain in teacher_domains()]
    assert len(set(drawn)) == len(drawn), "no database is there twice"


def test_apart_is_without_the_same_table_and_without_the_same_link() -> None:
    first, second, third = islice(draw_domains("seed"), 3)
    assert list(apart_from([first], [first, second, third])) == [second, third]
    same_table = Domain("same-table", (first.tables[0],))
    same_link = Domain("same-link", tuple(replace(table, content=table.links) for table in first.tables))
    assert list(apart_from([first], [same_table, same_link, second])) == [second]
    assert not table_keys(same_link) & table_keys(first), "it is refused for its link alone"


def test_teacher_domains_are_the_same_every_time() -> None:
    assert draw_domain(7, "seed") == draw_domain(7, "seed") != draw_domain(7, "other")


def test_no_two_columns_or_tables_of_a_drawn_database_share_a_word() -> None:
    for domain in teacher_domains():
        nouns = [noun for table in domain.tables for noun in table.nouns]
        assert len(nouns) == len(set(nouns))
        for table in domain.tables:
            said = [word for column in table.spoken for word in said_of(column)]
            assert len(said) == len(set(said)), table


def test_teacher_learns_that_one_thing_has_several_names() -> None:
    """The same noun stands for different columns in different databases, so that a question alone does not tell."""
    names: dict[str, set[str]] = {}
    for domain in teacher_domains():
        for table in domain.tables:
            for column in table.spoken:
                names.setdefault(column.nouns[0], set()).add(column.name)
    assert sum(len(found) > 1 for found in names.values()) > len(names) / 2


def test_every_word_of_the_vocabulary_can_name_a_table_or_column() -> None:
    """No keyword of SQL among them: names are written bare."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for kind in KINDS.values():
            columns = {column.name for concept in (*kind.columns, kind.labels) for column in concept}
            for nouns in kind.nouns:
                connection.execute(f"CREATE TABLE {nouns[0]} (id integer, {', '.join(sorted(columns))})")


@pytest.mark.parametrize("domain", [*teacher_domains()[:12], *UNSEEN], ids=lambda domain: domain.db_id)
def test_drawn_databases_are_asked_as_the_written_ones_are(domain: Domain, tmp_path: Path) -> None:
    filled = fill(domain, SEED)
    with closing(connect(filled, tmp_path / "drawn.sqlite")) as connection:
        assert introspect(tmp_path / "drawn.sqlite") == schema_of(domain)
        assert not connection.execute("PRAGMA foreign_key_check").fetchall()
        golds: dict[str, str] = {}
        for question in ask(filled, {"train": 60})["train"]:
            result = sorted(map(repr, connection.execute(question.gold_sql).fetchall()))
            assert result
            assert normalise_sql(question.gold_sql) == question.gold_sql
            assert re.fullmatch(r"[A-Z][A-Za-z0-9, ]*[.?]", question.question), question
            assert golds.setdefault(question.question.lower(), question.gold_sql) == question.gold_sql
            for text, number in re.findall(
                r"'([^']*)'|\b(\d+)\b", question.gold_sql.removesuffix(" LIMIT 1")
            ):
                assert re.search(rf"\b{text or number}\b", question.question), question
            if " ORDER BY " not in question.gold_sql:
                for other in neighbours(question.gold_sql):
                    assert sorted(map(repr, connection.execute(other).fetchall())) != result, (
                        question,
                        other,
                    )
