"""Generation for many questions of many databases: greedy, sampled, and beam search. SWITCH is in `switch.py`.

Used by on-policy training, prediction and serving. A completion ends with EOS, which is part of it, or after
`max_new_tokens` without one. Sampling draws from a random stream per example, so that results depend on which
questions share a batch by rounding only.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from distilsql.models.decoding import Decoding, StockDecoding, run_all_prompts, start_decoding, start_writing
from distilsql.models.graph_writing import can_record, write_by_graph
from distilsql.models.token_choice import choose_tokens
from distilsql.models.tree import Completion, PromptTree
from distilsql.models.tree_model import PrefixState, TreeModel

Item = TypeVar("Item")
# Draws that many uniform numbers.
Stream = Callable[[int], np.ndarray]


@dataclass(frozen=True)
class GenerationOptions:
    """`temperature` 0 is greedy; above 0 it divides the logits before sampling from the full distribution."""

    eos_token_id: int
    vocabulary_size: int
    max_new_tokens: int = 128
    temperature: float = 0.0


def uniform_stream(seed: int, *key: int) -> Stream:
    """A source of uniform numbers that depends on (seed, key) alone: one per example and visit."""
    rng = np.random.default_rng([seed, *key])
    return lambda count: rng.random(count)


@torch.no_grad()
def generate_trees(
    model: TreeModel,
    trees: Sequence[PromptTree],
    options: GenerationOptions,
    *,
    streams: Sequence[Sequence[Stream]] | None = None,
    prefixes: Sequence[PrefixState | None] | None = None,
) -> list[list[Completion]]:
    """Per tree, one completion per question. All rows of all trees are decoded together.

    `streams` (one per question of each tree) are needed when sampling; `prefixes` are prefixes already run.

    Raises:
        ValueError: sampling without a stream per question.
    """
    counts = question_counts(trees)
    if not sum(counts):
        return [[] for _ in trees]
    if model.layout == "padded" and sum(counts) > 1:
        return written_one_by_one(
            trees, streams, lambda alone, own: generate_trees(model, [alone], options, streams=own)[0][0]
        )
    count = sum(counts)
    uniforms = draw_uniforms(streams, count, options)
    decoding: Decoding | StockDecoding
    if can_record(model):
        states = run_all_prompts(model, trees, prefixes)
        by_graph = write_by_graph(
            model,
            states,
            eos_token_id=options.eos_token_id,
            vocabulary_size=options.vocabulary_size,
            max_new_tokens=options.max_new_tokens,
            temperature=options.temperature,
            uniform_BM=uniforms,
        )
        if by_graph is not None:
            return split(by_graph, counts)
        decoding, hidden_BD = start_decoding(model, states, options.max_new_tokens)
    else:
        decoding, hidden_BD = start_writing(model, trees, prefixes, options.max_new_tokens)
    written = dict(_rows_as_they_end(decoding, hidden_BD, options, uniforms))
    return split([written[row] for row in range(count)], counts)


# Whether a completion is over with these tokens, though its last is not the end token.
IsOver = Callable[[Sequence[int]], bool]


@torch.no_grad()
def generate_as_they_end(
    model: TreeModel,
    tree: PromptTree,
    options: GenerationOptions,
    *,
    streams: Sequence[Sequence[Stream]],
    prefix: PrefixState | None = None,
    is_over: IsOver = lambda tokens: False,
) -> Iterator[tuple[int, int, Completion]]:
    """(question, number, completion) of completions as they end, those of all questions decoded together.

    A question, which is run once, has as many completions as `streams`; samples draw from these. `prefix` is one
    already run.
    """
    first = 0
    for part in one_by_one(tree) if model.layout == "padded" else [tree]:
        own = streams[first : first + len(part.questions)]
        rows = [(question, number) for question, each in enumerate(own) for number in range(len(each))]
        uniforms = draw_uniforms(own, len(rows), options)
        decoding, hidden_BD = start_writing(model, [part], [prefix], options.max_new_tokens)
        questions_B = torch.tensor([question for question, _ in rows], device=model.device)
        decoding.keep(questions_B)
        for row, completion in _rows_as_they_end(
            decoding, hidden_BD[questions_B], options, uniforms, is_over
        ):
            yield first + rows[row][0], rows[row][1], completion
        first += len(part.questions)


def _rows_as_they_end(
    decoding: Decoding | StockDecoding,
    hidden_BD: Tensor,
    options: GenerationOptions,
    uniforms: np.ndarray,
    is_over: IsOver = lambda tokens: False,
) -> Iterator[tuple[int, Completion]]:
    """Each row's number and completion, as it ends. `hidden_BD` predict the first tokens."""
    written: list[list[int]] = [[] for _ in range(len(hidden_BD))]
    alive = list(range(len(hidden_BD)))
    for position in range(options.max_new_tokens):
        logp_BV = decoding.log_probs(hidden_BD, options.vocabulary_size)
        tokens_B = choose_tokens(logp_BV, options.temperature, uniforms[alive, position])
        is_last = position + 1 == options.max_new_tokens
        going_on: list[int] = []
        for place, (row, token) in enumerate(zip(alive, tokens_B.tolist(), strict=True)):
            written[row].append(token)
            if token == options.eos_token_id or is_last or is_over(written[row]):
                yield row, tuple(written[row])
            else:
                going_on.append(place)
        if not going_on:
            return
        if len(going_on) < len(alive):
            alive = [alive[place] for place in going_on]
            kept_B = torch.tensor(going_on, device=tokens_B.device)
            decoding.keep(kept_B)
            tokens_B = tokens_B[kept_B]
        hidden_BD = decoding.step(tokens_B)


def question_counts(trees: Sequence[PromptTree]) -> list[int]:
    return [len(tree.questions) for tree in trees]


def split(rows: Sequence[Item], counts: Sequence[int]) -> list[list[Item]]:
    """Rows of all trees, one after the other, as a list per tree of `counts` rows."""
    remaining = iter(rows)
    return [[next(remaining) for _ in range(count)] for count in counts]


def one_by_one(tree: PromptTree) -> list[PromptTree]:
    return [PromptTree(tree.prefix, (question,)) for question in tree.questions]


def written_one_by_one(
    trees: Sequence[PromptTree],
    streams: Sequence[Sequence[Stream]] | None,
    write: Callable[[PromptTree, list[list[Stream]] | None], Item],
) -> list[list[Item]]:
    """For a model that cannot run a tree exactly: `write` of each question by itself and of its own stream."""
    own = flat_streams(streams)
    each = [alone for tree in trees for alone in one_by_one(tree)]
    rows = [write(alone, None if own is None else [[own[row]]]) for row, alone in enumerate(each)]
    return split(rows, question_counts(trees))


def flat_streams(streams: Sequence[Sequence[Stream]] | None) -> list[Stream] | None:
    return None if streams is None else [stream for each in streams for stream in each]


def draw_uniforms(
    streams: Sequence[Sequence[Stream]] | None, count: int, options: GenerationOptions
) -> np.ndarray:
    """Uniform numbers (count, max_new_tokens): row r belongs to example r whatever shares its batch."""
    if options.temperature == 0:
        return np.zeros((count, options.max_new_tokens))
    flat = flat_streams(streams) or []
    if len(flat) != count:
        raise ValueError(f"sampling {count} completions needs a random stream for each")
    return np.stack([stream(options.max_new_tokens) for stream in flat])


# ---- beam search ---------------------------------------------------------------------------------------------


@torch.no_grad()
def beam_search(
    model: TreeModel,
    tree: PromptTree,
    options: GenerationOptions,
    *,
    beams: int,
    length_penalty: float = 1.0,
    prefix: PrefixState | None = None,
) -> list[Completion]:
    """The best finished hypothesis per question by log-probability / length^length_penalty.

    A question is done when it has `beams` finished hypotheses and no open one, as long as it is now, scores above the
    worst of them; or at `max_new_tokens`.
    """
    if model.layout == "padded" and len(tree.questions) > 1:
        return [
            beam_search(model, alone, options, beams=beams, length_penalty=length_penalty)[0]
            for alone in one_by_one(tree)
        ]
    searches = [_Beam(beams, length_penalty) for _ in tree.questions]
    decoding, hidden_BD = start_writing(model, [tree], [prefix], options.max_new_tokens)
    owners = list(range(len(searches)))
    for position in range(options.max_new_tokens):
        logp_BV = decoding.log_probs(hidden_BD, options.vocabulary_size)
        top = logp_BV.topk(min(2 * beams, logp_BV.shape[-1]), dim=-1)
        rows: list[int] = []
        tokens: list[int] = []
        next_owners: list[int] = []
        for owner in sorted(set(owners)):
            own_rows = [row for row, row_owner in enumerate(owners) if row_owner == owner]
            parents = searches[owner].extend(
                top.values[own_rows].tolist(), top.indices[own_rows].tolist(), options.eos_token_id
            )
            for parent, token in parents:
                rows.append(own_rows[parent])
                tokens.append(token)
                next_owners.append(owner)
        if not rows or position + 1 == options.max_new_tokens:
            break
        owners = next_owners
        decoding.keep(torch.tensor(rows, device=model.device))
        hidden_BD = decoding.step(torch.tensor(tokens, device=model.device))
    return [search.best() for search in searches]


class _Beam:
    """The open and finished hypotheses of one question."""

    def __init__(self, beams: int, length_penalty: float) -> None:
        self.beams = beams
        self.length_penalty = length_penalty
        self.open: list[tuple[float, Completion]] = [(0.0, ())]
        self.finished: list[tuple[float, Completion]] = []

    def _score(self, log_probability: float, length: int) -> float:
        return log_probability / max(length, 1) ** self.length_penalty

    def extend(
        self, logps: list[list[float]], tokens: list[list[int]], eos_token_id: int
    ) -> list[tuple[int, int]]:
        """Grow every open hypothesis; returns (parent, token) of the hypotheses that stay open."""
        grown = [
            (self.open[parent][0] + logp, parent, token)
            for parent, (row_logps, row_tokens) in enumerate(zip(logps, tokens, strict=True))
            for logp, token in zip(row_logps, row_tokens, strict=True)
        ]
        grown.sort(key=lambda item: -item[0])
        still_open: list[tuple[float, Completion]] = []
        parents: list[tuple[int, int]] = []
        for rank, (log_probability, parent, token) in enumerate(grown):
            hypothesis = (*self.open[parent][1], token)
            if token == eos_token_id:
                # An ending counts only among the best `beams` continuations, as in `transformers`.
                if rank < self.beams:
                    self.finished.append((self._score(log_probability, len(hypothesis)), hypothesis))
            else:
                still_open.append((log_probability, hypothesis))
                parents.append((parent, token))
            if len(still_open) == self.beams:
                break
        self.finished = sorted(self.finished, key=lambda item: -item[0])[: self.beams]
        self.open = still_open
        return [] if self._is_done() else parents

    def _is_done(self) -> bool:
        if len(self.finished) < self.beams or not self.open:
            return not self.open
        best_open = self._score(self.open[0][0], len(self.open[0][1]))
        return best_open <= self.finished[-1][0]

    def best(self) -> Completion:
        cut_off = [(self._score(logp, len(tokens)), tokens) for logp, tokens in self.open]
        candidates = self.finished + cut_off
        return max(candidates, key=lambda item: item[0])[1]
