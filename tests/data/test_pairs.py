import json
from pathlib import Path

import pytest

from distilsql.data.load import load_benchmark
from distilsql.errors import DataError


@pytest.fixture
def zoo(data_folder: Path) -> Path:
    return data_folder / "spider/database/zoo/zoo.sqlite"


def write_lines(path: Path, *records: object) -> Path:
    path.write_text("\n".join(json.dumps(record) for record in records))
    return path


@pytest.mark.parametrize("field", ["sql", "query", "SQL", "gold_sql"])
def test_jsonl_pairs_are_asked_of_the_database_given(tmp_path: Path, zoo: Path, field: str) -> None:
    file = write_lines(tmp_path / "mine.jsonl", {"question": "Names?", field: "SELECT name FROM animal"})
    benchmark = load_benchmark(str(file), database=zoo)
    (example,) = benchmark.examples
    assert (example.example_id, example.db_id, example.gold_sql) == (
        benchmark.place_ids["mine/0"],
        "zoo",
        "SELECT name FROM animal",
    )
    assert [column.name for column in benchmark.databases["zoo"].schema.tables[0].columns] == ["id", "name"]


def test_csv_pairs_may_hold_commas_quotes_and_a_byte_order_mark(tmp_path: Path, zoo: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(
        'question,sql,evidence\n"Ids, names?","SELECT id, name\nFROM animal","a ""hint"""\n',
        encoding="utf-8-sig",
    )
    (example,) = load_benchmark(str(file), database=zoo).examples
    assert example.question == "Ids, names?"
    assert example.gold_sql == "SELECT id, name\nFROM animal"
    assert example.evidence == 'a "hint"'


def test_a_csv_row_with_an_unquoted_comma_is_refused(tmp_path: Path, zoo: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("question,sql\nIds?,SELECT id, name FROM animal\n")
    with pytest.raises(DataError, match=r"mine\.csv, record 0: more cells than the header"):
        load_benchmark(str(file), database=zoo)


def test_a_record_may_name_its_database_relative_to_the_file(
    tmp_path: Path, zoo: Path, data_folder: Path
) -> None:
    here = zoo.parent / "pairs.jsonl"
    write_lines(
        here,
        {"question": "?", "sql": "SELECT 1", "database": "zoo.sqlite"},
        {"question": "?", "sql": "SELECT 2", "database": "../shop/shop.sqlite", "db_id": "till"},
    )
    benchmark = load_benchmark(str(here))
    assert [example.db_id for example in benchmark.examples] == ["zoo", "till"]
    assert benchmark.databases["zoo"].path.samefile(zoo)


def test_a_folder_of_databases_is_searched_by_db_id(tmp_path: Path, data_folder: Path) -> None:
    file = write_lines(
        tmp_path / "mine.jsonl",
        {"question": "?", "sql": "SELECT 1", "db_id": "zoo"},
        {"question": "?", "sql": "SELECT 1", "db_id": "shop"},
    )
    benchmark = load_benchmark(str(file), database=data_folder / "spider/database")
    assert set(benchmark.databases) == {"zoo", "shop"}
    assert benchmark.evaluator == "plain", "Spider's rewrites are not for own SQL"


def test_questions_alone_can_be_asked_but_not_judged(tmp_path: Path, zoo: Path) -> None:
    file = write_lines(
        tmp_path / "asked.jsonl", {"question": "Names?"}, {"question": "Ids?", "query": "SELECT 1"}
    )
    asked = load_benchmark(str(file), database=zoo, needs_gold=False)
    assert [example.gold_sql for example in asked.examples] == ["", "SELECT 1"]
    with pytest.raises(DataError, match=r"record 0, field 'sql': the field is missing"):
        load_benchmark(str(file), database=zoo)


def test_an_open_quote_is_a_fault_of_the_csv_file(tmp_path: Path, zoo: Path) -> None:
    """Read leniently, it would swallow the records that follow it."""
    file = tmp_path / "mine.csv"
    rows = ['"How many?",SELECT 1', '"Open,SELECT 2', "Which?,SELECT 3"]
    for text in ("\n".join(rows), "\n".join([*rows, *["x" * 100] * 2000])):
        file.write_text("question,sql\n" + text)
        with pytest.raises(
            DataError, match=r"mine\.csv: is not valid CSV at line \d+ .*quote that is not closed"
        ):
            load_benchmark(str(file), database=zoo)


def test_a_url_given_as_a_path_is_refused(tmp_path: Path) -> None:
    """pathlib has made one slash of two."""
    file = write_lines(tmp_path / "mine.jsonl", {"question": "?", "sql": "SELECT 1"})
    with pytest.raises(DataError, match="as text, not as a Path"):
        load_benchmark(str(file), database=Path("postgresql+psycopg://me@host/shop"))


def test_records_may_name_databases_by_url(tmp_path: Path, zoo: Path) -> None:
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed")
    with duckdb.connect(str(tmp_path / "shop.duckdb")) as connection:
        connection.execute("CREATE TABLE till (id int)")
    records = [
        {"question": "?", "sql": "SELECT 1", "database": "duckdb:///shop.duckdb"},
        {"question": "!", "sql": "SELECT 2", "database": f"sqlite:///{zoo}"},
    ]
    benchmark = load_benchmark(write_lines(tmp_path / "mine.jsonl", *records))
    assert {name: one.engine for name, one in benchmark.databases.items()} == {
        "shop": "duckdb",
        "zoo": "sqlite",
    }
    assert benchmark.databases["shop"].path.file == tmp_path / "shop.duckdb"


def test_passwords_of_records_are_not_shown(tmp_path: Path) -> None:
    record = {"question": "?", "sql": "SELECT 1", "database": "mysql://me:s3cr3t@127.0.0.1:1/shop"}
    with pytest.raises(DataError, match=r"\$\{NAME\}") as in_memory:
        load_benchmark([record])
    file = write_lines(tmp_path / "mine.jsonl", record, record | {"database": "oracle://me:s3cr3t@host/shop"})
    with pytest.raises(DataError, match="record 1, field 'database': oracle://") as in_file:
        load_benchmark(file)
    file = write_lines(tmp_path / "mine.jsonl", record)
    with pytest.raises(DataError, match="check that the server runs") as unreachable:
        load_benchmark(file)
    for caught in (in_memory, in_file, unreachable):
        assert "s3cr3t" not in str(caught.value)


def test_a_pair_without_any_database_is_refused(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "mine.jsonl", {"question": "?", "sql": "SELECT 1"})
    with pytest.raises(DataError, match=r"record 0, field 'database': no database is known"):
        load_benchmark(str(file))


def test_one_db_id_for_two_files_is_refused(tmp_path: Path, data_folder: Path) -> None:
    file = write_lines(
        data_folder / "mine.jsonl",
        {"question": "?", "sql": "SELECT 1", "db_id": "d", "database": "spider/database/zoo/zoo.sqlite"},
        {"question": "?", "sql": "SELECT 1", "db_id": "d", "database": "spider/database/shop/shop.sqlite"},
    )
    with pytest.raises(DataError, match="record 1, field 'db_id': 'd' already stands for"):
        load_benchmark(str(file))


def test_a_missing_database_file_is_named(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "mine.jsonl", {"question": "?", "sql": "SELECT 1"})
    with pytest.raises(DataError, match=r"record 0, field 'database': database 'none' has no file"):
        load_benchmark(str(file), database=tmp_path / "none.sqlite")


def test_a_line_that_is_no_json_is_named(tmp_path: Path, zoo: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"question": "?", "sql": "SELECT 1"}\n{"question": \n')
    with pytest.raises(DataError, match=r"mine\.jsonl, record 1: the line is not valid JSON"):
        load_benchmark(str(file), database=zoo)
