"""Instruction files become examples with all their references; a broken line is named, never skipped."""

import json
from pathlib import Path
from typing import Any

import pytest

from distilsql.data.benchmark import InstructBenchmark
from distilsql.data.check import check
from distilsql.data.example import Instruction
from distilsql.data.instruct import INSTRUCT_SPECS, instruct_file
from distilsql.data.load import benchmark_names, load_benchmark, load_sql_benchmark
from distilsql.errors import DataError
from distilsql.prompts.instruct import build_instruct_prompt

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(
    not (SHARED_DATA / "instruct").is_dir(), reason="needs the real files in ../shared/data/instruct"
)
RECORDS: list[dict[str, Any]] = [
    {"instruction": "Name a colour.", "input": "", "output": ["red", " blue \n"], "prompt": "not read"},
    {"instruction": "Count the words. ", "input": " a b\nc ", "output": "three"},
    {"instruction": "Say hello.", "output": "Hello!", "topic": "chat"},
]


def write_jsonl(path: Path, records: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "own.jsonl", RECORDS)


def test_texts_are_kept_as_they_are_with_every_reference(file: Path) -> None:
    benchmark = load_benchmark(str(file))
    assert isinstance(benchmark, InstructBenchmark)
    assert benchmark.task == "instruct"
    assert benchmark.examples == (
        Instruction("own/0", "Name a colour.", "", ("red", " blue \n")),
        Instruction("own/1", "Count the words. ", " a b\nc ", ("three",)),
        Instruction("own/2", "Say hello.", "", ("Hello!",)),
    )


@pytest.mark.parametrize("spec", INSTRUCT_SPECS)
def test_a_named_benchmark_is_read_from_the_folder_instruct(tmp_path: Path, spec: str) -> None:
    assert spec in benchmark_names()
    write_jsonl(instruct_file(spec, tmp_path), RECORDS)
    assert (tmp_path / "instruct").is_dir()
    benchmark = load_benchmark(spec, root=tmp_path)
    assert (benchmark.name, len(benchmark.examples), benchmark.skipped) == (spec, 3, ())


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        ({"instruction": "?"}, "field 'output': the field is missing"),
        ({"instruction": "?", "output": ""}, "field 'output': expected text that is not empty"),
        ({"instruction": "?", "output": []}, "field 'output': expected a list of texts"),
        ({"instruction": "?", "output": ["a", " "]}, "field 'output': expected a list of texts"),
        ({"instruction": "?", "output": ["a", 7]}, "field 'output': expected a list of texts"),
        ({"instruction": " ", "output": "a"}, "field 'instruction': expected text that is not empty"),
        ({"output": "a"}, "field 'instruction': the field is missing"),
        ({"instruction": "?", "input": ["a"], "output": "a"}, "field 'input': expected text"),
        (["?", "a"], "expected an object with fields, found list"),
    ],
)
def test_a_broken_record_is_refused_by_its_number_and_field(
    file: Path, record: object, complaint: str
) -> None:
    write_jsonl(file, [*RECORDS, record])
    with pytest.raises(DataError, match=r"own\.jsonl, record 3") as error:
        load_benchmark(str(file))
    assert complaint in str(error.value)


def test_a_line_that_is_not_json_is_refused_and_check_lists_every_fault(file: Path) -> None:
    with file.open("a") as lines:
        lines.write('{"instruction": "cut o\n{"instruction": "?"}\n')
    with pytest.raises(DataError, match=r"record 3: the line is not valid JSON .* \(1 more of this kind\)"):
        load_benchmark(str(file))
    for target in (file, file.parent):
        (checked,) = check(target).benchmarks
        assert (checked.task, checked.examples, checked.databases) == ("instruct", 3, 0)
        assert [problem.record for problem in checked.problems] == [3, 4]


def test_a_missing_file_of_a_benchmark_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dolly_valid\.jsonl: the file does not exist"):
        load_benchmark("dolly:valid", root=tmp_path)


def test_a_data_folder_is_checked_with_its_instructions(tmp_path: Path) -> None:
    for spec in INSTRUCT_SPECS:
        write_jsonl(instruct_file(spec, tmp_path), RECORDS)
    for folder in (tmp_path, tmp_path / "instruct"):
        report = check(folder)
        assert [checked.name for checked in report.benchmarks] == list(INSTRUCT_SPECS)
        assert not report.problems


def test_question_and_sql_pairs_are_not_taken_for_instructions(tmp_path: Path) -> None:
    pairs = write_jsonl(tmp_path / "pairs.jsonl", [{"question": "?", "sql": "SELECT 1", "instruction": "x"}])
    with pytest.raises(DataError, match="no database is known"):
        load_benchmark(str(pairs))


def test_what_needs_databases_refuses_instructions(file: Path) -> None:
    with pytest.raises(DataError, match=r"own\.jsonl is an instruction-following benchmark"):
        load_sql_benchmark(str(file))


def test_drawing_and_leaving_out_keep_the_order(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "own.jsonl", [{"instruction": f"{n}?", "output": "a"} for n in range(20)])
    benchmark = load_benchmark(str(file))
    fewer, more = benchmark.take(5, seed=1).examples, benchmark.take(12, seed=1).examples
    assert set(fewer) <= set(more)
    assert list(more) == [example for example in benchmark.examples if example in more]
    assert benchmark.without({"own/3"}).examples == (*benchmark.examples[:3], *benchmark.examples[4:])


@needs_shared
@pytest.mark.parametrize(
    ("spec", "examples", "references"),
    [
        ("dolly:dev", 1000, 1000),
        ("dolly:valid", 500, 500),
        ("self-instruct:valid", 242, 242),
        ("vicuna:valid", 80, 80),
        ("sinst:valid", 1694, 2562),
    ],
)
def test_the_real_files_have_their_published_sizes_and_their_prompts(
    spec: str, examples: int, references: int
) -> None:
    benchmark = load_benchmark(spec, root=SHARED_DATA)
    assert isinstance(benchmark, InstructBenchmark)
    assert len(benchmark.examples) == examples
    assert sum(len(example.references) for example in benchmark.examples) == references
    lines = instruct_file(spec, SHARED_DATA).read_text(encoding="utf-8").splitlines()
    for example, line in zip(benchmark.examples, lines, strict=True):
        assert build_instruct_prompt(example).text == json.loads(line)["prompt"]
