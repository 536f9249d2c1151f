"""Prediction files of every format, and what is said of faulty ones."""

import json
from dataclasses import replace

import pytest

from distilsql.data.benchmark import Skipped
from distilsql.errors import DataError
from distilsql.metrics.predictions import read_predictions

SQL = ["SELECT 1", "SELECT 2\twith a tab", "SELECT 'é'", "SELECT 4", "SELECT 5", "SELECT 6"]


@pytest.fixture
def write(tmp_path):
    def write_file(name, text):
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write_file


def test_lines(shop, write):
    assert read_predictions(write("p.txt", "\n".join(SQL)), shop) == SQL
    assert read_predictions(write("p.sql", "\r\n".join(SQL) + "\r\n"), shop) == SQL


def test_jsonl_goes_by_id_and_may_hold_an_empty_prediction(shop, write):
    records = [{"example_id": f"dev/{i}", "sql": sql} for i, sql in enumerate([*SQL[:5], ""])]
    text = "\n".join(json.dumps(record) for record in reversed(records)) + "\n"
    assert read_predictions(write("p.jsonl", text), shop) == [*SQL[:5], ""]


def test_bird_json(bird_shop, write):
    text = json.dumps({str(i): f"SELECT {i}\t----- bird -----\tshop" for i in range(6)})
    assert read_predictions(write("p.json", text), bird_shop) == [f"SELECT {i}" for i in range(6)]


def test_csv_by_row_and_by_id(shop, write):
    rows = "".join(f'{i},"SELECT {i},\n 1"\n' for i in range(6))
    expected = [f"SELECT {i},\n 1" for i in range(6)]
    assert read_predictions(write("p.csv", "number,guess\n" + rows), shop, column="guess") == expected
    by_id = "example_id,sql\n" + "".join(f"dev/{i},SELECT {i}\n" for i in reversed(range(6)))
    assert read_predictions(write("q.csv", by_id), shop) == [f"SELECT {i}" for i in range(6)]


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        (
            "p.txt",
            "SELECT 1\n" * 5,
            r"has 5 lines, shop:dev has 6 examples; the first example without one is dev/5",
        ),
        ("p.txt", "SELECT 1\n" * 7, r"has 7 lines"),
        ("p.txt", "SELECT 1\n" * 3 + " \n" + "SELECT 1\n" * 2, r"line 4 is blank"),
        ("p.txt", b"\xff\xfe", r"not UTF-8"),
        ("p.jsonl", '{"example_id": "dev/0", "sql": "x"}\n\n', r"line 2 is blank"),
        ("p.jsonl", '{"example_id": "dev/0"}\n', r"line 1 is not a prediction"),
        ("p.jsonl", "SELECT 1\n", r"line 1 is not JSON"),
        ("p.jsonl", '{"example_id": "dev/9", "sql": "x"}\n', r"line 1: shop:dev has no example 'dev/9'"),
        ("p.jsonl", '{"example_id": "dev/0", "sql": "x"}\n' * 2, r"line 2: a second prediction for 'dev/0'"),
        ("p.jsonl", '{"example_id": "dev/0", "sql": "x"}\n', r"no prediction for dev/1 \(1 of 6 are there\)"),
        ("p.json", "[]", r"not a BIRD prediction file"),
        (
            "p.json",
            '{"0": "SELECT 1\\t----- bird -----\\tzoo"}',
            r"key '0' is about zoo, the example about shop",
        ),
        ("p.json", '{"77": "SELECT 1"}', r"key '77': shop:dev has no example '77'"),
        ("p.json", '{"0": 5}', r"key '0': the value is not text but int"),
        ("p.json", '{"0": "SELECT 1", "0": "SELECT 2"}', r"key '0' is there twice"),
        ("p.csv", "example_id,sql\ndev/0,SELECT a, b\n", r"line 2 has more cells than the header"),
        ("p.csv", "a,b\n1,2\n", r"has the columns a, b; say which one holds the SQL"),
        ("p.csv", 'sql\nSELECT 1\n""\n', r"line 3: the column sql is blank"),
        ("p.csv", "sql\nSELECT 1\n", r"has 1 rows"),
    ],
)
def test_faulty_files_are_refused_saying_where(shop, write, name, text, complaint):
    with pytest.raises(DataError, match=complaint):
        read_predictions(write(name, text), shop)


def test_a_line_that_answers_another_question_is_refused(shop, write):
    records = [
        {"example_id": f"dev/{i}", "question": f"Question {i}?", "sql": sql} for i, sql in enumerate(SQL)
    ]
    text = "\n".join(map(json.dumps, records))
    assert read_predictions(write("p.jsonl", text), shop) == SQL
    with pytest.raises(DataError, match=r"line 3 answers 'Who\?', but dev/2 of shop:dev asks 'Question 2\?'"):
        read_predictions(write("p.jsonl", text.replace("Question 2?", "Who?")), shop)


@pytest.mark.parametrize("name", ["p.txt", "p.jsonl"])
def test_a_draw_is_read_from_its_own_file_and_from_the_whole_ones(shop, write, name):
    def file_of(benchmark):
        answers = [(e.example_id, f"SELECT {e.example_id[-1]}") for e in benchmark.examples]
        lines = [sql if name == "p.txt" else json.dumps({"example_id": i, "sql": sql}) for i, sql in answers]
        return write(name, "\n".join(lines))

    draw = shop.take(3, seed=1)
    expected = [f"SELECT {example.example_id[-1]}" for example in draw.examples]
    assert read_predictions(file_of(shop), draw, whole=shop) == expected
    assert read_predictions(file_of(draw), draw, whole=shop) == expected
    with pytest.raises(DataError):
        read_predictions(file_of(shop), draw)


def test_an_open_quote_in_a_csv_file(shop, write):
    with pytest.raises(DataError, match=r"p\.csv is not valid CSV at line \d"):
        read_predictions(write("p.csv", 'sql\nSELECT 1\n"SELECT 2\nSELECT 3\n'), shop)


def test_a_missing_file(shop, tmp_path):
    with pytest.raises(DataError, match=r"none\.txt cannot be read"):
        read_predictions(tmp_path / "none.txt", shop)


@pytest.mark.parametrize("name", ["p.txt", "p.jsonl", "p.csv", "q.csv", "p.json"])
def test_a_file_may_hold_predictions_for_examples_whose_database_is_missing(shop, write, name):
    def file_of(answers):
        if name == "p.txt":
            return write(name, "\n".join(answers.values()))
        if name == "p.json":
            return write(name, json.dumps({i.rpartition("/")[2]: sql for i, sql in answers.items()}))
        if name == "p.jsonl":
            lines = [json.dumps({"example_id": i, "sql": sql}) for i, sql in answers.items()]
            return write(name, "\n".join(lines))
        id_column = "example_id" if name == "q.csv" else "other"
        rows = [f"{i},{sql}" for i, sql in answers.items()]
        return write(name, "\n".join([f"{id_column},sql", *rows]))

    answers = {example.example_id: f"SELECT {example.example_id[-1]}" for example in shop.examples}
    rest = shop.without({"dev/1", "dev/4"})
    rest = replace(rest, skipped=(Skipped("dev/1", 1, "gone"), Skipped("dev/4", 4, "gone")))
    expected = ["SELECT 0", "SELECT 2", "SELECT 3", "SELECT 5"]
    assert read_predictions(file_of(answers), rest) == expected
    assert read_predictions(file_of(answers), rest.take(2, 0), whole=rest) == [
        answers[example.example_id] for example in rest.take(2, 0).examples
    ]
    assert (
        read_predictions(file_of({i: a for i, a in answers.items() if i not in ("dev/1", "dev/4")}), rest)
        == expected
    )


def test_what_is_wrong_with_a_whole_file_is_said_of_a_draw_too(shop, write):
    draw = shop.take(3, seed=1)
    with pytest.raises(DataError, match=r"has 5 lines, shop:dev has 3 .* Nor .* has 5 lines, shop:dev has 6"):
        read_predictions(write("p.txt", "SELECT 1\n" * 5), draw, whole=shop)


def test_a_line_separator_of_unicode_ends_no_line_of_a_csv_file(shop, write):
    rows = [f"SELECT '{mark}'" for mark in "\u2028\u2029\x85\x0b\x0c\x1c"]
    assert read_predictions(write("p.csv", "\n".join(["sql", *rows])), shop) == rows
