"""Tables and figures beside the paper's: whose a number is, what is missing, and that figures show the same."""

import csv
import io
from dataclasses import replace

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from distilsql.experiments.paper_figure import draw_paper_figure
from distilsql.experiments.paper_table import (
    Group,
    Line,
    Measured,
    PaperColumn,
    PaperTable,
    to_paper_csv,
    to_paper_markdown,
)

COLUMNS = (
    PaperColumn("latency", "× SFT", decimals=2),
    PaperColumn("spider_ex", "Spider-dev EX %"),
    PaperColumn("syn_ts", "Spider-Syn TS %", note="On our own suite."),
)
SFT = Line(
    "sft",
    "sft",
    "sft",
    seeds=(0, 1, 2),
    wanted_seeds=3,
    cells={
        "latency": Measured(1.0),
        "spider_ex": Measured(20.04, 1.52, (12.0, 28.5), 200, "EX"),
        "syn_ts": Measured(10.0, None, (5.0, 16.0), 100, "TS on syn [0123abcd]"),
    },
    published={"4b": {"latency": 1.0, "spider_ex": 57.8, "syn_ts": 43.7}},
    curves=(((50, 10.0), (100, 20.0)), ((50, 12.0), (100, 18.0))),
)
KID = Line(
    "kid",
    "kid",
    "kid",
    seeds=(0,),
    wanted_seeds=3,
    cells={"latency": Measured(1.43), "spider_ex": Measured(25.0, None, (19.0, 31.0), 180, "EX")},
    published={"4b": {"latency": 2.3, "spider_ex": 65.8, "syn_ts": 47.0}},
    x=0.2,
)
NOT_RUN = Line("gkd", "gkd|rkl", "gkd-rkl", (), 1, cells={}, published={"4b": {"spider_ex": 20.08}})
ALONE = Line("own", "own idea", "kid", (), 1, cells={}, published={})
TABLE = PaperTable(
    "Table 9: made up",
    "a paper",
    "cpu",
    COLUMNS,
    (Group("small from large", {"4b": "0.5B from 4B"}, (SFT, KID, NOT_RUN, ALONE)),),
    notes=("Levels do not compare.",),
)


def rows() -> list[list[str]]:
    lines = [line for line in to_paper_markdown(TABLE).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.replace("\\|", "¦").strip("|").split("|")] for line in lines]


def test_every_row_says_whose_it_is_and_ours_come_with_seeds_spread_and_interval():
    header, _, *body = rows()
    assert header[:3] == ["method", "whose", "seeds"]
    assert body[0] == [
        "sft", "ours", "0, 1, 2", "1.00", "20.0 ± 1.5 [12.0, 28.5]", "10.0 [5.0, 16.0]",
    ]  # fmt: skip
    assert body[1] == ["", "paper, 0.5B from 4B", "", "1.0", "57.8", "43.7"]


def test_the_number_of_questions_stands_in_the_title_as_a_range_where_rows_differ():
    header = rows()[0]
    assert header[4] == "Spider-dev EX % (n = 180 to 200)"
    assert header[5] == "Spider-Syn TS % (n = 100)"
    assert header[3] == "× SFT"


def test_what_is_missing_is_said_and_never_filled():
    body = rows()[2:]
    assert body[2][:3] == ["kid", "ours", "0 (of 3)"]
    assert body[2][5] == "–"
    assert body[4] == ["gkd¦rkl", "ours", "not run", "–", "–", "–"]
    assert body[5] == ["", "paper, 0.5B from 4B", "", "–", "20.08", "–"]
    assert body[6][0] == "own idea"
    assert len(body) == 7, "a row that the paper does not have has no row of the paper's"
    assert len({len(row) for row in rows()}) == 1


def test_the_legend_explains_intervals_and_names_the_suites():
    text = to_paper_markdown(TABLE, figure="table9.png")
    assert "95 % interval" in text
    assert "TS on syn [0123abcd]" in text
    assert "On our own suite." in text
    assert "![Table 9: made up](table9.png)" in text
    assert text.endswith("- Levels do not compare.\n")


def test_csv_has_every_number_once_in_full_precision():
    records = list(csv.DictReader(io.StringIO(to_paper_csv(TABLE))))
    numbers = {(r["row"], r["whose"], r["column"]): r for r in records}
    assert len(numbers) == len(records) == 5 + 7
    ours = numbers["sft", "ours", "spider_ex"]
    assert (ours["value"], ours["spread"], ours["low"], ours["questions"]) == ("20.04", "1.52", "12.0", "200")
    assert numbers["gkd", "paper 4b", "spider_ex"]["value"] == "20.08"


# ---- figures -------------------------------------------------------------------------------------------------


def titles(figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_visible()]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("cost", {"x": "latency", "y": "spider_ex"}),
        ("bars", {"y": "spider_ex"}),
        ("sweep", {"y": "spider_ex", "x_title": "share"}),
        ("curve", {"y": "spider_ex"}),
    ],
)
def test_ours_and_the_papers_stand_side_by_side(kind, options):
    figure = draw_paper_figure(TABLE, kind, **options)
    FigureCanvasAgg(figure).draw()
    assert titles(figure) == ["ours: small from large", "paper: 0.5B from 4B"]
    ours, papers = figure.axes
    assert ours.get_ylim()[0] <= 20
    assert papers.get_ylim()[1] >= 65.8
    assert (ours.get_ylim() == papers.get_ylim()) == (kind == "bars"), "only bars, from zero, share an axis"


def test_points_are_the_numbers_of_the_table():
    figure = draw_paper_figure(TABLE, "cost", x="latency", y="spider_ex")
    points = [
        {tuple(map(float, xy)) for line in axes.get_lines() if len(line.get_xdata()) == 1 for xy in [
            (line.get_xdata()[0], line.get_ydata()[0])
        ]}
        for axes in figure.axes
    ]  # fmt: skip
    assert points == [{(1.0, 20.04), (1.43, 25.0)}, {(1.0, 57.8), (2.3, 65.8)}]


def test_curves_are_means_over_seeds_beside_each_seeds_marks():
    ours, theirs = draw_paper_figure(TABLE, "curve", y="spider_ex").axes
    drawn = {line.get_linestyle(): [] for line in ours.get_lines()}
    for line in ours.get_lines():
        drawn[line.get_linestyle()].append((list(line.get_xdata()), list(line.get_ydata())))
    assert drawn == {
        "None": [([50, 100], [10.0, 20.0]), ([50, 100], [12.0, 18.0])],
        "-": [([50, 100], [11.0, 19.0])],
    }
    assert (ours.get_xlabel(), theirs.get_xlabel()) == ("optimizer step", "")


def test_a_mean_curve_has_the_steps_that_every_seed_has():
    unequal = replace(SFT, curves=(((50, 10.0), (100, 20.0)), ((100, 18.0), (150, 30.0))))
    table = PaperTable("t", "s", "cpu", COLUMNS, (Group("g", {}, (unequal,)),))
    lines = draw_paper_figure(table, "curve", y="spider_ex").axes[0].get_lines()
    assert [list(line.get_ydata()) for line in lines if line.get_linestyle() == "-"] == [[19.0]]


def test_dots_show_every_column_and_row_and_mark_the_papers_hollow():
    figure = draw_paper_figure(TABLE, "dots")
    FigureCanvasAgg(figure).draw()
    assert titles(figure) == [column.title for column in COLUMNS]
    axes = figure.axes[1]
    hollow = [line.get_xdata()[0] for line in axes.get_lines() if line.get_markerfacecolor() == "none"]
    full = [line.get_xdata()[0] for line in axes.get_lines() if line.get_marker() == "o"]
    assert hollow == [57.8, 65.8, 20.08]
    assert full == [20.04, 25.0]


@pytest.mark.parametrize(
    ("seeds", "is_of_runs", "style"), [((0, 1, 2), False, "-"), ((0, 1), False, ":"), ((0, 1, 2), True, ":")]
)
def test_an_interval_that_other_seeds_could_leave_is_dotted(seeds, is_of_runs, style):
    cell = Measured(2.0, interval=(1.0, 3.0), is_of_runs=is_of_runs)
    line = replace(KID, seeds=seeds, cells={COLUMNS[0].key: cell}, published={})
    table = PaperTable("t", "s", "cpu", COLUMNS[:1], (Group("g", {}, (line,)),))
    (drawn,) = [
        each for each in draw_paper_figure(table, "dots").axes[0].get_lines() if len(each.get_xdata()) == 2
    ]
    assert drawn.get_linestyle() == style


@pytest.mark.parametrize("kind", ["cost", "bars", "sweep", "curve"])
def test_a_panel_of_ours_that_was_not_run_says_so(kind):
    table = PaperTable(
        "t", "s", "cpu", COLUMNS, (Group("g", {"4b": "4B"}, (NOT_RUN, replace(KID, cells={}))),)
    )
    figure = draw_paper_figure(table, kind, x="latency" if kind == "cost" else "", y="spider_ex")
    FigureCanvasAgg(figure).draw()
    assert titles(figure) == ["ours: g", "paper: 4B"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["not run"]


@pytest.mark.parametrize("kind", ["dots", "bars"])
def test_there_is_no_figure_of_nothing(kind):
    empty = PaperTable("t", "s", "cpu", COLUMNS, (Group("g", {}, (ALONE,)),))
    assert draw_paper_figure(empty, kind, y="spider_ex") is None
