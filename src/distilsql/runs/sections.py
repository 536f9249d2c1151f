"""A recipe's sections: every key with its type, its default, and what it does.

`distilsql methods --markdown` prints them. Importing this module imports no torch.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

DivergenceName = Literal[
    "forward-kl", "reverse-kl", "jensen-shannon", "total-variation", "skewed-forward-kl", "skewed-reverse-kl"
]
PUBLISHED_PROMPT_TOKENS = 1024


class Section(BaseModel):
    """Frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StudentOptions(Section):
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


class TeacherOptions(Section):
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


class DataOptions(Section):
    train: str = Field(
        description="benchmark to train on, such as spider:train, or a file of own pairs; memory: examples that are "
        "passed to distilsql.train"
    )
    valid: str | None = Field(
        None, description="benchmark for evaluation during training; memory as for train"
    )
    root: str | None = Field(None, description="folder that holds spider/, bird/, …")
    database: str | None = Field(None, description="SQLite file that own pairs are about")
    extra: str | None = Field(
        None,
        description="file of own pairs that are trained on too, such as what a server's users called right; of the "
        "same question about the same database the last one counts",
    )
    train_limit: int | None = Field(
        None, ge=1, description="train on a seeded subset of this many examples, and all extra ones"
    )
    valid_limit: int = Field(100, ge=1, description="examples evaluated during training")

    @property
    def root_path(self) -> Path | None:
        return Path(self.root) if self.root else None

    @property
    def database_path(self) -> Path | None:
        return Path(self.database) if self.database else None


class PromptSettings(Section):
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


class DistillOptions(Section):
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


class GenerationSettings(Section):
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


class SwitchSettings(Section):
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


class TrainOptions(Section):
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
