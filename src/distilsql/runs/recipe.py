"""A recipe: everything that determines a training run, as immutable values with their defaults.

It is read from TOML, overridden by `--set section.key=value`, and saved resolved and complete in the run folder. An
unknown key is refused, with the nearest known one. Importing this module does not import torch.
"""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tomlkit
from pydantic import BaseModel, Field, ValidationError, model_validator

from distilsql.databases.url import without_passwords
from distilsql.distill.methods import METHODS, Method
from distilsql.errors import RecipeError
from distilsql.runs.method_sections import (
    KNOWN_BY_TOP_TOKENS,
    READS_TOKENS,
    DistillOptions,
    GenerationSettings,
    MiniLLMSettings,
    ReplaySettings,
    SwitchSettings,
)
from distilsql.runs.sections import (
    DataOptions,
    PromptSettings,
    Section,
    StudentOptions,
    TeacherOptions,
    TrainOptions,
)


class Recipe(Section):
    """Everything that determines a training run; made by `load_recipe` and `make_recipe`.

    It is immutable. Every key but `method`, `student.path`, `teacher.path` and `data.train` has a default; keys set to
    `auto` are resolved at the start of the training. Invalid values and combinations are reported as RecipeError by
    the functions that make a recipe (calling `Recipe(…)` itself raises pydantic's ValidationError).

    Attributes:
        method: a row of `distilsql.METHODS`, such as `kid`.
        name: name of the run folder under `runs/`, unless the command says otherwise.
        seed: determines every random choice of the run.
        student, data: the model to train and what to train it on; required.
        teacher: the model to distil; None only for methods without a teacher (sft).
        prompt, distill, generation, switch, train: settings; docs/methods.md lists their keys.
    """

    method: str = Field(description="a row of `distilsql methods`")
    name: str = Field("", description="name of the run folder; by default the recipe's file name")
    seed: int = Field(0, ge=0, description="determines every random choice of the run")
    student: StudentOptions
    teacher: TeacherOptions | None = None
    data: DataOptions
    prompt: PromptSettings = PromptSettings()
    distill: DistillOptions = DistillOptions()
    generation: GenerationSettings = GenerationSettings()
    switch: SwitchSettings = SwitchSettings()
    minillm: MiniLLMSettings = MiniLLMSettings()
    replay: ReplaySettings = ReplaySettings()
    train: TrainOptions = TrainOptions()

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        if self.method not in METHODS:
            raise ValueError(f"unknown method {self.method!r}{_nearest(self.method, METHODS)}")
        if METHODS[self.method].needs_teacher and self.teacher is None:
            raise ValueError(f"method {self.method} needs a teacher: add [teacher] with a path")
        if self.teacher and self.teacher.adapter and self.teacher.quantization != "none":
            raise ValueError(
                "teacher.adapter cannot be merged into a quantised teacher: save the merged model and give its path"
            )
        if self.student.keep_layers is not None and self.student.saves_adapter_alone:
            raise ValueError(
                "student.save_merged = false would save an adapter for the layers in student.keep_layers, but no model "
                "with these layers to load it on: save the merged model (student.save_merged = true)"
            )
        if self.generation.engine == "vllm" and METHODS[self.method].source.reads_both_models:
            raise ValueError(
                f"{self.method} reads both models at every token, which generation.engine = vllm cannot do: use "
                "built-in"
            )
        if self.generation.engine == "vllm" and self.teacher_beams > 1:
            raise ValueError(
                f"{self.method} has its teacher write by beam search, which generation.engine = vllm does not do: "
                "let it sample (generation.teacher_beams = 1)"
            )
        if self.generation.engine == "vllm" and self.teacher and self.teacher.quantization != "none":
            raise ValueError(
                "generation.engine = vllm cannot load a quantised teacher: use the built-in engine, or "
                "teacher.quantization = none"
            )
        if self.teacher and self.teacher.across_processes == "tensor_parallel":
            self._check_tensor_parallel(self.teacher)
        if self.teacher and self.teacher.endpoint:
            self._check_endpoint(self.teacher)
        if self.teacher and self.teacher.bridge != "none":
            self._check_bridge(self.teacher.bridge)
        if self.teacher and self.teacher.top_k:
            self._check_top_k(self.teacher)
        self._check_curriculum()
        row = METHODS[self.method]
        if row.divergence is None and not row.completion_weight and self.gold_weight == 0:
            raise ValueError(
                f"method {self.method} has no loss left with distill.gold_weight = 0: give a weight above 0"
            )
        if (self.train.steps is None) == (self.train.epochs is None):
            raise ValueError("give exactly one of train.steps and train.epochs")
        if self.train.evaluate_every_steps and not self.data.valid:
            raise ValueError("train.evaluate_every_steps needs data.valid")
        return self

    def _check_tensor_parallel(self, teacher: TeacherOptions) -> None:
        """Raises ValueError for what processes that read with a teacher together cannot do."""
        source = METHODS[self.method].source
        if source.reads_both_models or source.teacher_beams:
            raise ValueError(
                f"{self.method} has its teacher write, which teacher.across_processes = tensor_parallel cannot do, for "
                "each process writes other completions: use sharded, or whole"
            )
        if teacher.quantization != "none":
            raise ValueError(
                "a quantised teacher is whole in every process: leave out teacher.across_processes = tensor_parallel, "
                "or teacher.quantization"
            )

    def _check_endpoint(self, teacher: TeacherOptions) -> None:
        """Raises ValueError for what a teacher behind an API cannot do."""
        row = METHODS[self.method]
        is_read = row.divergence is not None or row.source.reads_both_models
        if row.needs_teacher and is_read and teacher.top_k is None:
            raise ValueError(
                f"{self.method} needs the teacher's probabilities of all tokens, and an endpoint gives text: use "
                "seqkd, or a teacher that is loaded (no teacher.endpoint). From an endpoint that gives the top tokens "
                "of a prompt (vLLM's prompt_logprobs) and has the student's tokenizer, teacher.top_k approximates "
                "some divergences"
            )
        if (
            teacher.adapter
            or teacher.device_map
            or teacher.quantization != "none"
            or teacher.bridge != "none"
        ):
            raise ValueError(
                "teacher.adapter, device_map, quantization and bridge are for a teacher that is loaded: leave them "
                "out, or teacher.endpoint"
            )

    def _check_top_k(self, teacher: TeacherOptions) -> None:
        """Raises ValueError for what the teacher's most likely tokens are not enough for. Methods without a teacher do
        not ask it."""
        row = METHODS[self.method]
        if not row.needs_teacher:
            return
        if row.source.reads_both_models:
            raise ValueError(
                f"{self.method} draws tokens from the teacher's whole distribution, of which teacher.top_k = "
                f"{teacher.top_k} leaves only the top: leave it out, or use another method"
            )
        if self.divergence not in KNOWN_BY_TOP_TOKENS:
            why = f"its divergence, {self.divergence}, is none of them" if self.divergence else "it has none"
            cure = ", or set distill.divergence to one of them" if self.divergence else ""
            raise ValueError(
                f"teacher.top_k needs a divergence that the teacher's most likely tokens are enough for "
                f"({', '.join(KNOWN_BY_TOP_TOKENS)}); {self.method} cannot have it: {why}. Leave top_k out{cure}"
            )
        if self.distill.temperature != 1:
            raise ValueError(
                "teacher.top_k stands for an API, which gives probabilities at temperature 1: leave "
                "distill.temperature at 1"
            )
        if teacher.bridge != "none":
            raise ValueError(
                "teacher.top_k and teacher.bridge approximate the teacher in two ways that are not defined together: "
                "use one of them"
            )

    def _check_curriculum(self) -> None:
        """Raises ValueError where DistiLLM-2's curriculum is asked of another skew, or of one side alone."""
        if self.distill.skew_schedule == "adaptive" and (
            self.divergence != "contrastive-skewed-kl" or (self.teacher and self.teacher.bridge != "none")
        ):
            raise ValueError(
                "distill.skew_schedule = adaptive is defined for the two skewed divergences of distillm-2 alone, with "
                "a teacher of the student's vocabulary: use that method, or constant"
            )
        if self.distill.side_weights == "growing" and not self.has_both_sides:
            raise ValueError(
                f"distill.side_weights = growing moves weight from the teacher's completion of a question to the "
                f"student's, and {self.method} has one of them: use distillm-2, or f-distill or imitkd with "
                "distill.mixture = both"
            )

    @property
    def has_both_sides(self) -> bool:
        """Whether every question is trained on with two completions, the student's being one."""
        sides = METHODS[self.method].source.sides
        return sides == "both" or (sides == "either" and self.distill.mixture == "both")

    def _check_bridge(self, bridge: str) -> None:
        """Raises ValueError for what a teacher with another vocabulary cannot do."""
        row = METHODS[self.method]
        if row.source.reads_both_models:
            raise ValueError(
                f"{self.method} needs both models' probabilities of the same next token, which teacher.bridge = "
                f"{bridge} does not give: distil a teacher with the student's tokenizer"
            )
        if row.source.name == "masked":
            raise ValueError(
                f"{self.method} leaves mask tokens in what the teacher reads, and they have no text that another "
                "tokenizer could read: use kid, or a teacher with the student's tokenizer"
            )
        if self.divergence in READS_TOKENS and bridge == "hybrid":
            raise ValueError(
                f"{self.divergence} reads the probability of the student's own token, which a teacher with another "
                "vocabulary need not have: use another distill.divergence or teacher.bridge = uld"
            )
        if bridge == "uld" and self.distill.divergence is not None:
            raise ValueError(
                f"teacher.bridge = uld takes the place of a divergence, and distill.divergence = {self.divergence} "
                "names one: use teacher.bridge = hybrid, or leave the divergence out"
            )

    @property
    def loads_teacher(self) -> bool:
        """Whether the teacher's weights are needed: the method has one, and no endpoint answers for it."""
        return self.row.needs_teacher and self.teacher is not None and not self.teacher.endpoint

    @property
    def row(self) -> Method:
        """The method's row in the table of methods."""
        return METHODS[self.method]

    @property
    def divergence(self) -> str | None:
        """Name of the divergence: the recipe's, else the method's; None for methods of likelihood alone."""
        row = METHODS[self.method]
        return None if row.divergence is None else self.distill.divergence or row.divergence

    @property
    def top_k(self) -> int | None:
        """How many of the teacher's most likely tokens the divergence is approximated from (`teacher.top_k`); None
        where it is taken over all tokens, or there is none."""
        return None if self.divergence is None or self.teacher is None else self.teacher.top_k

    @property
    def gold_weight(self) -> float:
        """Weight of the gold likelihood in the loss: the recipe's, else the method's."""
        return self.row.gold_weight if self.distill.gold_weight is None else self.distill.gold_weight

    @property
    def teacher_beams(self) -> int:
        """With how many beams the teacher writes beforehand; 1 where it samples, or writes nothing."""
        published = self.row.source.teacher_beams
        return self.generation.teacher_beams or published if published else 1

    @property
    def steps_per_round(self) -> int:
        """Optimizer steps that one round of generation serves; 1 for a method that generates nothing."""
        return self.generation.rollout_window if self.row.source.is_on_policy else 1

    def settled(self, precision: Literal["bfloat16", "float32"]) -> "Recipe":
        """This recipe with `auto` precision replaced by `precision`."""
        if self.train.precision != "auto":
            return self
        return self.model_copy(update={"train": self.train.model_copy(update={"precision": precision})})

    def settled_as(self, other: "Recipe") -> "Recipe":
        """This recipe with every `auto` replaced by the value in `other`, for comparing the two."""
        alike = self.with_prompt(self.prompt.settled_as(other.prompt))
        return alike if other.train.precision == "auto" else alike.settled(other.train.precision)

    def with_prompt(self, prompt: PromptSettings) -> "Recipe":
        return self.model_copy(update={"prompt": prompt})

    def to_toml(self) -> str:
        """The complete recipe as TOML, without the keys whose value is None."""
        return tomlkit.dumps(_without_none(self.model_dump(mode="json")))


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and apply `key=value` overrides (dotted keys; values as TOML, else as text).

    Raises:
        RecipeError: the file cannot be read or is not valid TOML, a key is unknown (the message names the nearest known
            one), or a value is invalid.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a byte-order mark
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"Recipe {path} is not UTF-8 text (byte {error.start}). Save it as UTF-8."
        ) from error
    except OSError as error:
        raise RecipeError(
            f"Recipe {path} cannot be read: {error.strerror}. See recipes/ for examples."
        ) from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"Recipe {path} is not valid TOML: {error}. Correct that line.") from error
    values.setdefault("name", path.stem)
    return make_recipe(values, overrides, where=str(path))


def make_recipe(values: Mapping[str, Any], overrides: Sequence[str] = (), *, where: str = "recipe") -> Recipe:
    """Make a Recipe from nested values and overrides.

    Raises:
        RecipeError: as for `load_recipe`; `where` says in the message where the values came from.
    """
    merged = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    for override in overrides:
        _apply(merged, override)
    _let_one_length_replace_the_other(merged, overrides)
    try:
        return Recipe.model_validate(merged)
    except ValidationError as error:
        raise RecipeError(f"{where}: " + "; ".join(_explain(item) for item in error.errors())) from error


def known_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> dict[str, Any]:
    """Every dotted key of a recipe with its pydantic field."""
    keys: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        section = _section_type(field.annotation)
        if section is not None:
            keys.update(known_keys(section, f"{prefix}{name}."))
        else:
            keys[prefix + name] = field
    return keys


def _section_type(annotation: Any) -> type[BaseModel] | None:
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, Section)), None)


def _apply(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise RecipeError(f"--set {override}: write it as section.key=value, for example train.steps=200.")
    parts = key.strip().split(".")
    target = values
    for part in parts[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise RecipeError(f"--set {override}: {part} is not a section.")
    target[parts[-1]] = _parse(text.strip())


def _let_one_length_replace_the_other(values: dict[str, Any], overrides: Sequence[str]) -> None:
    """A training has one length: `--set train.steps=…` takes the place of the file's train.epochs, and the reverse."""
    given = {override.partition("=")[0].strip() for override in overrides}
    for name, other in (("steps", "epochs"), ("epochs", "steps")):
        if f"train.{name}" in given and f"train.{other}" not in given and isinstance(values["train"], dict):
            values["train"].pop(other, None)


def _parse(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown key {key}{_nearest(key, known_keys())}"
    if error["type"] == "missing":
        return f"{key} is missing"
    message = error["msg"].removeprefix("Value error, ")
    given = without_passwords(repr(error["input"]))
    return f"{key}: {message} (given: {given})" if key else message


def _nearest(word: str, known: Mapping[str, Any]) -> str:
    """A hint naming the known key most similar to `word`: by its whole dotted name, else by its last part."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    if not close:
        last = word.rsplit(".", 1)[-1]
        close = [key for key in known if difflib.get_close_matches(last, [key.rsplit(".", 1)[-1]], n=1)]
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None and item != {}}
    return value
