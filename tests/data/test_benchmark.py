import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilsql.data.benchmark import SqlBenchmark, benchmark_names, load_benchmark
from distilsql.data.example import Example
from distilsql.errors import DataError

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(
    not SHARED_DATA.is_dir(), reason="needs the real benchmarks in ../shared/data"
)


def test_a_benchmark_has_its_examples_in_file_order_with_their_databases(data_folder: Path) -> None:
    benchmark = load_benchmark("spider:dev", root=data_folder)
    assert [example.example_id for example in benchmark.examples] == ["dev/0", "dev/1", "dev/2"]
    assert benchmark.examples[2] == Example(
        "dev/2", "shop", "Shops of Ayr?", "SELECT Name FROM Shop WHERE City = 'Ayr'"
    )
    assert set(benchmark.databases) == {"shop", "zoo"}
    assert benchmark.evaluator == "spider"
    assert benchmark.skipped == ()


def test_schemas_have_the_structure_of_the_file_and_the_names_of_tables_json(data_folder: Path) -> None:
    shop = load_benchmark("spider:dev", root=data_folder).databases["shop"].schema.tables[0]
    assert [(column.name, column.type) for column in shop.columns] == [
        ("Shop_ID", "integer"),
        ("Name", "text"),
        ("City", "varchar(20)"),
    ]
    assert shop.columns[2].comment == "city said plainly"


def test_the_data_folder_may_come_from_the_environment(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILSQL_DATA", str(data_folder))
    assert load_benchmark("spider:dev") == load_benchmark("spider:dev", root=data_folder)
    monkeypatch.delenv("DISTILSQL_DATA")
    with pytest.raises(DataError, match="set DISTILSQL_DATA"):
        load_benchmark("spider:dev")


def test_a_missing_database_names_file_record_and_field_unless_skipped(data_folder: Path) -> None:
    with pytest.raises(
        DataError, match=r"train_spider\.json, record 0, field 'db_id': database 'gone' has no file"
    ):
        load_benchmark("spider:train", root=data_folder)
    benchmark = load_benchmark("spider:train", root=data_folder, missing_databases="skip")
    assert [example.example_id for example in benchmark.examples] == ["train_spider/1", "train_others/0"]
    ((example_id, position, reason),) = benchmark.skipped
    assert (example_id, position) == ("train_spider/0", 0)
    assert "record 0" in reason


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        ({"question": "?", "query": "SELECT 1"}, "field 'db_id': the field is missing"),
        ({"db_id": "zoo", "query": "SELECT 1"}, "field 'question': the field is missing"),
        ({"db_id": "zoo", "question": "?", "query": "  "}, "field 'query': expected text that is not empty"),
        ({"db_id": "zoo", "question": 7, "query": "SELECT 1"}, "field 'question': expected text"),
        ({"db_id": "zo", "question": "?", "query": "SELECT 1"}, "field 'db_id': 'zo' is not in"),
        (["zoo", "?"], "expected an object with fields, found list"),
    ],
)
def test_a_faulty_record_is_refused_by_its_index_and_field(
    data_folder: Path, record: object, complaint: str
) -> None:
    file = data_folder / "spider/dev.json"
    file.write_text(json.dumps([*json.loads(file.read_text()), record]))
    with pytest.raises(DataError, match=r"dev\.json, record 3") as error:
        load_benchmark("spider:dev", root=data_folder, missing_databases="skip")
    assert complaint in str(error.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("[{", "not valid JSON"), ("{}", "expected a JSON list"), (None, "does not exist")],
)
def test_an_unreadable_file_is_refused_by_name(
    data_folder: Path, content: str | None, complaint: str
) -> None:
    for name in ("dev.json", "tables.json"):
        file = data_folder / "spider" / name
        kept = file.read_text()
        file.write_text(content) if content else file.unlink()
        with pytest.raises(DataError, match=complaint) as error:
            load_benchmark("spider:dev", root=data_folder)
        assert name in str(error.value)
        file.write_text(kept)


def test_a_damaged_database_file_is_refused_by_name(data_folder: Path) -> None:
    (data_folder / "spider/database/zoo/zoo.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(DataError, match=r"zoo\.sqlite cannot be read \(file is not a database\)"):
        load_benchmark("spider:dev", root=data_folder)


def test_a_damaged_database_that_no_example_uses_is_not_opened(data_folder: Path) -> None:
    (data_folder / "spider/database/shop/shop.sqlite").write_bytes(b"no database" * 100)
    assert load_benchmark("spider:train", root=data_folder, missing_databases="skip").databases.keys() == {
        "zoo"
    }


def test_birds_evidence_is_there_in_its_own_setting_only(data_folder: Path) -> None:
    without = load_benchmark("bird:dev", root=data_folder)
    with_evidence = load_benchmark("bird:dev+evidence", root=data_folder)
    assert without.examples[0].evidence == ""
    assert with_evidence.examples[0].evidence == "sales are Amount"
    assert with_evidence.examples[0].difficulty == "simple"
    assert with_evidence.evaluator == "bird"


def test_birds_training_set_has_files_and_databases_of_its_own(data_folder: Path) -> None:
    without = load_benchmark("bird:train", root=data_folder)
    with_evidence = load_benchmark("bird:train+evidence", root=data_folder)
    (example,) = without.examples
    assert example.gold_sql == "SELECT count(*) FROM animal WHERE name = 'Rhea'"
    assert (example.evidence, example.difficulty) == ("", "")
    assert with_evidence.examples == (replace(example, evidence="a rhea is named Rhea"),)
    zoo = without.databases["zoo"]
    assert zoo.path == data_folder / "bird/train/train_databases/zoo/zoo.sqlite"
    assert zoo.schema.tables[0].columns[1].comment == "name said plainly"
    assert without.evaluator == "bird"


def test_birds_descriptions_are_read_whatever_their_encoding(data_folder: Path) -> None:
    shop = load_benchmark("bird:dev", root=data_folder).databases["shop"].schema.tables[0]
    assert shop.columns[2].comment == "Where the shop’s door is"
    assert shop.columns[1].comment == "name said plainly"  # not described: the name in tables.json stays
    file = data_folder / "bird/dev_databases/shop/database_description/Shop.csv"
    file.write_bytes(file.read_bytes().decode("cp1252").encode("utf-8-sig"))
    again = load_benchmark("bird:dev", root=data_folder).databases["shop"].schema.tables[0]
    assert again == shop


def test_an_unknown_spec_lists_the_known_ones() -> None:
    with pytest.raises(DataError, match="spider:dev"):
        load_benchmark("spidr:dev")


def test_names_say_every_demo_split() -> None:
    from distilsql.data.demo import DEMO_SPLITS

    demo = {name for name in benchmark_names() if name.startswith("demo:")}
    assert demo == {f"demo:{split}" for split in DEMO_SPLITS}


def test_loading_brings_in_no_torch() -> None:
    import subprocess

    code = "import sys, distilsql.data.benchmark, distilsql.prompts.fit; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 5))
def test_a_smaller_draw_is_part_of_a_larger_one_in_order(small: int, large: int, seed: int) -> None:
    examples = tuple(Example(f"x/{index}", "d", "?", "SELECT 1") for index in range(20))
    benchmark = SqlBenchmark("x", examples, {}, "spider")
    small, large = sorted((small, large))
    fewer, more = benchmark.take(small, seed).examples, benchmark.take(large, seed).examples
    assert len(fewer) == min(small, 20)
    assert set(fewer) <= set(more)
    assert list(more) == [example for example in examples if example in more]


@needs_shared
@pytest.mark.parametrize(
    ("spec", "examples", "skipped", "databases"),
    [
        ("spider:train", 8563, 96, 144),
        ("spider:dev", 1034, 0, 20),
        ("spider-syn:dev", 1034, 0, 20),
        ("spider-dk:dev", 535, 0, 10),
        ("spider-realistic:dev", 508, 0, 19),
        ("bird:dev", 432, 1102, 3),
        ("bird:mini-dev+evidence", 140, 360, 3),
    ],
)
def test_the_real_benchmarks_have_their_published_sizes(
    spec: str, examples: int, skipped: int, databases: int
) -> None:
    benchmark = load_benchmark(spec, root=SHARED_DATA, missing_databases="skip")
    assert (len(benchmark.examples), len(benchmark.skipped), len(benchmark.databases)) == (
        examples,
        skipped,
        databases,
    )
    assert len({example.example_id for example in benchmark.examples}) == examples


@needs_shared
def test_spider_syn_asks_in_other_words_and_dk_on_databases_of_its_own() -> None:
    syn = load_benchmark("spider-syn:dev", root=SHARED_DATA)
    assert syn.examples[0].question == "How many vocalists do we have?"
    dk = load_benchmark("spider-dk:dev", root=SHARED_DATA)
    assert sum(example.db_id.startswith("new_") for example in dk.examples) == 127
