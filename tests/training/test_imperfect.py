"""What KID's imperfect completions are made of, the choices beyond the paper among them: against the student itself,
asked one token at a time."""

import pytest
import torch

from distilsql.distill.masking import touches_the_mask_before
from distilsql.inference.loading import load_engines
from distilsql.inference.prepare import load_data, prepare
from distilsql.training.ledger import Ledger
from distilsql.training.sampling import TreeOfExamples
from distilsql.training.sources.imperfect import Imperfect
from distilsql.training.window_tree import as_window_trees


@pytest.fixture
def rewritten(recipe):
    """Gold and imperfect completions of one tree, the question of each, the student and the ledger."""

    def make(*settings: str):
        options = recipe("kid", "train.precision=float32", *settings)
        engines = load_engines(options, torch.device("cpu"))
        prepared = prepare(load_data(options)[0], engines.tokenizer, options.prompt, training=True)
        (item,) = as_window_trees(prepared, [TreeOfExamples((0, 1, 2, 3), 0)])
        ledger = Ledger()
        imperfect = Imperfect(options, engines, ledger).rewrite(item, None)
        prompts = [(*item.tree.prefix, *question) for question in item.tree.questions]
        return list(item.golds), imperfect, prompts, engines, ledger.counts

    return make


def most_probable(engines, prompt, context) -> list[int]:
    """The student's most probable token at every position of `context`, by the plain model."""
    tokens = torch.tensor([[*prompt, *context]])
    with torch.no_grad():
        logits = engines.student.causal_lm(tokens).logits[0, len(prompt) - 1 : -1, : engines.vocabulary_size]
    return logits.argmax(-1).tolist()


def changed(gold, imperfect) -> list[int]:
    return [place for place, pair in enumerate(zip(gold, imperfect, strict=True)) if pair[0] != pair[1]]


def test_in_gold_context_what_is_rewritten_is_the_student_s_own_next_token(rewritten):
    golds, imperfect, prompts, engines, counts = rewritten(
        "distill.rewriting_context=gold", "distill.mask_share=1"
    )
    for gold, row, prompt in zip(golds, imperfect, prompts, strict=True):
        assert list(row[:-1]) == most_probable(engines, prompt, gold)[:-1]
        assert row[-1] == gold[-1], "EOS is never masked"
    assert counts["wrongly_rewritten_tokens"] == sum(
        len(changed(gold, row)) for gold, row in zip(golds, imperfect, strict=True)
    )


def test_each_round_predicts_from_what_the_last_one_gave(rewritten):
    settings = ("distill.mask_share=0.5",)
    golds, first, prompts, engines, _ = rewritten(*settings)
    _, second, _, _, _ = rewritten(*settings, "distill.rewriting_rounds=2")
    assert second != first
    for gold, before, after, prompt in zip(golds, first, second, prompts, strict=True):
        predicted = most_probable(engines, prompt, before)
        for place, token in enumerate(after):
            assert token in (gold[place], predicted[place])


def test_masks_apart_never_touch_and_what_is_out_of_reach_is_counted(rewritten):
    golds, _, _, _, counts = rewritten("distill.mask_strategy=apart", "distill.mask_share=0.9")
    maskable = [len(gold) - 1 for gold in golds]
    assert counts["adjacent_masked_tokens"] == 0
    assert counts["masked_tokens"] == sum((length + 1) // 2 for length in maskable)
    wanted = sum(min(-(-9 * len(gold) // 10), len(gold) - 1) for gold in golds)
    assert counts["masks_out_of_reach"] == wanted - counts["masked_tokens"] > 0


def test_adjacent_masks_are_counted_where_random_ones_touch(rewritten):
    _, _, _, _, counts = rewritten("distill.mask_share=0.8")
    assert 0 < counts["adjacent_masked_tokens"] < counts["masked_tokens"]
    assert counts["wrongly_rewritten_adjacent_tokens"] <= counts["wrongly_rewritten_tokens"]
    assert touches_the_mask_before(torch.tensor([0, 1, 3, 4, 5, 9])).tolist() == [
        False, True, False, True, True, False,
    ]  # fmt: skip


def test_the_share_can_follow_the_student_s_errors(rewritten):
    golds, _, prompts, engines, counts = rewritten("distill.mask_share_from=error_rate")
    errors = [
        sum(one != other for one, other in zip(most_probable(engines, prompt, gold), gold, strict=True))
        for gold, prompt in zip(golds, prompts, strict=True)
    ]
    expected = sum(min(count, len(gold) - 1) for count, gold in zip(errors, golds, strict=True))
    assert counts["masked_tokens"] == expected > 0


def test_a_low_temperature_of_sampled_rewriting_is_greedy(rewritten):
    settings = ("distill.mask_share=0.5", "distill.rewriting=sampled")
    _, greedy, *_ = rewritten("distill.mask_share=0.5")
    _, cold, *_ = rewritten(*settings, "distill.rewriting_temperature=1e-4")
    _, warm, *_ = rewritten(*settings)
    assert cold == greedy != warm
