"""Completions written by one model, student or teacher: by vLLM where there is an engine, else built in."""

from collections.abc import Sequence
from typing import Any

from distilsql.errors import RunError
from distilsql.models.generate import GenerationOptions, beam_search, generate_trees, split
from distilsql.models.prefix_cache import PrefixCache
from distilsql.models.tree import Completion
from distilsql.models.tree_model import TreeModel
from distilsql.models.vllm_source import VllmSource
from distilsql.runs.recipe import Recipe
from distilsql.training.window_tree import Use, WindowTree


def write_completions(
    model: TreeModel,
    engine: VllmSource | None,
    batches: Sequence[Sequence[WindowTree]],
    options: GenerationOptions,
    *,
    seed: int,
    use: Use,
    prefixes: PrefixCache | None = None,
) -> list[list[list[Completion]]]:
    """Per batch and tree, one completion per question, each from its example's own random stream of `use`.

    An `engine` writes what `model` would and forms its own batches, so it gets all trees in one call. `prefixes` are
    those of a model that does not change.
    """
    if engine is not None:
        items = [item for batch in batches for item in batch]
        streams = [stream for item in items for stream in item.streams(seed, use)]
        everything = engine.generate_all([item.tree for item in items], options, streams=streams)
        trees = split(everything, [len(item.examples) for item in items])
        return split(trees, [len(batch) for batch in batches])
    return [
        generate_trees(
            model,
            [item.tree for item in batch],
            options,
            streams=[item.streams(seed, use) for item in batch],
            prefixes=None
            if prefixes is None
            else [prefixes.get(item.prefix_key, item.tree.prefix) for item in batch],
        )
        for batch in batches
    ]


def search_completions(
    model: TreeModel,
    batches: Sequence[Sequence[WindowTree]],
    options: GenerationOptions,
    beams: int,
    prefixes: PrefixCache | None = None,
) -> list[list[list[Completion]]]:
    """Per batch and tree, the best completion per question by beam search."""
    return [
        [
            beam_search(
                model,
                item.tree,
                options,
                beams=beams,
                prefix=None if prefixes is None else prefixes.get(item.prefix_key, item.tree.prefix),
            )
            for item in batch
        ]
        for batch in batches
    ]


def vllm_source(recipe: Recipe, model: TreeModel, tokenizer: Any, processes: int) -> VllmSource:
    """A vLLM engine that writes as `model` does.

    Raises:
        RunError: there are several processes.
        ModelError: vLLM is missing.
    """
    if processes > 1:
        raise RunError(
            f"generation.engine = vllm needs a single process, but there are {processes}. Start one process, or use "
            "generation.engine = built-in."
        )
    return VllmSource(
        model.model,
        tokenizer,
        precision=model.precision,
        memory_share=recipe.generation.vllm_memory_share,
        max_tokens=recipe.prompt.budget_tokens + recipe.prompt.max_completion_tokens,
    )
