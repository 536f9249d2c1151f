import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distilsql.databases import values
from distilsql.databases.schema import introspect
from distilsql.databases.values import _highest, load_value_index, matched_values, sample_values
from distilsql.errors import DatabaseUnavailable

SCRIPT = """
CREATE TABLE Singer (id INTEGER, Name TEXT, Country TEXT, code TEXT, sex TEXT, note TEXT, picture BLOB);
INSERT INTO Singer VALUES
    (1, 'Joe Sharp', 'France', 'UAL', 'F', 'a note that is much too long to be a value of use', x'00ff'),
    (2, 'Sharp', 'New York', 'ual2', 'M', '', NULL),
    (3, 'Rose White', 'New York City', 'AB10020030', 'F', ' two
lines ', NULL),
    (4, 'id', 'the', '7', '+', NULL, NULL);
CREATE TABLE pet (kind TEXT, country TEXT);
INSERT INTO pet VALUES ('dog', 'France'), ('cat', 'Spain');
"""


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("db") / "music.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"BEGIN; {SCRIPT}; COMMIT;")  # one write to disk
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_samples_are_the_first_distinct_values_as_text_on_one_line(database: Path) -> None:
    samples = sample_values(database, introspect(database), 2)
    assert samples["Singer", "id"] == ("1", "2")
    assert samples["Singer", "Country"] == ("France", "New York")
    assert samples["Singer", "picture"] == ()
    assert sample_values(database, introspect(database), 4)["Singer", "note"][1:] == ("two lines",)


def test_a_collation_that_is_not_loaded_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "android.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.create_collation("LOCALIZED", lambda a, b: (a > b) - (a < b))
        connection.execute("CREATE TABLE t (a TEXT COLLATE LOCALIZED)")
        connection.executemany("INSERT INTO t VALUES (?)", [("Ayr",), ("Leith",), ("Ayr",)])
        connection.commit()
    assert sample_values(path, introspect(path), 2)["t", "a"] == ("Ayr", "Leith")
    assert matched_values(path, "shops in Leith", cache_folder=tmp_path / "cache") == {("t", "a"): ("Leith",)}


def test_of_equal_scores_the_first_values_count() -> None:
    """Not those that the processor's way of sorting puts first: prompts are the same on every machine."""
    random = np.random.default_rng(0)
    for size in (1, 5, 10, 11, 200):
        for most in (0, 1, 3):
            scores = random.integers(0, most + 1, size).astype(np.float32)
            best = sorted(range(size), key=lambda position: (-scores[position], position))
            assert sorted(_highest(scores)) == sorted(p for p in best[:10] if scores[p] > 0)


def test_a_mentioned_value_is_found_in_every_column_that_holds_it(database: Path, cache: Path) -> None:
    found = matched_values(database, "Which singers are from france?", cache_folder=cache)
    assert found == {("Singer", "Country"): ("France",), ("pet", "country"): ("France",)}


@pytest.mark.parametrize(
    ("question", "column", "values"),
    [
        (
            "Who lives in New York City now?",
            ("Singer", "Country"),
            ("New York City",),
        ),  # the longest, not its part
        ("Is Joe Sharp's song on?", ("Singer", "Name"), ("Joe Sharp",)),
        ("How many dogs are there?", ("pet", "kind"), ("dog",)),
        ("Was it Jo Sharp?", ("Singer", "Name"), ("Joe Sharp",)),  # one letter is missing
        ("flights of UAL please", ("Singer", "code"), ("UAL",)),
        ("Find how many have sex F", ("Singer", "sex"), ("F",)),
        ("category of the cat", ("pet", "kind"), ("cat",)),  # the word, not the beginning of another
        ("is f for F or not", ("Singer", "sex"), ("F",)),
    ],
)
def test_whole_words_are_matched_closely(
    database: Path, cache: Path, question: str, column: tuple[str, str], values: tuple[str, ...]
) -> None:
    assert matched_values(database, question, cache_folder=cache)[column] == values


@pytest.mark.parametrize(
    "question",
    [
        "how many have the id",  # words a question has for other reasons
        "what of doghouses and category",  # parts of longer words
        "what about UALS or AB10020031",  # codes and numbers must be exact
        "any f or m",  # single letters keep their case
        "",
        "?!",
    ],
)
def test_what_is_not_spelled_out_is_not_matched(database: Path, cache: Path, question: str) -> None:
    assert matched_values(database, question, cache_folder=cache) == {}


def test_a_column_gives_no_more_than_it_may(tmp_path: Path) -> None:
    path = tmp_path / "many.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE t (c TEXT); INSERT INTO t VALUES ('red'), ('green'), ('blue');"
        )
    text = "red, green and blue"
    assert set(matched_values(path, text, cache_folder=tmp_path / "c")["t", "c"]) == {"red", "green", "blue"}
    assert len(matched_values(path, text, most_per_column=2, cache_folder=tmp_path / "c")["t", "c"]) == 2


def test_a_column_of_too_many_values_is_searched_for_its_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "MOST_VALUES_PER_COLUMN", 2)
    path = tmp_path / "crowd.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE t (c TEXT, d TEXT); INSERT INTO t VALUES ('red', 'x'), ('green', 'x'), ('blue', 'black');"
        )
    found = matched_values(path, "red, green, blue and black", cache_folder=tmp_path / "c")
    assert set(found["t", "c"]) == {"red", "green"}
    assert found["t", "d"] == ("black",)


def test_the_index_is_kept_and_rebuilt_when_the_file_has_changed(tmp_path: Path) -> None:
    path, cache = tmp_path / "d.sqlite", tmp_path / "cache"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE t (c TEXT); INSERT INTO t VALUES ('Paris');")
    assert matched_values(path, "in Paris or Rome", cache_folder=cache) == {("t", "c"): ("Paris",)}
    (kept,) = cache.iterdir()
    built = kept.stat().st_mtime_ns
    load_value_index.__globals__["_load_value_index"].cache_clear()
    assert matched_values(path, "in Paris or Rome", cache_folder=cache) == {("t", "c"): ("Paris",)}
    assert kept.stat().st_mtime_ns == built
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("INSERT INTO t VALUES ('Rome');")
    assert set(matched_values(path, "in Paris or Rome", cache_folder=cache)["t", "c"]) == {"Paris", "Rome"}
    (rebuilt,) = cache.iterdir()
    assert rebuilt != kept


def test_a_database_without_text_has_no_matches(tmp_path: Path) -> None:
    path = tmp_path / "n.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE t (c INT); INSERT INTO t VALUES (5);")
    assert matched_values(path, "is there a 5?", cache_folder=tmp_path / "c") == {}


def test_values_that_are_all_punctuation_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "p.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE t (c TEXT); INSERT INTO t VALUES ('+'), ('-');")
    assert matched_values(path, "label + or -", cache_folder=tmp_path / "c") == {}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(["who", "sings", "for", "pets", "of", "age", ",", "'"]), max_size=8),
    st.sampled_from(["Joe Sharp", "Rose White", "France", "Spain", "cat"]),
    st.integers(0, 8),
)
def test_a_value_between_any_words_is_found(
    database: Path, cache: Path, words: list[str], value: str, place: int
) -> None:
    text = " ".join([*words[:place], value, *words[place:]])
    found = matched_values(database, text, cache_folder=cache)
    assert value in {value for values in found.values() for value in values}


def test_an_index_that_another_removes_meanwhile_is_read_again(database, tmp_path, monkeypatch) -> None:
    """A database that is written to all the time: whoever builds the index of a newer state removes older ones."""
    derived = values.derived_files
    removed = []

    def removed_at_once(*arguments):
        folder = derived(*arguments)
        if len(removed) < 2:
            removed.append(folder)
            shutil.rmtree(folder)
        return folder

    monkeypatch.setattr(values, "derived_files", removed_at_once)
    assert load_value_index(database, tmp_path / "cache").values
    assert len(removed) == 2
    removed.clear()
    monkeypatch.setattr(values, "_READINGS", 2)
    with pytest.raises(DatabaseUnavailable, match="written to faster"):
        load_value_index(database, tmp_path / "other")


def test_questions_that_come_together_build_one_index(database, tmp_path, monkeypatch) -> None:
    builds = []
    build = values._build
    monkeypatch.setattr(values, "_build", lambda *arguments: (builds.append(1), build(*arguments)))
    threads = [
        threading.Thread(target=load_value_index, args=(database, tmp_path / "cache")) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1
