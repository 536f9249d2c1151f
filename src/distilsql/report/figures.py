"""The report's figures: accuracy against cost, learning curves, and cost by phase."""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from distilsql.report.entries import Accuracy, Entry, Reference
from distilsql.report.labels import LabelledPoint, place_labels, place_line_label
from distilsql.report.records import ORDINARY_METRICS, LogLine
from distilsql.report.theme import LIGHT, Theme, dress, method_style, new_figure

# A cost range wider than this is shown on a logarithmic axis.
_LOG_FROM = 5.0
# Phases that are not part of what a method costs.
_NOT_COST = ("evaluation", "checkpoint")
# Configurations of one method share its colour.
LINE_STYLES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
_PHASE_ORDER = ("data", "generation", "teacher", "student", "optimizer")


def accuracy_against_cost(
    entries: Sequence[Entry], benchmark: str, *, teacher: Reference | None = None, theme: Theme = LIGHT
) -> Figure | None:
    """KID's Figure 1: accuracy in percent against training cost relative to SFT, a point for each entry.

    Error bars are 95 % intervals. None if no entry has both an accuracy on `benchmark` and a cost.
    """
    known = [
        (entry, cost, accuracy)
        for entry in entries
        if (cost := entry.x_sft) is not None and (accuracy := entry.accuracy(benchmark)) is not None
    ]
    if not known:
        return None
    figure = new_figure(theme, 7.6, 4.8)
    axes = figure.add_subplot()
    dress(axes, theme)
    points = [_draw_point(axes, entry, cost, accuracy, theme) for entry, cost, accuracy in known]
    above = teacher.accuracy(benchmark) if teacher else None
    _set_limits(axes, points, above)
    _cost_axis(axes, [cost for _, cost, _ in known])
    metric = known[0][2].metric
    axes.set_ylabel(f"{metric} on {benchmark} (%)" if metric in ORDINARY_METRICS else f"{benchmark} (%)")
    if teacher is not None and above is not None:
        place_line_label(
            axes, f"{teacher.name} {100 * above.mean:.1f} %", 100 * above.mean, points, theme.faint
        )
    place_labels(axes, points)
    return figure


def _draw_point(axes: Axes, entry: Entry, cost: float, accuracy: Accuracy, theme: Theme) -> LabelledPoint:
    color, marker, size = method_style(entry.method, theme)
    mean = 100 * accuracy.mean
    bar = None
    if accuracy.interval is not None:
        bar = (100 * accuracy.interval[0], 100 * accuracy.interval[1])
        axes.plot([cost, cost], bar, color=color, alpha=0.45, linewidth=2.2, solid_capstyle="round")
    axes.plot([cost], [mean], marker, color=color, markersize=size, markeredgecolor=theme.background)
    return LabelledPoint(entry.label, cost, mean, color, bar)


def _set_limits(axes: Axes, points: Sequence[LabelledPoint], teacher: Accuracy | None) -> None:
    """Room for labels around the data, within what a percentage can be."""
    values = [value for point in points for value in (point.y, *(point.bar or ()))]
    values += [100 * teacher.mean] if teacher else []
    low, high = min(values), max(values)
    margin = max(0.12 * (high - low), 2.0)
    axes.set_ylim(max(low - margin, -1.0), min(high + margin, 103.0))


def _cost_axis(axes: Axes, costs: Sequence[float]) -> None:
    low, high = min(*costs, 1.0), max(*costs, 1.0)
    axes.set_xlabel("training cost: seconds per example relative to SFT")
    if high / low > _LOG_FROM:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.45, high * 1.6)
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        room = max(0.16 * (high - low), 0.15)
        axes.set_xlim(max(low - room, 0.0), high + 1.3 * room)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda cost, _: f"{cost:g}×"))


_LOSS_PARTS: tuple[tuple[str, Callable[[LogLine], float | None]], ...] = (
    ("loss", lambda line: line.loss),
    ("divergence per token (nats)", lambda line: line.divergence),
    ("gold NLL per token (nats)", lambda line: line.negative_log_likelihood),
    (
        "accuracy on validation (%)",
        lambda line: None if line.valid_accuracy is None else 100 * line.valid_accuracy,
    ),
)


def learning_curves(entries: Sequence[Entry], *, theme: Theme = LIGHT) -> Figure | None:
    """Every part of the loss that a run logged, by optimizer step and by training seconds; None without a log."""
    parts = [
        (name, part)
        for name, part in _LOSS_PARTS
        if any(part(line) is not None for entry in entries for run in entry.runs for line in run.log)
    ]
    if not parts:
        return None
    figure = new_figure(theme, 9.4, 0.6 + 2.5 * len(parts))
    grid = figure.subplots(len(parts), 2, squeeze=False, sharey="row", sharex="col")
    for row, (name, part) in zip(grid, parts, strict=True):
        for axes in row:
            dress(axes, theme)
        row[0].set_ylabel(name)
        for entry in entries:
            _draw_curves(row, entry, part, theme)
    grid[-1][0].set_xlabel("optimizer step")
    grid[-1][1].set_xlabel("training seconds")
    handles = {
        line.get_label(): line for row in grid for line in row[0].get_lines() if line.get_label()[0] != "_"
    }
    legend = figure.legend(
        list(handles.values()), list(handles), loc="outside upper center", ncols=5, frameon=False, fontsize=9
    )
    for text in legend.get_texts():
        text.set_color(theme.text)
    return figure


def _draw_curves(
    row: Sequence[Axes], entry: Entry, part: Callable[[LogLine], float | None], theme: Theme
) -> None:
    """One line per seed, in the entry's colour; only the first is named in the legend."""
    color, marker, size = method_style(entry.method, theme)
    label = entry.label
    for run in entry.runs:
        seconds_at = {line.step: line.train_seconds for line in run.log if line.train_seconds is not None}
        by_step = [(float(line.step), value) for line in run.log if (value := part(line)) is not None]
        by_seconds = [(seconds_at[int(step)], value) for step, value in by_step if int(step) in seconds_at]
        curves: tuple[list[tuple[float, float]], ...] = (by_step, by_seconds)
        for axes, curve in zip(row, curves, strict=True):
            if not curve:
                continue
            axes.plot(
                [place for place, _ in curve],
                [value for _, value in curve],
                color=color,
                linestyle=LINE_STYLES[entry.variant % len(LINE_STYLES)],
                linewidth=1.4,
                marker=marker,
                markersize=size / 2,
                markevery=max(1, len(curve) // 8),
                label=label,
            )
            label = f"_{entry.label}"


def cost_by_phase(entries: Sequence[Entry], *, theme: Theme = LIGHT) -> Figure | None:
    """Training milliseconds per example, by phase, stacked; None if no run says where its time went."""
    costs = {
        entry.label: {
            phase: 1000 * s for phase, s in entry.seconds_by_phase().items() if phase not in _NOT_COST
        }
        for entry in entries
    }
    costs = {label: phases for label, phases in costs.items() if sum(phases.values()) > 0}
    if not costs:
        return None
    found = dict.fromkeys(phase for phases in costs.values() for phase, value in phases.items() if value > 0)
    ordered = [phase for phase in _PHASE_ORDER if phase in found]
    ordered += [phase for phase in found if phase not in ordered]
    figure = new_figure(theme, 8.2, 1.3 + 0.42 * len(costs))
    axes = figure.add_subplot()
    dress(axes, theme)
    axes.grid(False, axis="y")
    labels = list(costs)
    start = [0.0] * len(labels)
    for place, phase in enumerate(ordered):
        widths = [costs[label].get(phase, 0.0) for label in labels]
        axes.barh(
            labels,
            widths,
            left=start,
            height=0.62,
            color=theme.phases[place % len(theme.phases)],
            label=phase,
        )
        start = [left + width for left, width in zip(start, widths, strict=True)]
    _name_totals(axes, [entry for entry in entries if entry.label in costs], start, theme)
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelcolor=theme.text)
    axes.set_xlabel("training milliseconds per example")
    legend = figure.legend(loc="outside upper center", ncols=min(len(ordered), 7), frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_color(theme.text)
    return figure


def _name_totals(axes: Axes, entries: Sequence[Entry], totals: Sequence[float], theme: Theme) -> None:
    """Behind each bar its length, and how many times SFT that is."""
    for place, (entry, total) in enumerate(zip(entries, totals, strict=True)):
        relative = "" if entry.cost is None else f" · {entry.cost.x_sft:.2f}× SFT{entry.cost.of_runs_text}"
        axes.annotate(
            f"{total:,.0f} ms{relative}" if total >= 100 else f"{total:.3g} ms{relative}",
            (total, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=theme.faint,
            fontsize=9,
        )
    axes.set_xlim(0, 1.36 * max(totals))
