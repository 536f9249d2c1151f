"""SWITCH along the sequence, from summary to figure, page and table."""

import pytest
from PIL import Image

from distilsql.report import comparison_table, group_runs, load_runs, write_report
from distilsql.report.switch_figure import switch_along_sequence

TRACE = {
    "threshold": [0.3, 0.27, 0.25],
    "tokens": [8, 8, 2],
    "teacher_share": [0.5, 0.25, 1.0],
    "divergence": [0.31, 0.2, 0.4],
    "teacher_passes_per_token": 0.42,
}


def test_the_panels_hold_share_divergence_with_threshold_and_length(make_run):
    runs = load_runs([make_run("sft"), make_run("switch", method="switch", switch=TRACE)])
    figure = switch_along_sequence(group_runs(runs))
    drawn = [[line.get_ydata().tolist() for line in axes.get_lines()] for axes in figure.axes]
    assert drawn == [[[50, 25, 100]], [TRACE["divergence"], TRACE["threshold"]], [[100, 100, 25]]]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["switch"]


def test_seeds_share_a_name_and_runs_without_a_trace_are_left_out(make_run):
    runs = [make_run(f"s{seed}", method="switch", seed=seed, switch=TRACE) for seed in (0, 1)]
    runs.append(make_run("s2", method="switch", seed=2))
    figure = switch_along_sequence(group_runs(load_runs(runs)))
    assert len(figure.axes[0].get_lines()) == 2
    assert len(figure.legends[0].get_texts()) == 1


@pytest.mark.slow
def test_the_report_shows_it_where_a_run_has_it(make_run, tmp_path):
    """Where none has, see test_write.py."""
    runs = load_runs([make_run("sft"), make_run("switch", method="switch", switch=TRACE)])
    report = write_report(runs, tmp_path / "report", title="T")
    assert "SWITCH along the sequence" in report.page.read_text(encoding="utf-8")
    assert "teacher passes/token" in comparison_table(runs).titles
    assert report.switch_along_sequence == tmp_path / "report" / "switch_along_sequence.png"
    assert "0.42" in report.markdown.read_text(encoding="utf-8")
    with Image.open(report.switch_along_sequence) as image:
        assert len(set(image.convert("RGB").resize((60, 40)).tobytes())) > 20, "not blank"
