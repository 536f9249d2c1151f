"""Own pairs as people keep them: exported tables, lists, empty files, and records that come and go."""

import json

import pytest

from distilsql.data.check import check, problem_lines
from distilsql.data.load import load_benchmark
from distilsql.errors import DataError
from distilsql.metrics.predictions import read_predictions
from distilsql.runs.evaluate import Rules, evaluate_file

PAIRS = {"How many?": "SELECT count(*) FROM animal", "Names, ids?": "SELECT name, id FROM animal"}


@pytest.fixture
def zoo(data_folder):
    return data_folder / "spider/database/zoo/zoo.sqlite"


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def table(delimiter, end="\n", header=("question", "sql")):
    rows = [header, *PAIRS.items()]
    return "".join(delimiter.join(f'"{cell}"' for cell in row) + end for row in rows)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", table(",")),
        ("a.CSV", table(";", "\r\n")),
        ("a.csv", "\ufeff" + table(";", "\r\n")),
        ("a.csv", table("\t", "\r\n").encode("utf-16")),
        ("a.csv", "sep=;\r\n" + table(";", "\r\n")),
        ("a.csv", table(";", ";;\r\n") + ";;;\r\n;;;\r\n"),
        ("a.csv", table(";", "\r")),
        ("a.csv", table(",", header=("Question", "Sql"))),
        ("a.csv", table(";", header=(" question", "QUERY "))),
        ("a.tsv", table("\t")),
        ("a.json", json.dumps([{"question": q, "sql": s} for q, s in PAIRS.items()], indent=1)),
        ("a.JSONL", "".join(json.dumps({"question": q, "SQL": s}) + "\r\n" for q, s in PAIRS.items())),
    ],
)
def test_the_same_pairs_as_they_come(tmp_path, zoo, name, content):
    path = write(tmp_path, name, content)
    examples = load_benchmark(str(path), database=zoo).examples
    assert {example.question: example.gold_sql for example in examples} == PAIRS
    (checked,) = check(path, database=zoo).benchmarks
    assert (checked.problems, checked.gold_runs) == ((), 2)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.csv", "", "holds no pairs"),
        ("a.csv", "question,sql\n", "holds no pairs"),
        ("a.csv", "question;sql\r\n;\r\n", "holds no pairs"),
        ("a.tsv", "question\tsql", "holds no pairs"),
        ("a.jsonl", "", "holds no pairs"),
        ("a.jsonl", "\n \n", "holds no pairs"),
        ("a.json", "[]", "holds no pairs"),
        ("a.csv", "How many?,SELECT count(*) FROM animal\n", "its first line must be a header with"),
        ("a.csv", "question,sql,sql\nHow?,SELECT 1,SELECT 2\n", "has the column 'sql' twice"),
        ("a.csv", "question,sql\nHow?,SELECT 1, 2\n", "more cells than the header"),
        ("a.json", "{}", "expected a JSON list of records, found dict"),
        ("a.json", '[{"question": "?", "sql": 5}]', "expected text"),
        ("a.jsonl", "PK\x03\x04", "a zip archive"),
        ("a.jsonl", "SQLite format 3\0", "a SQLite database"),
        ("a.jsonl", '{"question": "?", "sql": "-- to do"}', "no result"),
        ("a.jsonl", '{"question": "?", "sql": ";"}', "no result"),
    ],
)
def test_what_holds_no_pair_is_no_success(tmp_path, zoo, name, content, found):
    path = write(tmp_path, name, content)
    (problem,) = check(path, database=zoo).problems
    assert found in str(problem)
    if problem.kind != "gold_fails":
        with pytest.raises(DataError, match=found.replace("(", r"\(")):
            load_benchmark(str(path), database=zoo)


def test_an_empty_file_of_instructions_is_no_success(tmp_path):
    folder = tmp_path / "instruct"
    folder.mkdir()
    (folder / "dolly_valid.jsonl").write_text("")
    (problem,) = check("dolly:valid", tmp_path).problems
    assert "holds no instructions" in str(problem)


def test_a_file_without_a_suffix_says_which_there_are(tmp_path, zoo):
    with pytest.raises(DataError, match=r"no suffix that gives its format; own pairs end in \.jsonl"):
        load_benchmark(str(write(tmp_path, "pairs.xlsx", "")), database=zoo)


def records(*questions, **fields):
    return [{"question": q, "sql": "SELECT 1", **fields} for q in questions]


def load(tmp_path, zoo, found):
    path = write(tmp_path, "pairs.jsonl", "".join(json.dumps(record) + "\n" for record in found))
    return load_benchmark(str(path), database=zoo)


def ids(benchmark):
    return {example.question: example.example_id for example in benchmark.examples}


def test_ids_survive_deletion_insertion_order_and_a_repaired_gold(tmp_path, zoo):
    before = ids(load(tmp_path, zoo, records("a?", "b?", "c?", "d?")))
    assert len(set(before.values())) == 4
    for changed in (
        records("a?", "c?", "d?"),
        records("d?", "new?", "b?"),
        [{**records("c?")[0], "sql": "SELECT 2"}],
    ):
        after = ids(load(tmp_path, zoo, changed))
        assert {q: i for q, i in after.items() if q in before} == {q: before[q] for q in after if q in before}
    twins = load(tmp_path, zoo, records("a?", "a?", "b?"))
    assert len({example.example_id for example in twins.examples}) == 3
    assert ids(twins)["b?"] == before["b?"]


def test_a_record_may_bring_its_own_id(tmp_path, zoo):
    own = [{**records("a?")[0], "example_id": "sales-7"}, *records("b?")]
    assert ids(load(tmp_path, zoo, own))["a?"] == "sales-7"
    with pytest.raises(
        DataError, match=r"record 1, field 'example_id': a second record has the id 'sales-7'"
    ):
        load(tmp_path, zoo, [own[0], {**records("b?")[0], "example_id": "sales-7"}])


def test_predictions_outlive_a_deleted_record(tmp_path, zoo):
    """Those with ids as they are now. Those by place are refused, and told what to do."""
    whole = load(tmp_path, zoo, records("a?", "b?", "c?"))
    lines = [
        {"example_id": example.example_id, "sql": f"SELECT '{example.question}'"}
        for example in whole.examples
    ]
    by_id = write(tmp_path, "by_id.jsonl", "\n".join(map(json.dumps, lines)))
    places = [{**line, "example_id": f"pairs/{place}"} for place, line in enumerate(lines)]
    by_place = write(tmp_path, "by_place.jsonl", "\n".join(map(json.dumps, places)))
    answers = [line["sql"] for line in lines]
    assert read_predictions(by_id, whole) == read_predictions(by_place, whole) == answers
    assert (
        evaluate_file(by_place, whole, Rules(leave_out=["pairs/1"])).left_out[0].example_id
        == ids(whole)["b?"]
    )
    assert [example.question for example in whole.without({"pairs/1"}).examples] == ["a?", "c?"]
    rest = load(tmp_path, zoo, records("a?", "c?"))
    assert read_predictions(by_id, rest) == [answers[0], answers[2]]
    with pytest.raises(DataError, match=r"no example 'pairs/2'.*If records were deleted since"):
        read_predictions(by_place, rest)


def test_bird_keys_are_places_of_own_pairs_too(tmp_path, zoo):
    whole = load(tmp_path, zoo, records("a?", "b?"))
    path = write(tmp_path, "p.json", json.dumps({"1": "SELECT 2", "0": "SELECT 1"}))
    assert read_predictions(path, whole) == ["SELECT 1", "SELECT 2"]


def test_records_with_one_fault_share_a_line(tmp_path, zoo):
    faulty = [*records(*(f"{n}?" for n in range(37)), db_id="gone"), *records(*"ab", db_id="lost")]
    path = write(tmp_path, "pairs.jsonl", "".join(json.dumps(record) + "\n" for record in faulty))
    report = check(path, database=zoo.parents[1])
    assert len(report.problems) == 39
    lines = list(problem_lines(report.problems))
    assert len(lines) == 2
    assert "37 records (0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 27 more), field 'db_id'" in lines[0]
    assert "2 records (37, 38)" in lines[1]


def test_what_was_read_is_told_from_what_can_be_used(tmp_path, zoo):
    path = write(tmp_path, "pairs.jsonl", '{"question": "?"}\n' * 87)
    (checked,) = check(path, database=zoo).benchmarks
    assert (checked.found, checked.examples) == (87, 0)
    (line,) = problem_lines(checked.problems)
    assert "87 records" in line
