"""Reading run folders: recipe, cost, scores and log of a run."""

import hashlib
import json
import statistics
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator

from distilsql.distill.exposure import ExposureOptions
from distilsql.errors import RunError
from distilsql.files import read_json, read_text

Share = float  # 0 to 1
# What a benchmark is judged by unless something else was asked for; one of them each.
ORDINARY_METRICS = ("EX", "ROUGE-L")

# Parts of a recipe that tell repetitions of one configuration apart, not configurations.
_NOT_CONFIGURATION = ("seed", "name")


class _File(BaseModel):
    """A file of a run folder, for those that write it and those that read it; keys that this version does not know are
    left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    def to_json(self) -> dict[str, Any]:
        """The file's text: the values that were given, including None."""
        return self.model_dump(mode="json", exclude_unset=True)


class Score(_File):
    """One benchmark's result: `accuracy` and its 95 % `interval`, 0 to 1, over `total` examples.

    `metric` says what the accuracy is: a share of right queries, or a mean such as ROUGE-L. At a `temperature` above 0
    it is the mean of several samples.
    """

    benchmark: str
    accuracy: float = Field(ge=0, le=1, validation_alias=AliasChoices("accuracy", "rouge_l"))
    interval: tuple[float, float] | None = Field(
        None, validation_alias=AliasChoices("interval", "accuracy_interval_95", "rouge_l_interval_95")
    )
    total: int | None = Field(None, validation_alias=AliasChoices("total", "n"))
    metric: str = "EX"
    temperature: float = 0.0
    keep_distinct: bool = False
    right: dict[str, float] = Field(
        default_factory=dict,
        validation_alias=AliasChoices("right", "verdicts", "instructions"),
        description="how right each example is, 0 to 1: its verdict, or its ROUGE-L over samples",
    )

    @field_validator("right", mode="before")
    @classmethod
    def _by_example(cls, value: Any) -> Any:
        return {one["example_id"]: _right(one) for one in value} if isinstance(value, list) else value

    @property
    def name(self) -> str:
        """The benchmark, and what makes its numbers another column: samples, a test suite, other rules."""
        parts = [self.benchmark]
        if self.temperature:
            parts.append(f"T={self.temperature:g}")
        if self.metric not in ORDINARY_METRICS:
            parts.append(self.metric)
        if self.keep_distinct:
            parts.append("DISTINCT kept")
        return " ".join(parts)


def _right(judged: Mapping[str, Any]) -> float:
    if "rouge_l" in judged:
        return statistics.fmean(judged["rouge_l"])
    return float(judged["outcome"] == "CORRECT")


class SwitchAlongSequence(_File):
    """What SWITCH did at each position of the completions it wrote; divergence and threshold in nats."""

    threshold: tuple[float, ...]
    tokens: tuple[int, ...] = Field(min_length=1)
    teacher_share: tuple[Share, ...]
    divergence: tuple[float, ...]
    teacher_passes_per_token: float


class Summary(_File):
    """`summary.json`. Costs are of training alone; `x_sft` is relative to SFT of the same student and data.

    A completion source adds what it counted, under names of its own.
    """

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    method: str
    name: str
    seed: int
    student_parameters: int
    trained_parameters: int | None = None
    teacher: str | None = None
    steps: int
    examples_seen: int
    train_seconds: float
    samples_per_second: float | None = None
    seconds_per_example: float | None = None
    seconds_by_phase: dict[str, float] = Field(default_factory=dict)
    x_sft: float | None = None
    x_sft_range: tuple[float, float] | None = None
    sft_seconds_per_example: float | None = None
    teacher_share: float | None = None
    switch: SwitchAlongSequence | None = None
    teacher_completions: dict[str, Any] | None = None
    counts: dict[str, int | float] = Field(default_factory=dict)
    layout: str | None = None
    peak_memory_bytes: int | None = None
    finished: str | None = None

    @property
    def teacher_passes_per_token(self) -> float | None:
        return self.switch.teacher_passes_per_token if self.switch else None


class Exposure(_File):
    """`exposure.json`: ExAccErr in percent with its 95 % `interval`; `teacher` is None for the run's own."""

    benchmark: str
    excess_accumulated_error: float
    interval: tuple[float, float]
    prompts: int | None = None
    options: ExposureOptions
    teacher: str | None = None

    @property
    def name(self) -> str:
        """What makes its numbers another column."""
        other = f", teacher {self.teacher}" if self.teacher else ""
        return f"ExAccErr({self.options.length}) % on {self.benchmark}{other}"


class DataChecksum(_File):
    """How many examples a benchmark has, and a SHA-256 over everything of them that training or scoring reads."""

    examples: int
    sha256: str
    skipped: int = 0


class Environment(_File):
    """`environment.json`: versions, machine, code and data, by the names of its benchmarks.

    `in_memory` has what was no file, by the argument of `train`: what it is, and its SHA-256.
    """

    python: str
    packages: dict[str, str | None] = Field(default_factory=dict)
    platform: str = ""
    processor: str = ""
    cores: int | None = None
    memory_bytes: int | None = None
    gpu: str | None = None
    torch_threads: int | None = None
    threads_set_by: dict[str, str] = Field(default_factory=dict)
    processes: int = 1
    git_commit: str | None = None
    command: str = ""
    data: dict[str, DataChecksum]
    in_memory: dict[str, dict[str, str]] | None = None


class LogLine(_File):
    """One line of `log.jsonl`: loss parts at a step, or an evaluation during training."""

    step: int
    loss: float | None = None
    divergence: float | None = None
    negative_log_likelihood: float | None = None
    train_seconds: float | None = None
    valid_accuracy: float | None = None


@dataclass(frozen=True)
class RunRecord:
    """Everything that the report needs from one run folder. `settings` is its recipe with dotted keys."""

    path: Path
    summary: Summary
    scores: Mapping[str, Score]
    log: tuple[LogLine, ...] = ()
    exposure: Exposure | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def configuration(self) -> str:
        """A key that is equal for runs that differ only in seed and name."""
        kept = {key: value for key, value in self.settings.items() if key not in _NOT_CONFIGURATION}
        return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


_Model = TypeVar("_Model", bound=_File)


def read_record(model: type[_Model], path: Path) -> _Model:
    """The file at `path` as its class. Raises RunError, naming file and key, if it is missing, broken or another's."""
    return _validated(model, read_json(path), path)


def load_runs(paths: Iterable[Path | str]) -> list[RunRecord]:
    """The runs at `paths`, each once, in the order given.

    Raises RunError, naming the file and the cure, if a folder holds no finished run or a file in it is broken.
    """
    unique = dict.fromkeys(Path(path).resolve() for path in paths)
    if not unique:
        raise RunError("There is no run to report on. Give one or more folders that `distilsql train` made.")
    return [_load_run(path) for path in unique]


def _load_run(path: Path) -> RunRecord:
    if not path.is_dir():
        raise RunError(f"There is no run folder {path}. Give a folder that `distilsql train` made.")
    recipe, summary = path / "recipe.toml", path / "summary.json"
    if not recipe.exists():
        raise RunError(
            f"{path} is not a run folder: it has no recipe.toml. Give one that `distilsql train` made."
        )
    if not summary.exists():
        raise RunError(
            f"{path} holds no finished run: it has no summary.json. "
            f"Finish it first (`distilsql train {recipe} --out {path}` resumes it), or leave it out."
        )
    exposure = path / "exposure.json"
    return RunRecord(
        path=path,
        summary=read_record(Summary, summary),
        scores=_read_scores(path / "scores"),
        log=_read_log(path / "log.jsonl"),
        exposure=read_record(Exposure, exposure) if exposure.exists() else None,
        settings=_read_recipe(recipe),
    )


def _read_scores(folder: Path) -> dict[str, Score]:
    scores = [read_record(Score, path) for path in sorted(folder.glob("*.json"))]
    return {score.name: score for score in scores}


def _read_log(path: Path) -> tuple[LogLine, ...]:
    """The log's lines. One that was cut off at the end, as by a kill, counts as never written."""
    if not path.exists():
        return ()
    texts = read_text(path).splitlines()
    lines = []
    for number, text in enumerate(texts, start=1):
        place = f"{path}, line {number}"
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            if number == len(texts):
                break
            raise RunError(
                f"{place} is not JSON ({error}). Remove the line, or train the run again."
            ) from error
        lines.append(_validated(LogLine, value, place))
    return tuple(lines)


def _read_recipe(path: Path) -> dict[str, Any]:
    try:
        return _dotted(tomllib.loads(read_text(path)))
    except tomllib.TOMLDecodeError as error:
        raise RunError(f"{path} is not valid TOML ({error}). Restore it, or train the run again.") from error


def _dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _validated(model: type[_Model], value: Any, place: Path | str) -> _Model:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise RunError(
            f"{place}: {where}: {first['msg']}. It was written by another version or edited; "
            "write it again with `distilsql train` (summary, log) or `distilsql evaluate` (scores)."
        ) from error
