"""A table beside the one of the paper: our measurements with their intervals, and the published numbers, row by row.

Every row says whether it is ours or the paper's. A cell that was not measured says so or is a dash.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distilsql.report.cost import MEANING, WHY_TWO, Cost
from distilsql.report.table import markdown_row

OURS = "ours"
NOT_RUN = "not run"
NONE = "–"
SEEDS_THAT_TELL = 3  # two that happen to agree make chance in the seeds look like none


@dataclass(frozen=True)
class Measured:
    """One measurement in the unit that is shown (percent, × or samples/s).

    `spread` is the standard deviation over seeds, `interval` is 95 %, `total` the number of questions, `p` that of a
    test against no difference; `is_of_runs` says that interval and p hold little or nothing of chance in the seeds.
    `cost` is that of a × SFT.
    """

    mean: float
    spread: float | None = None
    interval: tuple[float, float] | None = None
    total: int | None = None
    metric: str = ""
    p: float | None = None
    is_of_runs: bool = False
    cost: Cost | None = None


@dataclass(frozen=True)
class PaperColumn:
    """`decimals` are those of our numbers; `note` stands under the table."""

    key: str
    title: str
    decimals: int = 1
    note: str = ""


@dataclass(frozen=True)
class Line:
    """A row: `seeds` of the finished runs, of `wanted_seeds`; `published` maps the paper's group to its numbers.

    `curves` holds, for every seed, validation accuracy in percent by optimizer step.
    """

    key: str
    title: str
    method: str
    seeds: tuple[int, ...]
    wanted_seeds: int
    cells: Mapping[str, Measured]
    published: Mapping[str, Mapping[str, float]]
    x: float | None = None
    variant: int = 0
    curves: tuple[tuple[tuple[int, float], ...], ...] = ()


@dataclass(frozen=True)
class Group:
    """The rows of one student and teacher of ours. `beside` maps published groups to what they are called."""

    title: str
    beside: Mapping[str, str]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class PaperTable:
    title: str
    source: str
    scale: str
    columns: tuple[PaperColumn, ...]
    groups: tuple[Group, ...]
    notes: tuple[str, ...] = ()


def to_paper_markdown(table: PaperTable, *, figure: str = "") -> str:
    """The whole document; `figure` is the path of a picture to show."""
    has_published = any(line.published for group in table.groups for line in group.lines)
    said = f" Rows “paper” are the published numbers: {table.source}." if has_published else ""
    parts = [f"# {table.title}", f"Rows “ours” were measured here, at scale {table.scale}.{said}"]
    if figure:
        parts.append(f"![{table.title}]({figure})")
    for group in table.groups:
        parts += [f"## {group.title}", _group_markdown(group, table.columns)]
    parts.append(_legend(table))
    if table.notes:
        parts.append("\n".join(f"- {note}" for note in table.notes))
    return "\n\n".join(parts) + "\n"


def _group_markdown(group: Group, columns: Sequence[PaperColumn]) -> str:
    header = ["method", "whose", "seeds", *(_header(group, column) for column in columns)]
    rules = [":---", ":---", "---:", *["---:"] * len(columns)]
    rows = [header, rules]
    for line in group.lines:
        rows.append([line.title, OURS, _seeds(line), *(_ours(line, column) for column in columns)])
        for key, title in group.beside.items():
            numbers = line.published.get(key, {})
            if numbers:
                rows.append(["", f"paper, {title}", "", *(_published(numbers, column) for column in columns)])
    return "\n".join(map(markdown_row, rows))


def _header(group: Group, column: PaperColumn) -> str:
    """The column's title with the number of questions, a range where rows differ."""
    totals = {
        cell.total for line in group.lines if (cell := line.cells.get(column.key)) and cell.total is not None
    }
    if not totals:
        return column.title
    low, high = min(totals), max(totals)
    return f"{column.title} (n = {low:,})" if low == high else f"{column.title} (n = {low:,} to {high:,})"


def _seeds(line: Line) -> str:
    """`0, 1, 2`; `0 (of 3)` while some are missing."""
    if not line.seeds:
        return NOT_RUN
    said = ", ".join(map(str, line.seeds))
    return said if len(line.seeds) == line.wanted_seeds else f"{said} (of {line.wanted_seeds})"


def _ours(line: Line, column: PaperColumn) -> str:
    """`62.3 ± 1.2 [57.0, 67.5]`: mean, spread of the seeds, 95 % interval; of a difference, p too."""
    cell = line.cells.get(column.key)
    if cell is None:
        return NONE
    text = f"{cell.mean:.{column.decimals}f}"
    if cell.spread is not None:
        text += f" ± {cell.spread:.{column.decimals}f}"
    if cell.cost is not None:
        text += cell.cost.spread_text + cell.cost.of_runs_text
    if cell.interval is not None:
        low, high = cell.interval
        text += f" [{low:.{column.decimals}f}, {high:.{column.decimals}f}]"
    if cell.p is not None:
        text += f", p = {cell.p:.2g}{'*' if cell.is_of_runs else ''}"
    return text


def _published(numbers: Mapping[str, float], column: PaperColumn) -> str:
    """As the paper writes it: with the second decimal only where it gives one."""
    value = numbers.get(column.key)
    if value is None:
        return NONE
    return f"{value:.1f}" if round(value, 1) == value else f"{value:.2f}"


def _legend(table: PaperTable) -> str:
    said = [
        "Ours: mean over seeds, ± the standard deviation over seeds where there are several, [95 % interval]. The "
        "interval is of chance in the questions asked (bootstrap), and in the seeds too where there are several "
        "(Student's t); of a mean of columns, each benchmark's questions are drawn apart, as if those of Spider's "
        "variants were not each other's. The paper gives no intervals, seeds or standard deviations."
    ]
    metrics = {
        cell.metric
        for group in table.groups
        for line in group.lines
        for cell in line.cells.values()
        if cell.metric.startswith("TS on")
    }
    if metrics:
        said.append("Suites: " + "; ".join(sorted(metrics)) + ".")
    if any(column.title == "× SFT" for column in table.columns):
        said.append(MEANING)
        cells = [cell for group in table.groups for line in group.lines for cell in line.cells.values()]
        if any(cell.cost is not None and cell.cost.of_runs is not None for cell in cells):
            said.append(WHY_TWO)
    titles: dict[str, list[str]] = {}
    for column in table.columns:
        if column.note:
            titles.setdefault(column.note, []).append(column.title)
    said += [f"{'; '.join(of)}: {note}" for note, of in titles.items()]
    return " ".join(said)


def to_paper_csv(table: PaperTable) -> str:
    """One line per number, ours and the paper's, in full precision."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    columns = "pair row whose column value spread low high questions seeds metric p"
    writer.writerow(columns.split())
    for group in table.groups:
        for line in group.lines:
            seeds = " ".join(map(str, line.seeds))
            for key, cell in line.cells.items():
                low, high = cell.interval or (None, None)
                numbers = [cell.mean, cell.spread, low, high, cell.total]
                writer.writerow([group.title, line.key, OURS, key, *numbers, seeds, cell.metric, cell.p])
                if cell.cost is not None and cell.cost.of_runs is not None:
                    of_runs = [f"{key} of runs", cell.cost.of_runs, *[None] * 4]
                    writer.writerow([group.title, line.key, OURS, *of_runs, seeds, None, None])
            for published, values in line.published.items():
                for key, value in values.items():
                    writer.writerow([group.title, line.key, f"paper {published}", key, value, *[None] * 7])
    return written.getvalue()
