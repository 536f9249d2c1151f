"""A teacher known by its top tokens alone (`teacher.top_k`): what is trained on, what is said, what is refused."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from distilsql.errors import ModelError, RecipeError
from distilsql.models.load import load_tokenizer
from distilsql.synthesis.teacher import endpoint as endpoint_module
from distilsql.training.train import train
from fake_api import FakeApi
from references import alone
from run_folders import step_lines, train_killed_at, whole_and_resumed

STILL = ("train.steps=1", "train.trees_per_step=4", "train.learning_rate=1e-30", "distill.gold_weight=0")


def forward_kl_by_hand(p: np.ndarray, q: np.ndarray, k: int) -> float:
    top = np.argsort(-p, kind="stable")[:k]
    a, b = (np.append(each[top], 1 - each[top].sum()) for each in (p, q))
    return float(np.sum(a * np.log(a / b)))


def test_the_loss_is_that_of_the_top_tokens_and_its_bias_is_told(recipe, tmp_path):
    settings = recipe("fkd", "teacher.top_k=4", *STILL)
    run = train(settings, tmp_path / "run")
    models, means, all_rows = alone(settings), [], []
    for example in models.prepared.examples:
        p, q = (
            models.log_probs(role, example, example.gold).exp().numpy() for role in ("teacher", "student")
        )
        rows = [
            (
                forward_kl_by_hand(*row, 4),
                float(np.sum(row[0] * np.log(row[0] / row[1]))),
                np.sort(row[0])[-4:].sum(),
            )
            for row in zip(p, q, strict=True)
        ]
        means.append(np.mean([value for value, _, _ in rows]))
        all_rows += rows
    (line,) = step_lines(run)
    assert line["loss"] == pytest.approx(np.mean(means), rel=1e-4)
    told = json.loads(run.summary.read_text())["teacher_top_k"]
    assert (told["k"], told["positions"]) == (4, len(all_rows))
    value, whole, kept = np.mean(all_rows, axis=0)
    assert told["divergence"] == pytest.approx(value, rel=1e-4)
    assert told["whole_divergence"] == pytest.approx(whole, rel=1e-4)
    assert told["kept"] == pytest.approx(kept, rel=1e-4)
    assert told["divergence"] < told["whole_divergence"]


def test_all_tokens_give_the_ordinary_losses(recipe, tmp_path):
    runs = [
        train(recipe("gkd-jsd", "train.steps=2", "train.learning_rate=1e-30", *own), tmp_path / name)
        for name, own in (("whole", ()), ("top", ("teacher.top_k=100000",)))
    ]
    for one, other in zip(*map(step_lines, runs), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-3)


@pytest.mark.slow
def test_a_killed_run_still_tells_its_first_step(recipe, tmp_path):
    settings = recipe("imitkd", "teacher.top_k=3", "train.save_every_steps=2")
    whole, resumed = whole_and_resumed(settings, tmp_path, killed_at=3)
    told = [json.loads(run.summary.read_text())["teacher_top_k"] for run in (whole, resumed)]
    assert told[0] == told[1]


def test_what_top_tokens_are_not_enough_for_is_refused(recipe):
    for method in ("rkd", "kid", "gkd-rkl", "distillm", "akl", "atkd", "distillm-2"):
        with pytest.raises(RecipeError, match=rf"forward-kl.*{method} cannot have it: its divergence"):
            recipe(method, "teacher.top_k=20")
    with pytest.raises(RecipeError, match="seqkd cannot have it: it has none"):
        recipe("seqkd", "teacher.top_k=20")
    for method in ("switch", "minillm"):
        with pytest.raises(RecipeError, match="whole distribution"):
            recipe(method, "teacher.top_k=20", "distill.divergence=forward-kl")
    with pytest.raises(RecipeError, match="temperature 1"):
        recipe("fkd", "teacher.top_k=20", "distill.temperature=2")
    with pytest.raises(RecipeError, match="two ways"):
        recipe("fkd", "teacher.top_k=20", "teacher.bridge=hybrid")
    assert recipe("kid", "teacher.top_k=20", "distill.divergence=forward-kl").top_k == 20
    assert recipe("sft", "teacher.top_k=20").top_k is None, "it has no teacher"


@pytest.fixture
def api(tiny_models, monkeypatch):
    """An endpoint whose model is the tiny teacher: the top tokens of every prompt token, as vLLM answers."""
    model = AutoModelForCausalLM.from_pretrained(tiny_models["teacher"], dtype=torch.float32).eval()
    tokenizer = load_tokenizer(tiny_models["teacher"])
    api = FakeApi()
    api.decode = lambda token: tokenizer.decode([token])

    @torch.no_grad()
    def answer(body):
        tokens, k = body["prompt"], body["prompt_logprobs"]
        logp = torch.log_softmax(model(torch.tensor([tokens])).logits[0, :, : len(tokenizer)], -1)
        given = [None]
        for row, token in zip(logp, tokens[1:], strict=False):
            top = row.topk(k)
            found = dict(zip(top.indices.tolist(), top.values.tolist(), strict=True)) | {
                token: row[token].item()
            }
            given.append(
                {
                    str(each): {"logprob": value, "decoded_token": api.decode(each)}
                    for each, value in found.items()
                }
            )
        return {"choices": [{"text": "x", "prompt_logprobs": given}]}

    api.answer = answer
    monkeypatch.setattr(endpoint_module, "FIRST_WAIT_S", 0.0)
    monkeypatch.setattr(endpoint_module, "LONGEST_WAIT_S", 0.0)
    yield api
    api.close()


def remote(recipe, api, method, *overrides):
    keys = (f"teacher.endpoint={api.url}", "teacher.path=served", "teacher.top_k=4", *overrides)
    return recipe(method, *keys)


@pytest.mark.parametrize("method", ["fkd", pytest.param("gkd-jsd", marks=pytest.mark.slow)])
def test_an_endpoints_top_tokens_train_as_those_of_a_loaded_teacher(recipe, api, tmp_path, method):
    keys = ("train.steps=3", "train.learning_rate=1e-30")
    local = train(recipe(method, "teacher.top_k=4", *keys), tmp_path / "local")
    api.faults = [500, "nonsense"]
    run = train(remote(recipe, api, method, *keys), tmp_path / "remote")
    for one, other in zip(step_lines(local), step_lines(run), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert other["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-3)
    told, whole = (json.loads(each.summary.read_text())["teacher_top_k"] for each in (run, local))
    assert told["kept"] == pytest.approx(whole["kept"], rel=1e-4)
    assert "whole_divergence" not in told, "nobody knows it"
    assert {request["model"] for request in api.requests} == {"served"}


def test_no_completion_is_sent_twice(recipe, api, tmp_path):
    """Not in the next epoch, not by a run that was killed, not by one that is started over."""
    settings = remote(recipe, api, "fkd", "train.steps=4", "train.save_every_steps=2")
    train_killed_at(3, settings, tmp_path / "killed")
    train(settings, tmp_path / "killed")
    assert len(api.requests) == 10
    train(settings, tmp_path / "again")
    assert len(api.requests) == 10


def test_an_endpoint_that_cannot_is_said(recipe, api, tmp_path):
    settings = remote(recipe, api, "fkd")
    decode, answer = api.decode, api.answer
    api.decode = lambda token: "something else"
    with pytest.raises(ModelError, match="different tokenizers"):
        train(settings, tmp_path / "tokenizer")
    api.decode = decode
    api.answer = lambda body: {"choices": [{"text": "x"}]}
    with pytest.raises(ModelError, match="prompt_logprobs"):
        train(settings, tmp_path / "nothing")
    api.answer = lambda body: answer(body | {"prompt_logprobs": 1})
    with pytest.raises(ModelError, match="--max-logprobs 4"):
        train(settings, tmp_path / "few")
    api.answer = answer
    with pytest.raises(ModelError, match="endpoint_budget = 300 tokens is spent"):
        train(remote(recipe, api, "fkd", "teacher.endpoint_budget=300"), tmp_path / "budget")
    with pytest.raises(RecipeError, match=r"teacher\.top_k approximates"):
        recipe("fkd", f"teacher.endpoint={api.url}")
    with pytest.raises(RecipeError, match="gkd-rkl cannot have it"):
        remote(recipe, api, "gkd-rkl")
