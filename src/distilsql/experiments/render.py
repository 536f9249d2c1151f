"""Make tables and figures from run folders, beside the paper's. Cells that have not been run say so."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distilsql.experiments import gains as derived
from distilsql.experiments.experiment import ColumnSpec, Published, Scale
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
from distilsql.experiments.plan import (
    Judgement,
    Plan,
    PlannedExperiment,
    PlannedGroup,
    PlannedRow,
    PlannedRun,
    judgement_of,
    measured_columns,
    task_of,
)
from distilsql.experiments.state import is_same_recipe, read_exposure, read_score, summary_of
from distilsql.files import lines_of, write_bytes, write_text
from distilsql.metrics.statistics import deviation_of_seeds
from distilsql.report.cost import BASELINE, RunCost, cost
from distilsql.report.entries import combine
from distilsql.report.theme import png

# Sharp on screens with two pixels to the point.
_DPI = 100
_OF_SUMMARY = {
    "samples_per_second": ("samples_per_second", 1.0),
    "train_minutes": ("train_seconds", 1 / 60),
    "teacher_share": ("teacher_share", 100.0),
}
_DECIMALS = {"x_sft": 2, "samples_per_second": 2}


def render(plan: Plan, out: Path, *, touching: str | None = None) -> list[Path]:
    """Write NAME.md, NAME.csv and NAME.png for every experiment of the plan, or for those that use the run
    `touching`; returns the Markdown files. There is no picture where there is nothing to draw."""
    written = []
    for one in plan.experiments:
        if touching is not None and touching not in _names(one):
            continue
        table = paper_table(plan, one)
        options = one.experiment.figure
        picture = draw_paper_figure(table, options.kind, x=options.x, y=options.y, x_title=options.x_title)
        if picture is not None:
            write_bytes(out / f"{one.name}.png", png(picture, _DPI))
        path = out / f"{one.name}.md"
        write_text(path, to_paper_markdown(table, figure=f"{one.name}.png" if picture else ""))
        write_text(out / f"{one.name}.csv", to_paper_csv(table))
        written.append(path)
    return written


def _names(one: PlannedExperiment) -> set[str]:
    """Every run behind the experiment."""
    return {
        name for group in one.groups for row in group.rows for names in row.cells.values() for name in names
    }


def paper_table(plan: Plan, one: PlannedExperiment) -> PaperTable:
    """The measurements of an experiment's finished runs, beside the published numbers."""
    runs = finished_runs(plan)
    return PaperTable(
        title=one.experiment.title,
        source=one.experiment.source,
        scale=f"{plan.scale_name} ({plan.scale.title})",
        columns=tuple(_column(key, column) for key, column in one.columns.items()),
        groups=tuple(_group(group, one, plan, runs) for group in one.groups),
        notes=(
            *one.at.notes,
            *one.experiment.notes,
            *plan.scale.notes,
            *_of_tasks(one, plan.scale),
            *_left_out(one, plan.scale),
        ),
    )


def finished_runs(plan: Plan) -> dict[str, PlannedRun]:
    """The plan's runs that have been made, rows that `only` left out included."""
    return {name: run for name, run in {**plan.runs, **plan.others}.items() if _is_there(run)}


def _is_there(run: PlannedRun) -> bool:
    """Whether the run has finished. Its weights may have been deleted, since tables do not need them."""
    return run.folder.summary.exists() and is_same_recipe(run)


def _column(key: str, column: ColumnSpec) -> PaperColumn:
    note = column.note or (derived.NOTE if column.measure == "gain" else "")
    return PaperColumn(key, column.title, _DECIMALS.get(column.measure, 1), note)


def _of_tasks(one: PlannedExperiment, scale: Scale) -> list[str]:
    """The sentence about the tasks that its models are trained on."""
    measured = [part for column in one.columns for part in measured_columns(column, scale)]
    tasks = dict.fromkeys(task_of(column, one.at, scale) for column in measured)
    return [note for task in tasks for note in scale.tasks[task].notes]


def _left_out(one: PlannedExperiment, scale: Scale) -> list[str]:
    """What is left out of each benchmark, and why."""
    benchmarks = dict.fromkeys(column.benchmark for column in one.columns.values() if column.benchmark)
    return [
        f"{name}: {example} is left out: {reason}."
        for name in benchmarks
        for example, reason in scale.benchmarks[name].leave_out.items()
    ]


def _group(group: PlannedGroup, one: PlannedExperiment, plan: Plan, runs: Mapping[str, PlannedRun]) -> Group:
    y = one.experiment.figure.y
    sft = next((row for row in group.rows if row.row.method == BASELINE), None)
    lines: list[Line] = []
    for planned in group.rows:
        method = planned.row.method or str(planned.row.role)
        first = next(iter(planned.cells.values()))
        lines.append(
            Line(
                key=planned.key,
                title=planned.row.title or planned.key,
                method=method,
                seeds=tuple(runs[name].recipe.seed for name in first if name in runs),
                wanted_seeds=len(first),
                cells=_cells(planned, one.columns, plan.scale, runs, sft),
                published=_published(planned, group, one.columns, plan),
                x=planned.row.x,
                variant=sum(line.method == method for line in lines),
                curves=tuple(_curve(runs[name]) for name in planned.cells.get(y, ()) if name in runs),
            )
        )
    beside = {key: plan.published.titles.get(key, key) for key in group.beside}
    return Group(group.title, beside, derived.with_gains(lines, group.rows, one.columns, plan.scale, runs))


# ---- our measurements ----------------------------------------------------------------------------------------


def _cells(
    planned: PlannedRow,
    columns: Mapping[str, ColumnSpec],
    scale: Scale,
    runs: Mapping[str, PlannedRun],
    sft: PlannedRow | None,
) -> dict[str, Measured]:
    """Everything but gains, which need another row. `sft` is the group's row of fine-tuning, for costs."""
    cells = {}
    for key, column in columns.items():
        if column.measure == "mean":
            cell = derived.mean_of_columns(measured_columns(key, scale), planned, scale, runs)
        elif column.measure == "gain":
            continue
        elif column.measure == "x_sft":
            cell = _cost(key, planned, runs, sft)
        else:
            cell = _measured(key, planned, scale, runs)
        if cell is not None:
            cells[key] = cell
    return cells


def _measured(key: str, planned: PlannedRow, scale: Scale, runs: Mapping[str, PlannedRun]) -> Measured | None:
    column = scale.columns[key]
    there = [runs[name] for name in planned.cells.get(key, ()) if name in runs]
    judgement = judgement_of(column)
    if judgement is not None and judgement.exposure_limit is not None:
        return _exposure(judgement, there)
    if judgement is not None:
        scores = [
            score for run in there if (score := read_score(run.folder, judgement, length=column.length))
        ]
        accuracy = combine(scores)
        if accuracy is None:
            return None
        interval = accuracy.interval
        return Measured(
            100 * accuracy.mean,
            None if accuracy.spread is None else 100 * accuracy.spread,
            (100 * interval[0], 100 * interval[1]) if interval else None,
            accuracy.total,
            accuracy.metric,
        )
    name, factor = _OF_SUMMARY[column.measure]
    values = [value * factor for run in there if (value := summary_of(run.folder).get(name)) is not None]
    if not values:
        return None
    return Measured(statistics.fmean(values), deviation_of_seeds(values))


def _cost(
    key: str, planned: PlannedRow, runs: Mapping[str, PlannedRun], sft: PlannedRow | None
) -> Measured | None:
    """× SFT; a teacher or start has none, being another model than the one it is relative to."""
    of_method, of_sft = (
        [RunCost.of(summary_of(runs[name].folder)) for name in row.cells.get(key, ()) if name in runs]
        if row
        else []
        for row in (planned, sft)
    )
    found = cost(planned.row.method, of_method, of_sft) if planned.row.method and of_method else None
    if found is None:
        return None
    ratios = [run.x_sft for run in of_method if run.x_sft is not None]
    spread = None if planned.row.method == BASELINE else deviation_of_seeds(ratios)
    return Measured(found.x_sft, spread, cost=found)


def _exposure(judgement: Judgement, runs: Sequence[PlannedRun]) -> Measured | None:
    """The runs' ExAccErr; with its bootstrap interval where one run has it."""
    found = [values for run in runs if (values := read_exposure(run.folder, judgement)) is not None]
    if not found:
        return None
    errors = [float(values["excess_accumulated_error"]) for values in found]
    low, high = found[0]["interval"]
    interval = (float(low), float(high)) if len(found) == 1 else None
    prompts = int(found[0]["prompts"])
    return Measured(statistics.fmean(errors), deviation_of_seeds(errors), interval=interval, total=prompts)


def _curve(run: PlannedRun) -> tuple[tuple[int, float], ...]:
    """Validation accuracy in percent by optimizer step, as logged."""
    if not run.folder.log.exists():
        return ()
    lines: Iterable[dict[str, Any]] = map(json.loads, lines_of(run.folder.log))
    return tuple(
        (line["step"], 100 * line["valid_accuracy"])
        for line in lines
        if line.get("valid_accuracy") is not None
    )


# ---- the paper's numbers -------------------------------------------------------------------------------------


def _published(
    planned: PlannedRow, group: PlannedGroup, columns: Mapping[str, ColumnSpec], plan: Plan
) -> dict[str, dict[str, float]]:
    row = planned.row.published or planned.key
    found = {}
    for name in group.beside:
        numbers = {
            key: value
            for key, column in columns.items()
            if (value := _published_value(plan.published, name, row, key, column)) is not None
        }
        if numbers:
            found[name] = numbers
    return found


def _published_value(
    published: Published, group: str, row: str, key: str, column: ColumnSpec
) -> float | None:
    """The paper's number; of a mean, the mean of the same columns as ours, which need not be all of the paper's."""
    if column.measure != "mean":
        return published.value(group, row, key)
    parts = [published.value(group, row, part) for part in column.of]
    known = [part for part in parts if part is not None]
    return round(statistics.fmean(known), 2) if len(known) == len(parts) else None
