"""`prefix-grouper`: a group's prefix is computed once, and its suffixes attend to it (arXiv 2506.05433).

The library cuts queries, keys and values into prefix and suffixes at every attention layer, and calls an attention
function for each, the suffixes' keys preceded by copies of the prefix's. Its own examples are for FlashAttention 2,
whose causal mask is aligned to the last key; here SDPA is given that mask, so that it runs on any device. One group of
rows is a forward pass. Only attention is shared in parts: the suffixes' other layers run on one row of all tokens.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from peers.contender import Done, Models, Options, Row, Step, Stopwatch, groups_of
from peers.hf_loop import accumulate, adamw, update

GROUPED, SDPA = "prefix_grouper_attention", "sdpa_aligned_to_last_key"


def make_step(models: Models, options: Options) -> Step:
    from prefix_grouper import PrefixGrouper
    from prefix_grouper.utils.register_transformers import register_attention
    from transformers import AttentionInterface

    register_attention()
    AttentionInterface.register(SDPA, _sdpa)
    student = models.student.train()
    student.set_attn_implementation(GROUPED)
    optimizer = adamw(student, options)

    def step(rows: Sequence[Row]) -> Done:
        watch, done = Stopwatch(models.device), Done(loss=0.0)
        target_tokens = sum(len(row.completion) for row in rows)
        for group in groups_of(rows):
            suffixes = [(*row.question, *row.completion[:-1]) for row in group]
            if not all(row.question for row in group) or not group[0].prefix:
                raise ValueError(
                    "prefix-grouper is given rows without a prefix or without a question of their own"
                )
            grouper = PrefixGrouper([[group[0].prefix_tokens, *map(len, suffixes)]], device=models.device)
            hidden_TD = _hidden(models, group[0].prefix, suffixes, grouper)
            done.positions += len(hidden_TD)
            predicting = _predicting(group)
            targets_N = torch.tensor(
                [token for row in group for token in row.completion], device=models.device
            )
            accumulate(models, hidden_TD[predicting], targets_N, target_tokens, done)
            done.rows += len(group)
        update(student, optimizer, options)
        done.seconds = watch.seconds()
        return done

    return step


def _hidden(models: Models, prefix: Sequence[int], suffixes: Sequence[Sequence[int]], grouper: Any) -> Tensor:
    """Hidden states (T, D) of prefix and suffixes, one after the other."""
    ids = [*prefix, *(token for suffix in suffixes for token in suffix)]
    positions = [*range(len(prefix))]
    for suffix in suffixes:
        positions += range(len(prefix), len(prefix) + len(suffix))
    hidden_1TD = models.student.base_model(
        input_ids=torch.tensor([ids], device=models.device),
        position_ids=torch.tensor([positions], device=models.device),
        # Four dimensions are passed on as they are; the grouped attention makes its own masks and does not read it.
        attention_mask=torch.zeros(1, 1, 1, 1, dtype=models.student.dtype, device=models.device),
        use_cache=False,
        prefix_grouper=grouper,
        prefix_grouper_attn_func=SDPA,
    ).last_hidden_state
    return hidden_1TD[0]


def _predicting(group: Sequence[Row]) -> list[int]:
    """Rows of the hidden states that predict the completions' tokens."""
    start, predicting = group[0].prefix_tokens, list[int]()
    for row in group:
        first = start + len(row.question) - 1
        predicting += range(first, first + len(row.completion))
        start += len(row.question) + len(row.completion) - 1
    return predicting


def _sdpa(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    present_BK: Tensor,
    *_: Any,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """SDPA of `transformers`, causal towards the last key, over the keys that `present_BK` marks."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    queries, keys = query.shape[2], key.shape[2]
    if queries == keys and bool(present_BK.all()):
        return sdpa_attention_forward(module, query, key, value, None, is_causal=True, **kwargs)
    causal_QK = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril(keys - queries)
    mask_B1QK = causal_QK & present_BK.bool()[:, None, None, :]
    return sdpa_attention_forward(module, query, key, value, mask_B1QK, is_causal=False, **kwargs)
