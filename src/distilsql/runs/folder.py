"""The run folder: what lies where, and how files get there without ever being half written.

runs/NAME/
  recipe.toml           resolved and complete
  environment.json      versions, machine, git commit, data
  log.jsonl             one line per logged step
  summary.json          what the run cost and how it ended
  checkpoints/last/     to resume from
  model/                the finished student
  teacher_completions.jsonl  what f-distill's teacher wrote beforehand
  exposure.json         ExAccErr, where it was measured
  predictions/, scores/ one file per benchmark; sampled predictions have one per seed, and scores per temperature
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilsql.data.pairs import PAIR_SUFFIXES
from distilsql.data.text import suffix_of
from distilsql.errors import RecipeError, RunError
from distilsql.files import lines_of, write_text
from distilsql.lock import contents
from distilsql.runs.recipe import Recipe, load_recipe

# All that a run makes in its folder. Whatever else lies there is somebody's own, and is never deleted.
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
        """Greedy predictions; at a temperature above 0, those sampled with `seed`."""
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
        return self.path / "scores" / f"{_decoded_name(benchmark, temperature)}.json"

    def is_begun(self) -> bool:
        """Whether a training has got as far as its models."""
        return self.environment.exists() or self.log.exists() or self.model.exists()

    def is_finished(self) -> bool:
        return self.summary.exists() and self.model.exists()

    def others(self) -> list[str]:
        """The names of what lies in the folder and is no part of a run."""
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
    """Make the folder of a new run, or enter that of the same recipe to resume it.

    `overwrite` deletes what a run made there, and nothing else. A recipe that we wrote, and whose training never began,
    gives way to another.

    Raises:
        RunError: the folder holds another run, or something that is no run, or cannot be written.
    """
    refuse_what_is_no_run(path)
    run = RunFolder(path)
    if overwrite:
        for part in (path / name for name in PARTS):
            shutil.rmtree(part) if part.is_dir() and not part.is_symlink() else part.unlink(missing_ok=True)
    if run.recipe.exists() and (run.is_begun() or not _is_resolved(run.recipe)):
        if run.recipe.read_text(encoding="utf-8") != recipe_toml:
            raise RunError(
                f"{path} holds a run of another recipe ({_first_difference(run.recipe, recipe_toml)}). "
                "Choose another --out, give the same recipe to resume it, or pass --overwrite to start anew."
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
    """Whether it is as `open_run` writes recipes, and so nobody's own file."""
    try:
        return load_recipe(recipe).to_toml() == recipe.read_text(encoding="utf-8")
    except RecipeError:
        return False


def refuse_what_is_no_run(path: Path) -> None:
    """Raises RunError if `path` holds something, and that is not a run."""
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file, not a run folder. Choose another --out.")
    run = RunFolder(path)
    others = run.others()
    if others and not (run.recipe.exists() and run.is_begun()):
        raise RunError(
            f"{path} is not a run folder: it holds {others[0]}, which no run makes. Choose another --out."
        )


def existing_run(path: Path) -> RunFolder:
    """The run at `path`. Raises RunError if there is none."""
    run = RunFolder(path)
    if not run.recipe.exists():
        raise RunError(
            f"{path} is not a run folder: it has no recipe.toml. Give a folder that `distilsql train` made."
        )
    return run


def recipe_in(path: Path) -> Recipe | None:
    """The recipe in a run folder; None where there is none, or it is of another kind."""
    try:
        return load_recipe(RunFolder(path).recipe)
    except RecipeError:
        return None


def begun_in(path: Path) -> Recipe | None:
    """The recipe of a run that has begun in `path`; None where none has, or it is of another kind."""
    return recipe_in(path) if RunFolder(path).is_begun() else None


def _first_difference(recipe: Path, other: str) -> str:
    mine = recipe.read_text(encoding="utf-8").splitlines()
    for left, right in zip(mine, other.splitlines(), strict=False):
        if left != right:
            return f"there: {left.strip() or '(nothing)'}; here: {right.strip() or '(nothing)'}"
    return "one has keys that the other lacks"


def append_line(run: RunFolder, line: dict[str, Any]) -> None:
    with run.log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def drop_lines_after(run: RunFolder, step: int) -> None:
    """Forget what was logged after `step`: a run that resumes there logs those steps again."""
    if run.log.exists():
        kept = [line for line in lines_of(run.log) if _step_of(line) <= step]
        write_text(run.log, "".join(line + "\n" for line in kept))


def _step_of(line: str) -> int:
    """The step of a log line; a line that a kill cut off counts as never written."""
    try:
        return int(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return 2**62
