"""Plan: the runs that the requested tables and figures need, each once, in dependency order.

A run is known by its name, which says what it is: `kid_smollm2-24_from-teacher_mask_share-0.3_seed0`. Two cells of
two tables that ask for the same training get the same name, hence the same folder. Imports no torch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distilsql.distill.methods import METHODS
from distilsql.errors import RecipeError
from distilsql.experiments.experiment import (
    DEFAULT_SEEDS,
    Base,
    Book,
    ColumnSpec,
    Experiment,
    ExperimentScale,
    Published,
    RowSpec,
    Scale,
    nearest,
    read_values,
)
from distilsql.runs.folder import RunFolder, file_name
from distilsql.runs.recipe import Recipe, make_recipe


@dataclass(frozen=True)
class Judgement:
    """One thing to measure on a finished run: accuracy on a benchmark or on its suite, or its exposure bias.

    Answers are greedy, or sampled at `temperature`, once for each of `sample_seeds`.
    """

    benchmark: str
    suite: bool = False
    exposure_limit: int | None = None
    temperature: float = 0.0
    sample_seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class PlannedRun:
    """`needs` names the runs whose models it loads; they come before it. `judged_on` is in the order of columns."""

    name: str
    recipe: Recipe
    folder: RunFolder
    needs: tuple[str, ...]
    judged_on: tuple[Judgement, ...] = ()


@dataclass(frozen=True)
class PlannedRow:
    """`cells`: for each measured column, also those that only a mean is made of, the runs that have it (by seed)."""

    key: str
    row: RowSpec
    cells: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class PlannedGroup:
    """The rows of one pair of student and teacher, and the published groups they stand beside."""

    pair: str
    title: str
    beside: tuple[str, ...]
    rows: tuple[PlannedRow, ...]


@dataclass(frozen=True)
class PlannedExperiment:
    name: str
    experiment: Experiment
    at: ExperimentScale
    columns: Mapping[str, ColumnSpec]
    groups: tuple[PlannedGroup, ...]


@dataclass(frozen=True)
class Plan:
    """`runs` holds every run once, each after those it needs; rows that `only` left out have theirs in `others`."""

    scale_name: str
    scale: Scale
    published: Published
    folder: Path
    runs: Mapping[str, PlannedRun]
    others: Mapping[str, PlannedRun]
    experiments: tuple[PlannedExperiment, ...]


def make_plan(
    book: Book, names: Sequence[str], scale_name: str, folder: Path, *, only: Sequence[str] = ()
) -> Plan:
    """The plan for the experiments `names`; `only` restricts what is trained to some of their rows.

    Raises RecipeError for an unknown name, row or scale, a recipe that cannot be used, and settings under which two
    different trainings would get one name.
    """
    scale = book.scale(scale_name)
    makers = _RunMaker(book.folder / scale_name, scale, folder)
    planned = tuple(_experiment(name, book.experiment(name), scale_name, makers) for name in names)
    rows = {row.key for one in planned for group in one.groups for row in group.rows}
    for key in only:
        if key not in rows:
            raise RecipeError(f"--only {key}: there is no such row{nearest(key, sorted(rows))}.")
    wanted = _wanted(planned, set(only) or rows, scale)
    needed = _with_needs(wanted, makers.runs)
    # What others need first, then every row once, before any is made with another seed.
    common = {name for run in makers.runs.values() for name in run.needs}
    in_order = sorted(makers.runs.items(), key=lambda item: (item[0] not in common, item[1].recipe.seed))
    runs = {
        name: replace(run, judged_on=tuple(wanted.get(name, ()))) for name, run in in_order if name in needed
    }
    others = {name: run for name, run in makers.runs.items() if name not in needed}
    return Plan(scale_name, scale, book.published, folder, runs, others, planned)


def _wanted(
    experiments: Iterable[PlannedExperiment], rows: set[str], scale: Scale
) -> dict[str, dict[Judgement, None]]:
    """For each run that some cell of `rows` asks for, what it is judged on (a dict, to keep the order)."""
    wanted: dict[str, dict[Judgement, None]] = {}
    for one in experiments:
        for row in (row for group in one.groups for row in group.rows if row.key in rows):
            for key, names in row.cells.items():
                judgement = judgement_of(scale.columns[key])
                for name in names:
                    wanted.setdefault(name, {}).update({judgement: None} if judgement else {})
    return wanted


def judgement_of(column: ColumnSpec) -> Judgement | None:
    """What has to be measured for a column; None where the run's summary holds it already."""
    if column.benchmark is None:
        return None
    if column.measure == "exposure":
        return Judgement(column.benchmark, exposure_limit=column.limit)
    return Judgement(
        column.benchmark,
        suite=column.suite,
        temperature=column.temperature,
        sample_seeds=column.sample_seeds or (0,),
    )


def _with_needs(names: Iterable[str], runs: Mapping[str, PlannedRun]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += runs[name].needs
    return found


# ---- rows, columns and cells ---------------------------------------------------------------------------------


def _experiment(name: str, experiment: Experiment, scale_name: str, makers: "_RunMaker") -> PlannedExperiment:
    scale = makers.scale
    if scale_name not in experiment.scales:
        raise RecipeError(
            f"{name} cannot be made at scale {scale_name}{nearest(scale_name, experiment.scales)}."
        )
    at = experiment.scales[scale_name]
    for pair in at.pairs:
        if pair not in scale.pairs:
            raise RecipeError(f"{name}: scale {scale_name} has no pair {pair!r}{nearest(pair, scale.pairs)}.")
    columns = {key: scale.columns[key] for key in experiment.columns if key in scale.columns}
    if not columns:
        raise RecipeError(f"{name}: scale {scale_name} defines none of its columns.")
    for key, column in columns.items():
        if column.over and column.over not in experiment.rows:
            raise RecipeError(
                f"{name}: column {key} is a gain over row {column.over!r}, which does not exist"
                f"{nearest(column.over, experiment.rows)}."
            )
    groups = tuple(
        PlannedGroup(
            pair,
            scale.pairs[pair].title,
            at.published_groups(pair),
            tuple(
                PlannedRow(key, row, cells)
                for key, row in experiment.rows.items()
                if (cells := _cells(pair, key, row, columns, at, makers))
            ),
        )
        for pair in at.pairs
    )
    return PlannedExperiment(name, experiment, at, columns, groups)


def _cells(
    pair: str,
    key: str,
    row: RowSpec,
    columns: Mapping[str, ColumnSpec],
    at: ExperimentScale,
    makers: "_RunMaker",
) -> dict[str, tuple[str, ...]]:
    """The row's cells, of measured columns only; what is derived from them (mean, gain) has no runs of its own."""
    scale = makers.scale
    cells = {}
    seeds_of = {DEFAULT_SEEDS: at.row_seeds[key]} if key in at.row_seeds else at.seeds or scale.seeds
    for measured in [part for column in columns for part in measured_columns(column, scale)]:
        if scale.columns[measured].measure == "exposure" and not (
            row.method and METHODS[row.method].needs_teacher
        ):
            continue  # there is no teacher whose samples the errors are compared with
        if runs := makers.runs_of(pair, row, task_of(measured, at, scale), seeds_of):
            cells[measured] = runs
    return cells


def measured_columns(key: str, scale: Scale) -> list[str]:
    """The measured columns that a column comes from in the end: itself, or those that a mean or gain is made of."""
    of = scale.columns[key].of
    return [part for each in of for part in measured_columns(each, scale)] if of else [key]


def task_of(measured: str, at: ExperimentScale, scale: Scale) -> str:
    """The task that a measured column's models are trained on."""
    return scale.columns[measured].task or at.task or scale.default_task


# ---- runs ----------------------------------------------------------------------------------------------------


@dataclass
class _RunMaker:
    """Makes the runs of a scale, each once. `runs` is in the order of making: what is needed comes first."""

    recipes: Path
    scale: Scale
    folder: Path
    runs: dict[str, PlannedRun] = field(default_factory=dict)
    _files: dict[str, dict[str, Any]] = field(default_factory=dict)

    def runs_of(
        self, pair_name: str, row: RowSpec, task: str, seeds_of: Mapping[str, Sequence[int]]
    ) -> tuple[str, ...]:
        """Names of the runs behind a row, one for each seed; none where a role does not exist at this scale."""
        pair = self.scale.pairs[pair_name]
        if row.role == "teacher":
            return (self._common(pair.teacher, task),)
        if row.role == "start":
            start = self.scale.students[pair.student].student_from
            return (self._common(start, task),) if start else ()
        assert row.method is not None
        said = self._effective(pair.student, row, task)
        usual = seeds_of[DEFAULT_SEEDS]
        seeds = usual if said else seeds_of.get(row.method, usual)
        return tuple(self._student(pair_name, row, task, seed, said) for seed in seeds)

    def _common(self, name: str, task: str) -> str:
        """A teacher or a start: plain fine-tuning by the scale's recipe, with seed 0."""
        base = self.scale.runs[name]
        full_name = file_name("_".join([name, *self._task_part(task)]))
        if full_name not in self.runs:
            needs = (self._common(base.student_from, task),) if base.student_from else ()
            self._add(full_name, self._recipe(full_name, "sft", base, task, {}, needs), needs)
        return full_name

    def _student(self, pair_name: str, row: RowSpec, task: str, seed: int, said: Mapping[str, Any]) -> str:
        pair, method = self.scale.pairs[pair_name], str(row.method)
        base = self.scale.students[pair.student]
        teacher = self._common(pair.teacher, task) if METHODS[method].needs_teacher else None
        start = self._common(base.student_from, task) if base.student_from else None
        parts = [method, pair.student, *([f"from-{pair.teacher}"] if teacher else []), *self._task_part(task)]
        parts += [f"{key.rpartition('.')[2]}-{_short(value)}" for key, value in said.items()]
        name = file_name("_".join([*parts, f"seed{seed}"]))
        settings = {**self.scale.tasks[task].student_settings, **row.settings, "seed": seed}
        if teacher:
            settings["teacher.path"] = self._model(teacher)
        needs = tuple(run for run in (start, teacher) if run)
        recipe = self._recipe(name, method, base, task, settings, (start,) if start else ())
        self._add(name, recipe, needs)
        return name

    def _add(self, name: str, recipe: Recipe, needs: tuple[str, ...]) -> None:
        known = self.runs.get(name)
        if known is not None and known.recipe != recipe:
            raise RecipeError(
                f"Two different trainings would both be called {name}: their settings differ in a section that the "
                "name leaves out, or in a base recipe. Give one of them another student or task."
            )
        self.runs.setdefault(name, PlannedRun(name, recipe, RunFolder(self.folder / name), needs))

    def _recipe(
        self,
        name: str,
        method: str,
        base: Base,
        task: str,
        settings: Mapping[str, Any],
        start: tuple[str, ...],
    ) -> Recipe:
        values = self._base_values(base, task)
        for key, value in {**settings, "method": method, "name": name}.items():
            _put(values, key, value)
        if start:
            _put(values, "student.path", self._model(start[0]))
        return make_recipe(values, where=f"{self.recipes / base.recipe}, as run {name}")

    def _base_values(self, base: Base, task: str) -> dict[str, Any]:
        if base.recipe not in self._files:
            self._files[base.recipe] = read_values(self.recipes / base.recipe)
        values = {
            key: dict(value) if isinstance(value, Mapping) else value
            for key, value in self._files[base.recipe].items()
        }
        for key, value in {**base.settings, **self.scale.tasks[task].settings}.items():
            _put(values, key, value)
        return values

    def _effective(self, student: str, row: RowSpec, task: str) -> dict[str, Any]:
        """The row's settings without those that say what the recipe says already, so that equal runs are shared."""
        if not row.settings:
            return {}
        values = self._base_values(self.scale.students[student], task)
        for key, value in self.scale.tasks[task].student_settings.items():
            _put(values, key, value)
        plain = make_recipe(values, where=f"student {student}").model_dump()
        return {key: value for key, value in row.settings.items() if _get(plain, key) != value}

    def _task_part(self, task: str) -> list[str]:
        return [] if task == self.scale.default_task else [task]

    def _model(self, name: str) -> str:
        return str(RunFolder(self.folder / name).model)


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
    values[last] = value


def _get(values: Mapping[str, Any], key: str) -> Any:
    found: Any = values
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _short(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, list) else str(value)
