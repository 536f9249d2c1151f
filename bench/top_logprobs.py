"""What is lost where only a teacher's k largest log-probabilities are known, as endpoints give them.

    python bench/top_logprobs.py

The demo's teacher p is read at the gold queries of `demo:test`, once whole and once by its k largest probabilities,
against the student that a training starts from (four of the teacher's six layers) as q. Two approximations (ASSUMED,
no paper gives one): `other`, all other tokens as one outcome, which is what `teacher.top_k` trains on, and for forward
KL `renormalised`, p over the k tokens divided by their sum. Means over positions go to bench/results/top_logprobs.json:
each divergence, its bias, and how far gradients by the logits are apart by how long they are.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from distilsql.threads import wait_briefly

wait_briefly()  # before torch is loaded

import torch
from torch import Tensor

from distilsql.data.load import load_sql_benchmark
from distilsql.distill.divergence import Divergence
from distilsql.distill.divergences import DIVERGENCES
from distilsql.distill.top_tokens import kept_probability, on_top_tokens
from distilsql.inference.loading import load_engines
from distilsql.inference.prepare import prepare
from distilsql.models.tree import as_branches
from distilsql.runs.recipe import make_recipe

RESULTS = Path(__file__).with_name("results") / "top_logprobs.json"
KEPT = (1, 5, 20)
MEASURED = {
    name: DIVERGENCES[name] for name in ("forward-kl", "jensen-shannon", "total-variation", "reverse-kl")
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=200)
    result = measure(parser.parse_args().examples)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


@torch.no_grad()
def measure(count: int) -> dict[str, object]:
    recipe = make_recipe(
        {
            "method": "fkd",
            "student": {"path": "demo:teacher", "keep_layers": 4, "tuning": "full"},
            "teacher": {"path": "demo:teacher"},
            "data": {"train": "demo:train"},
            "prompt": {"max_prompt_tokens": 1024},
            "train": {"steps": 1, "precision": "float32"},
        }
    )
    engines = load_engines(recipe, torch.device("cpu"))
    assert engines.teacher is not None
    benchmark = load_sql_benchmark("demo:test")
    prepared = prepare(
        replace(benchmark, examples=benchmark.examples[:count]),
        engines.tokenizer,
        recipe.prompt,
        training=True,
    )
    sums: dict[str, Tensor] = {}
    positions = 0
    for examples in prepared.by_prefix():
        tree, golds = prepared.tree(examples), as_branches([example.gold for example in examples])
        logs = [
            model.head().log_probs(model.completion_hidden(tree, golds), engines.vocabulary_size)
            for model in (engines.teacher, engines.student)
        ]
        positions += len(logs[0])
        for name, value in _sums(*logs).items():
            sums[name] = sums.get(name, torch.zeros(())) + value
    return {
        "teacher": "demo:teacher",
        "student": "four of its layers",
        "examples": len(prepared.examples),
        "positions": positions,
        **_table({name: float(value) / positions for name, value in sums.items()}),
    }


def _table(means: dict[str, float]) -> dict[str, object]:
    """Of each divergence its value, and by k its bias and how far gradients are apart by how long they are."""
    found: dict[str, object] = {}
    for name in MEASURED:
        own: dict[str, object] = {"value": means[f"{name} value"]}
        for k in KEPT:
            start = f"{name} k={k} "
            own[f"k={k}"] = {
                key.removeprefix(start): mean / means[f"{name} gradient length"]
                if "gradient" in key
                else mean
                for key, mean in means.items()
                if key.startswith(start)
            }
        found[name] = own
    return {
        "probability_kept": {f"k={k}": means[f"k={k} probability kept"] for k in KEPT},
        "divergences": found,
    }


def _sums(p_NV: Tensor, q_NV: Tensor) -> dict[str, Tensor]:
    """Sums over positions, from log-probabilities."""
    found = {}
    for name, divergence in MEASURED.items():
        whole_N, gradient_NV = divergence(p_NV, q_NV), divergence.logit_gradient(p_NV, q_NV)
        found[f"{name} value"] = whole_N.sum()
        found[f"{name} gradient length"] = gradient_NV.norm(dim=-1).sum()
        for k in KEPT:
            approximations = {"other": on_top_tokens(divergence, k)}
            if name == "forward-kl":
                approximations["renormalised"] = _renormalised(k)
            for form, approximation in approximations.items():
                apart_NV = approximation.logit_gradient(p_NV, q_NV) - gradient_NV
                found[f"{name} k={k} bias, {form}"] = (approximation(p_NV, q_NV) - whole_N).sum()
                found[f"{name} k={k} gradient error, {form}"] = apart_NV.norm(dim=-1).sum()
    for k in KEPT:
        found[f"k={k} probability kept"] = kept_probability(p_NV, k).sum()
    return found


def _renormalised(k: int) -> Divergence:
    """Forward KL of the teacher's top tokens, divided by their sum, from the student's distribution over all."""

    def target(p_NV: Tensor) -> Tensor:
        top = p_NV.topk(k)
        return torch.full_like(p_NV, -torch.inf).scatter(-1, top.indices, torch.log_softmax(top.values, -1))

    def value(p_NV: Tensor, q_NV: Tensor) -> Tensor:
        target_NV = target(p_NV)
        return torch.where(target_NV.isinf(), 0.0, target_NV.exp() * (target_NV - q_NV)).sum(-1)

    return Divergence("renormalised", "renormalised", value, lambda p_NV, q_NV: -target(p_NV).exp())


if __name__ == "__main__":
    main()
