import csv
import io
import json

import pytest
from rich.console import Console

from distilsql.report import (
    Reference,
    Score,
    comparison_table,
    load_runs,
    to_csv,
    to_markdown,
    to_terminal,
)
from distilsql.report.table import human_count

TEACHER = Reference(
    "teacher", {"demo:test": Score(benchmark="demo:test", accuracy=0.9, interval=(0.85, 0.95))}, 5_000_000
)


def build(make_run, **options):
    runs = [
        make_run("sft", accuracy={"demo:test": 0.5, "demo:valid": 0.6}),
        make_run("kid-0", method="kid", seed=0, accuracy={"demo:test": 0.6}, x_sft=2.0, teacher_share=0.25),
        make_run("kid-1", method="kid", seed=1, accuracy={"demo:test": 0.7}, x_sft=3.0),
    ]
    return comparison_table(load_runs(runs), **options)


def terminal(table, width: int = 200) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(to_terminal(table, "Comparison"))
    return console.file.getvalue()


def test_the_columns_are_the_same_however_they_are_rendered(make_run) -> None:
    table = build(make_run, teacher=TEACHER)
    shown, markdown = terminal(table), to_markdown(table)
    for title in table.titles:
        assert title in shown
        assert title in markdown
    for row in table.rows:
        for cell in row:
            assert cell.text in shown
            assert cell.text in markdown


def test_a_row_says_accuracy_spread_interval_and_cost(make_run) -> None:
    table = build(make_run)
    sft, kid = (dict(zip(table.titles, (cell.text for cell in row), strict=True)) for row in table.rows)
    assert sft["demo:test EX %"] == "50.0 [44.3, 55.7]"
    assert kid["demo:test EX %"].startswith("65.0 ± 7.1 [")
    assert (kid["demo:valid EX %"], kid["seed"], kid["× SFT"]) == ("", "0, 1", "2.50")
    assert (kid["teacher share"], sft["teacher share"]) == ("25%", "")
    assert (sft["student"], sft["samples/s"]) == ("1.23M", "100")


def test_columns_that_nobody_fills_are_left_out(make_run) -> None:
    runs = load_runs([make_run("sft", accuracy={"demo:test": 0.5})])
    titles = comparison_table(runs).titles
    assert "teacher share" not in titles
    assert not any("ExAccErr" in title for title in titles)


def test_exposure_on_other_questions_or_over_other_lengths_is_another_column(make_run) -> None:
    runs = [
        make_run(f"kid{seed}", method="kid", seed=seed, exposure=("demo:test", 10.0 + seed))
        for seed in (0, 2)
    ]
    runs += [make_run("rkd", method="rkd", exposure=("demo:valid", 5.0))]
    runs += [make_run("fkd", method="fkd", exposure=("demo:test", 3.0), length=30)]
    table = comparison_table(load_runs(runs))
    by_method = {
        row[0].text: dict(zip(table.titles, (cell.text for cell in row), strict=True)) for row in table.rows
    }
    shown = {
        (method, title): text
        for method, row in by_method.items()
        for title, text in row.items()
        if "ExAcc" in title and text
    }
    assert shown == {
        ("kid", "ExAccErr(15) % on demo:test"): "11.0 ± 1.4",
        ("rkd", "ExAccErr(15) % on demo:valid"): "5.0 [-15.0, 25.0]",
        ("fkd", "ExAccErr(30) % on demo:test"): "3.0 [-17.0, 23.0]",
    }


def test_benchmark_order_is_kept(make_run) -> None:
    table = build(make_run, benchmark_order=["demo:valid"])
    assert table.titles.index("demo:valid EX %") < table.titles.index("demo:test EX %")


def test_the_best_is_bold_and_the_teacher_does_not_compete(make_run) -> None:
    markdown = to_markdown(build(make_run, teacher=TEACHER))
    assert "**65.0 ± 7.1 [" in markdown
    assert "| 90.0 [85.0, 95.0] |" in markdown
    assert markdown.splitlines()[-1].startswith("| teacher | 5M |")


def test_csv_holds_the_numbers_in_full_with_one_column_each(make_run) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(build(make_run, teacher=TEACHER)))))
    assert [row["method"] for row in rows] == ["sft", "kid", "teacher"]
    assert float(rows[1]["demo:test accuracy"]) == pytest.approx(0.65, abs=1e-12)
    assert float(rows[1]["x_sft"]) == 2.5
    assert rows[1]["seeds"] == "0 1"
    assert (rows[0]["demo:test spread"], rows[0]["x_sft"], rows[2]["x_sft"]) == ("", "1.0", "")
    assert rows[2]["demo:valid accuracy"] == ""


def test_numbers_of_other_metrics_rules_and_examples_do_not_compete(make_run) -> None:
    methods = ("sft", "fkd", "rkd", "kid")
    ordinary, suite, kept, few = (make_run(method, method=method, accuracy=0.5) for method in methods)
    for path, changes in (
        (suite, {"metric": "TS on mine [12ab]", "accuracy": 0.9}),
        (kept, {"keep_distinct": True, "accuracy": 0.8}),
        (few, {"total": 20, "accuracy": 0.7}),
    ):
        file = path / "scores" / "demo-test.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    table = comparison_table(load_runs([ordinary, suite, kept, few]))
    columns = {title: [row[place] for row in table.rows] for place, title in enumerate(table.titles)}
    assert [cell.text for cell in columns["demo:test TS on mine [12ab] %"] if cell.text] == [
        "90.0 [44.3, 55.7]"
    ]
    assert [cell.text for cell in columns["demo:test DISTINCT kept EX %"] if cell.text] == [
        "80.0 [44.3, 55.7]"
    ]
    mixed = [cell for cell in columns["demo:test EX %"] if cell.text]
    assert [cell.text[-9:] for cell in mixed] == ["(n = 300)", " (n = 20)"]
    assert not any(cell.best for cell in mixed)


def test_names_are_text_not_markup(make_run) -> None:
    runs = load_runs([make_run("a", method="own[bold]|x")])
    table = comparison_table(runs)
    assert "own[bold]|x" in terminal(table)
    assert "own[bold]\\|x" in to_markdown(table)


def test_human_count() -> None:
    assert [human_count(n) for n in (12, 1234, 1_234_567, 7.6e9)] == ["12", "1.23k", "1.23M", "7.6B"]


def test_a_narrow_terminal_cuts_nothing(make_run) -> None:
    table = build(make_run, teacher=TEACHER)
    shown = terminal(table, width=60)
    assert all(len(line) <= 60 for line in shown.splitlines())
    assert "…" not in shown
    for row in table.rows:
        assert all(cell.text in shown for cell in row)
    assert all(title in shown for title in table.titles[1:])
