import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from distilsql.errors import RunError
from distilsql.report import (
    AnsweredQuestion,
    Reference,
    ReportPaths,
    RunRecord,
    Score,
    comparison_table,
    load_runs,
    write_report,
)

EVIL = "<script>alert('x')</script>\"&"


class Page(HTMLParser):
    """Tags with their attributes, and the text, of a page whose tags all close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "source", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def answer(**changes) -> AnsweredQuestion:
    values = {
        "question": "How many books are there?",
        "db_id": "library",
        "gold_sql": "SELECT count(*) FROM book",
        "predicted_sql": "SELECT count(*) FROM author",
        "verdict": "wrong result",
        "is_correct": False,
        "columns": ("count(*)",),
        "rows": ((24,),),
    }
    return AnsweredQuestion(**values | changes)


@pytest.fixture(scope="module")
def runs(make_shared_run) -> list[RunRecord]:
    return load_runs(
        [
            make_shared_run("sft", accuracy={"demo:test": 0.5, "demo:valid": 0.6}),
            make_shared_run("kid", method="kid", accuracy={"demo:test": 0.6, "demo:valid": 0.7}, x_sft=2.0),
        ]
    )


@pytest.fixture(scope="module")
def report(runs, tmp_path_factory: pytest.TempPathFactory) -> ReportPaths:
    many = answer(rows=tuple((f"row{i}",) for i in range(30)))
    right = answer(predicted_sql="SELECT count(*) FROM book", is_correct=True, verdict="correct", rows=())
    return write_report(
        runs,
        tmp_path_factory.mktemp("report") / "a" / "b",
        title="T",
        benchmark_order=["demo:valid"],
        answers=[many, right],
        teacher=Reference("teacher", {"demo:test": Score(benchmark="demo:test", accuracy=0.8)}),
    )


def test_everything_is_written_where_the_paths_say(report: ReportPaths) -> None:
    assert list(report.accuracy_against_cost) == ["demo:valid", "demo:test"]
    for path in (*report.accuracy_against_cost.values(), report.learning_curves, report.cost_by_phase):
        with Image.open(path) as image:
            assert image.width > 1000
            assert len(set(image.convert("RGB").resize((60, 40)).tobytes())) > 20, "not blank"
    assert report.csv.read_text().startswith("method,label,parameters,seeds,demo:valid accuracy")
    assert report.markdown.read_text().startswith("| method |")


def test_nothing_is_shown_of_switch_where_no_run_has_a_trace(runs, report: ReportPaths) -> None:
    assert report.switch_along_sequence is None
    assert not (report.page.parent / "switch_along_sequence.png").exists()
    assert "SWITCH along the sequence" not in report.page.read_text(encoding="utf-8")
    assert "teacher passes/token" not in comparison_table(runs).titles


def test_the_page_needs_nothing_from_outside(report: ReportPaths) -> None:
    text = report.page.read_text()
    page = Page(text)
    for _, attributes in page.tags:
        for name in ("src", "srcset", "href"):
            assert attributes.get(name, "data:image/png;base64,").startswith("data:image/png;base64,")
    without_images = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", text)
    for outside in ("http:", "https:", "url(", "@import", "<script"):
        assert outside not in without_images
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy


def test_the_page_has_both_themes_and_words_for_every_figure(report: ReportPaths) -> None:
    page = Page(report.page.read_text())
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 4
    assert all(len(image["alt"] or "") > 30 for image in images)
    darks = [a["srcset"] for tag, a in page.tags if tag == "source"]
    assert len(darks) == 4
    assert not set(darks) & {image["src"] for image in images}


def test_an_answer_shows_its_sql_verdict_and_first_rows(report: ReportPaths) -> None:
    page = Page(report.page.read_text())
    assert "row7" in page.text
    assert "row8" not in page.text
    assert "and 22 more rows" in page.text
    assert page.text.count("SELECT count(*) FROM book") == 2, (
        "gold of the wrong one, prediction of the right one"
    )
    assert "no rows" in page.text
    assert [a["class"] for _, a in page.tags if "verdict" in (a.get("class") or "")] == [
        "verdict wrong",
        "verdict right",
    ]


def test_whatever_a_model_wrote_is_text(make_run, tmp_path: Path) -> None:
    path = make_run("a", method="own", accuracy={}, seconds_by_phase={}, teacher=f"models/{EVIL}")
    (path / "log.jsonl").unlink()
    runs = load_runs([path])
    evil = answer(
        question=EVIL,
        db_id=EVIL,
        gold_sql=EVIL + "g",
        predicted_sql=EVIL,
        verdict=EVIL,
        columns=(EVIL,),
        rows=((EVIL,), (None,), (b"<b>",), (1 / 3,)),
        model=EVIL,
    )
    page = Page(write_report(runs, tmp_path, title=EVIL, answers=[evil]).page.read_text())
    assert {"script", "b"}.isdisjoint(tag for tag, _ in page.tags)
    assert page.text.count(EVIL) == 10, "title twice, eight parts of the answer"
    assert "NULL" in page.text
    assert "0.333333" in page.text


def test_runs_without_scores_and_logs_still_make_a_report(make_run, tmp_path: Path) -> None:
    path = make_run("sft", accuracy={}, seconds_by_phase={})
    (path / "log.jsonl").unlink()
    paths = write_report(load_runs([path]), tmp_path / "out", title="T")
    assert (dict(paths.accuracy_against_cost), paths.learning_curves, paths.cost_by_phase) == ({}, None, None)
    assert "sft" in paths.page.read_text()


def test_no_runs_and_no_place_to_write_are_refused(runs, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run to report on"):
        write_report([], tmp_path, title="T")
    bare = [
        replace(
            runs[0], scores={}, log=(), summary=runs[0].summary.model_copy(update={"seconds_by_phase": {}})
        )
    ]
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot be written to .*file"):
        write_report(bare, tmp_path / "file", title="T")
