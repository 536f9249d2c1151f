"""SWITCH along the sequence: where in a completion the teacher takes over, and why."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from distilsql.report.entries import Entry
from distilsql.report.figures import LINE_STYLES
from distilsql.report.theme import LIGHT, Theme, dress, method_style, new_figure
from distilsql.runs.records import SwitchAlongSequence


def switch_along_sequence(entries: Sequence[Entry], *, theme: Theme = LIGHT) -> Figure | None:
    """Teacher share, mean JSD with its threshold τ, and completions going on, by position; None without SWITCH.

    One line per seed. The last panel says how many completions the means of the other two rest on.
    """
    found = [(entry, [run.summary.switch for run in entry.runs if run.summary.switch]) for entry in entries]
    found = [(entry, traces) for entry, traces in found if traces]
    if not found:
        return None
    figure = new_figure(theme, 8.2, 7.0)
    share, divergence, length = figure.subplots(3, 1, sharex=True, height_ratios=(2, 2, 1))
    for axes in (share, divergence, length):
        dress(axes, theme)
    for entry, traces in found:
        color, _, _ = method_style(entry.method, theme)
        style = LINE_STYLES[entry.variant % len(LINE_STYLES)]
        for number, trace in enumerate(traces):
            look = {"color": color, "linestyle": style}
            label = f"_{entry.label}" if number else entry.label
            share.plot(_percent(trace.teacher_share), **look, linewidth=1.6, label=label)
            divergence.plot(trace.divergence, **look, linewidth=1.6)
            divergence.plot(trace.threshold, **look, linewidth=0.8, alpha=0.7)
            length.plot(_percent(_going_on(trace)), **look, linewidth=1.6)
    share.set_ylabel("tokens from the teacher (%)")
    divergence.set_ylabel("mean JSD; thin: threshold τ (nats)")
    length.set_ylabel("completions (%)")
    length.set_xlabel("position in the completion (tokens)")
    for axes in (share, divergence, length):
        axes.set_ylim(bottom=0)
    legend = figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_color(theme.text)
    return figure


def _going_on(trace: SwitchAlongSequence) -> list[float]:
    """The share of completions that have a token at each position."""
    return [count / trace.tokens[0] for count in trace.tokens]


def _percent(shares: Sequence[float]) -> list[float]:
    return [100 * share for share in shares]
