"""Completions that two models write together, each token drawn from a mixture of their distributions (MiniLLM)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from distilsql.models.decoding import start_writing
from distilsql.models.generate import (
    GenerationOptions,
    Stream,
    draw_uniforms,
    question_counts,
    split,
    written_one_by_one,
)
from distilsql.models.token_choice import sample
from distilsql.models.tree import Completion, PromptTree
from distilsql.models.tree_model import PrefixState, TreeModel


class MixedCompletion(NamedTuple):
    """A completion and, per token, the log-probability with which it was drawn."""

    tokens: Completion
    logps: tuple[float, ...]


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
        return written_one_by_one(
            trees,
            streams,
            lambda alone, own: generate_mixed(
                student, teacher, [alone], options, teacher_share, streams=own or []
            )[0][0],
        )
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
