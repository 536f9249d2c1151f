"""SWITCH (Koo et al., Findings of NAACL 2025): the student writes, the teacher supplies a token where they diverge.

The definition is sequential: at position t, if JSD(p_t, q_t) > τ_t the token is drawn from the teacher's
distribution p_t, else from the student's q_t, and both models read it. Drafting gives the same completions with
fewer teacher passes: the student drafts a block, the teacher reads the block in one pass, and the block is kept up
to the first position whose divergence passes its threshold; that token is redrawn from the teacher. Every kept
token was drawn under exactly the prefix it would have had, with the random number of its own position, so greedy
and sampled completions are those of the definition, whatever the block lengths.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor

from distilsql.distill.divergences import jensen_shannon
from distilsql.models.decoding import start_writing
from distilsql.models.generate import (
    GenerationOptions,
    Stream,
    draw_uniforms,
    question_counts,
    split,
    written_one_by_one,
)
from distilsql.models.token_choice import choose_tokens
from distilsql.models.tree import Completion, PromptTree
from distilsql.models.tree_model import PrefixState, TreeModel


class ThresholdSchedule(StrEnum):
    """How SWITCH's threshold falls with position t (tokens written so far)."""

    EXPONENTIAL = "exponential"
    LINEAR = "linear"
    CONSTANT = "constant"


@dataclass(frozen=True)
class SwitchOptions:
    """τ_t = τ0·exp(−λt), max(0, τ0·(1 − λt)), or τ0. Koo et al. 2025 found the exponential schedule best.

    ASSUMED: τ0 and λ are not known from the paper at hand; λ = 1/10 reads its "decay factor of 1/10".
    `block_length` is how many tokens the student drafts before the teacher reads them: 1 is the definition run
    literally, None adapts it to how often the teacher takes over. It changes the cost, never the completions.
    """

    threshold: float = 0.3
    decay: float = 0.1
    schedule: ThresholdSchedule = ThresholdSchedule.EXPONENTIAL
    block_length: int | None = None

    def at(self, position: int) -> float:
        """The threshold for the token written after `position` others."""
        if self.schedule is ThresholdSchedule.EXPONENTIAL:
            return self.threshold * float(np.exp(-self.decay * position))
        if self.schedule is ThresholdSchedule.LINEAR:
            return max(0.0, self.threshold * (1 - self.decay * position))
        return self.threshold


@dataclass(frozen=True)
class SwitchedCompletion:
    """A completion and, per token, whether the teacher supplied it and the JSD (nats) before it was chosen.

    `teacher_passes` counts the teacher's forward passes that read drafts of this completion.
    """

    tokens: Completion
    from_teacher: tuple[bool, ...]
    divergence: tuple[float, ...]
    teacher_passes: int = 0


@dataclass
class _Row:
    """One completion being written."""

    tokens: list[int] = field(default_factory=list)
    from_teacher: list[bool] = field(default_factory=list)
    divergence: list[float] = field(default_factory=list)
    teacher_passes: int = 0

    def finished(self) -> SwitchedCompletion:
        return SwitchedCompletion(
            tuple(self.tokens), tuple(self.from_teacher), tuple(self.divergence), self.teacher_passes
        )


class BlockLength:
    """How many tokens to draft: what costs least per kept token, given how often blocks have ended so far.

    A pure function of what was counted, not of the clock, so that a repeated generation is the same to the bit.
    """

    CHOICES = (1, 2, 3, 4, 6, 8, 12, 16)
    # A pass over one more token per row costs this share of a pass over one: weights are read once for all of
    # them, which is most of a small batch's cost.
    EXTRA_TOKEN_COST = 0.25

    def __init__(self, teacher_to_student_cost: float, fixed: int | None = None) -> None:
        self._teacher_cost = teacher_to_student_cost
        self._fixed = fixed
        # Before anything is known: as if one of four tokens had ended a block.
        self._kept, self._ended = 4.0, 1.0

    def count(self, kept: int, ended: int) -> None:
        """`kept` tokens were kept, `ended` of them were the teacher's and ended a block."""
        self._kept += kept
        self._ended += ended

    def choose(self) -> int:
        return self._fixed or min(self.CHOICES, key=self.cost_per_token)

    def cost_per_token(self, length: int) -> float:
        """Student steps plus one teacher pass, per token that is expected to be kept."""
        ends = min(self._ended / self._kept, 1.0)
        expected = (1 - (1 - ends) ** length) / ends if ends > 0 else length
        return (length + self._teacher_cost * (1 + self.EXTRA_TOKEN_COST * (length - 1))) / expected


@dataclass(frozen=True)
class _Block:
    """A draft that the teacher has read: the tokens, its own where it takes over, and the divergence."""

    tokens_BL: Tensor
    taken_over_BL: Tensor
    divergence_BL: Tensor


@torch.no_grad()
def switch_generate(
    student: TreeModel,
    teacher: TreeModel,
    trees: Sequence[PromptTree],
    options: GenerationOptions,
    switch: SwitchOptions,
    *,
    streams: Sequence[Sequence[Stream]] | None = None,
    teacher_prefixes: Sequence[PrefixState | None] | None = None,
) -> list[list[SwitchedCompletion]]:
    """Per tree, one completion per question, each as the sequential definition writes it.

    JSD compares the full distributions at temperature 1; the token itself is drawn at `options.temperature` from
    whichever model supplies it.

    Raises:
        ValueError: sampling without a stream per question.
    """
    counts = question_counts(trees)
    if not sum(counts):
        return [[] for _ in trees]
    if "padded" in (student.layout, teacher.layout) and sum(counts) > 1:
        return written_one_by_one(
            trees,
            streams,
            lambda alone, own: switch_generate(student, teacher, [alone], options, switch, streams=own)[0][0],
        )
    if "padded" in (student.layout, teacher.layout):
        # Of a block of one token nothing is ever taken back, which a stock cache could not do.
        switch = replace(switch, block_length=1)
    run = _Switching(student, teacher, trees, options, switch, teacher_prefixes)
    run.uniforms = draw_uniforms(streams, sum(counts), options)
    while run.alive:
        run.write_block()
    return split([row.finished() for row in run.rows], counts)


class _Switching:
    """Both models' rows while the completions of some trees are written.

    Between blocks, every row's last token has been chosen but not yet fed to either model ("pending"); before
    the first block there is none, and the prompts' own hidden states predict the first token.
    """

    uniforms: np.ndarray

    def __init__(
        self,
        student: TreeModel,
        teacher: TreeModel,
        trees: Sequence[PromptTree],
        options: GenerationOptions,
        switch: SwitchOptions,
        teacher_prefixes: Sequence[PrefixState | None] | None,
    ) -> None:
        self.options = options
        self.rows = [_Row() for _ in range(sum(question_counts(trees)))]
        self.alive = list(range(len(self.rows)))
        room = options.max_new_tokens + (switch.block_length or max(BlockLength.CHOICES))
        self.student, self.student_hidden = start_writing(student, trees, None, room)
        self.teacher, self.teacher_hidden = start_writing(teacher, trees, teacher_prefixes, room)
        self.thresholds = np.array([switch.at(position) for position in range(options.max_new_tokens)])
        self.block_length = BlockLength(_size(teacher) / _size(student), switch.block_length)

    def write_block(self) -> None:
        """Draft, let the teacher read, keep what the definition would have written, and let finished rows leave."""
        positions_B = np.array([len(self.rows[row].tokens) for row in self.alive])
        length = min(self.block_length.choose(), self.options.max_new_tokens - int(positions_B.min()))
        # Positions past the longest completion are drafted with the others' and never kept.
        positions_BL = np.minimum(positions_B[:, None] + np.arange(length), self.options.max_new_tokens - 1)
        block = self._compare(*self._draft(length, positions_BL), positions_BL)
        kept_B = self._keep(block, positions_B)
        self.student.rewind(torch.from_numpy(length - kept_B).to(self.student.length_B))
        self.teacher.rewind(torch.from_numpy(length - kept_B).to(self.teacher.length_B))
        going_on = [
            place
            for place, row in enumerate(self.alive)
            if self.rows[row].tokens[-1] != self.options.eos_token_id
            and len(self.rows[row].tokens) < self.options.max_new_tokens
        ]
        if len(going_on) < len(self.alive):
            self.alive = [self.alive[place] for place in going_on]
            rows_B = torch.tensor(going_on, dtype=torch.int64, device=self.student.length_B.device)
            self.student.keep(rows_B)
            self.teacher.keep(rows_B.to(self.teacher.length_B.device))

    def _pending(self, like: Tensor) -> Tensor | None:
        """The last token of every row (B, 1), or None before the first block."""
        if not self.rows[self.alive[0]].tokens:
            return None
        return torch.tensor([[self.rows[row].tokens[-1]] for row in self.alive], device=like.device)

    def _draft(self, length: int, positions_BL: np.ndarray) -> tuple[Tensor, list[Tensor]]:
        """The student's tokens (B, L) and its log-probabilities at each position, L of (B, V)."""
        pending = self._pending(self.student_hidden)
        hidden = self.student_hidden if pending is None else self.student.step(pending[:, 0])
        tokens: list[Tensor] = []
        logps: list[Tensor] = []
        for offset in range(length):
            if offset:
                hidden = self.student.step(tokens[-1])
            logps.append(self.student.log_probs(hidden, self.options.vocabulary_size))
            uniforms = self.uniforms[self.alive, positions_BL[:, offset]]
            tokens.append(choose_tokens(logps[-1], self.options.temperature, uniforms))
        return torch.stack(tokens, 1), logps

    def _compare(self, drafted_BL: Tensor, logps: list[Tensor], positions_BL: np.ndarray) -> _Block:
        """The teacher reads the draft in one pass; where it would take over, and what it would write there."""
        tokens_BL, divergence_BL = drafted_BL.cpu().clone(), torch.zeros(drafted_BL.shape)
        taken_over_BL = torch.zeros(drafted_BL.shape, dtype=torch.bool)
        for offset, hidden_BD in enumerate(self._teacher_reads(drafted_BL)):
            teacher_BV = self.teacher.log_probs(hidden_BD, self.options.vocabulary_size)
            divergence_B = jensen_shannon(teacher_BV.to(logps[offset].device), logps[offset]).cpu()
            taken_over_B = divergence_B > torch.from_numpy(self.thresholds[positions_BL[:, offset]])
            places = taken_over_B.nonzero().squeeze(-1)
            if len(places):
                rows = [self.alive[place] for place in places.tolist()]
                uniforms = self.uniforms[rows, positions_BL[places.numpy(), offset]]
                teacher_RV = teacher_BV[places.to(teacher_BV.device)]
                tokens_BL[places, offset] = choose_tokens(
                    teacher_RV, self.options.temperature, uniforms
                ).cpu()
            divergence_BL[:, offset], taken_over_BL[:, offset] = divergence_B, taken_over_B
        return _Block(tokens_BL, taken_over_BL, divergence_BL)

    def _teacher_reads(self, drafted_BL: Tensor) -> list[Tensor]:
        """The teacher's hidden states (B, D) before each drafted token, from one pass."""
        pending = self._pending(self.teacher_hidden)
        drafted = drafted_BL[:, :-1].to(self.teacher_hidden.device)
        if pending is not None:
            return list(self.teacher.extend(torch.cat([pending, drafted], 1)).unbind(1))
        read = self.teacher.extend(drafted).unbind(1) if drafted.shape[1] else ()
        return [self.teacher_hidden, *read]

    def _keep(self, block: _Block, positions_B: np.ndarray) -> np.ndarray:
        """Append to each row what the definition would have written; how many tokens each row kept.

        The last kept token becomes the pending one. Of the L tokens that a block fed (the pending one before it and
        all drafts but the last), as many are true as were kept; the caller rewinds the rest.
        """
        length = block.tokens_BL.shape[1]
        kept_B = np.zeros(len(self.alive), dtype=np.int64)
        ended = 0
        for place, number in enumerate(self.alive):
            row = self.rows[number]
            row.teacher_passes += 1
            for offset in range(min(length, self.options.max_new_tokens - int(positions_B[place]))):
                from_teacher = bool(block.taken_over_BL[place, offset])
                row.tokens.append(int(block.tokens_BL[place, offset]))
                row.from_teacher.append(from_teacher)
                row.divergence.append(float(block.divergence_BL[place, offset]))
                kept_B[place] += 1
                if from_teacher or row.tokens[-1] == self.options.eos_token_id:
                    ended += from_teacher
                    break
        self.block_length.count(int(kept_B.sum()), ended)
        return kept_B


def _size(model: TreeModel) -> int:
    """Parameters, which is what a decoding pass costs."""
    return sum(parameter.numel() for parameter in model.causal_lm.parameters())
