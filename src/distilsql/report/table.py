"""The comparison table: its columns defined once, rendered for the terminal, for Markdown, CSV and the page."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from distilsql.metrics.statistics import deviation_of_seeds
from distilsql.report.cost import Cost
from distilsql.report.entries import Accuracy, Entry, Reference, benchmarks_of, group_runs, mean_of
from distilsql.runs.records import ORDINARY_METRICS, RunRecord

Value = str | float | int | None


@dataclass(frozen=True)
class Cell:
    """A cell's text, its values for CSV (column → value), and whether it is the best of its column."""

    text: str
    values: Mapping[str, Value]
    best: bool = False


@dataclass(frozen=True)
class TableColumn:
    """`cell` makes an entry's cell; `of_reference` the teacher's, blank where it has none."""

    title: str
    cell: Callable[[Entry], Cell]
    of_reference: Callable[[Reference], Cell] | None = None
    numeric: bool = True


@dataclass(frozen=True)
class ComparisonTable:
    """Titles and cells, row by row; the last `reference_rows` rows are not methods under test. Printed as Markdown."""

    titles: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[Cell, ...], ...]
    reference_rows: int = 0

    def __str__(self) -> str:
        return to_markdown(self)

    def _repr_markdown_(self) -> str:
        """What a notebook shows."""
        return to_markdown(self)


def comparison_table(
    runs: Sequence[RunRecord],
    *,
    benchmark_order: Sequence[str] | None = None,
    teacher: Reference | None = None,
) -> ComparisonTable:
    """One row for the seeds of each configuration, and one for the teacher.

    Columns without any value are left out. `runs` holds at least one.
    """
    entries = group_runs(runs)
    columns = _columns(entries, benchmarks_of(entries, benchmark_order))
    rows = [tuple(column.cell(entry) for column in columns) for entry in entries]
    if teacher is not None:
        rows.append(
            tuple(
                column.of_reference(teacher) if column.of_reference else _like(column.cell(entries[0]))
                for column in columns
            )
        )
    return ComparisonTable(
        titles=tuple(column.title for column in columns),
        numeric=tuple(column.numeric for column in columns),
        rows=tuple(rows),
        reference_rows=int(teacher is not None),
    )


def _like(cell: Cell) -> Cell:
    """An empty cell with the same CSV columns."""
    return Cell("", dict.fromkeys(cell.values))


def _columns(entries: Sequence[Entry], benchmarks: Sequence[str]) -> list[TableColumn]:
    first = [
        TableColumn(
            "method",
            lambda entry: Cell(entry.label, {"method": entry.method, "label": entry.label}),
            lambda teacher: Cell(teacher.name, {"method": "teacher", "label": teacher.name}),
            numeric=False,
        ),
        TableColumn(
            "student",
            lambda entry: _parameters_cell(entry.runs[0].summary.student_parameters),
            lambda teacher: _parameters_cell(teacher.parameters),
        ),
        TableColumn(
            "seed",
            lambda entry: Cell(", ".join(map(str, entry.seeds)), {"seeds": " ".join(map(str, entry.seeds))}),
        ),
    ]
    accuracies = [_accuracy_column(benchmark, entries) for benchmark in benchmarks]
    costs = [
        TableColumn("× SFT", lambda entry: _cost_cell(entry.cost)),
        TableColumn(
            "samples/s",
            lambda entry: _number_cell("samples_per_second", entry.mean("samples_per_second"), "{:.3g}"),
        ),
        TableColumn(
            "teacher share",
            lambda entry: _number_cell("teacher_share", entry.mean("teacher_share"), "{:.0%}"),
        ),
        TableColumn(
            "teacher passes/token",
            lambda entry: _number_cell(
                "teacher_passes_per_token", entry.mean("teacher_passes_per_token"), "{:.2f}"
            ),
        ),
    ]
    measured = sorted({run.exposure.name for entry in entries for run in entry.runs if run.exposure})
    costs += [_exposure_column(name) for name in measured]
    return [*first, *accuracies, *(column for column in costs if any(column.cell(e).text for e in entries))]


def _accuracy_column(benchmark: str, entries: Sequence[Entry]) -> TableColumn:
    known = [accuracy for entry in entries if (accuracy := entry.accuracy(benchmark))]
    same_examples = len({accuracy.total for accuracy in known}) == 1
    # On other examples, or fewer of them, no number is better than another.
    best = max(accuracy.mean for accuracy in known) if same_examples else None
    metric = known[0].metric
    return TableColumn(
        f"{benchmark} {metric} %" if metric in ORDINARY_METRICS else f"{benchmark} %",
        lambda entry: _accuracy_cell(benchmark, entry.accuracy(benchmark), best, with_n=not same_examples),
        lambda teacher: _accuracy_cell(
            benchmark, teacher.accuracy(benchmark), best=None, with_n=not same_examples
        ),
    )


def _accuracy_cell(benchmark: str, accuracy: Accuracy | None, best: float | None, *, with_n: bool) -> Cell:
    """`62.3 ± 1.2 [57.0, 67.5]`: mean, spread of the seeds, 95 % interval, all in percent; `with_n`, over how many
    examples."""
    names = [f"{benchmark} {part}" for part in ("accuracy", "spread", "low", "high", "examples", "metric")]
    if accuracy is None:
        return Cell("", dict.fromkeys(names))
    low, high = accuracy.interval or (None, None)
    values = (accuracy.mean, accuracy.spread, low, high, accuracy.total, accuracy.metric)
    text = f"{100 * accuracy.mean:.1f}"
    if accuracy.spread is not None:
        text += f" ± {100 * accuracy.spread:.1f}"
    if low is not None and high is not None:
        text += f" [{100 * low:.1f}, {100 * high:.1f}]"
    if with_n:
        text += f" (n = {accuracy.total or 'differs'})"
    return Cell(text, dict(zip(names, values, strict=True)), best=accuracy.mean == best)


def _exposure_column(name: str) -> TableColumn:
    return TableColumn(name, lambda entry: _exposure_cell(name, entry))


def _exposure_cell(name: str, entry: Entry) -> Cell:
    """`9.0 [-12.3, 31.0]`: the mean of the seeds; of one seed, with its 95 % interval for chance in the prompts."""
    found = [run.exposure for run in entry.runs if run.exposure and run.exposure.name == name]
    errors = [each.excess_accumulated_error for each in found]
    mean, spread = mean_of(errors), deviation_of_seeds(errors)
    low, high = found[0].interval if len(found) == 1 else (None, None)
    text = "" if mean is None else f"{mean:.1f}"
    if spread is not None:
        text += f" ± {spread:.1f}"
    if low is not None:
        text += f" [{low:.1f}, {high:.1f}]"
    return Cell(text, {name: mean, f"{name} spread": spread, f"{name} low": low, f"{name} high": high})


def _cost_cell(cost: Cost | None) -> Cell:
    names = ("x_sft", "x_sft low", "x_sft high", "x_sft of runs")
    if cost is None:
        return Cell("", dict.fromkeys(names))
    low, high = cost.spread or (None, None)
    return Cell(cost.text, dict(zip(names, (cost.x_sft, low, high, cost.of_runs), strict=True)))


def _number_cell(name: str, value: float | None, form: str) -> Cell:
    return Cell("" if value is None else form.format(value), {name: value})


def _parameters_cell(count: int | None) -> Cell:
    return Cell("" if count is None else human_count(count), {"parameters": count})


def human_count(count: float) -> str:
    """1,234,567 → `1.2M`."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(int(count))


@dataclass(frozen=True)
class _Fitted:
    """The table where the terminal is wide enough for every cell, else row after row, a line for each cell."""

    table: ComparisonTable
    title: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = _wide(self.table, self.title)
        if wide.__rich_measure__(console, options.update(max_width=10_000)).maximum <= options.max_width:
            yield wide
        else:
            yield from _row_by_row(self.table, self.title)


def to_terminal(table: ComparisonTable, title: str = "") -> ConsoleRenderable:
    return _Fitted(table, title)


def _row_by_row(table: ComparisonTable, title: str) -> Iterator[ConsoleRenderable]:
    if title:
        yield Text(title, style="italic")
    for row in table.rows:
        name, *cells = zip(table.titles, row, strict=True)
        yield Text(f"\n{name[1].text}", style="bold")
        lines = RichTable(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        lines.add_column(overflow="fold")
        lines.add_column(overflow="fold")
        for column, cell in cells:
            if cell.text:
                lines.add_row(Text(f"  {column}"), Text(cell.text, style="bold" if cell.best else ""))
        yield lines


def _wide(table: ComparisonTable, title: str) -> RichTable:
    rendered = RichTable(title=title or None)
    for name, numeric in zip(table.titles, table.numeric, strict=True):
        rendered.add_column(name, justify="right" if numeric else "left", no_wrap=not numeric)
    for number, row in enumerate(table.rows):
        if number and number == len(table.rows) - table.reference_rows:
            rendered.add_section()
        # Text, not markup: a name may hold brackets.
        rendered.add_row(*(Text(cell.text, style="bold" if cell.best else "") for cell in row))
    return rendered


def to_markdown(table: ComparisonTable) -> str:
    rules = ["---:" if numeric else ":---" for numeric in table.numeric]
    rows = [[f"**{cell.text}**" if cell.best else cell.text for cell in row] for row in table.rows]
    return "".join(markdown_row(row) + "\n" for row in (table.titles, rules, *rows))


def markdown_row(cells: Sequence[str]) -> str:
    """A row of a Markdown table; bars inside a cell are escaped."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def to_csv(table: ComparisonTable) -> str:
    """Numbers in full precision, shares as 0 to 1, an empty field where there is none."""
    names = [name for cell in table.rows[0] for name in cell.values]
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(names)
    for row in table.rows:
        writer.writerow([value for cell in row for value in cell.values.values()])
    return written.getvalue()
