from itertools import combinations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from distilsql.distill.methods import METHODS
from distilsql.report import Reference, Score, group_runs, load_runs
from distilsql.report.figures import accuracy_against_cost, cost_by_phase, learning_curves
from distilsql.report.theme import DARK, LIGHT, method_style

CLOSE = {name: (0.60 + 0.004 * (i % 3), 2.0 + 0.05 * (i % 4)) for i, name in enumerate(METHODS)}
PAPER = {
    "sft": (0.578, 1.0), "fkd": (0.573, 2.1), "rkd": (0.627, 2.0), "f-distill": (0.576, 6.0),
    "imitkd": (0.583, 5.9), "gkd-rkl": (0.629, 10.9), "kid": (0.637, 2.0),
}  # fmt: skip


def entries_of(make_run, places):
    return group_runs(
        load_runs(
            [make_run(m, method=m, accuracy=accuracy, x_sft=cost) for m, (accuracy, cost) in places.items()]
        )
    )


def teacher(accuracy: float) -> Reference:
    return Reference("teacher", {"demo:test": Score(benchmark="demo:test", accuracy=accuracy)})


def labels(figure: Figure) -> list[Annotation]:
    return [t for t in figure.axes[0].texts if isinstance(t, Annotation) and t.get_text()]


@pytest.mark.parametrize(
    "places", [CLOSE, PAPER, {"sft": (0.5, 1.0)}, {"sft": (1.0, 1.0), "kid": (0.0, 2.0)}]
)
@pytest.mark.parametrize("of_teacher", [None, pytest.param(0.64, marks=pytest.mark.slow)])
def test_labels_cover_neither_each_other_nor_points_and_stay_inside(make_run, places, of_teacher) -> None:
    reference = teacher(of_teacher) if of_teacher else None
    figure = accuracy_against_cost(entries_of(make_run, places), "demo:test", teacher=reference)
    assert figure is not None
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    boxes = {label.get_text(): Text.get_window_extent(label) for label in labels(figure)}
    assert set(places) <= set(boxes)
    for (one, first), (other, second) in combinations(boxes.items(), 2):
        assert not first.overlaps(second), f"{one} covers {other}"
    frame = axes.get_window_extent()
    for text, box in boxes.items():
        assert frame.x0 <= box.x0, text
        assert box.x1 <= frame.x1, text
        for line in axes.get_lines():
            if line.is_dashed() and not text.startswith("teacher"):
                assert not box.overlaps(line.get_window_extent()), f"{text} is struck through"
        for accuracy, cost in places.values():
            assert not box.contains(*axes.transData.transform((cost, 100 * accuracy))), text


def test_points_stand_at_cost_and_accuracy_with_their_interval(make_run) -> None:
    entries = entries_of(make_run, PAPER)
    figure = accuracy_against_cost(entries, "demo:test")
    assert figure is not None
    lines = [line.get_xydata().tolist() for line in figure.axes[0].get_lines()]
    for entry in entries:
        accuracy = entry.accuracy("demo:test")
        assert [[entry.x_sft, pytest.approx(100 * accuracy.mean)]] in lines
        low, high = accuracy.interval
        assert [[entry.x_sft, pytest.approx(100 * low)], [entry.x_sft, pytest.approx(100 * high)]] in lines
    assert [1.0, pytest.approx(57.8)] in [point for line in lines for point in line], "SFT stands at 1×"


def test_the_cost_axis_is_logarithmic_only_for_a_wide_range(make_run) -> None:
    wide = accuracy_against_cost(entries_of(make_run, PAPER), "demo:test")
    assert wide is not None
    assert wide.axes[0].get_xscale() == "log"
    narrow = accuracy_against_cost(
        entries_of(make_run, {"rkd-own": (0.5, 1.2), "kid-own": (0.6, 2.2)}), "demo:test"
    )
    assert narrow is not None
    assert narrow.axes[0].get_xscale() == "linear"


def test_the_teacher_is_a_dashed_line_at_its_accuracy(make_run) -> None:
    figure = accuracy_against_cost(entries_of(make_run, PAPER), "demo:test", teacher=teacher(0.7))
    assert figure is not None
    dashed = [line for line in figure.axes[0].get_lines() if line.is_dashed()]
    assert [float(line.get_ydata()[0]) for line in dashed] == [pytest.approx(70.0)]
    assert any(label.get_text() == "teacher 70.0 %" for label in labels(figure))


def test_runs_without_cost_or_score_are_not_drawn(make_run) -> None:
    runs = load_runs([make_run("kid", method="kid", x_sft=None), make_run("sft", accuracy={})])
    assert accuracy_against_cost(group_runs(runs), "demo:test") is None


def test_curves_show_every_logged_part_by_step_and_by_seconds(make_run) -> None:
    entries = entries_of(make_run, {"sft": (0.5, 1.0), "kid": (0.6, 2.0)})
    figure = learning_curves(entries)
    assert figure is not None
    rows = [figure.axes[i : i + 2] for i in range(0, len(figure.axes), 2)]
    assert [row[0].get_ylabel().split()[0] for row in rows] == ["loss", "divergence", "gold", "accuracy"]
    assert [len(row[0].get_lines()) for row in rows] == [2, 1, 2, 2], "sft has no divergence"
    kid = entries[1].runs[0]
    by_step, by_seconds = rows[1][0].get_lines()[0], rows[1][1].get_lines()[0]
    assert by_step.get_xdata()[-1] == 200
    assert by_seconds.get_xdata()[-1] == pytest.approx(kid.summary.train_seconds)
    assert list(by_step.get_ydata()) == list(by_seconds.get_ydata())
    assert sorted(text.get_text() for text in figure.legends[0].get_texts()) == ["kid", "sft"]


def test_curves_need_a_log(make_run) -> None:
    path = make_run("sft")
    (path / "log.jsonl").unlink()
    assert learning_curves(group_runs(load_runs([path]))) is None


def test_bars_add_up_to_the_cost_and_leave_evaluation_out(make_run) -> None:
    entries = entries_of(make_run, {"sft": (0.5, 1.0), "kid": (0.6, 2.0)})
    figure = cost_by_phase(entries)
    assert figure is not None
    bars = figure.axes[0].containers
    assert [bar.get_label() for bar in bars] == ["data", "generation", "teacher", "student", "optimizer"]
    totals = [sum(bar.patches[i].get_width() for bar in bars) for i in range(2)]
    assert totals == pytest.approx([10.0, 20.0])
    assert [text.get_text() for text in figure.axes[0].texts] == ["10 ms · 1.00× SFT", "20 ms · 2.00× SFT"]


def test_bars_need_a_ledger(make_run) -> None:
    assert cost_by_phase(group_runs(load_runs([make_run("sft", seconds_by_phase={})]))) is None


def test_every_method_has_its_own_look() -> None:
    for theme in (LIGHT, DARK):
        assert len({method_style(method, theme) for method in METHODS}) == len(METHODS)


def luminance(color: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_text_and_labels_are_readable_on_their_background(theme) -> None:
    """WCAG's contrast of at least 4.5 for everything that is written."""
    for color in (theme.text, theme.faint, *theme.lines):
        light, dark = sorted((luminance(color), luminance(theme.background)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, color
