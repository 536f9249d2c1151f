"""Checks that a TreeModel is exact: logits come from its output layer, and a tree gives the result of padded rows.

The reference is the model's own forward as `transformers` runs it: `check_head` compares a Head with it, and padded
rows are it, so that `tree_is_exact` need only compare a tree with padded rows.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from distilsql.distill.divergences import jensen_shannon
from distilsql.errors import ModelError
from distilsql.models.tree import Branch, PromptTree
from distilsql.models.tree_model import TreeModel

# Median JSD in nats between tree and padded layout. In bfloat16, SmolLM2-135M whole or cut to 20 or 15 of its layers
# measured up to 6e-4 from rounding, and at least 2.5e-2 where the mask was ignored (as sliding windows, recurrence
# or an own mask handling would). The median, because a cut model's rounding has a long tail.
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-6, torch.bfloat16: 5e-3}

# Largest difference of logits, as a share of the largest logit: the same product, rounded at other places.
HEAD_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 2e-2}
_HEAD_TOKENS = 16


@torch.no_grad()
def check_head(model: TreeModel, vocabulary_size: int, path: str) -> None:
    """Refuse a model whose logits differ from those of `model.head()`.

    Raises:
        ModelError: logits of its own forward are not those of its output layer.
    """
    token_ids_1T = torch.linspace(0, vocabulary_size - 1, _HEAD_TOKENS, device=model.device).long()[None]
    with model.own_attention():
        stock_TV = model.causal_lm(input_ids=token_ids_1T, use_cache=False).logits[0, :, :vocabulary_size]
        hidden_TD = model.sharding.run(input_ids=token_ids_1T, use_cache=False).last_hidden_state[0]
    difference_TV = model.head().logits(hidden_TD, vocabulary_size) - stock_TV
    if difference_TV.abs().max() > HEAD_TOLERANCE[model.dtype] * stock_TV.abs().max():
        raise ModelError(
            f"{path} ({type(model.causal_lm).__name__}) does not compute its logits with its output layer, a scale "
            "(logits_scaling, logit_scale) and a cap (final_logit_softcapping) alone, so distilsql would compute a "
            "different distribution. Use a model of another family."
        )


@torch.no_grad()
def layout_difference(
    model: TreeModel, tree: PromptTree, branches: Sequence[Branch], vocabulary_size: int, chunk_rows: int
) -> float:
    """Median JSD (nats) over completion positions between the tree layout and the padded layout, whose distributions
    exist for `chunk_rows` positions at a time."""
    head = model.head()
    kept = model.layout
    hidden = []
    for layout in ("tree", "padded"):
        model.layout = layout  # type: ignore[assignment]
        hidden.append(model.completion_hidden(tree, branches).split(chunk_rows))
    model.layout = kept
    divergence_N = torch.cat(
        [
            jensen_shannon(*(head.log_probs(chunk_RD, vocabulary_size) for chunk_RD in chunks))
            for chunks in zip(*hidden, strict=True)
        ]
    )
    return float(divergence_N.median().clamp_min(0))


def attention_window(config: Any) -> int | None:
    """How many tokens, itself among them, a token attends to at most; None where no layer has a window or chunks."""
    kinds = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None) or ("sliding",)
    sizes = [getattr(config, key, None) for key in ("sliding_window", "attention_chunk_size", "window_size")]
    known = [size for size in sizes if size]
    return min(known) if known and not set(kinds) <= {"full_attention", "global"} else None


def small_tree(vocabulary_size: int) -> tuple[PromptTree, list[Branch]]:
    """A tree of a hundred tokens drawn from the whole vocabulary: what a model that is only asked is checked on."""
    rng = np.random.default_rng(0)
    prefix, *rest = (tuple(rng.integers(vocabulary_size, size=size).tolist()) for size in (28, *[12] * 6))
    return PromptTree(prefix, tuple(rest[:3])), [
        Branch(question, tokens) for question, tokens in enumerate(rest[3:])
    ]


def tree_is_exact(
    model: TreeModel,
    tree: PromptTree,
    branches: Sequence[Branch],
    vocabulary_size: int,
    *,
    longest_tokens: int = 0,
    chunk_rows: int = 128,
) -> bool:
    """False where the layouts differ by more than rounding, or the model cannot run a tree at all.

    Trees are not exact, either, where prompt and completion can be longer (`longest_tokens`) than the model's
    attention window: no tree knows of one, and the tree at hand may be too short to show it. Where attention of our
    own does not run or is not exact, a dense mask is tried, and the model keeps it.
    """
    window = attention_window(model.causal_lm.config)
    if window is not None and window < longest_tokens:
        return False
    try:
        exact = (
            layout_difference(model, tree, branches, vocabulary_size, chunk_rows) <= TOLERANCE[model.dtype]
        )
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, RuntimeError, AttributeError):
        exact = False
        model.layout = "padded"
    exact = model.sharding.agreed(exact)
    if not exact and model.attention != "dense":
        model.attention, model.layout = "dense", "tree"
        return tree_is_exact(
            model, tree, branches, vocabulary_size, longest_tokens=longest_tokens, chunk_rows=chunk_rows
        )
    return exact
