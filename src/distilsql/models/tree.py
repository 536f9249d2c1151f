"""PromptTree: one database prefix, many questions under it, and completions under each question.

A tree is run through a model as one row of tokens. A token attends to its ancestors in the tree and to
nothing else, and its position id is its depth, so every token sees exactly what it would see if its sequence
were run alone. Logits are needed only at the positions that predict completion tokens; the last token of a
completion is never an input.

A tree may be run in one pass or in several: a pass runs some new tokens and may continue from the keys and
values of tokens that were run before (`past`). The prefix always comes first.

Shapes: T new tokens of a pass, P prefix tokens, R tokens after the prefix ("rest"), G question groups,
A new tokens of a group (padded), C tokens of a group visible as keys (padded), N completion positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

Completion = tuple[int, ...]


Tokens = Sequence[int]


@dataclass(frozen=True)
class Branch:
    """One completion (EOS included) under question number `question` of a tree."""

    question: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class PromptTree:
    """A database prefix and the question suffixes under it, as token ids. Completions are given per pass."""

    prefix: tuple[int, ...]
    questions: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not self.prefix and any(not question for question in self.questions):
            raise ValueError(
                "a question without tokens needs a prefix: something must predict the first token"
            )

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prefix, once, and of all questions."""
        return len(self.prefix) + sum(map(len, self.questions))


@dataclass(frozen=True)
class Nodes:
    """Per token: which question it belongs to (−1 prefix), which branch (−1 none), and its depth."""

    question_T: np.ndarray
    branch_T: np.ndarray
    depth_T: np.ndarray

    def __len__(self) -> int:
        return len(self.depth_T)

    @staticmethod
    def empty() -> "Nodes":
        nothing = np.zeros(0, dtype=np.int64)
        return Nodes(nothing, nothing, nothing)

    @staticmethod
    def joined(parts: Sequence["Nodes"]) -> "Nodes":
        if not parts:
            return Nodes.empty()
        return Nodes(
            np.concatenate([part.question_T for part in parts]),
            np.concatenate([part.branch_T for part in parts]),
            np.concatenate([part.depth_T for part in parts]),
        )


def visible(query: Nodes, key: Nodes) -> np.ndarray:
    """Whether each query token may attend to each key token: the key is an ancestor or the token itself.

    Shape (queries, keys). This one line is the whole definition of attention on a tree.
    """
    return (
        (key.depth_T[None, :] <= query.depth_T[:, None])
        & ((key.question_T[None, :] == -1) | (key.question_T[None, :] == query.question_T[:, None]))
        & ((key.branch_T[None, :] == -1) | (key.branch_T[None, :] == query.branch_T[:, None]))
    )


@dataclass(frozen=True)
class PassLayout:
    """What one forward pass runs, and who attends to whom.

    `token_ids_T` and `position_ids_T` are the new tokens, prefix (if it is new) first. `nodes` describes them;
    `past_prefix` and `past` describe the tokens whose keys and values already exist.
    """

    token_ids_T: np.ndarray
    nodes: Nodes
    past_prefix: Nodes = field(default_factory=Nodes.empty)
    past: Nodes = field(default_factory=Nodes.empty)

    @property
    def new_prefix_length(self) -> int:
        return int((self.nodes.question_T == -1).sum())

    def rest_nodes(self) -> Nodes:
        """The new tokens after the prefix."""
        keep = self.nodes.question_T != -1
        return Nodes(self.nodes.question_T[keep], self.nodes.branch_T[keep], self.nodes.depth_T[keep])

    def dense_mask(self) -> Bool[Tensor, "T S"]:
        """True where attention is allowed; S = past prefix, then past rest, then new tokens."""
        keys = Nodes.joined([self.past_prefix, self.past, self.nodes])
        return torch.from_numpy(visible(self.nodes, keys))

    def groups(self) -> "GroupLayout":
        return group_by_question(self.rest_nodes(), self.past)


@dataclass(frozen=True)
class GroupLayout:
    """Tokens after the prefix packed by question, so that attention among them is a small batch.

    `query_index_GA` and `key_index_GC` point into the new rest tokens and into (past rest, new rest);
    padding points at 0 and is never read back: `row_R` says where each new rest token's result lies in the
    flattened (G · A).
    """

    query_index_GA: Int[Tensor, "G A"]
    query_is_real_GA: Bool[Tensor, "G A"]
    key_index_GC: Int[Tensor, "G C"]
    mask_GAC: Bool[Tensor, "G A C"]
    row_R: Int[Tensor, " R"]


def group_by_question(new: Nodes, past: Nodes) -> GroupLayout:
    """Pack `new` tokens by question, each with all tokens of its question among `past` and `new` as keys."""
    keys = Nodes.joined([past, new])
    questions = np.unique(new.question_T)
    queries_by_group = [np.flatnonzero(new.question_T == question) for question in questions]
    keys_by_group = [np.flatnonzero(keys.question_T == question) for question in questions]
    group_count = len(questions)
    query_width = max((len(rows) for rows in queries_by_group), default=0)
    key_width = max((len(rows) for rows in keys_by_group), default=0)
    query_index = np.zeros((group_count, query_width), dtype=np.int64)
    query_is_real = np.zeros((group_count, query_width), dtype=bool)
    key_index = np.zeros((group_count, key_width), dtype=np.int64)
    mask = np.zeros((group_count, query_width, key_width), dtype=bool)
    row = np.zeros(len(new), dtype=np.int64)
    everyone_sees = visible(new, keys)
    for group, (query_rows, key_rows) in enumerate(zip(queries_by_group, keys_by_group, strict=True)):
        query_index[group, : len(query_rows)] = query_rows
        query_is_real[group, : len(query_rows)] = True
        key_index[group, : len(key_rows)] = key_rows
        mask[group, : len(query_rows), : len(key_rows)] = everyone_sees[np.ix_(query_rows, key_rows)]
        # A padded query must see something, or its softmax is 0/0; its result is never read.
        mask[group, len(query_rows) :, 0] = True
        row[query_rows] = group * query_width + np.arange(len(query_rows))
    return GroupLayout(
        torch.from_numpy(query_index),
        torch.from_numpy(query_is_real),
        torch.from_numpy(key_index),
        torch.from_numpy(mask),
        torch.from_numpy(row),
    )


def prefix_nodes(length: int) -> Nodes:
    minus_one = np.full(length, -1, dtype=np.int64)
    return Nodes(minus_one, minus_one, np.arange(length, dtype=np.int64))


def question_nodes(tree: PromptTree) -> Nodes:
    """Nodes of all question tokens of a tree, question after question."""
    lengths = [len(question) for question in tree.questions]
    question_T = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
    depth_T = _ranges(lengths, [len(tree.prefix)] * len(lengths))
    return Nodes(question_T, np.full(len(question_T), -1, dtype=np.int64), depth_T)


def branch_nodes(tree: PromptTree, branches: Sequence[Branch]) -> Nodes:
    """Nodes of the input tokens of branches: all but each branch's last token, which predicts nothing."""
    lengths = [max(len(branch.tokens) - 1, 0) for branch in branches]
    starts = [len(tree.prefix) + len(tree.questions[branch.question]) for branch in branches]
    question_T = np.repeat(np.array([branch.question for branch in branches], dtype=np.int64), lengths)
    branch_T = np.repeat(np.arange(len(branches), dtype=np.int64), lengths)
    return Nodes(question_T, branch_T, _ranges(lengths, starts))


def branch_inputs(branches: Sequence[Branch]) -> np.ndarray:
    """Token ids of the input tokens of branches, in the order of `branch_nodes`."""
    return _flat([branch.tokens[:-1] for branch in branches])


def predicting_rows(branches: Sequence[Branch], question_count: int) -> Int[Tensor, " N"]:
    """For each completion position, the row of the hidden state that predicts it (the one place of the shift).

    Rows index the concatenation of (the last prompt token of each of `question_count` questions) and
    (the branch input tokens in the order of `branch_nodes`): a completion's first token is predicted by the
    last token of its question, each later one by the token before it on the same branch.
    """
    rows: list[int] = []
    start = question_count
    for branch in branches:
        if not branch.tokens:
            continue
        rows.append(branch.question)
        rows.extend(range(start, start + len(branch.tokens) - 1))
        start += len(branch.tokens) - 1
    return torch.tensor(rows, dtype=torch.int64)


def targets(branches: Sequence[Branch]) -> Int[Tensor, " N"]:
    """The completion tokens themselves, branch after branch: what the rows of `predicting_rows` predict."""
    return torch.from_numpy(_flat([branch.tokens for branch in branches]))


def flatten_prompt(tree: PromptTree) -> np.ndarray:
    """Token ids of the questions, question after question."""
    return _flat(tree.questions)


def _ranges(lengths: Sequence[int], starts: Sequence[int]) -> np.ndarray:
    parts = [np.arange(start, start + length) for length, start in zip(lengths, starts, strict=True)]
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, dtype=np.int64)


def _flat(parts: Sequence[Tokens]) -> np.ndarray:
    return np.array([token for part in parts for token in part], dtype=np.int64)


def as_branches(completions: Sequence[Completion]) -> list[Branch]:
    """One branch per question, in question order."""
    return [Branch(question, completion) for question, completion in enumerate(completions)]
