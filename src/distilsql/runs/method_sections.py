"""The sections of a recipe that set a method: divergence, imperfect data, generation, SWITCH, MiniLLM, replay.

`distilsql methods --markdown` prints them. Importing this module does not import torch.
"""

from typing import Literal

from pydantic import Field

from distilsql.runs.sections import Section

DivergenceName = Literal[
    "forward-kl",
    "reverse-kl",
    "jensen-shannon",
    "total-variation",
    "skewed-forward-kl",
    "skewed-reverse-kl",
    "adaptive-kl",
    "adaptive-teaching",
    "contrastive-skewed-kl",
    "oracle-likelihood",
]


# Those that look at the completion's own token beside the two distributions (`Divergence.reads_positions`).
READS_TOKENS = frozenset({"adaptive-teaching", "contrastive-skewed-kl", "oracle-likelihood"})
# Those that the teacher's most likely tokens are enough to approximate: what the teacher gives little weighs little.
KNOWN_BY_TOP_TOKENS = ("forward-kl", "jensen-shannon", "total-variation", "skewed-forward-kl")


class DistillOptions(Section):
    """`[distill]`: the loss, and KID's masking. A value of None takes what the method's row says (docs/methods.md)."""

    divergence: DivergenceName | None = Field(None, description="use this divergence instead of the method's")
    gold_weight: float | None = Field(
        None,
        ge=0,
        description="use this weight of the gold likelihood instead of the method's (ASSUMED 1 for methods that have "
        "this term)",
    )
    gold_context: Literal["imperfect", "gold"] = Field(
        "imperfect",
        description="what KID's likelihood of y is conditioned on: ŷ (ASSUMED), or y itself, which adds a branch",
    )
    reduction: Literal["per_completion", "per_token"] = Field(
        "per_completion", description="mean over completions (KID eq. 2), or over tokens"
    )
    temperature: float = Field(
        1.0, gt=0, description="divides both models' logits in the divergence (ASSUMED 1); no T² factor"
    )
    uld_weight: float = Field(
        1.0,
        ge=0,
        description="of teacher.bridge: weight of universal logit distillation, in hybrid beside the divergence on "
        "common tokens (ASSUMED 1; Boizard et al. 2024 use 1.5, beside gold likelihood; TRL uses the share of the "
        "teacher's tokens that are not common)",
    )
    jsd_beta: float = Field(0.5, gt=0, lt=1, description="weight of the teacher's side in JSD")
    skew: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="of skewed KLs: share of the left distribution that is mixed into the right one (Ko et al. 2024)",
    )
    skew_schedule: Literal["constant", "adaptive"] = Field(
        "constant",
        description="of distillm-2: one skew for all (ASSUMED, as the authors' released settings have it), or one for "
        "each completion, the less the closer the two models are on it, from distill.skew down to 0.01 (the paper's "
        "curriculum; it is measured against the first epoch's mean, ASSUMED)",
    )
    side_weights: Literal["equal", "growing"] = Field(
        "equal",
        description="of methods that train on both sides' completions: equal (ASSUMED, as released), or growing on the "
        "student's side, to three times the teacher's over the first half of the steps (DistiLLM-2; the form is its "
        "code's)",
    )
    head_mass: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="of adaptive KL: probability of the teacher's head, μ (Wu et al. 2024); the token that crosses it "
        "belongs to the tail (ASSUMED, as in the authors' code) unless it is the first",
    )
    hard_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="of adaptive teaching: share of positions that count as hard, k (Zhong et al. 2024): those to "
        "whose token the teacher gives the least probability, over the whole window (ASSUMED: the paper ranks a "
        "mini-batch)",
    )
    easy_weight: float = Field(
        0.2,
        ge=0,
        le=1,
        description="of adaptive teaching: weight of easy positions, λ; hard ones have 1 − λ (Zhong et al. 2024)",
    )
    mask_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="share of the gold completion's tokens that KID masks; rounded up, never EOS (both ASSUMED)",
    )
    mask_share_from: Literal["constant", "error_rate"] = Field(
        "constant",
        description="error_rate: mask as many of a gold's tokens as the student's most probable token gets wrong, "
        "whatever mask_share says (beyond the paper; costs one more pass)",
    )
    mask_strategy: Literal["random", "uniform", "hard", "easy", "apart"] = Field(
        "random",
        description="which tokens KID masks; uniform: evenly spaced, starting at a random one (ASSUMED); apart: "
        "random, but never two in a row (beyond the paper)",
    )
    mask_token: str = Field(
        "auto",
        description="the mask token; auto: the first that exists of BOS (KID's example), UNK, PAD, EOS (ASSUMED)",
    )
    rewriting: Literal["greedy", "sampled"] = Field(
        "greedy", description="how KID predicts the masked tokens (ASSUMED greedy)"
    )
    rewriting_temperature: float = Field(
        1.0, gt=0, description="temperature of sampled rewriting (ASSUMED 1)"
    )
    rewriting_context: Literal["masked", "gold"] = Field(
        "masked",
        description="what the student reads when it predicts: the masked completion, or the gold one without any mask "
        "(beyond the paper)",
    )
    rewriting_rounds: int = Field(
        1,
        ge=1,
        le=8,
        description="how many times the masked positions are predicted, each time from the previous rewriting (more "
        "than 1: beyond the paper)",
    )
    mixture_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="probability that f-distill and imitkd use the student's completion (ASSUMED 1/2)",
    )
    mixture_schedule: Literal["constant", "linear", "exponential"] = Field(
        "constant",
        description="the probability as a function of the share s of steps done: constant (KID names no schedule), "
        "linear: s, or exponential: 1 − 0.005^s, as in ImitKD's own code",
    )
    mixture: Literal["drawn", "both"] = Field(
        "drawn",
        description="of f-distill and imitkd: for each question one completion, drawn from one side (ASSUMED), or one "
        "from each side with half the weight, as in f-distill's own paper",
    )


class GenerationSettings(Section):
    """`[generation]`: how student and teacher generate completions during training.

    `max_batch_rows` and `vllm_memory_share` change memory and speed; the others also change what is generated.
    """

    engine: Literal["built-in", "vllm"] = Field(
        "built-in", description="what generates completions in training; vllm needs a GPU and distilsql[vllm]"
    )
    vllm_memory_share: float = Field(
        0.3, gt=0, le=1, description="share of the GPU's memory for vLLM, beside the models being trained"
    )
    temperature: float = Field(
        1.0,
        ge=0,
        description="sampling temperature of on-policy and teacher completions (ASSUMED 1); 0 is greedy",
    )
    teacher_beams: int | None = Field(
        None,
        ge=1,
        description="beam width of the teacher when it writes before training; the beam with the best mean "
        "log-probability is kept (ASSUMED); 1: sampling; by default 5 for seqkd, as published, and 1 for f-distill",
    )
    rollout_window: int = Field(
        1,
        ge=1,
        description="optimizer steps that one round of on-policy generation serves; more than 1 is replay",
    )
    max_batch_rows: int = Field(
        64,
        ge=1,
        description="questions answered in one batch, from at most 16 databases; limited by memory",
    )


class SwitchSettings(Section):
    """`[switch]`: when SWITCH's teacher takes over from the student.

    At position t of a completion the teacher supplies the token if the JSD of the two models, in nats, exceeds τ(t).
    """

    threshold: float = Field(
        0.3, ge=0, description="τ0 in nats (ASSUMED); above ln 2 the teacher never takes over"
    )
    decay: float = Field(
        0.1, ge=0, description="λ per token (ASSUMED: our reading of the paper's “decay factor 1/10”)"
    )
    schedule: Literal["exponential", "linear", "constant"] = Field(
        "exponential",
        description="τ at position t: exponential τ0·exp(−λt), linear max(0, τ0·(1 − λt)) (this form is ASSUMED), or "
        "constant τ0",
    )
    block_length: int | None = Field(
        None,
        ge=1,
        description="tokens drafted before the teacher reads them; changes only the cost (by default adaptive)",
    )


class MiniLLMSettings(Section):
    teacher_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="α: share of the teacher's distribution in the mixture that each token is drawn from (Gu et al. "
        "2024)",
    )
    length_normalisation: bool = Field(
        True, description="use the mean reward of the following tokens instead of their sum (Gu et al. 2024)"
    )
    clip: float | None = Field(
        0.2,
        gt=0,
        description="ε: as in PPO, a token's future reward is ignored once its importance weight has left 1 ± ε in the "
        "reward's direction (value ASSUMED, from the authors' code)",
    )


class ReplaySettings(Section):
    initial_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="φ at the start: share of trees trained on the student's completions; by default 0, as in "
        "DistiLLM's code, if data.valid is given and lets it grow; otherwise 1/2 (ASSUMED)",
    )
    validate_every_steps: int | None = Field(
        None,
        ge=1,
        description="steps between computations of the loss on data.valid; by default one epoch, as in DistiLLM's code",
    )
    loss_margin: float = Field(
        0.1, ge=0, description="increase of that loss, in nats, that makes φ grow by 0.1 (ASSUMED)"
    )
    capacity: int = Field(
        1000, ge=1, description="completions that the buffer holds; replay starts once it is full"
    )
