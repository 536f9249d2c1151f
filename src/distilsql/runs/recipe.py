"""A recipe: everything that determines a training run, as frozen values with their defaults.

Read from TOML, overridden by `--set section.key=value`, saved resolved and complete in the run folder. Unknown
keys are refused with the nearest known one. Importing this module imports no torch.
"""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from distilsql.distill.methods import METHODS, Method
from distilsql.errors import RecipeError

DivergenceName = Literal[
    "forward-kl", "reverse-kl", "jensen-shannon", "total-variation", "skewed-forward-kl", "skewed-reverse-kl"
]


PUBLISHED_PROMPT_TOKENS = 1024


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StudentOptions(_Section):
    path: str = Field(
        description="folder or hub name of the model that becomes the student, or demo:teacher; memory: one that is "
        "passed to distilsql.train"
    )
    keep_layers: int | list[int] | None = Field(
        None, description="make the student from these decoder layers of the model (a count: evenly spaced)"
    )
    tuning: Literal["full", "lora"] = Field("lora", description="train all weights, or a LoRA adapter")
    lora_rank: int = Field(
        64,
        ge=1,
        description="rank of the adapter (KID Table 9: 64 for Qwen and LLaMA); on every linear layer, without dropout "
        "(ASSUMED)",
    )
    lora_scale: float = Field(
        32.0,
        gt=0,
        description="LoRA's alpha: the adapter is added lora_scale / lora_rank times (KID Table 9)",
    )
    save_merged: bool = Field(True, description="save merged weights rather than the adapter alone")

    @property
    def saves_adapter_alone(self) -> bool:
        return self.tuning == "lora" and not self.save_merged


class TeacherOptions(_Section):
    path: str = Field(
        description="folder or hub name of the teacher, or demo:teacher, which comes with the package; memory: one "
        "that is passed to distilsql.train"
    )
    adapter: str | None = Field(None, description="LoRA adapter of the teacher")
    device_map: str | None = Field(
        None,
        description="spread the teacher over devices as transformers does, such as auto; one process only",
    )
    quantization: Literal["none", "8bit", "4bit"] = Field(
        "none", description="load the teacher in fewer bits (bitsandbytes); adapters must be merged before"
    )


class DataOptions(_Section):
    train: str = Field(
        description="benchmark to train on, such as spider:train, or a file of own pairs; memory: examples that are "
        "passed to distilsql.train"
    )
    valid: str | None = Field(
        None, description="benchmark for evaluation during training; memory as for train"
    )
    root: str | None = Field(None, description="folder that holds spider/, bird/, …")
    database: str | None = Field(None, description="SQLite file that own pairs are about")
    train_limit: int | None = Field(None, ge=1, description="train on a seeded subset of this many examples")
    valid_limit: int = Field(100, ge=1, description="examples evaluated during training")

    @property
    def root_path(self) -> Path | None:
        return Path(self.root) if self.root else None

    @property
    def database_path(self) -> Path | None:
        return Path(self.database) if self.database else None


class PromptSettings(_Section):
    values: bool = Field(True, description="show sample values of each column")
    matched_values: bool = Field(True, description="show database values that the question mentions")
    comments: bool = Field(True, description="show column comments")
    schema_filter: Literal["auto", "fixed", "never", "when_needed", "always"] = Field(
        "auto",
        description="how a schema over budget is cut: the same for all questions of a database, by what training uses "
        "(fixed) or by the schema alone (never), or to what is relevant to each question (when_needed; always also "
        "cuts one that fits); auto: fixed for own pairs, when_needed for published benchmarks",
    )
    shown_first: dict[str, list[tuple[str, str]]] = Field(
        default_factory=dict,
        description="what training uses of a database, as table and column, the most used first: what filter fixed "
        "shows before all else; found and written into the run's recipe where a schema is cut",
    )
    max_prompt_tokens: Annotated[int, Field(ge=16)] | Literal["auto"] = Field(
        "auto",
        description="budget of prefix and question, BOS included; auto: for own pairs what the whole schema takes, as "
        "far as the models' positions and a quarter of the memory allow, for published benchmarks 1024",
    )
    question_tokens: int = Field(
        128,
        ge=0,
        description="room kept for the question in a prefix that must not depend on it (filters fixed and never); "
        "under max_prompt_tokens auto, added to the longest question",
    )
    max_completion_tokens: int = Field(
        128, ge=4, description="longest query trained on or generated, EOS included"
    )
    over_length: Literal["drop", "error"] = Field(
        "drop",
        description="training examples that do not fit even after the schema filter: drop and count (ASSUMED), or stop",
    )
    quoting: Literal["auto", "codes", "sqlite"] = Field(
        "auto",
        description="back-ticks around names with unusual characters (codes, as CodeS does) or around all that SQLite "
        "does not read bare (sqlite); auto: sqlite for own pairs, codes for published benchmarks",
    )
    template: Literal["codes", "chatml"] = Field(
        "codes",
        description="the bare text of CodeS, or that in the chat markup of Qwen's and SmolLM's instruct models",
    )

    @property
    def is_open(self) -> bool:
        """Whether something is left to `settle_prompt`. Until then, it reads as for published benchmarks."""
        return "auto" in (self.schema_filter, self.max_prompt_tokens, self.quoting)

    @property
    def budget_tokens(self) -> int:
        """Of prefix and question."""
        return PUBLISHED_PROMPT_TOKENS if self.max_prompt_tokens == "auto" else self.max_prompt_tokens

    @property
    def longest_tokens(self) -> int:
        """The most that a model reads at once: a completion's last token is never an input."""
        return self.budget_tokens + self.max_completion_tokens - 1

    def as_published(self) -> "PromptSettings":
        """These settings with what they leave open as published benchmarks have it."""
        return self.model_copy(
            update={
                "schema_filter": "when_needed" if self.schema_filter == "auto" else self.schema_filter,
                "max_prompt_tokens": self.budget_tokens,
                "quoting": "codes" if self.quoting == "auto" else self.quoting,
            }
        )

    def settled_as(self, other: "PromptSettings") -> "PromptSettings":
        """These settings with what they leave open as `other` has it."""
        open_keys = [
            key for key in ("schema_filter", "max_prompt_tokens", "quoting") if getattr(self, key) == "auto"
        ]
        if self.max_prompt_tokens == "auto":
            open_keys.append("question_tokens")
        if not self.shown_first:
            open_keys.append("shown_first")
        return self.model_copy(update={key: getattr(other, key) for key in open_keys})


class DistillOptions(_Section):
    divergence: DivergenceName | None = Field(None, description="replace the method's divergence")
    gold_weight: float | None = Field(
        None,
        ge=0,
        description="replace the method's weight of the gold likelihood (ASSUMED 1 where there is one)",
    )
    gold_context: Literal["imperfect", "gold"] = Field(
        "imperfect",
        description="what KID's likelihood of y conditions on: ŷ (ASSUMED) or y itself, one branch more",
    )
    reduction: Literal["per_completion", "per_token"] = Field(
        "per_completion", description="KID eq. 2, or per token"
    )
    temperature: float = Field(
        1.0, gt=0, description="divides both models' logits in the divergence (ASSUMED 1); no T² factor"
    )
    jsd_beta: float = Field(0.5, gt=0, lt=1, description="weight of the teacher's side in JSD")
    mask_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="share of the gold completion's tokens that KID masks; rounded up, never EOS (both ASSUMED)",
    )
    mask_strategy: Literal["random", "uniform", "hard", "easy"] = Field(
        "random", description="which tokens; uniform is evenly spaced from a random one (ASSUMED)"
    )
    mask_token: str = Field(
        "auto",
        description="the mask token; auto: BOS (KID's example), else UNK, PAD, EOS, whichever exists (ASSUMED)",
    )
    rewriting: Literal["greedy", "sampled"] = Field(
        "greedy", description="how masks are predicted (ASSUMED greedy)"
    )
    mixture_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="chance that f-distill and imitkd take the student's completion (ASSUMED 1/2)",
    )


class GenerationSettings(_Section):
    engine: Literal["built-in", "vllm"] = Field(
        "built-in", description="what writes completions in training; vllm needs a GPU and distilsql[vllm]"
    )
    vllm_memory_share: float = Field(
        0.3, gt=0, le=1, description="share of the GPU's memory for vLLM, beside the models in training"
    )
    temperature: float = Field(
        1.0, ge=0, description="of on-policy and teacher completions (ASSUMED 1); 0 is greedy"
    )
    rollout_window: int = Field(
        1,
        ge=1,
        description="optimizer steps that one round of on-policy generation serves; more than 1 is replay",
    )
    max_batch_rows: int = Field(
        64,
        ge=1,
        description="questions that are written at a time, of at most 16 databases; memory bounds it",
    )


class SwitchSettings(_Section):
    threshold: float = Field(
        0.3, ge=0, description="τ0 in nats (ASSUMED); above ln 2 the teacher never takes part"
    )
    decay: float = Field(0.1, ge=0, description="λ per token (ASSUMED: reads “decay factor 1/10”)")
    schedule: Literal["exponential", "linear", "constant"] = Field(
        "exponential",
        description="how τ falls with position t: τ0·exp(−λt), max(0, τ0·(1 − λt)) (this form is ASSUMED), or τ0",
    )
    block_length: int | None = Field(
        None,
        ge=1,
        description="tokens drafted before the teacher reads them; changes the cost alone (adaptive by default)",
    )


class TrainOptions(_Section):
    steps: int | None = Field(None, ge=1, description="optimizer steps; or give epochs")
    epochs: float | None = Field(None, gt=0, description="passes over the data; or give steps")
    learning_rate: float = Field(2e-4, gt=0, description="peak (KID Table 9)")
    warmup_share: float = Field(0.05, ge=0, lt=1, description="share of steps of linear warm-up (ASSUMED)")
    final_learning_rate_share: float = Field(
        0.0, ge=0, le=1, description="where the cosine ends, as share of peak (ASSUMED, as is the cosine)"
    )
    weight_decay: float = Field(0.0, ge=0, description="of AdamW, whose betas are 0.9 and 0.999 (ASSUMED)")
    clip_norm: float = Field(1.0, gt=0, description="largest gradient norm (ASSUMED)")
    questions_per_tree: int = Field(4, ge=1, description="questions of one database that are drawn together")
    trees_per_step: int = Field(
        4,
        ge=1,
        description="full trees in one optimizer step: at most questions_per_tree times this many examples",
    )
    largest_tree: int = Field(
        16,
        ge=1,
        description="trees of one database that meet in a step share a forward pass up to this many questions; with "
        "several processes, at most a step's examples divided by their number, or some stay idle",
    )
    precision: Literal["auto", "bfloat16", "float32"] = Field(
        "auto",
        description="of computing, student and teacher alike; trained weights stay float32 (ASSUMED); auto: bfloat16 "
        "on a GPU that has it and a CPU that multiplies it faster, else float32; a run keeps what was chosen",
    )
    share_prefix: Literal["auto", "on", "off"] = Field(
        "auto",
        description="on: run trees; off: the padded layout, every sequence by itself; auto: trees where a check at "
        "start-up, which `on` leaves out, finds them exact for the model",
    )
    loss_chunk_rows: int = Field(128, ge=1, description="completion positions whose logits exist at a time")
    teacher_cache_mb: int = Field(2048, ge=0, description="budget of the teacher's prefix cache")
    teacher_hidden: Literal["auto", "on", "off"] = Field(
        "auto",
        description="where completions never change (fkd, rkd), run the teacher once and keep its hidden states on "
        "disk; auto: if the run is longer than one epoch",
    )
    teacher_hidden_folder: str | None = Field(
        None, description="where they are kept, for all runs; by default in the user's cache folder"
    )
    teacher_hidden_mb: int = Field(
        20480, ge=0, description="disk budget of that folder, all teachers together"
    )
    log_every_steps: int = Field(5, ge=1)
    save_every_steps: int = Field(200, ge=1)
    evaluate_every_steps: int | None = Field(None, ge=1, description="evaluate on data.valid by execution")
    calibration_windows: int = Field(
        3, ge=0, description="windows of the short SFT timing behind × SFT; 0: none"
    )
    trackers: list[str] = Field(default_factory=list, description="accelerate trackers, such as tensorboard")


class Recipe(_Section):
    method: str = Field(description="a row of `distilsql methods`")
    name: str = Field("", description="name of the run folder; the recipe's file name by default")
    seed: int = Field(0, ge=0)
    student: StudentOptions
    teacher: TeacherOptions | None = None
    data: DataOptions
    prompt: PromptSettings = PromptSettings()
    distill: DistillOptions = DistillOptions()
    generation: GenerationSettings = GenerationSettings()
    switch: SwitchSettings = SwitchSettings()
    train: TrainOptions = TrainOptions()

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        if self.method not in METHODS:
            raise ValueError(f"unknown method {self.method!r}{_nearest(self.method, METHODS)}")
        if METHODS[self.method].needs_teacher and self.teacher is None:
            raise ValueError(f"method {self.method} needs a teacher: add [teacher] with a path")
        if self.teacher and self.teacher.adapter and self.teacher.quantization != "none":
            raise ValueError(
                "teacher.adapter cannot be merged into a quantised teacher: save the merged model and name that"
            )
        if self.student.keep_layers is not None and self.student.saves_adapter_alone:
            raise ValueError(
                "student.save_merged = false keeps an adapter of the layers in student.keep_layers, but no model of "
                "these layers that it belongs to: save the merged model (student.save_merged = true)"
            )
        if self.generation.engine == "vllm" and METHODS[self.method].source.reads_both_models:
            raise ValueError(
                f"{self.method} reads both models at every token, which generation.engine = vllm cannot do"
            )
        if self.generation.engine == "vllm" and self.teacher and self.teacher.quantization != "none":
            raise ValueError("generation.engine = vllm cannot take over a quantised teacher")
        if not METHODS[self.method].needs_teacher and self.gold_weight == 0:
            raise ValueError(f"method {self.method} has nothing to learn from with distill.gold_weight = 0")
        if (self.train.steps is None) == (self.train.epochs is None):
            raise ValueError("give exactly one of train.steps and train.epochs")
        if self.train.evaluate_every_steps and not self.data.valid:
            raise ValueError("train.evaluate_every_steps needs data.valid")
        return self

    @property
    def row(self) -> Method:
        return METHODS[self.method]

    @property
    def gold_weight(self) -> float:
        return self.row.gold_weight if self.distill.gold_weight is None else self.distill.gold_weight

    @property
    def steps_per_round(self) -> int:
        """Optimizer steps that one round of generation serves; a method that generates nothing has no rounds."""
        return self.generation.rollout_window if self.row.source.is_on_policy else 1

    def settled(self, precision: Literal["bfloat16", "float32"]) -> "Recipe":
        """This recipe with `precision` in place of auto."""
        if self.train.precision != "auto":
            return self
        return self.model_copy(update={"train": self.train.model_copy(update={"precision": precision})})

    def settled_as(self, other: "Recipe") -> "Recipe":
        """This recipe with what it leaves open (`auto`) as `other` has it, to compare them by."""
        alike = self.with_prompt(self.prompt.settled_as(other.prompt))
        return alike if other.train.precision == "auto" else alike.settled(other.train.precision)

    def with_prompt(self, prompt: PromptSettings) -> "Recipe":
        return self.model_copy(update={"prompt": prompt})

    def to_toml(self) -> str:
        """The complete recipe; keys without a value are left out."""
        return tomlkit.dumps(_without_none(self.model_dump(mode="json")))


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and apply `key=value` overrides (dotted keys; values as TOML, else as text).

    Raises:
        RecipeError: no such file, broken TOML, an unknown key (with the nearest known one), a bad value.
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
    """A Recipe from nested values and overrides. Raises RecipeError as `load_recipe` does."""
    merged = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    for override in overrides:
        _apply(merged, override)
    try:
        return Recipe.model_validate(merged)
    except ValidationError as error:
        raise RecipeError(f"{where}: " + "; ".join(_explain(item) for item in error.errors())) from error


def known_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> dict[str, Any]:
    """Every dotted key of a recipe and its pydantic field, sections flattened."""
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
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, _Section)), None)


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
    return f"{key}: {message} (given: {error['input']!r})" if key else message


def _nearest(word: str, known: Mapping[str, Any]) -> str:
    """The known key most like `word`: by the whole dotted name, else by its last part."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    if not close:
        last = word.rsplit(".", 1)[-1]
        close = [key for key in known if difflib.get_close_matches(last, [key.rsplit(".", 1)[-1]], n=1)]
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None and item != {}}
    return value
