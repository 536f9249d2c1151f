"""MiniLLM (Gu et al. 2024): the policy gradient of reverse KL, on what student and teacher write together.

With r_t = log p(y_t) − log q(y_t) along a completion of T tokens and R_t = Σ_{t' ≥ t} r_t', the gradient of the
sequences' KL(q‖p) is split into that of the next token alone, which is exact, and that of the future, which is sampled:

    ∇L = E_{y ~ p̃} Σ_t w_t · ( ∇ KL(q_t‖p_t) − R^Norm_{t+1} · ∇ log q_t(y_t) )          (MiniLLM eq. 7)

- completions are written by the mixture p̃ = α·p + (1 − α)·q, token by token, so that the student does not learn to
  please the teacher with degenerate texts (eq. 4);
- w_t = q(y_t) / p̃(y_t) corrects for that, one token's ratio in place of all tokens' product (eq. 5);
- R^Norm_{t+1} is the mean of r over the tokens after t, not their sum, which would favour short completions (eq. 6).

The first part is the divergence reverse KL with weight w_t; the second is a likelihood of the completion's own tokens
with weight w_t · R^Norm_{t+1}, of either sign, which has a gradient and no value of its own.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from distilsql.inference.loading import Engines
from distilsql.models.decoding import start_writing
from distilsql.models.generate import (
    GenerationOptions,
    Stream,
    draw_uniforms,
    flat_streams,
    one_by_one,
    question_counts,
    sample,
    split,
)
from distilsql.models.tree import Completion, PromptTree
from distilsql.models.tree_model import PrefixState, TreeModel
from distilsql.runs.recipe import Recipe
from distilsql.training.ledger import Ledger
from distilsql.training.sources.source import PositionWeights, Trained
from distilsql.training.sources.student import Student, Written
from distilsql.training.window_tree import Use, WindowTree


class MixedCompletion(NamedTuple):
    """A completion and, per token, the log-probability with which it was drawn."""

    tokens: Completion
    logps: tuple[float, ...]


class TeacherMixed(Student):
    """Student and teacher write together, each token drawn from a mixture of both (MiniLLM)."""

    weighs_positions = True

    def __init__(self, recipe: Recipe, engines: Engines, ledger: Ledger) -> None:
        super().__init__(recipe, engines, ledger)
        self._weight_sum = self._weight_count = 0.0

    def generate(self, batches: Sequence[Sequence[WindowTree]]) -> list[list[list[Written]]]:
        return [self._mixed(items) for items in batches]

    def _mixed(self, items: Sequence[WindowTree]) -> list[list[Written]]:
        teacher, cache = self.engines.teacher, self.engines.teacher_prefixes
        assert teacher is not None
        assert cache is not None
        written = generate_mixed(
            self.engines.student,
            teacher,
            [item.tree for item in items],
            self.generation_options(),
            self.recipe.minillm.teacher_share,
            streams=[item.streams(self.recipe.seed, Use.SAMPLING) for item in items],
            teacher_prefixes=[cache.get(item.prefix_key, item.tree.prefix) for item in items],
        )
        return [[Written(one.tokens, logps=one.logps) for one in tree] for tree in written]

    def weigh(self, trained: Trained, teacher_logp_N: Tensor, student_logp_N: Tensor) -> PositionWeights:
        assert trained.logps is not None
        lengths = [len(completion) for completion in trained.completions]
        drawn_N = torch.tensor([logp for logps in trained.logps for logp in logps], dtype=torch.float64)
        weights = policy_gradient_weights(
            teacher_logp_N.cpu().double(),
            student_logp_N.cpu().double(),
            drawn_N,
            lengths,
            normalise=self.recipe.minillm.length_normalisation,
            clip=self.recipe.minillm.clip,
        )
        self._weight_sum += float(weights.divergence_N.sum())
        self._weight_count += len(weights.divergence_N)
        return weights

    def state(self) -> dict[str, Any]:
        return {"weight_sum": self._weight_sum, "weight_count": self._weight_count}

    def load(self, state: dict[str, Any]) -> None:
        self._weight_sum, self._weight_count = state.get("weight_sum", 0.0), state.get("weight_count", 0.0)

    def summary(self) -> dict[str, Any]:
        """`importance_weight` is the mean of w, whose expectation is 1."""
        return {"importance_weight": self._weight_sum / self._weight_count if self._weight_count else None}


def policy_gradient_weights(
    teacher_logp_N: Tensor,
    student_logp_N: Tensor,
    drawn_logp_N: Tensor,
    lengths: Sequence[int],
    *,
    normalise: bool = True,
    clip: float | None = None,
) -> PositionWeights:
    """w_t of the divergence and w_t · R^Norm_{t+1} of the tokens' likelihood, completion after completion.

    `drawn_logp_N` is log p̃ of each token when it was written. The last token has no future: its R is 0. With `clip` ε,
    as PPO has it, a token's reward counts for nothing once w has left [1 − ε, 1 + ε] in its direction.
    """
    ratio_N = (student_logp_N - drawn_logp_N).exp()
    reward_N = teacher_logp_N - student_logp_N
    future_N = torch.cat([_future(reward_T, normalise) for reward_T in reward_N.split(list(lengths))])
    if clip is not None:
        is_out_N = torch.where(future_N > 0, ratio_N > 1 + clip, ratio_N < 1 - clip)
        future_N = future_N.masked_fill(is_out_N, 0.0)
    return PositionWeights(ratio_N, ratio_N * future_N)


def _future(reward_T: Tensor, normalise: bool) -> Tensor:
    """Σ or mean of the rewards after each token; 0 for the last."""
    count = len(reward_T)
    after_T = reward_T.flip(0).cumsum(0).flip(0) - reward_T
    return after_T / torch.arange(count - 1, -1, -1).clamp_min(1) if normalise else after_T


@torch.no_grad()
def generate_mixed(
    student: TreeModel,
    teacher: TreeModel,
    trees: Sequence[PromptTree],
    options: GenerationOptions,
    teacher_share: float,
    *,
    streams: Sequence[Sequence[Stream]],
    teacher_prefixes: Sequence[PrefixState | None] | None = None,
) -> list[list[MixedCompletion]]:
    """Per tree, one completion per question, each token drawn from α·p + (1 − α)·q, both at the options' temperature;
    the most likely one at temperature 0. α is `teacher_share`."""
    counts = question_counts(trees)
    if not sum(counts):
        return [[] for _ in trees]
    if "padded" in (student.layout, teacher.layout) and sum(counts) > 1:
        each = [alone for tree in trees for alone in one_by_one(tree)]
        own = flat_streams(streams) or []
        rows = [
            generate_mixed(student, teacher, [tree], options, teacher_share, streams=[[own[row]]])[0][0]
            for row, tree in enumerate(each)
        ]
        return split(rows, counts)
    run = _Mixing(student, teacher, trees, options, teacher_share, teacher_prefixes)
    uniforms = draw_uniforms(streams, sum(counts), options)
    for position in range(options.max_new_tokens):
        if not run.write_token(uniforms[run.alive, position]):
            break
    return split([MixedCompletion(tuple(tokens), tuple(logps)) for tokens, logps in run.rows], counts)


class _Mixing:
    """Both models' rows while completions are written, a token at a time."""

    def __init__(
        self,
        student: TreeModel,
        teacher: TreeModel,
        trees: Sequence[PromptTree],
        options: GenerationOptions,
        teacher_share: float,
        teacher_prefixes: Sequence[PrefixState | None] | None,
    ) -> None:
        self.options, self.teacher_share = options, teacher_share
        self.rows: list[tuple[list[int], list[float]]] = [
            ([], []) for _ in range(sum(question_counts(trees)))
        ]
        self.alive = list(range(len(self.rows)))
        self.models = [
            start_writing(student, trees, None, options.max_new_tokens),
            start_writing(teacher, trees, teacher_prefixes, options.max_new_tokens),
        ]

    def write_token(self, uniform_B: np.ndarray) -> bool:
        """The next token of every row that has not ended; whether any goes on."""
        mixture_BV = self._mixture()
        is_greedy = self.options.temperature == 0
        tokens_B = mixture_BV.argmax(-1) if is_greedy else sample(mixture_BV, uniform_B)
        drawn_B = mixture_BV.gather(-1, tokens_B.unsqueeze(-1)).squeeze(-1).double().log()
        for row, token, logp in zip(self.alive, tokens_B.tolist(), drawn_B.tolist(), strict=True):
            self.rows[row][0].append(token)
            self.rows[row][1].append(logp)
        going_on = (tokens_B != self.options.eos_token_id).nonzero().squeeze(-1)
        self.alive = [self.alive[row] for row in going_on.tolist()]
        if self.alive and len(self.rows[self.alive[0]][0]) < self.options.max_new_tokens:
            self.models = [(decoding, self._fed(decoding, tokens_B, going_on)) for decoding, _ in self.models]
            return True
        return False

    def _fed(self, decoding: Any, tokens_B: Tensor, going_on: Tensor) -> Tensor:
        if len(going_on) < len(tokens_B):
            decoding.keep(going_on)
        hidden_BD: Tensor = decoding.step(tokens_B[going_on])
        return hidden_BD

    def _mixture(self) -> Tensor:
        """α·p + (1 − α)·q as probabilities (B, V)."""
        q_BV, p_BV = (
            decoding.log_probs(hidden_BD, self.options.vocabulary_size) for decoding, hidden_BD in self.models
        )
        if self.options.temperature not in (0, 1):
            q_BV, p_BV = (torch.log_softmax(each / self.options.temperature, -1) for each in (q_BV, p_BV))
        return self.teacher_share * p_BV.to(q_BV.device).exp() + (1 - self.teacher_share) * q_BV.exp()
