"""Models and examples passed in memory, used instead of the paths in the recipe."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PretrainedConfig

from distilsql.data.benchmark import Benchmark, SqlBenchmark, data_checksum
from distilsql.data.example import Example
from distilsql.data.load import load_benchmark
from distilsql.errors import ModelError, RecipeError, RunError
from distilsql.in_memory import IN_MEMORY, in_memory_message, is_in_memory, memory_name
from distilsql.models.embedded import resolve
from distilsql.models.fingerprint import model_fingerprint, tokenizer_fingerprint
from distilsql.models.in_memory import check_in_memory, taken_from_memory
from distilsql.models.load import Precision, freeze
from distilsql.runs.recipe import Recipe

Examples = Benchmark | Sequence[Example | Mapping[str, Any]]

# The keys of a recipe that name what can be given, and what people call it.
_KEYS = {
    "student": ("student.path", "student", "student=model, tokenizer=tokenizer"),
    "teacher": ("teacher.path", "teacher", "teacher=model"),
    "train_set": ("data.train", "training data", "train_set=examples"),
    "valid_set": ("data.valid", "validation data", "valid_set=examples"),
}


@dataclass(frozen=True)
class Given:
    """Models (causal LMs of `transformers`), the student's tokenizer, and benchmarks; None where the recipe's path
    is used.

    A teacher is assumed to use the student's tokenizer. Nothing given is changed: the student is copied, the teacher's
    weights are shared and frozen in the copy alone.
    """

    student: Any = None
    tokenizer: Any = None
    teacher: Any = None
    train_set: Benchmark | None = None
    valid_set: Benchmark | None = None

    def __post_init__(self) -> None:
        if (self.student is None) != (self.tokenizer is None):
            raise ModelError(
                "A student in memory and its tokenizer go together: give both student and tokenizer, or neither."
            )
        if self.tokenizer is not None and self.tokenizer.eos_token_id is None:
            raise ModelError("The tokenizer given has no EOS token to end a query with. Set its eos_token.")
        for role in ("student", "teacher"):
            if getattr(self, role) is not None:
                check_in_memory(getattr(self, role), role)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 (hex) of each object given, by its argument; reads every weight once."""
        found = {}
        if self.student is not None:
            both = model_fingerprint(self.student) + tokenizer_fingerprint(self.tokenizer)
            found["student"] = hashlib.sha256(both.encode()).hexdigest()
        if self.teacher is not None:
            found["teacher"] = model_fingerprint(self.teacher)
        for argument in ("train_set", "valid_set"):
            benchmark = getattr(self, argument)
            if benchmark is not None:
                found[argument] = _data_fingerprint(benchmark)
        return found

    def described(self) -> dict[str, dict[str, str]]:
        """For environment.json: a description of each object, with its full fingerprint."""
        what = {
            argument: getattr(self, argument).name
            if argument in ("train_set", "valid_set")
            else type(getattr(self, argument)).__name__
            for argument in self.fingerprints
        }
        return {argument: {"is": what[argument], "sha256": self.fingerprints[argument]} for argument in what}

    def named_in(self, recipe: Recipe) -> Recipe:
        """The recipe with the names of the given objects instead of paths.

        Raises:
            ModelError: the recipe names an object from memory, but it is not given, or a different one is.
            RecipeError: options that are for a teacher loaded from a path.
        """
        if self.teacher is not None and recipe.teacher is not None:
            options = recipe.teacher
            if options.adapter or options.device_map or options.quantization != "none":
                raise RecipeError(
                    "teacher.adapter, teacher.device_map and teacher.quantization are for a teacher that is loaded "
                    "from its path; leave them out, or give no teacher."
                )
        changed: dict[str, dict[str, str]] = {}
        for argument, (key, what, passing) in _KEYS.items():
            section, field = key.split(".")
            if getattr(recipe, section) is None:
                continue
            named = getattr(getattr(recipe, section), field)
            given = self.fingerprints.get(argument)
            if given is not None:
                name = memory_name(given)
                if named and is_in_memory(named) and named not in (IN_MEMORY, name):
                    raise ModelError(
                        f"The recipe's {key} is {named}, but the {what} given is {name}, a different one. Give the "
                        f"one the recipe was made with, or set {key} to {IN_MEMORY!r}."
                    )
                changed.setdefault(section, {})[field] = name
            elif named and is_in_memory(named) and (argument != "teacher" or recipe.row.needs_teacher):
                raise ModelError(in_memory_message(f"{key} = {named}", what, passing))
        sections = {
            section: getattr(recipe, section).model_copy(update=fields) for section, fields in changed.items()
        }
        return recipe.model_copy(update=sections)

    @property
    def student_config(self) -> PretrainedConfig | None:
        return None if self.student is None else self.student.config

    def config(self, role: str, path: str) -> PretrainedConfig:
        """The configuration of the student or teacher; from its `path` where it is not given. Raises ModelError."""
        model = getattr(self, role)
        if model is not None:
            return model.config
        try:
            return AutoConfig.from_pretrained(resolve(path))
        except (OSError, ValueError) as error:
            raise ModelError(
                f"No model could be loaded from {path}: {error}. Give a folder that save_pretrained wrote, a hub name, "
                "or the model/ folder of a run."
            ) from error

    def student_weights(self, precision: Precision) -> nn.Module | None:
        """A copy of the student to train; None if it is not given."""
        if self.student is None:
            return None
        return taken_from_memory(self.student, precision)

    def teacher_weights(self, precision: Precision, device: torch.device) -> nn.Module:
        """The teacher, frozen and on `device`; its weights are shared where they lie there in `precision`."""
        taken = taken_from_memory(self.teacher, precision, shares_weights=True)
        return freeze(taken).to(device)


NOTHING_GIVEN = Given()


def as_benchmark(examples: Examples | None, recipe: Recipe) -> Benchmark | None:
    """Examples as a benchmark, about the database of the recipe. Raises DataError as `load_benchmark` does."""
    if examples is None or isinstance(examples, Benchmark):
        return examples
    return load_benchmark(examples, database=recipe.data.database_place)


def refuse_others(recipe: Recipe, begun: Recipe, folder: Path) -> None:
    """Raises RunError if the run in `folder` was begun with something else in memory than `recipe` names."""
    for key, what, _ in _KEYS.values():
        section, field = key.split(".")
        mine, theirs = (getattr(getattr(one, section), field, None) for one in (recipe, begun))
        if mine != theirs and any(name is not None and is_in_memory(name) for name in (mine, theirs)):
            raise RunError(
                f"{folder} was begun with another {what}: {theirs}, and here it is {mine} (a name in memory tells by "
                "weights or texts). Give what it was begun with, or another folder; with overwrite (--overwrite) it "
                "starts over."
            )


def _data_fingerprint(benchmark: Benchmark) -> str:
    """Of the examples, whose rules judge them, and the columns of their databases."""
    known: list[Any] = [benchmark.name, data_checksum(benchmark)]
    if isinstance(benchmark, SqlBenchmark):
        known += [benchmark.evaluator] + [
            [
                db_id,
                [[table.name, [column.name for column in table.columns]] for table in database.schema.tables],
            ]
            for db_id, database in sorted(benchmark.databases.items())
        ]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()
