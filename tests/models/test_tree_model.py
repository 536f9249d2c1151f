"""A tree gives what each sequence alone gives: loss, logits and every gradient, for every family."""

import random

import pytest
import torch
from transformers import GPTNeoConfig, Qwen2Config

from distilsql.distill.head import Head
from distilsql.errors import ModelError
from distilsql.models import padded_rows
from distilsql.models.layout_check import (
    attention_window,
    check_head,
    layout_difference,
    small_tree,
    tree_is_exact,
)
from distilsql.models.tree import Branch, PromptTree
from distilsql.models.tree_model import TreeModel
from families import FAMILIES, VOCABULARY, loss_and_gradients, make_model, random_tree, tokens, with_lora

EVERY_KIND = ("parts", "flex", "dense")
ATTENTION_KINDS = {family: ("dense",) if family == "codegen" else EVERY_KIND for family in FAMILIES}


def assert_same(reference, other):
    torch.testing.assert_close(other[0], reference[0], atol=1e-5, rtol=1e-5)
    assert other[1].keys() == reference[1].keys()
    for name, gradient in reference[1].items():
        torch.testing.assert_close(
            other[1][name], gradient, atol=2e-5, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_tree_equals_padded_in_loss_and_every_gradient(family, lora, seed):
    model = make_model(family)
    if lora:
        model = with_lora(model, spread=0.1)  # at 1 they make the float32 in attention visible
    # In float32 an unlucky model's gradients differ by more than the tolerance from rounding alone.
    model.double()
    tree, branches = random_tree(seed)
    padded = TreeModel(model, layout="padded")
    reference = loss_and_gradients(padded, padded.completion_hidden(tree, branches), branches)
    assert reference[1]
    for attention in ATTENTION_KINDS[family]:
        one_pass = TreeModel(model, attention=attention)
        assert_same(
            reference, loss_and_gradients(one_pass, one_pass.completion_hidden(tree, branches), branches)
        )
        hidden = one_pass.run_branches(one_pass.run_prompts(tree), branches)
        assert_same(reference, loss_and_gradients(one_pass, hidden, branches))


def test_a_cached_prefix_changes_nothing(family):
    causal_lm = make_model(family)
    tree, branches = random_tree(3)
    for attention in ATTENTION_KINDS[family]:
        model = TreeModel(causal_lm, attention=attention)
        with torch.no_grad():
            prefix = model.run_prefix(tree.prefix)
            cached = model.completion_hidden(tree, branches, prefix)
            in_steps = model.run_branches(model.run_prompts(tree, prefix), branches)
            torch.testing.assert_close(cached, model.completion_hidden(tree, branches), atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(in_steps, cached, atol=1e-5, rtol=1e-5)


def test_branches_do_not_see_each_other(family):
    model = TreeModel(make_model(family))
    tree, _ = random_tree(4)
    alone = [Branch(1, (5, 6, 7))]
    with torch.no_grad():
        expected = model.completion_hidden(tree, alone)
        others = [Branch(1, (9, 9, 9, 9)), Branch(0, (8,)), *alone, Branch(2, (4, 4))]
        together = model.completion_hidden(tree, others)
    torch.testing.assert_close(together[5:8], expected, atol=1e-5, rtol=1e-5)


def test_empty_completions_and_questions_without_branches_cost_no_row():
    model = TreeModel(make_model("llama"))
    tree = PromptTree((1, 2), ((3,), (4, 5)))
    assert len(model.completion_hidden(tree, [Branch(0, ()), Branch(1, (6,))])) == 1
    assert len(model.run_branches(model.run_prompts(tree), [Branch(0, (6,)), Branch(1, ())])) == 1


def test_only_prompt_tokens_that_are_ancestors_get_gradient():
    """No gradient reaches the embedding of a token that appears only after a completion position's row."""
    model = TreeModel(make_model("llama"))
    tree = PromptTree((1, 2), ((5,), (4,)))
    hidden = model.completion_hidden(tree, [Branch(0, (50, 60))])
    hidden.sum().backward()
    gradient = model.causal_lm.get_input_embeddings().weight.grad.abs().sum(-1)
    assert gradient[[1, 2, 5, 50]].min() > 0
    assert gradient[[4, 60]].max() == 0


@pytest.mark.parametrize("name", [*FAMILIES, "granite", "cohere", "gemma2", "gpt-oss", "mistral"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@torch.no_grad()
def test_distributions_are_those_of_the_models_own_logits(name, dtype):
    """With whatever scale, cap or attention of its own; the model is asked before it is wrapped."""
    causal_lm = make_model(name, seed=1, spread=3.0).to(dtype)
    tree, branches = random_tree(3)
    alone = branches[0]
    prompt = tree.prefix + tree.questions[alone.question]
    logits_TV = causal_lm(input_ids=torch.tensor([prompt + alone.tokens])).logits[0].float()
    stock_NV = torch.log_softmax(logits_TV, -1)[len(prompt) - 1 : -1]
    model = TreeModel(causal_lm)
    check_head(model, VOCABULARY, name)
    if not tree_is_exact(model, tree, branches, VOCABULARY):
        model.layout = "padded"
    assert (model.layout == "tree") == (name != "mistral")  # a window of eight tokens
    mine_NV = model.head().log_probs(model.completion_hidden(tree, [alone]), VOCABULARY)
    tolerance = 1e-4 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(mine_NV, stock_NV, atol=tolerance, rtol=tolerance)
    if model.layout == "tree" and dtype == torch.bfloat16:
        packed_head = model.decoding_weights()[1]
        mine_NV = packed_head(model.completion_hidden(tree, [alone]), VOCABULARY)
        torch.testing.assert_close(mine_NV, stock_NV, atol=tolerance, rtol=tolerance)


def test_a_model_that_makes_its_logits_otherwise_is_refused():
    model = TreeModel(make_model("hyperclovax"))
    with pytest.raises(ModelError, match="HyperCLOVAXForCausalLM"):
        check_head(model, VOCABULARY, "a/model")


def test_attention_of_our_own_refuses_what_it_would_leave_out():
    tree, branches = random_tree(3)
    for name in ("gemma2", "gpt-oss"):
        with pytest.raises(ModelError, match="share_prefix = auto"):
            TreeModel(make_model(name)).completion_hidden(tree, branches)


def test_start_up_check_accepts_exact_models_and_refuses_others(family):
    tree, branches = random_tree(5)
    model = TreeModel(make_model(family))
    assert tree_is_exact(model, tree, branches, VOCABULARY)
    assert model.layout == "tree"


def test_start_up_check_refuses_a_model_that_ignores_the_mask():
    tree, branches = random_tree(6, questions=6)
    model = TreeModel(make_model("llama", spread=3.0), attention="dense")
    inner = model.decoder.forward

    def forgetful(*args, attention_mask=None, **kwargs):
        return inner(*args, attention_mask=None, **kwargs)

    model.decoder.forward = forgetful
    assert layout_difference(model, tree, branches, VOCABULARY, 5) > 1e-3
    assert not tree_is_exact(model, tree, branches, VOCABULARY)


def test_a_window_shorter_than_a_prompt_may_be_is_not_exact():
    """The tree at hand has seven tokens under the window of eight, so it shows nothing."""
    model = TreeModel(make_model("mistral", spread=3.0))
    tree, branches = PromptTree((5, 6, 7), ((8, 9), (10,))), [Branch(0, (11, 12)), Branch(1, (13, 14))]
    assert tree_is_exact(model, tree, branches, VOCABULARY, longest_tokens=8)
    assert not tree_is_exact(model, tree, branches, VOCABULARY, longest_tokens=9)


def test_only_layers_that_slide_or_chunk_have_a_window(family):
    assert attention_window(make_model(family).config) is None
    assert attention_window(make_model("mistral").config) == 8
    full = Qwen2Config(use_sliding_window=True, sliding_window=8, num_hidden_layers=2, max_window_layers=2)
    assert attention_window(full) is None
    sliding = Qwen2Config(use_sliding_window=True, sliding_window=8, num_hidden_layers=3, max_window_layers=2)
    assert attention_window(sliding) == 8
    assert attention_window(GPTNeoConfig(window_size=16)) == 16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_the_small_tree_tells_exact_models_from_others(family, dtype):
    tree, branches = small_tree(VOCABULARY)
    model = TreeModel(make_model(family, spread=3.0).to(dtype))
    assert tree_is_exact(model, tree, branches, VOCABULARY)
    assert model.layout == "tree"
    sliding = TreeModel(make_model("mistral", spread=3.0).to(dtype))
    assert not tree_is_exact(sliding, tree, branches, VOCABULARY)


def test_start_up_check_holds_no_more_logits_than_a_chunk(monkeypatch):
    rows = []
    inner = Head.log_probs

    def counted(self, hidden_ND, *rest):
        rows.append(len(hidden_ND))
        return inner(self, hidden_ND, *rest)

    monkeypatch.setattr(Head, "log_probs", counted)
    tree, branches = random_tree(5)
    assert tree_is_exact(TreeModel(make_model("llama")), tree, branches, VOCABULARY, chunk_rows=3)
    assert max(rows) == 3
    assert sum(rows) == 2 * sum(len(branch.tokens) for branch in branches)


def test_a_check_that_runs_out_of_memory_says_so():
    """The padded layout needs more memory than the tree: it is no way out."""
    model = TreeModel(make_model("llama"))

    def too_large(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    model.decoder.forward = too_large
    with pytest.raises(torch.OutOfMemoryError):
        tree_is_exact(model, *random_tree(5), VOCABULARY)
    assert model.layout == "tree"


def test_padded_rows_of_like_length_run_together(monkeypatch):
    """Results keep the order of the branches, and fewer padded tokens run than in the order given."""
    model = TreeModel(make_model("llama"), layout="padded")
    rng = random.Random(7)
    tree = PromptTree(tokens(rng, 5, 5), tuple(tokens(rng, 1, 6) for _ in range(4)))
    branches = [
        Branch(row % 4, tokens(rng, low, low)) for row, low in enumerate((30, 2, 25, 0, 1, 28, 3, 27, 2))
    ]
    lengths = [
        len(tree.prefix + tree.questions[b.question]) + len(b.tokens) - 1 for b in branches if b.tokens
    ]
    batches = []
    inner = model.decoder.forward

    def counted(*args, **kwargs):
        batches.append(kwargs["input_ids"].shape)
        return inner(*args, **kwargs)

    model.decoder.forward = counted
    monkeypatch.setattr(padded_rows, "MICRO_BATCH", 4)
    with torch.no_grad():
        together = model.completion_hidden(tree, branches)
        assert [rows for rows, _ in batches] == [4, 4]
        in_order = sum(4 * max(lengths[start : start + 4]) for start in (0, 4))
        assert sum(lengths) <= sum(rows * width for rows, width in batches) < 0.8 * in_order
        alone = torch.cat([model.completion_hidden(tree, [branch]) for branch in branches])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_every_family_of_the_papers_is_covered():
    assert {"llama", "qwen2", "gpt2", "opt", "codegen"} == set(FAMILIES)
