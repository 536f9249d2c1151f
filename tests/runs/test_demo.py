"""The demo, whole, at a size that shows its plumbing."""

import pytest

from distilsql.runs.demo import METHODS, run_demo


@pytest.mark.slow
def test_the_demo_makes_runs_scores_and_a_page_and_resumes(tmp_path, capsys):
    run_demo(tmp_path, teacher_steps=4, student_steps=2)
    for name in ("teacher", *METHODS):
        assert (tmp_path / name / "scores" / "demo-test.json").exists()
    shown = capsys.readouterr().out
    assert all(method in shown for method in METHODS)
    page = next((tmp_path / "report").glob("*.html"))
    before = (tmp_path / "kid" / "summary.json").read_text()
    run_demo(tmp_path, teacher_steps=4, student_steps=2)
    assert (tmp_path / "kid" / "summary.json").read_text() == before
    assert page.exists()
