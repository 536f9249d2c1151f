"""The run folder: its layout, and how it is opened, resumed and overwritten.

runs/NAME/
  recipe.toml           resolved and complete
  environment.json      versions, machine, git commit, data
  log.jsonl             one line per logged step
  summary.json          what the run cost and how it ended
  checkpoints/last/     to resume from
  model/                the finished student
  teacher_completions.jsonl  what a teacher wrote before training
  exposure.json         ExAccErr, if it was measured
  predictions/, scores/ one file per benchmark; sampled predictions have one per seed, and scores per temperature
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilsql.data.pairs import PAIR_SUFFIXES
from distilsql.data.text import suffix_of
from distilsql.errors import RecipeError, RunError
from distilsql.files import lines_of, write_text
from distilsql.lock import contents
from distilsql.runs.recipe import Recipe, load_recipe

# Everything that a run creates in its folder. Other files there belong to the user and are never deleted.
PARTS = (
    "recipe.toml",
    "environment.json",
    "log.jsonl",
    "summary.json",
    "checkpoints",
    "model",
    "model.part",
    "model.old",
    "teacher_completions.jsonl",
    "exposure.json",
    "predictions",
    "scores",
)


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run's files in the folder `path`; `distilsql.train` returns one.

    Creating one does not touch the disk, and no path needs to exist: a training that has not finished has no `summary`,
    and only a method whose teacher writes has `teacher_completions`. Methods that take a `benchmark` want its name,
    such as `spider:dev`.

    Attributes:
        path: the folder itself, such as `runs/kid`.
        recipe: the complete recipe (TOML), with every `auto` resolved.
        environment: versions, machine, git commit and checksums of the data (JSON).
        log: one JSON object per logged step: losses, learning rate, seconds, tokens.
        summary: what the run cost: seconds by phase, samples per second, × SFT (JSON).
        checkpoint: what an interrupted training resumes from; exists only until it has finished.
        model: the finished student, a transformers folder.
        teacher_completions: what a teacher wrote before training (JSONL).
        exposure: ExAccErr, if it was measured (JSON).
    """

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.toml"

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def exposure(self) -> Path:
        return self.path / "exposure.json"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoints" / "last"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def teacher_completions(self) -> Path:
        return self.path / "teacher_completions.jsonl"

    def predictions(self, benchmark: str, temperature: float = 0.0, seed: int = 0) -> Path:
        """File of the greedy predictions; at a temperature above 0, of those sampled with `seed`."""
        sample = f"-seed{seed}" if temperature else ""
        return self.path / "predictions" / f"{_decoded_name(benchmark, temperature)}{sample}.jsonl"

    def samples(self, benchmark: str, temperature: float) -> dict[int, Path]:
        """The prediction files sampled at `temperature`, by seed, lowest first."""
        start = f"{_decoded_name(benchmark, temperature)}-seed"
        found = {
            int(path.stem.removeprefix(start)): path
            for path in (self.path / "predictions").glob("*.jsonl")
            if path.stem.startswith(start) and path.stem.removeprefix(start).isdecimal()
        }
        return dict(sorted(found.items()))

    def scores(self, benchmark: str, temperature: float = 0.0) -> Path:
        """File of the scores; at a temperature above 0, over the samples of all seeds."""
        return self.path / "scores" / f"{_decoded_name(benchmark, temperature)}.json"

    def is_begun(self) -> bool:
        """Whether a training has started here and got as far as loading its models."""
        return self.environment.exists() or self.log.exists() or self.model.exists()

    def is_finished(self) -> bool:
        """Whether the training has finished: model and summary are there."""
        return self.summary.exists() and self.model.exists()

    def others(self) -> list[str]:
        """Names of the files and folders in it that do not belong to a run."""
        names = sorted(path.name for path in contents(self.path))
        return [name for name in names if name not in PARTS and not name.endswith(".part")]


def _decoded_name(benchmark: str, temperature: float) -> str:
    """`dolly:valid` → `dolly-valid`, at temperature 1 `dolly-valid-T1`."""
    return file_name(benchmark) + (f"-T{temperature:g}" if temperature else "")


def file_name(benchmark: str) -> str:
    """`spider:dev` → `spider-dev`; a path becomes its stem."""
    name = Path(benchmark).stem if suffix_of(Path(benchmark)) in PAIR_SUFFIXES else benchmark
    return "".join(character if character.isalnum() or character in "-+_." else "-" for character in name)


def open_run(path: Path, recipe_toml: str, *, overwrite: bool = False) -> RunFolder:
    """Create the folder of a new run, or open that of a run with the same recipe to resume it.

    `overwrite` deletes what a run created there, and nothing else. A recipe that distilsql wrote is replaced if its
    training never began.

    Raises:
        RunError: the folder holds a run with a different recipe, is not a run folder, or cannot be written.
    """
    check_is_run_folder(path)
    run = RunFolder(path)
    if overwrite:
        for part in (path / name for name in PARTS):
            shutil.rmtree(part) if part.is_dir() and not part.is_symlink() else part.unlink(missing_ok=True)
    if run.recipe.exists() and (run.is_begun() or not _is_resolved(run.recipe)):
        if run.recipe.read_text(encoding="utf-8") != recipe_toml:
            raise RunError(
                f"{path} holds a run with a different recipe ({_first_difference(run.recipe, recipe_toml)}). "
                "Choose another --out, give the same recipe to resume it, or pass --overwrite to start over."
            )
        return run
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_text(run.recipe, recipe_toml)
    except OSError as error:
        raise RunError(
            f"The run folder {path} cannot be written: {error.strerror}. Choose another --out."
        ) from error
    return run


def _is_resolved(recipe: Path) -> bool:
    """Whether the file is as `open_run` writes it, so that nobody has written or edited it by hand."""
    try:
        return load_recipe(recipe).to_toml() == recipe.read_text(encoding="utf-8")
    except RecipeError:
        return False


def check_is_run_folder(path: Path) -> None:
    """Raises RunError if `path` is a file, or a folder with other files in which no run has begun."""
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file, not a run folder. Choose another --out.")
    run = RunFolder(path)
    others = run.others()
    if others and not (run.recipe.exists() and run.is_begun()):
        raise RunError(
            f"{path} is not a run folder: it holds {others[0]}, which is not part of a run. Choose another --out."
        )


def existing_run(path: Path) -> RunFolder:
    """The run at `path`. Raises RunError if there is none."""
    run = RunFolder(path)
    if not run.recipe.exists():
        raise RunError(
            f"{path} is not a run folder: it has no recipe.toml. Give a folder that `distilsql train` has written."
        )
    return run


def recipe_in(path: Path) -> Recipe | None:
    """The recipe in a run folder; None if there is none, or none that this version can read."""
    try:
        return load_recipe(RunFolder(path).recipe)
    except RecipeError:
        return None


def recipe_text(recipe: Recipe, path: Path, same: Callable[[Recipe, Recipe], bool]) -> str:
    """A recipe as TOML, or the text in the run folder `path` if it says the same: an earlier version had fewer keys."""
    there = recipe_in(path)
    return (
        RunFolder(path).recipe.read_text(encoding="utf-8")
        if there and same(there, recipe)
        else recipe.to_toml()
    )


def begun_in(path: Path) -> Recipe | None:
    """The recipe of a run that has begun in `path`; None if none has, or none that this version can read."""
    return recipe_in(path) if RunFolder(path).is_begun() else None


def _first_difference(recipe: Path, other: str) -> str:
    mine = recipe.read_text(encoding="utf-8").splitlines()
    for left, right in zip(mine, other.splitlines(), strict=False):
        if left != right:
            return f"there: {left.strip() or '(nothing)'}; now: {right.strip() or '(nothing)'}"
    return "one has keys that the other lacks"


def append_line(run: RunFolder, line: dict[str, Any]) -> None:
    with run.log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def drop_lines_after(run: RunFolder, step: int) -> None:
    """Remove the log lines after `step`: a run that resumes there logs those steps again."""
    if run.log.exists():
        kept = [line for line in lines_of(run.log) if _step_of(line) <= step]
        write_text(run.log, "".join(line + "\n" for line in kept))


def _step_of(line: str) -> int:
    """The step of a log line; a line cut off by a kill counts as never written."""
    try:
        return int(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return 2**62
