"""The demo, whole, at a size that shows its plumbing; and what its headline says."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from distilsql.errors import ModelError
from distilsql.experiments.demo import demo
from distilsql.experiments.demo.demo import METHODS, headline, run_demo
from distilsql.experiments.demo.progress import progress_of_jobs
from distilsql.experiments.demo.task import DemoTask
from distilsql.experiments.demo.teacher import make_teacher, teacher_recipe
from distilsql.metrics.scores import Scores, Verdict, VerdictOutcome
from distilsql.runs.recipe import load_recipe

QUESTIONS = 24


def toy_demo(out: Path) -> None:
    run_demo(out, student_steps=2, questions=QUESTIONS, console=Console(quiet=True))


@pytest.mark.slow
def test_the_demo_makes_runs_scores_and_a_page_and_resumes(tmp_path, capsys, monkeypatch):
    toy_demo(tmp_path)
    for name in ("teacher", *METHODS):
        scores = Scores.from_json((tmp_path / name / "scores" / "demo-test.json").read_text())
        assert len(scores.verdicts) == QUESTIONS
    for method in METHODS:
        recipe = load_recipe(tmp_path / method / "recipe.toml")
        assert (recipe.method, recipe.teacher.path) == (method, "demo:teacher")
    shown = capsys.readouterr().out
    assert all(method in shown for method in METHODS)
    assert "larger than chance" in shown.lower()
    page = (tmp_path / "report" / "report.html").read_text()
    assert "larger than chance" in page.lower()
    assert list((tmp_path / "report").glob("accuracy_against_cost*.png"))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/s*/*.json")}
    (tmp_path / "kid" / "scores" / "demo-test.json").unlink()  # as if it had been stopped here
    toy_demo(tmp_path)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/s*/*.json")}
    assert after.keys() == before.keys()
    assert {path for path in before if before[path] != after[path]} == {
        tmp_path / "kid" / "scores" / "demo-test.json"
    }


@pytest.mark.slow
def test_a_teacher_is_trained_packed_and_recorded(tmp_path, monkeypatch):
    """On the validation questions, at two steps: what it needs of the teacher's data is the same."""
    monkeypatch.setattr("distilsql.experiments.demo.teacher.DATA", "demo:valid")
    monkeypatch.setattr("distilsql.experiments.demo.teacher.SCORED_ON", {"demo:valid": 8})
    packed = make_teacher(tmp_path / "own", steps=2)
    record = json.loads((packed / "record.json").read_text())
    assert record["scores"]["demo:valid"]["of"] == 8
    assert record["steps"] == 2
    kept = load_recipe(packed / "recipe.toml")
    assert kept == teacher_recipe(tmp_path / "own" / "start", steps=2).settled_as(kept)
    before = (packed / "record.json").stat().st_mtime_ns
    assert make_teacher(tmp_path / "own", steps=2) == packed
    assert (packed / "record.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_damaged_teacher_is_said_before_anything_is_made(tmp_path, monkeypatch):
    def damaged(name: str) -> str:
        raise ModelError("The model is not as it was shipped.")

    monkeypatch.setattr(demo, "resolve", damaged)
    with pytest.raises(ModelError, match="not as it was shipped"):
        toy_demo(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_task_survives_its_way_to_another_process():
    task = DemoTask("demo:teacher", method="kid", steps=3, questions=5)
    assert DemoTask.from_json(task.to_json()) == task
    assert len(task.test().examples) == 5


# ---- the headline ----------------------------------------------------------------------------------------------


def scores_of(right: range) -> Scores:
    """200 questions, of which those in `right` are answered rightly."""
    verdict = Verdict("", "db", "easy", (), "", "SELECT 1", "SELECT 1", VerdictOutcome.WRONG)
    verdicts = [
        replace(
            verdict,
            example_id=f"test/{n}",
            outcome=VerdictOutcome.CORRECT if n in right else VerdictOutcome.WRONG,
        )
        for n in range(200)
    ]
    return Scores("demo:test", "spider", "EX", False, tuple(verdicts))


def test_headline_names_the_better_first_and_only_what_chance_does_not_explain():
    scores = {"sft": range(80), "rkd": range(120), "kid": range(121), "gkd-rkl": range(20, 100)}
    said = headline({method: scores_of(right) for method, right in scores.items()})
    assert said.startswith("Larger than chance: ")
    larger, level = said.split("Not told apart: ")
    assert "rkd above sft (20.0 points" in larger
    assert "kid above sft" in larger
    assert "rkd and kid" in level or "kid and rkd" in level
    assert "200 questions" in said


def test_headline_corrects_for_the_number_of_pairs():
    """8 to 0 is p = 0.008 by itself, and 0.047 for six tests; 7 to 0 is 0.016, and 0.094."""
    for more, is_larger in ((8, True), (7, False)):
        scores = {"sft": range(100), "rkd": range(100), "kid": range(100), "gkd-rkl": range(100 + more)}
        said = headline({method: scores_of(right) for method, right in scores.items()})
        assert ("gkd-rkl above sft" in said) is is_larger
    assert said.startswith("No difference is larger than chance.")


# ---- progress --------------------------------------------------------------------------------------------------


def test_progress_into_a_file_is_lines(tmp_path, monkeypatch):
    monkeypatch.setattr("distilsql.experiments.demo.progress.SECONDS_BETWEEN_LINES", 0.0)
    with (
        (tmp_path / "log").open("w") as file,
        progress_of_jobs(["kid", "sft"], Console(file=file)) as on_event,
    ):
        on_event("kid", {"doing": "training", "done": 3, "total": 9, "detail": "loss 0.500"})
        on_event("kid", {"said": "resuming [after] step 3"})
        on_event("sft", {"ended": True})
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[0].endswith("kid training 3/9, sft waiting")
    assert "kid: resuming [after] step 3" in lines
    assert lines[-1].endswith("kid training 3/9, sft done")


def test_progress_in_a_terminal_takes_the_same_events():
    console = Console(force_terminal=True, record=True, width=100)
    with progress_of_jobs(["kid"], console) as on_event:
        on_event("kid", {"doing": "training", "done": 3, "total": 9, "detail": "loss 0.500"})
        on_event("kid", {"said": "resuming"})
        on_event("kid", {"ended": True})
    assert "kid: resuming" in console.export_text()
