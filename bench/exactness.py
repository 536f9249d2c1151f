"""What each program computes: loss and gradient against the padded layout in float32, and which tokens it trains on.

    python bench/exactness.py --data ../shared/data --model DIR

Three models, all in float32: random ones of Llama's and Qwen2's kind, small, on random ids, and the model in DIR on a
real window of Spider's training set (`windows.py`). The reference is the plain padded loop (bench/peers/hf_loop.py).
Every program runs one step on the same rows from the same weights, and the gradient is read where the optimizer would.
Rows and tokens are counted in the step. Programs that sample what they train on have no loss to compare: of these, only
the counts.
Results go to bench/results/exactness.json and are shown by bench/performance.py.
"""

import argparse
import copy
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peers import distils, make_step
from peers.contender import Done, Models, Options, Row
from windows import load_for, spider_windows

RESULTS = Path(__file__).with_name("results") / "exactness.json"
REFERENCE = "hf-loop"
COMPARED = ["sft-padded", "sft", "prefix-grouper", "trl-sft", "trl-sft-padding-free", "trl-sft-packed"]
SAMPLING = ["gkd-rkl", "trl-gkd", "trl-distillation", "trl-distillation-plain-sampler"]
OPTIONS = Options(micro_batch=4, max_new_tokens=16, max_norm=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the data folder, holding spider/")
    parser.add_argument("--model", help="a transformers folder")
    parser.add_argument("--k", type=int, default=4, help="questions per database in the real window")
    parser.add_argument("--layers", type=int, help="keep so many of its decoder layers")
    arguments = parser.parse_args()
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for kind in ("Llama", "Qwen2"):
        known[f"random {kind}"] = _compare(random_model(kind), *random_rows())
    if arguments.model:
        known[Path(arguments.model).name] = _compare(*_real(arguments))
    RESULTS.write_text(json.dumps(known, indent=1) + "\n")


def _compare(weights: Any, tokenizer: Any, rows: Sequence[Row]) -> dict[str, Any]:
    def run(name: str) -> tuple[Done, dict[str, Tensor]]:
        teacher = copy.deepcopy(weights) if distils(name) else None
        return step_of(name, Models(copy.deepcopy(weights), teacher, tokenizer), rows)

    reference, gradients = run(REFERENCE)
    assert reference.loss is not None
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    found: dict[str, Any] = {
        "rows": len(rows),
        "completion_tokens": sum(len(row.completion) for row in rows),
        "loss": reference.loss,
        "largest_gradient": largest,
        "layers": weights.config.num_hidden_layers,
        "programs": {REFERENCE: _counts(reference)},
    }
    for name in COMPARED:
        done, others = run(name)
        assert done.loss is not None
        assert others.keys() == gradients.keys(), f"{name} has gradients of other parameters"
        found["programs"][name] = _counts(done) | {
            "loss_difference": abs(done.loss - reference.loss),
            "gradient_difference": max(
                float((others[key] - gradients[key]).abs().max()) for key in gradients
            ),
        }
        print(name, found["programs"][name], flush=True)
    for name in SAMPLING:
        found["programs"][name] = _counts(run(name)[0]) | {"samples": True}
        print(name, found["programs"][name], flush=True)
    return found


def _counts(done: Done) -> dict[str, Any]:
    return {"rows": done.rows, "trained_tokens": done.trained_tokens, "positions": done.positions}


def step_of(name: str, models: Models, rows: Sequence[Row]) -> tuple[Done, dict[str, Tensor]]:
    """What the step says, and the gradients (by parameter) that its optimizer is given."""
    gradients: dict[str, Tensor] = {}

    def keep(key: str) -> Any:
        return lambda parameter: gradients.__setitem__(key, parameter.grad.clone())

    for key, parameter in models.student.named_parameters():
        parameter.register_post_accumulate_grad_hook(keep(key))  # the last one of a step holds the sum
    done = make_step(name, models, OPTIONS)(rows)
    return done, gradients


# ---- models and rows -----------------------------------------------------------------------------------------


def random_model(kind: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind.lower(),
        vocab_size=512,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.2,  # attention that is not flat
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=None,
    )
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def random_rows() -> tuple[Any, list[Row]]:
    """Two databases, eight questions each, of many lengths."""
    rng = np.random.default_rng(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(rng.integers(2, 512, count).tolist())

    rows = []
    for length in (120, 37):
        prefix = tokens(length)
        rows += [Row(prefix + tokens(4 + n), (*tokens(3 + 2 * n), 1), length) for n in range(8)]
    tokenizer = SimpleNamespace(bos_token_id=None, unk_token_id=None, pad_token_id=None, eos_token_id=1)
    return tokenizer, rows


def _real(arguments: argparse.Namespace) -> tuple[Any, Any, list[Row]]:
    from distilsql.models.load import load_tokenizer

    tokenizer = load_tokenizer(arguments.model)
    rows = spider_windows(arguments.data, tokenizer, arguments.k, 1)[0]
    return load_for(arguments.model, "float32", arguments.layers), tokenizer, rows


if __name__ == "__main__":
    main()
