"""Windows of real examples: questions of Spider's training set, drawn by our own sampler and tokenised.

A window is `WINDOW` questions, k of a database in a group. Models are cut to `layers` decoder layers where a benchmark
is to be small. Importing this loads no torch.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peers.contender import Row

WINDOW = 16
PROMPT = {
    "values": False,
    "matched_values": False,
    "comments": False,
    "schema_filter": "never",
    "max_prompt_tokens": 1024,
}


def spider_windows(data: Path, tokenizer: Any, k: int, count: int) -> list[list["Row"]]:
    """`count` windows, and at the end one of a single short example, to warm up with."""
    from distilsql.inference.prepare import load_data, prepare
    from distilsql.runs.recipe import make_recipe
    from distilsql.training.sampling import Sampler, TreeOfExamples
    from peers.contender import Row

    recipe = make_recipe(
        {
            "method": "sft",
            "student": {"path": "memory"},
            "data": {"train": "spider:train", "root": str(data)},
            "prompt": PROMPT,
            "train": {"steps": 1, "questions_per_tree": k, "trees_per_step": WINDOW // k, "largest_tree": k},
        }
    )
    benchmark, _ = load_data(recipe)
    prepared = prepare(benchmark, tokenizer, recipe.prompt, training=True)
    keys = [example.prefix_key for example in prepared.examples]
    windows = [
        window
        for window in Sampler(keys, 0, k, WINDOW // k, k).epoch(0)
        if sum(len(tree.examples) for tree in window) == WINDOW
    ][:count]
    used = {number for window in windows for tree in window for number in tree.examples}
    shortest = min(
        (n for n in range(len(keys)) if n not in used), key=lambda n: len(prepared.prefixes[keys[n]])
    )

    def row(number: int) -> Row:
        example = prepared.examples[number]
        prefix = prepared.prefixes[example.prefix_key]
        return Row((*prefix, *example.question), tuple(example.gold), len(prefix))

    return [
        [row(number) for tree in window for number in tree.examples]
        for window in [*windows, [TreeOfExamples((shortest,), 0)]]
    ]


def load_for(path: str, precision: Any, layers: int | None) -> Any:
    """A causal LM on the CPU, of its `layers` evenly spaced decoder layers where that is not None."""
    from distilsql.models.load import keep_layers, load_model

    model = load_model(path, precision)
    if layers is not None:
        keep_layers(model, layers)
    return model
