"""The sections of a recipe: every key with its type, default and meaning.

`distilsql methods --markdown` prints them. A value outside its range is refused with a RecipeError by `load_recipe` and
`make_recipe`. Importing this module does not import torch.
"""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from distilsql.databases.url import Place, place_of, without_passwords

PUBLISHED_PROMPT_TOKENS = 1024


class Section(BaseModel):
    """Base of all sections: immutable, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StudentOptions(Section):
    """`[student]`: the model that is trained, and whether all its weights or a LoRA adapter are trained and saved.

    `keep_layers` counts decoder layers from 0: `[0, 5, 11]` keeps these three, `3` keeps three evenly spaced ones.
    Layers that the model does not have raise ModelError when it is loaded.
    """

    path: str = Field(
        description="folder or hub name of the model to start from, or demo:teacher; memory: the model passed to "
        "distilsql.train"
    )
    keep_layers: int | list[int] | None = Field(
        None,
        description="keep only these decoder layers of the model: a list of numbers, or a count of evenly spaced ones",
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
        description="LoRA's alpha: the adapter's output is multiplied by lora_scale / lora_rank (KID Table 9)",
    )
    save_merged: bool = Field(True, description="save merged weights instead of only the adapter")

    @property
    def saves_adapter_alone(self) -> bool:
        """Whether the finished model folder holds only the adapter, not merged weights."""
        return self.tuning == "lora" and not self.save_merged


class TeacherOptions(Section):
    """`[teacher]`: the frozen model that is distilled; every method but sft needs one.

    It must use the student's tokenizer, which is checked when both are loaded (ModelError), unless `bridge` says how
    their vocabularies are compared.
    """

    path: str = Field(
        description="folder or hub name of the teacher, or demo:teacher, which comes with the package; memory: the "
        "model passed to distilsql.train"
    )
    adapter: str | None = Field(None, description="LoRA adapter to load on top of the teacher")
    device_map: str | None = Field(
        None,
        description="spread the teacher over devices, as in transformers (for example auto); one process only",
    )
    quantization: Literal["none", "8bit", "4bit"] = Field(
        "none", description="load the teacher in 8 or 4 bits (bitsandbytes); merge its adapter first"
    )
    across_processes: Literal["sharded", "tensor_parallel", "whole"] = Field(
        "sharded",
        description="what each of several processes holds of the teacher. sharded: a part of the weights, and each "
        "layer is gathered before it runs. tensor_parallel: a part of each layer, on which the processes of a machine "
        "read everyone's trees together; heads must divide by their number, and the teacher must not write. whole: all "
        "of it, which is fastest if it fits, and what a quantised teacher always is",
    )
    endpoint: str | None = Field(
        None,
        description="base URL of an OpenAI-compatible API, such as http://localhost:8000/v1, whose model `path` is the "
        "teacher. Prompts, including the sample values that they show, are sent there. seqkd trains on what it writes: "
        "each query is run, and those that do not run are replaced by gold (ASSUMED). With top_k it reads completions. "
        "The key is read from DISTILSQL_API_KEY or OPENAI_API_KEY",
    )
    endpoint_budget: int | None = Field(
        None,
        ge=1,
        description="limit on the tokens of requests and answers, for this model and seed; answers are kept in the "
        "user's cache, and none is requested twice",
    )
    top_k: int | None = Field(
        None,
        ge=1,
        description="an approximation: only the teacher's k most likely tokens are known, as an API gives them, and "
        "all others are one outcome (ASSUMED). For forward KL, JSD, total variation and skewed forward KL, with a "
        "teacher that is loaded or an endpoint that gives prompt_logprobs (vLLM); by default the whole distribution is "
        "used",
    )
    bridge: Literal["none", "hybrid", "uld"] = Field(
        "none",
        description="for a teacher with another tokenizer, which then reads the same text in its own tokens. hybrid: "
        "the method's divergence on the tokens that both vocabularies have and universal logit distillation on the "
        "others, over aligned spans of text (as TRL's GOLD); uld: universal logit distillation alone (Boizard et al. "
        "2024), in place of the method's divergence; none: another tokenizer is refused",
    )

    @field_validator("endpoint")
    @classmethod
    def _is_an_address_without_a_password(cls, endpoint: str | None) -> str | None:
        if endpoint is None:
            return None
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("no http(s) address; give one such as http://localhost:8000/v1")
        if parts.username or parts.password:
            raise ValueError(
                "a recipe is kept in the run's folder, and this URL has a user's name in it: leave it out and set the "
                "environment variable DISTILSQL_API_KEY"
            )
        return endpoint


class DataOptions(Section):
    """`[data]`: what to train and validate on, and where it is.

    Paths are relative to the working directory. A missing file or folder, an unknown benchmark and a malformed record
    raise DataError when the data is loaded.
    """

    train: str = Field(
        description="benchmark to train on, such as spider:train, or a file of own pairs; memory: the examples passed "
        "to distilsql.train"
    )
    valid: str | None = Field(
        None, description="benchmark for evaluation during training; memory: as for train"
    )
    root: str | None = Field(None, description="folder that holds spider/, bird/, …")
    database: str | None = Field(
        None,
        description="what own pairs are about: a SQLite file, or a URL (duckdb://, postgresql://, mysql://) with its "
        "password as an environment variable, ${NAME}",
    )
    extra: str | None = Field(
        None,
        description="file of additional own pairs to train on, such as a server's feedback.jsonl; of several answers "
        "to one question about one database, the last one counts",
    )
    train_limit: int | None = Field(
        None,
        ge=1,
        description="train on a random subset of this many examples, and all extra ones, drawn with the seed",
    )
    valid_limit: int = Field(100, ge=1, description="number of examples evaluated during training")

    @property
    def root_path(self) -> Path | None:
        return Path(self.root) if self.root else None

    @property
    def database_place(self) -> Place | None:
        """Raises DataError for a URL that cannot be read, or names an environment variable that is not set."""
        return place_of(self.database) if self.database else None

    @field_validator("database")
    @classmethod
    def _holds_no_password(cls, database: str | None) -> str | None:
        if database is not None and without_passwords(database) != database:
            raise ValueError(
                "a recipe is kept in the run's folder, and this URL has a password in it: write ${NAME} in its place, "
                "and set the environment variable NAME"
            )
        return database


class PromptSettings(Section):
    """`[prompt]`: what a prompt shows of a database, and how long prompt and completion may be, in tokens.

    Keys set to `auto` are resolved at the start of a training (`training/settle.py`) and saved resolved. The prompt
    format is described in docs/prompts.md.
    """

    values: bool = Field(True, description="show sample values of each column")
    matched_values: bool = Field(True, description="show database values that the question mentions")
    comments: bool = Field(True, description="show column comments")
    schema_filter: Literal["auto", "fixed", "never", "when_needed", "always"] = Field(
        "auto",
        description="how a schema over budget is cut. The same for all questions of a database: by what the training "
        "SQL uses (fixed), or by the schema alone (never). Separately for each question: by relevance to it "
        "(when_needed), even if the schema fits (always). auto: fixed for own pairs, when_needed for published "
        "benchmarks",
    )
    shown_first: dict[str, list[tuple[str, str]]] = Field(
        default_factory=dict,
        description="for each database, the tables and columns that the training SQL uses, most used first; filter "
        "fixed shows these first. Filled in and saved in the run's recipe if a schema is cut",
    )
    max_prompt_tokens: Annotated[int, Field(ge=16)] | Literal["auto"] = Field(
        "auto",
        description="budget for prefix and question, BOS included; auto: for own pairs, as much as the whole schema "
        "needs, limited by the models' positions and a quarter of the memory; for published benchmarks, 1024",
    )
    question_tokens: int = Field(
        128,
        ge=0,
        description="tokens reserved for the question if the prefix must not depend on it (filters fixed and never); "
        "with max_prompt_tokens auto, added to the longest question",
    )
    max_completion_tokens: int = Field(
        128, ge=4, description="longest query to train on or generate, EOS included"
    )
    over_length: Literal["drop", "error"] = Field(
        "drop",
        description="what to do with training examples that do not fit even after the schema filter: drop and count "
        "them (ASSUMED), or stop",
    )
    quoting: Literal["auto", "codes", "sqlite"] = Field(
        "auto",
        description="put backticks around names with unusual characters, as CodeS does (codes), or around every name "
        "that SQLite needs quoted (sqlite); auto: sqlite for own pairs, codes for published benchmarks; names on other "
        "engines are quoted as in their dialect",
    )
    template: Literal["codes", "chatml"] = Field(
        "codes",
        description="CodeS's plain text, or the same text in the chat markup of Qwen's and SmolLM's instruct models",
    )

    @property
    def is_open(self) -> bool:
        """Whether a key is still `auto`, to be resolved by `settle_prompt`; until then it means the published value."""
        return "auto" in (self.schema_filter, self.max_prompt_tokens, self.quoting)

    @property
    def budget_tokens(self) -> int:
        """The token budget for prefix and question."""
        return PUBLISHED_PROMPT_TOKENS if self.max_prompt_tokens == "auto" else self.max_prompt_tokens

    @property
    def longest_tokens(self) -> int:
        """The longest input of a model, in tokens; a completion's last token is never an input."""
        return self.budget_tokens + self.max_completion_tokens - 1

    def as_published(self) -> "PromptSettings":
        """These settings with each `auto` replaced by the value for published benchmarks."""
        return self.model_copy(
            update={
                "schema_filter": "when_needed" if self.schema_filter == "auto" else self.schema_filter,
                "max_prompt_tokens": self.budget_tokens,
                "quoting": "codes" if self.quoting == "auto" else self.quoting,
            }
        )

    def settled_as(self, other: "PromptSettings") -> "PromptSettings":
        """These settings with each `auto` replaced by the value in `other`."""
        open_keys = [
            key for key in ("schema_filter", "max_prompt_tokens", "quoting") if getattr(self, key) == "auto"
        ]
        if self.max_prompt_tokens == "auto":
            open_keys.append("question_tokens")
        if not self.shown_first:
            open_keys.append("shown_first")
        return self.model_copy(update={key: getattr(other, key) for key in open_keys})


class TrainOptions(Section):
    """`[train]`: length, optimizer, batches, precision, caches and logging of a training.

    Give exactly one of `steps` and `epochs`; `--set` of one drops the other. One step trains on up to
    `questions_per_tree` × `trees_per_step` examples; `largest_tree`, `loss_chunk_rows` and the caches change memory and
    speed. Sizes in `_mb` are MiB.
    """

    steps: int | None = Field(
        None, ge=1, description="number of optimizer steps (give either this or epochs)"
    )
    epochs: float | None = Field(
        None, gt=0, description="number of passes over the data (give either this or steps)"
    )
    learning_rate: float = Field(2e-4, gt=0, description="peak learning rate (KID Table 9)")
    warmup_share: float = Field(
        0.05, ge=0, lt=1, description="share of the steps with linear warm-up (ASSUMED)"
    )
    final_learning_rate_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="learning rate at the end of the cosine schedule, as a share of the peak (both ASSUMED)",
    )
    weight_decay: float = Field(
        0.0, ge=0, description="weight decay of AdamW, whose betas are 0.9 and 0.999 (ASSUMED)"
    )
    clip_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm (ASSUMED)")
    questions_per_tree: int = Field(
        4, ge=1, description="questions about one database that are drawn together"
    )
    trees_per_step: int = Field(
        4,
        ge=1,
        description="full trees in one optimizer step: at most questions_per_tree times this many examples",
    )
    largest_tree: int = Field(
        16,
        ge=1,
        description="trees of the same database in one step are merged into one forward pass of up to this many "
        "questions; with several processes, at most a step's examples divided by the number of processes, or some "
        "stay idle",
    )
    precision: Literal["auto", "bfloat16", "float32"] = Field(
        "auto",
        description="precision of the computation, for student and teacher; trained weights stay float32 (ASSUMED); "
        "auto: bfloat16 on a GPU that supports it or a CPU that multiplies it faster, else float32; saved resolved",
    )
    share_prefix: Literal["auto", "on", "off"] = Field(
        "auto",
        description="on: compute a shared prompt once (trees); off: run every sequence separately (padded layout); "
        "auto: trees if a check at start-up finds them exact for the model (on skips the check)",
    )
    compile: bool = Field(
        False,
        description="compile the layers of student and teacher (torch.compile), which on a GPU takes a minute or two "
        "at the start and makes steps faster; without effect on a CPU and in the padded layout",
    )
    recompute_activations: bool = Field(
        False,
        description="keep only each layer's input for the backward pass, which then runs every layer a second time: "
        "for long trees; about a third slower",
    )
    loss_chunk_rows: int = Field(
        128, ge=1, description="completion positions whose logits are in memory at the same time"
    )
    teacher_cache_mb: int = Field(
        2048, ge=0, description="memory budget of the teacher's prefix cache, in MiB"
    )
    teacher_hidden: Literal["auto", "on", "off"] = Field(
        "auto",
        description="for methods whose completions never change (fkd, rkd), run the teacher once and keep its hidden "
        "states on disk; auto: if the run is longer than one epoch",
    )
    teacher_hidden_folder: str | None = Field(
        None, description="folder of these hidden states, shared by all runs; by default in the user's cache"
    )
    teacher_hidden_mb: int = Field(
        20480, ge=0, description="disk budget of that folder in MiB, for all teachers together"
    )
    log_every_steps: int = Field(5, ge=1, description="steps between lines of log.jsonl")
    save_every_steps: int = Field(200, ge=1, description="steps between checkpoints")
    evaluate_every_steps: int | None = Field(
        None, ge=1, description="steps between evaluations on data.valid; by default there are none"
    )
    calibration_windows: int = Field(
        3, ge=0, description="windows on which × SFT is timed, spread over the run; 0: it is not measured"
    )
    trackers: list[str] = Field(
        default_factory=list, description="accelerate trackers to log to, such as tensorboard"
    )
