"""Whether a model may run PromptTrees: one tree both ways, next-token distributions compared."""

from collections.abc import Sequence

import torch

from distilsql.distill.divergences import jensen_shannon
from distilsql.distill.tree import Branch, PromptTree
from distilsql.models.tree_model import TreeModel

# Median JSD in nats between tree and padded layout. In bfloat16, SmolLM2-135M whole or cut to 20 or 15 of its layers
# measured up to 6e-4 from rounding, and at least 2.5e-2 where the mask was ignored (as sliding windows, recurrence
# or an own mask handling would). The median, because a cut model's rounding has a long tail.
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-6, torch.bfloat16: 5e-3}


@torch.no_grad()
def layout_difference(
    model: TreeModel, tree: PromptTree, branches: Sequence[Branch], vocabulary_size: int
) -> float:
    """Median JSD (nats) over completion positions between the tree layout and the padded layout."""
    head = model.head()
    kept = model.layout
    distributions = []
    for layout in ("tree", "padded"):
        model.layout = layout  # type: ignore[assignment]
        distributions.append(head.log_probs(model.completion_hidden(tree, branches), vocabulary_size))
    model.layout = kept
    return float(jensen_shannon(distributions[0], distributions[1]).median().clamp_min(0))


def tree_is_exact(
    model: TreeModel, tree: PromptTree, branches: Sequence[Branch], vocabulary_size: int
) -> bool:
    """False where the layouts differ by more than rounding, or the model cannot run a tree at all.

    Where FlexAttention does not compile or is not exact, a dense mask is tried, and the model keeps it.
    """
    try:
        exact = layout_difference(model, tree, branches, vocabulary_size) <= TOLERANCE[model.dtype]
    except (TypeError, ValueError, RuntimeError, AttributeError):
        exact = False
        model.layout = "padded"
    if not exact and model.attention == "flex":
        model.attention, model.layout = "dense", "tree"
        return tree_is_exact(model, tree, branches, vocabulary_size)
    return exact
