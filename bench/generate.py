"""Greedy generation: ours, prompts of a database sharing its prefix, against `transformers`' own on the same prompts.

    python bench/generate.py --data ../shared/data --model runs/teacher/model

Whole databases of Spider dev, drawn by a seed, until there are --questions questions; every question of a database,
as in a real evaluation. Both sides answer one database after the other, in turn, so that the ratio is paired.
`transformers` gets left-padded batches sorted by length, its key/value cache, and the model in eval mode. A few
questions come first, untimed. In bfloat16 rounding differs between batch shapes, so some greedy choices do too: the
share of equal completions is reported, and --precision float32 shows that they are equal where rounding is small.
Added to bench/results/generate.json, shown by bench/performance.py.
"""

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any, cast

import numpy as np

from distilsql.data.example import Example
from distilsql.threads import fit_threads, wait_briefly

wait_briefly()  # before torch is loaded

import torch

from distilsql.allocator import keep_freed_memory
from distilsql.data.load import load_sql_benchmark
from distilsql.inference.decoder import Decoder
from distilsql.inference.prepare import Prepared, TokenizedExample, prepare
from distilsql.models.attention import IMPLEMENTATION
from distilsql.models.batches import fill_batches
from distilsql.models.generate import GenerationOptions, generate_trees
from distilsql.models.load import load_model, load_tokenizer
from distilsql.models.precision import settled_precision
from distilsql.models.tree import Completion
from distilsql.models.tree_model import TreeModel
from distilsql.runs.sections import PromptSettings

RESULTS = Path(__file__).with_name("results") / "generate.json"
PROMPT = PromptSettings(values=False, comments=False, schema_filter="never", max_prompt_tokens=1024)
MAX_NEW_TOKENS = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the data folder, holding spider/")
    parser.add_argument(
        "--model", required=True, help="a transformers folder, fine-tuned so that it ends its queries"
    )
    parser.add_argument("--questions", type=int, default=100, help="at least this many, in whole databases")
    parser.add_argument("--precision", choices=["auto", "bfloat16", "float32"], default="auto")
    parser.add_argument("--batch", type=int, default=16, help="rows of a `transformers` batch")
    arguments = parser.parse_args()
    keep_freed_memory()
    tokenizer = load_tokenizer(arguments.model)
    precision = settled_precision(arguments.precision, arguments.model, torch.device("cpu"))
    model: Any = load_model(arguments.model, precision)
    threads = fit_threads(model)
    prepared = prepare(
        load_sql_benchmark("spider:dev", root=arguments.data), tokenizer, PROMPT, training=False
    )
    databases = _draw(prepared, arguments.questions)
    options = GenerationOptions(tokenizer.eos_token_id, len(tokenizer), MAX_NEW_TOKENS)
    ours, theirs = TreeModel(model), _Transformers(model, tokenizer, arguments.batch)
    for warm_up in (lambda e: _ours(ours, prepared, e, options), lambda e: theirs.answer(prepared, e)):
        warm_up(databases[0][:2])
    rows = []
    for examples in databases:
        model.set_attn_implementation(IMPLEMENTATION)
        start = time.perf_counter()
        mine = _ours(ours, prepared, examples, options)
        middle = time.perf_counter()
        reference = theirs.answer(prepared, examples)
        end = time.perf_counter()
        rows.append(
            {
                "database": cast(Example, examples[0].example).db_id,
                "prompt_tokens": len(prepared.prefixes[examples[0].prefix_key]),
                "questions": len(examples),
                "our_seconds": middle - start,
                "transformers_seconds": end - middle,
                "our_tokens": sum(map(len, mine)),
                "transformers_tokens": sum(map(len, reference)),
                "equal": sum(a == b for a, b in zip(mine, reference, strict=True)),
            }
        )
        print(rows[-1], flush=True)
    document = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    document[precision] = {
        "model": list(Path(arguments.model).parts[-2:]),
        "transformers_batch": arguments.batch,
        "threads": threads,
        "ratio": _total(rows, "transformers_seconds") / _total(rows, "our_seconds"),
        "our_tokens_per_second": _total(rows, "our_tokens") / _total(rows, "our_seconds"),
        "transformers_tokens_per_second": _total(rows, "transformers_tokens")
        / _total(rows, "transformers_seconds"),
        "equal_share": _total(rows, "equal") / _total(rows, "questions"),
        "databases": rows,
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


def _total(rows: list[dict[str, Any]], key: str) -> float:
    return float(np.sum([row[key] for row in rows]))


def _draw(prepared: Prepared, questions: int) -> list[list[TokenizedExample]]:
    databases = prepared.by_prefix()
    random.Random(0).shuffle(databases)
    drawn: list[list[TokenizedExample]] = []
    for examples in databases:
        if sum(map(len, drawn)) >= questions:
            break
        drawn.append(sorted(examples, key=lambda example: len(example.question)))
    return drawn


def _ours(
    model: TreeModel, prepared: Prepared, examples: list[TokenizedExample], options: GenerationOptions
) -> list[Completion]:
    return [
        completion
        for batch in fill_batches([examples], Decoder.questions_per_batch)  # as `distilsql predict` does
        for tree in generate_trees(model, [prepared.tree(part) for part in batch], options)
        for completion in tree
    ]


class _Transformers:
    """`model.generate` on left-padded batches."""

    def __init__(self, model: Any, tokenizer: Any, batch: int) -> None:
        self.model, self.batch = model.eval(), batch
        self.eos = int(tokenizer.eos_token_id)

    @torch.no_grad()
    def answer(self, prepared: Prepared, examples: list[TokenizedExample]) -> list[Completion]:
        prompts = [[*prepared.prefixes[e.prefix_key], *e.question] for e in examples]
        self.model.set_attn_implementation(
            "sdpa"
        )  # its own default; ours falls through to it, but not for free
        written: list[Completion] = []
        for start in range(0, len(prompts), self.batch):
            rows = prompts[start : start + self.batch]
            width = max(map(len, rows))
            output = self.model.generate(
                input_ids=torch.tensor([[self.eos] * (width - len(row)) + row for row in rows]),
                attention_mask=torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows]),
                max_new_tokens=MAX_NEW_TOKENS,
                do_sample=False,
                eos_token_id=self.eos,
                pad_token_id=self.eos,
            )
            written += [self._until_eos(row) for row in output[:, width:].tolist()]
        return written

    def _until_eos(self, tokens: list[int]) -> Completion:
        return tuple(tokens[: tokens.index(self.eos) + 1] if self.eos in tokens else tokens)


if __name__ == "__main__":
    main()
