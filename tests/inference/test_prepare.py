"""Prompts over the budget are shortened by a named rule, dropped with a count, or an error: never silent."""

import json

import pytest
from tokenizers.processors import TemplateProcessing

from distilsql.data.load import load_benchmark
from distilsql.errors import DataError
from distilsql.inference.prepare import prepare
from distilsql.models.load import load_tokenizer


@pytest.fixture
def benchmark(world):
    with (world / "pairs.jsonl").open("a") as file:
        long = "SELECT name FROM singer WHERE " + " OR ".join(f"age = {age}" for age in range(60))
        file.write(json.dumps({"question": "Which ages?", "sql": long}) + "\n")
    return load_benchmark(str(world / "pairs.jsonl"), database=world / "singers.sqlite")


def test_gold_ends_with_eos_and_questions_share_one_prefix(benchmark, recipe, tiny_models):
    tokenizer = load_tokenizer(tiny_models["student"])
    prepared = prepare(benchmark, tokenizer, recipe("sft").prompt, training=True)
    assert len(prepared.prefixes) == 1
    for example in prepared.examples:
        assert example.gold[-1] == tokenizer.eos_token_id
        assert tokenizer.eos_token_id not in example.gold[:-1]
        assert example.example.question in tokenizer.decode(example.question)
    tree = prepared.tree(prepared.examples[:3])
    assert tokenizer.decode(tree.prefix).startswith("database schema :")


def test_chat_markup_is_an_option_of_the_prompt(benchmark, recipe, tiny_models):
    tokenizer = load_tokenizer(tiny_models["student"])
    chat = prepare(benchmark, tokenizer, recipe("sft", "prompt.template=chatml").prompt, training=True)
    tree = chat.tree(chat.examples[:1])
    assert tokenizer.decode(tree.prefix).startswith("<|im_start|>system")
    assert tokenizer.decode(tree.questions[0]).endswith("<|im_start|>assistant\n")


def test_too_long_queries_are_dropped_and_counted_in_training_and_kept_in_prediction(
    benchmark, recipe, tiny_models
):
    tokenizer = load_tokenizer(tiny_models["student"])
    settings = recipe("sft").prompt
    trained = prepare(benchmark, tokenizer, settings, training=True)
    assert len(trained.examples) == 10
    assert "tokens" in trained.lengths.sentences()[-1]
    assert "1 of 11 examples dropped" in trained.lengths.sentences()[-1]
    assert len(prepare(benchmark, tokenizer, settings, training=False).examples) == 11
    strict = recipe("sft", "prompt.over_length=error").prompt
    with pytest.raises(DataError, match="exceed the length budget"):
        prepare(benchmark, tokenizer, strict, training=True)


def test_a_small_budget_shortens_by_a_named_rule(benchmark, recipe, tiny_models):
    tokenizer = load_tokenizer(tiny_models["student"])
    whole = prepare(benchmark, tokenizer, recipe("sft").prompt, training=False)
    longest = max(map(len, whole.prefixes.values()))
    tight = recipe("sft", f"prompt.max_prompt_tokens={longest}").prompt
    cut = prepare(benchmark, tokenizer, tight, training=False)
    assert cut.lengths.shortened
    assert all(rule and rule != "whole" for rule in cut.lengths.shortened)
    assert max(map(len, cut.prefixes.values())) < longest


@pytest.mark.parametrize("schema_filter", ["when_needed", "never"])
def test_bos_is_part_of_the_budget(benchmark, recipe, tiny_models, schema_filter):
    """A prompt that would fill the budget without BOS is shortened: neither dropped nor sent over the budget."""
    tokenizer = load_tokenizer(tiny_models["student"])
    tokenizer.bos_token = tokenizer.eos_token
    bos = (tokenizer.bos_token, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos[0]} $A", special_tokens=[bos]
    )
    options = (f"prompt.schema_filter={schema_filter}", "prompt.max_completion_tokens=1000")
    whole = prepare(benchmark, tokenizer, recipe("sft", *options).prompt, training=False)
    assert all(prefix[0] == tokenizer.bos_token_id for prefix in whole.prefixes.values())
    question = max(len(example.question) for example in whole.examples)
    budget = max(map(len, whole.prefixes.values())) - 1 + question
    options += (f"prompt.max_prompt_tokens={budget}", f"prompt.question_tokens={question}")
    for training in (True, False):
        prepared = prepare(benchmark, tokenizer, recipe("sft", *options).prompt, training=training)
        assert prepared.lengths.dropped == ()
        assert prepared.lengths.shortened
        lengths = [len(prepared.prefixes[one.prefix_key]) + len(one.question) for one in prepared.examples]
        assert max(lengths) <= budget


def test_nothing_left_is_an_error(benchmark, recipe, tiny_models):
    tokenizer = load_tokenizer(tiny_models["student"])
    with pytest.raises(DataError, match="raise them"):
        prepare(benchmark, tokenizer, recipe("sft", "prompt.max_completion_tokens=4").prompt, training=True)
