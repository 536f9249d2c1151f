"""What a teacher's queries are worth: counted right, logged once, and said aloud when they do not run."""

import json

import pytest

from distilsql.data.load import load_benchmark
from distilsql.metrics import query_check as teacher_check
from distilsql.metrics.query_check import TeacherCheck, check_teacher_queries, parses
from distilsql.runs.folder import RunFolder
from distilsql.training.sources import writing
from distilsql.training.sources.teacher import check_once
from distilsql.training.train import train
from run_folders import Killed, log_lines


@pytest.fixture
def benchmark(world):
    return load_benchmark(str(world / "pairs.jsonl"), database=world / "singers.sqlite")


def ids(benchmark) -> list[str]:
    return [example.example_id for example in benchmark.examples]


def test_gold_itself_parses_runs_and_matches(benchmark):
    queries = {example.example_id: example.gold_sql for example in benchmark.examples}
    assert check_teacher_queries(queries, benchmark, workers=1) == TeacherCheck(10, 10, 10, 10, 10)


@pytest.mark.slow
def test_each_kind_of_failure_is_counted_where_it_belongs(benchmark, monkeypatch):
    monkeypatch.setattr(teacher_check, "TIMEOUT_S", 2.0)
    queries = dict(
        zip(
            ids(benchmark),
            [
                "SELECT count(id) FROM singer",  # other words, gold's result
                "SELECT count(*) FROM singer WHERE age > 100",  # runs, another result
                "SELECT nonsense FROM singer",  # parses, does not run
                "SELECT FROM WHERE ORDER",  # does not parse
                "",  # nothing written
                "DELETE FROM singer",  # parses, is refused
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n",  # endless
            ],
            strict=False,
        )
    )
    check = check_teacher_queries(queries, benchmark, workers=1)
    assert check == TeacherCheck(completions=7, parse=5, run=2, judged=7, match_gold=1)
    assert check.to_json()["share_that_matches_gold"] == pytest.approx(1 / 7)
    left = {ids(benchmark)[0]: "SELECT\n4"}  # gold counts the singers; a line break is only a space
    check = check_teacher_queries(left, benchmark, workers=1)
    assert check.match_gold == 1, "the refused DELETE deleted nothing"


def test_a_gold_query_that_does_not_run_judges_nothing(world):
    lines = [{"question": "How many?", "sql": "SELECT count(*) FROM singer"}]
    lines += [{"question": "Which albums?", "sql": "SELECT title FROM album"}]
    (world / "broken.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    benchmark = load_benchmark(str(world / "broken.jsonl"), database=world / "singers.sqlite")
    queries = dict.fromkeys(ids(benchmark), "SELECT count(*) FROM singer")
    check = check_teacher_queries(queries, benchmark, workers=1)
    assert check == TeacherCheck(completions=2, parse=2, run=2, judged=1, match_gold=1)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1", True),
        ("SELECT `a` FROM t", True),
        ("SELECT 'open", False),
        ("", False),
        ("(" * 5000, False),
    ],
)
def test_parsing_never_raises(sql, expected):
    assert parses(sql) is expected


@pytest.mark.parametrize(("runs", "warned"), [(10, False), (8, False), (7, True), (0, True)])
def test_a_low_share_that_runs_is_a_warning_with_a_cure(runs, warned, caplog):
    TeacherCheck(completions=10, parse=10, run=runs, judged=10, match_gold=0).say()
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any("Fine-tune the teacher" in sentence for sentence in warnings) == warned


def test_the_check_is_made_once_and_kept_in_the_log(benchmark, tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    first = check_once(run, {ids(benchmark)[0]: "SELECT 4"}, benchmark)
    monkeypatch.setattr(teacher_check, "check_teacher_queries", None)
    assert check_once(run, {}, benchmark) == first
    assert len(run.log.read_text().splitlines()) == 1


@pytest.mark.slow
def test_f_distill_says_logs_and_sums_up_what_its_teacher_wrote(recipe, tmp_path, caplog):
    run = train(recipe("f-distill"), tmp_path / "run")
    found = [line["teacher_completions"] for line in log_lines(run) if line["step"] == 0]
    assert len(found) == 1
    assert found[0]["completions"] == 10
    assert found[0]["share_that_runs"] < 0.5, "a random teacher writes no SQL"
    assert "of the teacher's queries run" in caplog.text
    assert json.loads(run.summary.read_text())["teacher_completions"] == found[0]
    sft = train(recipe("sft"), tmp_path / "sft")
    assert json.loads(sft.summary.read_text()).get("teacher_completions") is None


def test_the_teacher_writes_for_the_examples_that_training_sees_and_no_others(recipe, tmp_path):
    """One tree of three questions in the first step, of the ten that there are."""
    settings = recipe("f-distill", "train.trees_per_step=1", "train.steps=1", "distill.mixture_share=0")
    run = train(settings, tmp_path / "run")
    written = [json.loads(line)["example_id"] for line in run.teacher_completions.read_text().splitlines()]
    seen = json.loads(run.summary.read_text())["examples_seen"]
    assert len(written) == len(set(written)) == seen == 3


@pytest.mark.slow
@pytest.mark.parametrize("cut_off", [0, 7])
def test_writing_that_was_interrupted_goes_on_to_the_same_completions(recipe, tmp_path, monkeypatch, cut_off):
    settings = recipe("f-distill", "train.steps=2", "generation.max_batch_rows=3", "train.precision=bfloat16")
    whole = train(settings, tmp_path / "whole")
    real, calls = writing.generate_trees, []

    def killed_in_the_third_batch(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise Killed
        return real(*args, **kwargs)

    monkeypatch.setattr(writing, "generate_trees", killed_in_the_third_batch)
    with pytest.raises(Killed):
        train(settings, tmp_path / "killed")
    file = tmp_path / "killed" / "teacher_completions.jsonl"
    assert len(file.read_text().splitlines()) == 6
    file.write_text(file.read_text()[: -cut_off or None])
    resumed = train(settings, tmp_path / "killed")

    def written(run) -> dict[str, list[int]]:
        records = map(json.loads, run.teacher_completions.read_text().splitlines())
        return {record["example_id"]: record["tokens"] for record in records}

    assert written(resumed) == written(whole)
    assert len(written(whole)) == 10
