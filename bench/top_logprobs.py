"""What is lost where only a teacher's k largest log-probabilities are known, as endpoints give them.

    python bench/top_logprobs.py

The demo's teacher p is read at the gold queries of `demo:test`, once whole and once by its k largest probabilities,
against the student that a training starts from (four of the teacher's six layers) as q. Two approximations (ASSUMED,
no paper gives one): `renormalised`, p over the k tokens divided by their sum, and `other`, all other tokens as one
outcome.
Both give a forward KL and its gradient q − p̂ by the logits. Means over positions go to
bench/results/top_logprobs.json: the forward KL, its bias, and how far gradients are apart by how long they are.
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
from distilsql.distill.divergences import forward_kl
from distilsql.inference.loading import load_engines
from distilsql.inference.prepare import prepare
from distilsql.models.tree import as_branches
from distilsql.runs.recipe import make_recipe

RESULTS = Path(__file__).with_name("results") / "top_logprobs.json"
KEPT = (1, 5, 20)


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
    means = {name: float(value) / positions for name, value in sums.items()}
    length = means.pop("gradient length")
    means = {name: value / length if "gradient" in name else value for name, value in means.items()}
    return {
        "teacher": "demo:teacher",
        "student": "four of its layers",
        "examples": len(prepared.examples),
        "positions": positions,
        "forward_kl": means.pop("forward_kl"),
        **{
            f"k={k}": {
                name.removeprefix(f"{k} "): value for name, value in means.items() if name.startswith(f"{k} ")
            }
            for k in KEPT
        },
    }


def _sums(p_NV: Tensor, q_NV: Tensor) -> dict[str, Tensor]:
    """Sums over positions, from log-probabilities."""
    whole_N, gradient_NV = forward_kl(p_NV, q_NV), q_NV.exp() - p_NV.exp()
    found = {"forward_kl": whole_N.sum(), "gradient length": gradient_NV.norm(dim=-1).sum()}
    for k in KEPT:
        top = p_NV.topk(k)
        q_top_NK = q_NV.gather(-1, top.indices)
        other_N, q_other_N = (
            logp_NV.exp().scatter(-1, top.indices, 0.0).sum(-1).clamp_min(1e-30) for logp_NV in (p_NV, q_NV)
        )
        renormalised_NK = top.values - torch.logsumexp(top.values, -1, keepdim=True)
        renormalised_N = (renormalised_NK.exp() * (renormalised_NK - q_top_NK)).sum(-1)
        with_other_N = (top.values.exp() * (top.values - q_top_NK)).sum(-1)
        with_other_N = with_other_N + torch.xlogy(other_N, other_N / q_other_N)
        empty = torch.zeros_like(p_NV)
        # The other outcome's probability goes to the tokens in the student's own proportions.
        outside_NV = q_NV.exp().scatter(-1, top.indices, 0.0)
        spread_NV = outside_NV * (other_N / q_other_N).unsqueeze(-1)
        given = {
            "renormalised": (renormalised_N, empty.scatter(-1, top.indices, renormalised_NK.exp())),
            "other": (with_other_N, spread_NV.scatter(-1, top.indices, top.values.exp())),
        }
        found[f"{k} probability kept"] = (1 - other_N).sum()
        for name, (value_N, target_NV) in given.items():
            apart_N = (q_NV.exp() - target_NV - gradient_NV).norm(dim=-1)
            found[f"{k} bias, {name}"] = (value_N - whole_N).sum()
            found[f"{k} gradient error, {name}"] = apart_N.sum()
    return found


if __name__ == "__main__":
    main()
