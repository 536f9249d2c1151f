"""Figures beside the paper's: our measurements in one panel, the published numbers in others.

A figure is drawn from the same `PaperTable` as the table, so that the two cannot differ.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distilsql.experiments.paper_table import (
    NOT_RUN,
    SEEDS_THAT_TELL,
    Group,
    Line,
    Measured,
    PaperColumn,
    PaperTable,
)
from distilsql.report.labels import LabelledPoint, place_labels
from distilsql.report.theme import LIGHT, Theme, dress, method_style, new_figure

_FEW_SEEDS = ":"
_PUBLISHED_MARKS = ("D", "s", "^", "v")
_PANELS_PER_ROW = 5


@dataclass(frozen=True)
class _Point:
    """One row's y value in a panel, with its error bar where it has one."""

    line: Line
    y: float
    x: float | None = None
    bar: tuple[float, float] | None = None


@dataclass(frozen=True)
class _Panel:
    title: str
    points: tuple[_Point, ...]
    is_ours: bool


def draw_paper_figure(
    table: PaperTable, kind: str, *, x: str = "", y: str = "", x_title: str = "", theme: Theme = LIGHT
) -> Figure | None:
    """The figure of a kind: `cost`, `bars`, `sweep` and `curve` show column `y`, `dots` every column.

    None if there is nothing to draw.
    """
    if kind == "dots":
        return _dots(table, theme)
    panels = _panels(table, x, y)
    if not panels:
        return None
    titles = {column.key: column.title for column in table.columns}
    figure = new_figure(theme, min(4.6 * len(panels) + 0.6, 16), 4.6)
    # Bars begin at zero and can share an axis; elsewhere levels as different as ours and the paper's would hide order.
    # What a sweep sweeps over is the same everywhere.
    grid = figure.subplots(1, len(panels), sharex=kind == "sweep", sharey=kind == "bars", squeeze=False)[0]
    draw: Callable[[Axes, _Panel, Theme], None] = {
        "cost": _cost, "bars": _bars, "sweep": _sweep, "curve": _curves,
    }[kind]  # fmt: skip
    for axes, panel in zip(grid, panels, strict=True):
        dress(axes, theme)
        axes.set_title(panel.title, fontsize=10, color=theme.text if panel.is_ours else theme.faint)
        axes.set_xlabel(x_title or titles.get(x, ""))
        if panel.points:
            draw(axes, panel, theme)
        else:
            axes.text(0.5, 0.5, NOT_RUN, transform=axes.transAxes, ha="center", color=theme.faint)
    grid[0].set_ylabel(titles.get(y, y))
    if kind == "cost":
        # Labels are placed last, when the limits of every panel are final.
        for axes, panel in zip(grid, panels, strict=True):
            place_labels(axes, [_labelled(point, theme) for point in panel.points], font_size=9)
    return figure


def _panels(table: PaperTable, x: str, y: str) -> list[_Panel]:
    """For each group a panel of ours, empty where nothing was run, and one for each published group that has numbers.
    None at all where there is no number."""
    panels = []
    for group in table.groups:
        ours = [point for line in group.lines if (point := _our_point(line, x, y))]
        panels.append(_Panel(f"ours: {group.title}", tuple(ours), is_ours=True))
        for key, title in group.beside.items():
            points = [point for line in group.lines if (point := _published_point(line, key, x, y))]
            panels.append(_Panel(f"paper: {title}", tuple(points), is_ours=False))
    if not any(panel.points for panel in panels):
        return []
    return [panel for panel in panels if panel.points or panel.is_ours]


def _our_point(line: Line, x: str, y: str) -> _Point | None:
    cell, at = line.cells.get(y), line.cells.get(x)
    if cell is None or (x and at is None):
        return None
    return _Point(line, cell.mean, at.mean if at else line.x, cell.interval)


def _published_point(line: Line, group: str, x: str, y: str) -> _Point | None:
    numbers = line.published.get(group, {})
    if y not in numbers or (x and x not in numbers):
        return None
    return _Point(line, numbers[y], numbers.get(x, line.x))


# ---- kinds ---------------------------------------------------------------------------------------------------


def _color(line: Line, theme: Theme) -> str:
    return theme.faint if line.method in ("teacher", "start") else method_style(line.method, theme)[0]


def _labelled(point: _Point, theme: Theme) -> LabelledPoint:
    assert point.x is not None
    return LabelledPoint(point.line.title, point.x, point.y, _color(point.line, theme), point.bar)


def _cost(axes: Axes, panel: _Panel, theme: Theme) -> None:
    for point in panel.points:
        assert point.x is not None
        color, marker, size = method_style(point.line.method, theme)
        if point.bar is not None:
            axes.plot([point.x, point.x], point.bar, color=color, alpha=0.45, linewidth=2.2)
        axes.plot(
            [point.x], [point.y], marker, color=color, markersize=size, markeredgecolor=theme.background
        )
    costs = [point.x for point in panel.points if point.x is not None]
    room = max(0.16 * (max(costs) - min(costs)), 0.15)
    axes.set_xlim(max(min(costs) - room, 0.0), max(costs) + 1.3 * room)
    axes.margins(y=0.12)


def _bars(axes: Axes, panel: _Panel, theme: Theme) -> None:
    for place, point in enumerate(panel.points):
        color = _color(point.line, theme)
        axes.bar(place, point.y, width=0.66, color=color, alpha=0.9 if panel.is_ours else 0.5)
        if point.bar is not None:
            axes.plot([place, place], point.bar, color=theme.text, linewidth=1.4)
        above = point.bar[1] if point.bar else point.y
        axes.annotate(
            f"{point.y:.3g}",
            (place, above),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            color=theme.faint,
            fontsize=8,
        )
    axes.grid(False, axis="x")
    axes.set_xticks(
        range(len(panel.points)), [point.line.title for point in panel.points], rotation=35, ha="right"
    )


def _sweep(axes: Axes, panel: _Panel, theme: Theme) -> None:
    """Rows with a place on the x axis as a line; those without (such as sft) as dashed levels."""
    placed = sorted(
        ((point.x, point) for point in panel.points if point.x is not None), key=lambda pair: pair[0]
    )
    color = _color(placed[-1][1].line, theme) if placed else theme.text
    axes.plot([x for x, _ in placed], [point.y for _, point in placed], "o-", color=color, markersize=6)
    for x, point in placed:
        if point.bar is not None:
            axes.plot([x, x], point.bar, color=color, alpha=0.45, linewidth=2.2)
    for point in panel.points:
        if point.x is None:
            axes.axhline(point.y, color=_color(point.line, theme), linestyle=(0, (5, 4)), linewidth=1.3)
            axes.annotate(
                point.line.title,
                (0.99, point.y),
                xycoords=("axes fraction", "data"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="right",
                color=_color(point.line, theme),
                fontsize=9,
            )


def _curves(axes: Axes, panel: _Panel, theme: Theme) -> None:
    """Ours: the mean over seeds, as logged, and each of several seeds as faint marks. The paper's: final values as
    bars, its curves having no numbers."""
    if not any(point.line.curves for point in panel.points) or not panel.is_ours:
        _bars(axes, panel, theme)
        return
    for point in panel.points:
        color, marker, size = method_style(point.line.method, theme)
        curves = point.line.curves
        for curve in curves if len(curves) > 1 else ():
            axes.plot(*zip(*curve, strict=True), marker, color=color, markersize=size / 2, alpha=0.3)
        mean = _mean_curve(curves)
        if mean:
            steps, values = zip(*mean, strict=True)
            axes.plot(
                steps,
                values,
                color=color,
                marker=marker,
                markersize=size / 2,
                linewidth=1.6,
                label=point.line.title,
            )
    axes.set_xlabel(axes.get_xlabel() or "optimizer step")
    axes.legend(frameon=False, fontsize=8, labelcolor=theme.text)


def _mean_curve(curves: Sequence[Sequence[tuple[int, float]]]) -> list[tuple[int, float]]:
    """Over seeds, at the steps that all of them have."""
    by_seed = [dict(curve) for curve in curves]
    shared = set.intersection(*(set(values) for values in by_seed)) if by_seed else set()
    return [(step, fmean(values[step] for values in by_seed)) for step in sorted(shared)]


# ---- every column --------------------------------------------------------------------------------------------


def _dots(table: PaperTable, theme: Theme) -> Figure | None:
    """A panel for each column, a row for each line: ours with its interval, the paper's as hollow marks.

    An interval that other seeds could easily leave is dotted.
    """
    columns = [column for column in table.columns if _has_values(table, column)]
    if not columns:
        return None
    lines = [(group, line) for group in table.groups for line in group.lines]
    across = min(len(columns), _PANELS_PER_ROW)
    down = -(-len(columns) // across)
    figure = new_figure(theme, 2.0 + 2.5 * across, 1.1 + down * (0.9 + 0.27 * len(lines)))
    grid = figure.subplots(down, across, sharey=True, squeeze=False)
    for place, axes in enumerate(grid.flat):
        if place >= len(columns):
            axes.set_visible(False)
            continue
        dress(axes, theme)
        axes.set_title(columns[place].title, fontsize=9, color=theme.text)
        _dot_rows(axes, columns[place], lines, theme)
    _dot_legend(figure, table, theme)
    return figure


def _has_values(table: PaperTable, column: PaperColumn) -> bool:
    return any(
        column.key in line.cells or any(column.key in numbers for numbers in line.published.values())
        for group in table.groups
        for line in group.lines
    )


def _dot_rows(axes: Axes, column: PaperColumn, lines: Sequence[tuple[Group, Line]], theme: Theme) -> None:
    for place, (group, line) in enumerate(lines):
        color = _color(line, theme)
        for number, key in enumerate(group.beside):
            value = line.published.get(key, {}).get(column.key)
            if value is not None:
                mark = _PUBLISHED_MARKS[number % len(_PUBLISHED_MARKS)]
                axes.plot(
                    [value], [place], mark, markersize=5, markerfacecolor="none", markeredgecolor=theme.faint
                )
        cell = line.cells.get(column.key)
        if cell is not None:
            if cell.interval is not None:
                style = _FEW_SEEDS if _has_few_seeds(line, cell) else "-"
                axes.plot(cell.interval, [place, place], style, color=color, alpha=0.5, linewidth=2.4)
            axes.plot([cell.mean], [place], "o", color=color, markersize=6)
    axes.set_yticks(range(len(lines)), [line.title for _, line in lines])
    axes.set_ylim(len(lines) - 0.4, -0.6)
    low, high = axes.dataLim.intervalx
    if low == high:
        axes.set_xlim(low - 1, high + 1)
    elif low < 0 < high:
        axes.axvline(0, color=theme.faint, linewidth=1, zorder=0)
    axes.margins(x=0.12)
    for place in range(1, len(lines)):
        if lines[place][0] is not lines[place - 1][0]:
            axes.axhline(place - 0.5, color=theme.grid, linewidth=1.2)


def _has_few_seeds(line: Line, cell: Measured) -> bool:
    """Whether a student's interval holds little or nothing of chance in the seeds."""
    return line.method not in ("teacher", "start") and (cell.is_of_runs or len(line.seeds) < SEEDS_THAT_TELL)


def _dot_legend(figure: Figure, table: PaperTable, theme: Theme) -> None:
    """Which mark is whose; groups stand one below the other in the order of the table."""
    axes = figure.axes[0]
    handles = [axes.plot([], [], "o", color=theme.text, markersize=6)[0]]
    names = ["ours: " + ", then ".join(group.title for group in table.groups)]
    measured = [
        (line, cell) for group in table.groups for line in group.lines for cell in line.cells.values()
    ]
    if any(cell.interval and _has_few_seeds(line, cell) for line, cell in measured):
        handles.append(axes.plot([], [], _FEW_SEEDS, color=theme.text, alpha=0.5, linewidth=2.4)[0])
        names.append("95 % of chance in the questions: one seed, or two")
    most = max((group.beside for group in table.groups), key=len)
    for number, title in enumerate(most.values()):
        mark = _PUBLISHED_MARKS[number % len(_PUBLISHED_MARKS)]
        handles.append(
            axes.plot([], [], mark, markersize=5, markerfacecolor="none", markeredgecolor=theme.faint)[0]
        )
        names.append(f"paper: {title}" if len(table.groups) == 1 else "paper")
    legend = figure.legend(
        handles, names, loc="outside upper center", ncols=min(len(names), 4), frameon=False, fontsize=9
    )
    for text in legend.get_texts():
        text.set_color(theme.text)
