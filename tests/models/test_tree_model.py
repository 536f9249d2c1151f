"""A tree gives what each sequence alone gives: loss, logits and every gradient, for every family."""

import pytest
import torch
from families import FAMILIES, VOCABULARY, make_model, random_tree

from distilsql.distill.divergences import DIVERGENCES
from distilsql.distill.loss import Distillation, Head, Likelihood, completion_loss
from distilsql.distill.tree import Branch, PromptTree, targets
from distilsql.models.layout_check import layout_difference, tree_is_exact
from distilsql.models.load import add_lora
from distilsql.models.tree_model import TreeModel


def loss_and_gradients(model, hidden_ND, branches):
    """A loss with both terms, and the gradient of every trained parameter."""
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(len(hidden_ND), generator=generator)
    teacher = Distillation(
        torch.randn(len(hidden_ND), 8, generator=generator),
        Head(torch.randn(VOCABULARY, 8, generator=generator)),
        DIVERGENCES["reverse-kl"],
        weights,
    )
    parts = completion_loss(
        hidden_ND,
        model.head(),
        vocabulary_size=VOCABULARY,
        distillation=teacher,
        likelihood=Likelihood(targets(branches), weights),
        chunk_rows=5,
    )
    model.model.zero_grad()
    parts.total.backward()
    gradients = {name: p.grad.clone() for name, p in model.model.named_parameters() if p.grad is not None}
    return parts.total.detach(), gradients


def assert_same(reference, other):
    torch.testing.assert_close(other[0], reference[0], atol=1e-5, rtol=1e-5)
    assert other[1].keys() == reference[1].keys()
    for name, gradient in reference[1].items():
        torch.testing.assert_close(
            other[1][name], gradient, atol=2e-5, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("seed", [0, 1])
def test_tree_equals_padded_in_loss_and_every_gradient(family, lora, seed):
    model = make_model(family)
    if lora:
        model = add_lora(model, rank=2, scale=4.0)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter)
    tree, branches = random_tree(seed)
    padded = TreeModel(model, layout="padded")
    reference = loss_and_gradients(padded, padded.completion_hidden(tree, branches), branches)
    assert reference[1]
    for attention in ("parts", "dense") if family != "codegen" else ("dense",):
        one_pass = TreeModel(model, attention=attention)
        assert_same(
            reference, loss_and_gradients(one_pass, one_pass.completion_hidden(tree, branches), branches)
        )
        hidden = one_pass.run_branches(one_pass.run_prompts(tree), branches)
        assert_same(reference, loss_and_gradients(one_pass, hidden, branches))


def test_a_cached_prefix_changes_nothing(family):
    model = TreeModel(make_model(family))
    tree, branches = random_tree(3)
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
    assert layout_difference(model, tree, branches, VOCABULARY) > 1e-3
    assert not tree_is_exact(model, tree, branches, VOCABULARY)


def test_every_family_of_the_papers_is_covered():
    assert {"llama", "qwen2", "gpt2", "opt", "codegen"} == set(FAMILIES)
