"""The reference layout: each branch with its whole prompt as one right-padded row, through a model's stock forward."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from distilsql.models.tree import Branch, PromptTree

MICRO_BATCH = 8

# Hidden states (B, T, D) from token ids and attention mask, (B, T) each.
Forward = Callable[[Tensor, Tensor], Tensor]


def padded_hidden(forward: Forward, tree: PromptTree, branches: Sequence[Branch]) -> list[Tensor]:
    """Hidden states (tokens, D) that predict each branch that has tokens, in the order of `branches`.

    Rows of like length run together, so that little is padded. The longest run first: what does not fit into memory
    fails at once.
    """
    written = [number for number, branch in enumerate(branches) if branch.tokens]
    lengths = [len(tree.questions[branch.question]) + len(branch.tokens) for branch in branches]
    by_length = sorted(written, key=lambda number: -lengths[number])
    hidden: dict[int, Tensor] = {}
    for start in range(0, len(by_length), MICRO_BATCH):
        numbers = by_length[start : start + MICRO_BATCH]
        rows = _padded_rows(forward, tree, [branches[number] for number in numbers])
        hidden.update(zip(numbers, rows, strict=True))
    return [hidden[number] for number in written]


def _padded_rows(forward: Forward, tree: PromptTree, branches: Sequence[Branch]) -> list[Tensor]:
    prompts = [tree.prefix + tree.questions[branch.question] for branch in branches]
    sequences = [prompt + branch.tokens[:-1] for prompt, branch in zip(prompts, branches, strict=True)]
    width = max(map(len, sequences))
    token_ids_BT = torch.zeros(len(sequences), width, dtype=torch.int64)
    attention_mask_BT = torch.zeros(len(sequences), width, dtype=torch.int64)
    for row, sequence in enumerate(sequences):
        token_ids_BT[row, : len(sequence)] = torch.tensor(sequence)
        attention_mask_BT[row, : len(sequence)] = 1
    hidden_BTD = forward(token_ids_BT, attention_mask_BT)
    return [
        hidden_BTD[row, len(prompt) - 1 : len(sequence)]
        for row, (prompt, sequence) in enumerate(zip(prompts, sequences, strict=True))
    ]
