"""Completions written by one model, student or teacher: by vLLM where there is an engine, else built in."""

from collections.abc import Sequence

from distilsql.models.generate import Completion, GenerationOptions, generate
from distilsql.models.prefix_cache import PrefixCache
from distilsql.models.tree_model import TreeModel
from distilsql.models.vllm_source import VllmSource
from distilsql.runs.window_tree import Use, WindowTree


def write_completions(
    model: TreeModel,
    engine: VllmSource | None,
    items: Sequence[WindowTree],
    options: GenerationOptions,
    *,
    seed: int,
    use: Use,
    prefixes: PrefixCache | None = None,
) -> list[list[Completion]]:
    """One completion per question, tree by tree, each from its example's own random stream of `use`.

    An `engine` writes what `model` would and forms its own batches, so it gets all trees in one call. `prefixes` are
    those of a model that does not change.
    """
    streams = [item.streams(seed, use) for item in items]
    if engine is not None:
        trees = [item.tree for item in items]
        everything = iter(
            engine.generate_all(trees, options, streams=[one for each in streams for one in each])
        )
        return [[next(everything) for _ in item.examples] for item in items]
    return [
        generate(
            model,
            item.tree,
            options,
            streams=each,
            prefix=None if prefixes is None else prefixes.get(item.prefix_key, item.tree.prefix),
        )
        for item, each in zip(items, streams, strict=True)
    ]
