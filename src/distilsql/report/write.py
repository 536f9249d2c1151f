"""Write the whole report: table, figures and page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from distilsql.errors import RunError
from distilsql.files import write_bytes, write_text
from distilsql.report.entries import Entry, Reference, benchmarks_of, group_runs
from distilsql.report.figures import accuracy_against_cost, cost_by_phase, learning_curves
from distilsql.report.page import AnsweredQuestion, Illustration, render_page
from distilsql.report.switch_figure import switch_along_sequence
from distilsql.report.table import comparison_table, to_csv, to_markdown
from distilsql.report.theme import DARK, LIGHT, png
from distilsql.runs.records import RunRecord

# Sharp on screens with two pixels to the point.
_DPI = 180


@dataclass(frozen=True)
class ReportPaths:
    """The files of a report. Figures for which the runs have no data are None or missing in the mapping."""

    page: Path
    markdown: Path
    csv: Path
    accuracy_against_cost: Mapping[str, Path]
    learning_curves: Path | None
    cost_by_phase: Path | None
    switch_along_sequence: Path | None


def write_report(
    runs: Sequence[RunRecord],
    out_dir: Path,
    *,
    title: str,
    benchmark_order: Sequence[str] | None = None,
    answers: Sequence[AnsweredQuestion] | None = None,
    teacher: Reference | None = None,
    headline: str = "",
) -> ReportPaths:
    """Write `report.html`, `table.md`, `table.csv` and the figures as PNG into `out_dir`, which may exist.

    Benchmarks come in `benchmark_order`, the others after them by name; `headline` says above all what the runs show.
    Raises RunError if `runs` is empty or the
    folder cannot be written.
    """
    if not runs:
        raise RunError("There is no run to report on. Give one or more folders that `distilsql train` made.")
    entries = group_runs(runs)
    table = comparison_table(runs, benchmark_order=benchmark_order, teacher=teacher)
    by_benchmark = {
        benchmark: illustration
        for benchmark in benchmarks_of(entries, benchmark_order)
        if (illustration := _accuracy_illustration(entries, benchmark, teacher))
    }
    curves = _illustrate(
        partial(learning_curves, entries),
        "Learning curves",
        "What each run logged, by optimizer step and by training seconds. Losses of different methods are "
        "different quantities; compare their course, not their height.",
        is_wide=True,
    )
    phases = _illustrate(
        partial(cost_by_phase, entries),
        "Where the time goes",
        "Training milliseconds per example by phase; evaluation and checkpoints are not counted.",
    )
    switch = _illustrate(
        partial(switch_along_sequence, entries),
        "SWITCH along the sequence",
        "By position in the completion: the share of tokens that the teacher wrote, the mean divergence (JSD) of "
        "teacher and student with the threshold τ above which the teacher writes, and the completions that long.",
    )
    illustrations = [*by_benchmark.values(), *(found for found in (phases, switch, curves) if found)]
    page = render_page(
        title=title,
        table=table,
        entries=entries,
        illustrations=illustrations,
        answers=answers or (),
        headline=headline,
    )
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        return ReportPaths(
            page=_write_text(out_dir / "report.html", page),
            markdown=_write_text(out_dir / "table.md", to_markdown(table)),
            csv=_write_text(out_dir / "table.csv", to_csv(table)),
            accuracy_against_cost={
                benchmark: _write_figure(
                    out_dir / f"accuracy_against_cost-{_file_name(benchmark)}.png", found
                )
                for benchmark, found in by_benchmark.items()
            },
            learning_curves=_write_figure(out_dir / "learning_curves.png", curves) if curves else None,
            cost_by_phase=_write_figure(out_dir / "cost_by_phase.png", phases) if phases else None,
            switch_along_sequence=_write_figure(out_dir / "switch_along_sequence.png", switch)
            if switch
            else None,
        )
    except OSError as error:
        raise RunError(
            f"The report cannot be written to {out_dir} ({error}). Choose another --out."
        ) from error


def _accuracy_illustration(
    entries: Sequence[Entry], benchmark: str, teacher: Reference | None
) -> Illustration | None:
    return _illustrate(
        partial(accuracy_against_cost, entries, benchmark, teacher=teacher),
        f"Accuracy against cost: {benchmark}",
        f"Accuracy on {benchmark} against training cost relative to SFT of the same student (1×). Bars are 95 % "
        "intervals" + ("; the dashed line is the teacher." if teacher else "."),
    )


def _illustrate(
    draw: Callable[..., Figure | None], caption: str, alt: str, *, is_wide: bool = False
) -> Illustration | None:
    """The figure in both themes; None if there is nothing to draw."""
    light, dark = draw(theme=LIGHT), draw(theme=DARK)
    if light is None or dark is None:
        return None
    return Illustration(png(light, _DPI), png(dark, _DPI), alt, caption, is_wide)


def _write_text(path: Path, text: str) -> Path:
    write_text(path, text)
    return path


def _write_figure(path: Path, illustration: Illustration) -> Path:
    write_bytes(path, illustration.light)
    return path


def _file_name(benchmark: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in benchmark)
