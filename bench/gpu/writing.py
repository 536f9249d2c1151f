"""Generation on a GPU: recorded steps, one kernel at a time, and `transformers`' own, on the same prompts.

    python bench/gpu/writing.py --out runs/gpu/writing.json

Random weights in the shape of Qwen2.5-0.5B, random tokens; each row writes exactly 64 tokens, greedily. The shapes are
visited once untimed.
"""

import argparse
import operator
import statistics
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from distilsql.threads import wait_briefly

wait_briefly()  # before torch is loaded

import torch
from record import Rows, the_device, wait

from distilsql.models import generate as generation
from distilsql.models.attention import IMPLEMENTATION
from distilsql.models.compiled_layers import compile_layers
from distilsql.models.generate import GenerationOptions, generate_trees
from distilsql.models.graph_writing import can_record
from distilsql.models.tree import Completion, PromptTree
from distilsql.models.tree_model import TreeModel
from model_shapes import SHAPES, TOY, random_model
from random_step import random_tree

QUESTION = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--toy", action="store_true", help="a tiny model and short prompts: to rehearse")
    parser.add_argument("--model", default="0.5b", choices=SHAPES)
    parser.add_argument("--prompts", default="500,4000", help="tokens, comma-separated")
    parser.add_argument("--rows", default="16,64", help="questions, comma-separated")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="compile the layers")
    arguments = parser.parse_args()
    if arguments.toy:
        arguments.model, arguments.prompts, arguments.rows, arguments.tokens = TOY, "50", "4", 8
    device = the_device()
    rows = Rows(arguments.out, device)
    for prompt in map(int, arguments.prompts.split(",")):
        for count in map(int, arguments.rows.split(",")):
            try:
                rows.add(measure(device, arguments, prompt, count))
            except Exception as error:
                traceback.print_exc()
                rows.add({"prompt": prompt, "rows": count, "error": f"{type(error).__name__}: {error}"[:500]})


def measure(device: torch.device, arguments: Any, prompt: int, count: int) -> dict[str, Any]:
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = random_model(arguments.model, device, dtype)
    own_attention = model.config._attn_implementation
    vocabulary = SHAPES[arguments.model].vocabulary
    tree = random_tree(
        vocabulary, prompt_tokens=prompt, questions=count, question_tokens=QUESTION, completion_tokens=1
    ).tree
    ours = TreeModel(model)
    if arguments.compile:
        compile_layers(model)
    never = GenerationOptions(eos_token_id=-1, vocabulary_size=vocabulary, max_new_tokens=arguments.tokens)

    def by_tree(recording: bool) -> list[Completion]:
        model.set_attn_implementation(IMPLEMENTATION)
        with patch.object(generation, "can_record", can_record if recording else lambda _: False):
            return generate_trees(ours, [tree], never)[0]

    def by_transformers() -> list[Completion]:
        model.set_attn_implementation(own_attention)
        return transformers_answers(model, tree, arguments.tokens)

    result: dict[str, Any] = {
        "model": arguments.model,
        "prompt": prompt,
        "rows": count,
        "tokens": arguments.tokens,
    }
    written: dict[str, list[Completion]] = {}
    for name, work in (
        ("recorded", lambda: by_tree(True)),
        ("unrecorded", lambda: by_tree(False)),
        ("transformers", by_transformers),
    ):
        first, seconds, written[name] = _timed(work, device, arguments.repeats)
        result[name] = {
            "first_seconds": first,
            "seconds": seconds,
            "tokens_per_second": count * arguments.tokens / seconds,
        }
    result["times_transformers"] = result["transformers"]["seconds"] / result["recorded"]["seconds"]
    for name in ("unrecorded", "transformers"):
        result[f"equal_to_{name}"] = sum(map(operator.eq, written["recorded"], written[name])) / count
    return result


def transformers_answers(model: Any, tree: PromptTree, tokens: int) -> list[Completion]:
    """All questions in one batch. They have the same length, so that nothing is padded."""
    prompts = torch.tensor([[*tree.prefix, *question] for question in tree.questions], device=model.device)
    written = model.generate(
        input_ids=prompts,
        attention_mask=torch.ones_like(prompts),
        do_sample=False,
        min_new_tokens=tokens,
        max_new_tokens=tokens,
        eos_token_id=None,
        pad_token_id=0,
    )
    return [tuple(row) for row in written[:, prompts.shape[1] :].tolist()]


def _timed(
    work: Callable[[], list[Completion]], device: torch.device, repeats: int
) -> tuple[float, float, list[Completion]]:
    times = []
    for _ in range(repeats + 1):
        wait(device)
        start = time.perf_counter()
        written = work()
        wait(device)
        times.append(time.perf_counter() - start)
    return times[0], statistics.median(times[1:]), written


if __name__ == "__main__":
    main()
