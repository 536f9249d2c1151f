"""Experiments: a table or figure of a paper as one TOML file, and the scales at which it can be run.

experiments/paper/     (part of the package, so that an installed distilsql has them)
  table3.toml, …        an Experiment: rows (methods and settings), columns (measures), pairs of models at each scale
  published.toml        the papers' own numbers, with their source
  <scale>/scale.toml    a Scale: base recipes, pairs of student and teacher, tasks, benchmarks, columns, seeds
  <scale>/*.toml        ordinary recipes that the scale's runs are made from

All files are frozen values; unknown keys are refused. Importing this module imports no torch.
"""

import difflib
import tomllib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from distilsql.distill.methods import METHODS
from distilsql.errors import RecipeError
from distilsql.metrics.rouge import BUCKET_NAMES
from distilsql.runs.sections import Section

SCALE_FILE = "scale.toml"
PUBLISHED_FILE = "published.toml"
DEFAULT_SEEDS = "default"
PAPER = Path(__file__).with_name("paper")


# ---- a scale -------------------------------------------------------------------------------------------------


class Base(Section):
    """Where a run's recipe comes from. `settings` are dotted recipe keys with their values."""

    recipe: str = Field(description="recipe file beside scale.toml")
    settings: dict[str, Any] = Field(default_factory=dict)
    student_from: str | None = Field(
        None, description="common run whose finished model the student starts as"
    )


class Pair(Section):
    """A student (one of the scale's students) and its teacher (one of its common runs)."""

    title: str
    student: str
    teacher: str


class TrainingTask(Section):
    """What models are trained on. Each task that a column needs gets a run of its own."""

    settings: dict[str, Any] = Field(default_factory=dict, description="for every run of the task")
    student_settings: dict[str, Any] = Field(default_factory=dict, description="for its students only")
    notes: tuple[str, ...] = Field((), description="said under every table and figure of the task")


class BenchmarkOptions(Section):
    limit: int | None = Field(None, ge=1, description="ask only this many questions (a seeded draw)")
    leave_out: dict[str, str] = Field(
        default_factory=dict, description="examples that cannot be judged, and why"
    )


Measure = Literal[
    "accuracy", "mean", "gain", "x_sft", "samples_per_second", "train_minutes", "teacher_share", "exposure"
]


class ColumnSpec(Section):
    """What a column shows. `mean` averages the columns `of`; `gain` is `of`'s only column, less that of row `over`."""

    title: str
    measure: Measure = "accuracy"
    task: str | None = Field(None, description="what the models were trained on; the scale's first task")
    benchmark: str | None = None
    suite: bool = Field(False, description="on a test suite of our own, built once for the benchmark")
    length: str = Field("", description="ROUGE-L of the instructions whose first reference is so long only")
    of: tuple[str, ...] = ()
    over: str = Field("", description="gain: the row that is the baseline, sft if none is named")
    limit: int | None = Field(None, ge=1, description="exposure: ask this many questions")
    temperature: float = Field(0.0, ge=0, description="sample answers at this temperature; 0 is greedy")
    sample_seeds: tuple[int, ...] = Field((), description="a sample for each of these seeds; the mean counts")
    note: str = ""

    @model_validator(mode="after")
    def _check(self) -> "ColumnSpec":
        if (self.measure in ("accuracy", "exposure")) != (self.benchmark is not None):
            raise ValueError("accuracy and exposure need a benchmark, other measures have none")
        if (self.measure == "exposure") != (self.limit is not None):
            raise ValueError("an exposure needs a limit, other measures have none")
        if bool(self.of) != (self.measure in ("mean", "gain")):
            raise ValueError("mean and gain need `of`, other measures have none")
        if (self.temperature > 0) != bool(self.sample_seeds):
            raise ValueError("temperature and sample_seeds go together")
        if self.measure == "gain" and len(self.of) != 1:
            raise ValueError("gain is of one column")
        if self.over and self.measure != "gain":
            raise ValueError("only a gain is over another row")
        if self.length:
            if self.measure != "accuracy":
                raise ValueError("only an accuracy is of one length")
            _known([self.length], BUCKET_NAMES, "length")
        return self


class Scale(Section):
    """Everything that makes a paper's experiments runnable on one kind of machine."""

    title: str
    notes: tuple[str, ...] = Field((), description="said under every table and figure of this scale")
    seeds: dict[str, list[int]] = Field(
        description="per method, for rows without settings; `default` for all"
    )
    runs: dict[str, Base] = Field(description="common runs, each plain fine-tuning: teachers and starts")
    students: dict[str, Base]
    pairs: dict[str, Pair]
    tasks: dict[str, TrainingTask] = Field(min_length=1)
    benchmarks: dict[str, BenchmarkOptions]
    columns: dict[str, ColumnSpec]

    @model_validator(mode="after")
    def _check(self) -> "Scale":
        _known([DEFAULT_SEEDS], self.seeds, "seeds")
        _known(self.seeds.keys() - {DEFAULT_SEEDS}, METHODS, "method")
        bases = [*self.runs.values(), *self.students.values()]
        _known([base.student_from for base in bases], self.runs, "run")
        _known([pair.student for pair in self.pairs.values()], self.students, "student")
        _known([pair.teacher for pair in self.pairs.values()], self.runs, "run")
        columns = self.columns.values()
        _known([column.task for column in columns], self.tasks, "task")
        _known([column.benchmark for column in columns], self.benchmarks, "benchmark")
        _known([key for column in columns for key in column.of], self.columns, "column")
        for name, column in self.columns.items():
            allowed = {"mean": ("accuracy",), "gain": ("accuracy", "mean")}.get(column.measure, ())
            if any(self.columns[key].measure not in allowed for key in column.of):
                raise ValueError(f"column {name}: a {column.measure} is of {' or '.join(allowed)} columns")
        return self

    @property
    def default_task(self) -> str:
        return next(iter(self.tasks))


# ---- an experiment -------------------------------------------------------------------------------------------


class RowSpec(Section):
    """A method with settings, or the pair's `teacher`, or the `start` its student begins as.

    `published` names the row of the paper's numbers that it is shown beside: its own key by default.
    """

    method: str | None = None
    role: Literal["teacher", "start"] | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    title: str = ""
    published: str = ""
    x: float | None = Field(None, description="its place on the x axis of a sweep")

    @model_validator(mode="after")
    def _check(self) -> "RowSpec":
        if (self.method is None) == (self.role is None):
            raise ValueError("give exactly one of method and role")
        if self.method is not None:
            _known([self.method], METHODS, "method")
        if self.settings and self.role:
            raise ValueError("a role has no settings: its run is the scale's")
        return self


class FigureOptions(Section):
    """`cost`: column y against column x. `bars`: y by row. `sweep`: y over the rows' x. `curve`: validation
    accuracy over steps. `dots`: every column with its interval."""

    kind: Literal["cost", "bars", "sweep", "curve", "dots"] = "dots"
    x: str = ""
    y: str = ""
    x_title: str = ""


class ExperimentScale(Section):
    """Which pairs stand for the paper's at a scale; `beside` names the published groups shown with each."""

    pairs: tuple[str, ...] = Field(min_length=1)
    beside: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    task: str | None = Field(None, description="task of columns that name none")
    seeds: dict[str, list[int]] | None = Field(None, description="instead of the scale's seeds")
    row_seeds: dict[str, list[int]] = Field(
        default_factory=dict, description="of single rows, such as those with settings, before any other"
    )
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> "ExperimentScale":
        if self.seeds is not None:
            _known([DEFAULT_SEEDS], self.seeds, "seeds")
        return self

    def published_groups(self, pair: str) -> tuple[str, ...]:
        return self.beside.get(pair, (pair,))


class Experiment(Section):
    """One table or figure. Columns that a scale does not define are left out there."""

    title: str
    source: str
    summary: str = Field(description="one line for the list of what can be reproduced")
    columns: tuple[str, ...] = Field(min_length=1)
    rows: dict[str, RowSpec] = Field(min_length=1)
    scales: dict[str, ExperimentScale]
    figure: FigureOptions = FigureOptions()
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> "Experiment":
        for scale in self.scales.values():
            _known(scale.row_seeds, self.rows, "row")
        return self


class PublishedBlock(Section):
    """Numbers of one source: for every group of `groups`, row → one number for each of `columns`."""

    source: str
    groups: tuple[str, ...]
    columns: tuple[str, ...]
    rows: dict[str, tuple[float, ...]]

    @model_validator(mode="after")
    def _check(self) -> "PublishedBlock":
        for key, values in self.rows.items():
            if len(values) != len(self.columns):
                raise ValueError(f"row {key} has {len(values)} numbers for {len(self.columns)} columns")
        return self


class Published(Section):
    titles: dict[str, str] = Field(description="what each group is called")
    blocks: tuple[PublishedBlock, ...]

    def value(self, group: str, row: str, column: str) -> float | None:
        """The paper's number, None where it gives none."""
        for block in self.blocks:
            if group in block.groups and row in block.rows and column in block.columns:
                return block.rows[row][block.columns.index(column)]
        return None


# ---- reading -------------------------------------------------------------------------------------------------


class Book:
    """The experiments of a folder, its scales and the published numbers, read when asked for."""

    def __init__(self, folder: Path = PAPER) -> None:
        if not (folder / PUBLISHED_FILE).is_file():
            raise RecipeError(
                f"{folder} holds no experiments (it has no {PUBLISHED_FILE}). Give another folder with --recipes, or "
                "leave the option out to use the papers' experiments."
            )
        self.folder = folder
        self.published = read_model(Published, folder / PUBLISHED_FILE)

    def names(self) -> list[str]:
        """Figures and tables by number, what else there is after them."""
        names = [path.stem for path in self.folder.glob("*.toml") if path.name != PUBLISHED_FILE]
        return sorted(names, key=lambda name: (not name.startswith(("table", "figure")), name))

    def names_at(self, scale: str) -> list[str]:
        """Those of `names` that are made at a scale."""
        return [name for name in self.names() if scale in self.experiment(name).scales]

    def lines(self) -> list[str]:
        """What can be reproduced, a line each."""
        return [f"{name:<14}{self.experiment(name).summary}" for name in self.names()]

    def scales(self) -> list[str]:
        return sorted(path.parent.name for path in self.folder.glob(f"*/{SCALE_FILE}"))

    def experiment(self, name: str) -> Experiment:
        if name not in self.names():
            known = "".join(f"\n  {line}" for line in self.lines())
            raise RecipeError(f"There is no table or figure {name!r} to reproduce. Known:{known}")
        return read_model(Experiment, self.folder / f"{name}.toml")

    def scale(self, name: str) -> Scale:
        if name not in self.scales():
            raise RecipeError(f"There is no scale {name!r}{nearest(name, self.scales())}.")
        return read_model(Scale, self.folder / name / SCALE_FILE)


_Model = TypeVar("_Model", bound=BaseModel)


def read_model(model: type[_Model], path: Path) -> _Model:
    """A TOML file as a model's value. Raises RecipeError that names every fault with its key."""
    try:
        return model.model_validate(read_values(path))
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'the file'}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        )
        raise RecipeError(f"{path}: {faults}.") from error


def read_values(path: Path) -> dict[str, Any]:
    """A TOML file as nested values, not yet validated. Raises RecipeError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}.") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path} is not valid TOML: {error}. Correct that line.") from error


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean …?` where something known is alike, else what is known."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(names)}"


def _known(names: Iterable[str | None], known: Collection[str], what: str) -> None:
    """Raises ValueError for the first name that is not None and not known."""
    for name in names:
        if name is not None and name not in known:
            raise ValueError(f"unknown {what} {name!r}{nearest(name, known)}")
