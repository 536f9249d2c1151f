"""Generation: equals `transformers`' own, and batched equals one by one."""

import random

import numpy as np
import pytest
import torch

from distilsql.errors import ModelError
from distilsql.models.decoding import start_decoding
from distilsql.models.generate import (
    GenerationOptions,
    beam_search,
    generate_trees,
    uniform_stream,
)
from distilsql.models.token_choice import choose_tokens, sample
from distilsql.models.tree import PromptTree
from distilsql.models.tree_model import TreeModel
from families import VOCABULARY, generate, random_tree, tokens
from families import make_model as make_float32_model

EOS = 2
GREEDY = GenerationOptions(eos_token_id=EOS, vocabulary_size=VOCABULARY, max_new_tokens=12)
SAMPLED = GenerationOptions(eos_token_id=EOS, vocabulary_size=VOCABULARY, max_new_tokens=12, temperature=1.0)


def make_model(family, **options):
    """In float64: tokens are compared with those of other computations, and rounding must choose none."""
    return make_float32_model(family, **options).double()


def reference(model, prompt, **options):
    ids = torch.tensor([prompt])
    written = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, **options
    )
    return tuple(written[0, len(prompt) :].tolist())


def streams(count, seed=0):
    return [uniform_stream(seed, number) for number in range(count)]


@pytest.mark.parametrize("beams", [1, 3])
def test_greedy_and_beams_equal_transformers(family, beams):
    model = make_model(family, seed=1, spread=3.0)
    tree, _ = random_tree(7, questions=5)
    runner = TreeModel(model)
    mine = generate(runner, tree, GREEDY) if beams == 1 else beam_search(runner, tree, GREEDY, beams=beams)
    theirs = [reference(model, tree.prefix + question, num_beams=beams) for question in tree.questions]
    assert mine == theirs


@pytest.mark.parametrize(
    "options",
    [pytest.param(GREEDY, id="greedy", marks=pytest.mark.slow), pytest.param(SAMPLED, id="sampled")],
)
def test_batched_equals_one_by_one(family, options):
    model = TreeModel(make_model(family, seed=2, spread=3.0))
    tree, _ = random_tree(8, questions=5)
    together = generate(model, tree, options, streams=streams(5))
    for number, question in enumerate(tree.questions):
        alone = generate(
            model, PromptTree(tree.prefix, (question,)), options, streams=[uniform_stream(0, number)]
        )
        assert alone == [together[number]]


@pytest.mark.parametrize(
    ("options", "attention"),
    [
        pytest.param(SAMPLED, None, id="sampled"),
        pytest.param(GREEDY, None, id="greedy", marks=pytest.mark.slow),
        pytest.param(SAMPLED, "dense", id="sampled-dense", marks=pytest.mark.slow),
        pytest.param(GREEDY, "dense", id="greedy-dense", marks=pytest.mark.slow),
    ],
)
def test_trees_written_together_equal_each_alone(family, options, attention):
    """Of different prefix lengths, one of them with no prefix at all and one already run."""
    model = TreeModel(make_model(family, seed=2, spread=3.0), attention=attention)
    trees = [random_tree(seed, questions=count)[0] for seed, count in ((5, 3), (6, 1), (7, 4))]
    trees[1] = PromptTree((), trees[1].questions)

    def own():
        return [streams(len(tree.questions), seed) for seed, tree in enumerate(trees)]

    prefixes = [None, None, model.run_prefix(trees[2].prefix)]
    together = generate_trees(model, trees, options, streams=own(), prefixes=prefixes)
    assert together == [
        generate(model, tree, options, streams=each) for tree, each in zip(trees, own(), strict=True)
    ]
    padded = TreeModel(model.model, layout="padded")
    assert together == generate_trees(padded, trees, options, streams=own())


def test_a_cached_prefix_gives_the_same_completions(family):
    model = TreeModel(make_model(family, seed=3, spread=3.0))
    tree, _ = random_tree(9)
    assert generate(model, tree, GREEDY, prefix=model.run_prefix(tree.prefix)) == generate(
        model, tree, GREEDY
    )


def test_a_model_in_the_padded_layout_writes_the_same(family):
    model = make_model(family, seed=3, spread=3.0)
    tree, _ = random_tree(9)
    padded, shared = TreeModel(model, layout="padded"), TreeModel(model)
    assert generate(padded, tree, SAMPLED, streams=streams(4)) == generate(
        shared, tree, SAMPLED, streams=streams(4)
    )
    assert beam_search(padded, tree, GREEDY, beams=2) == beam_search(shared, tree, GREEDY, beams=2)


@pytest.mark.parametrize("name", ["mistral", "gpt-oss", "gemma2"])
@pytest.mark.parametrize("beams", [1, 3])
def test_a_model_that_runs_no_tree_writes_as_transformers_does(name, beams):
    """Its own attention and its own cache: Mistral's window of eight slides over a prompt of forty tokens."""
    model = make_float32_model(name, seed=1, spread=3.0)  # GPT-OSS has no float64
    rng = random.Random(3)
    tree = PromptTree(tokens(rng, 36, 36), tuple(tokens(rng, 4, 4) for _ in range(3)))
    theirs = [reference(model, tree.prefix + question, num_beams=beams) for question in tree.questions]
    padded = TreeModel(model, layout="padded")
    mine = generate(padded, tree, GREEDY) if beams == 1 else beam_search(padded, tree, GREEDY, beams=beams)
    assert mine == theirs


def test_a_model_without_a_cache_is_refused():
    model = TreeModel(make_model("llama"), layout="padded")
    inner = model.decoder.forward

    def forgetful(*args, **kwargs):
        output = inner(*args, **kwargs)
        output.past_key_values = None
        return output

    model.decoder.forward = forgetful
    with pytest.raises(ModelError, match="past_key_values"):
        generate(model, PromptTree((5, 6), ((7,),)), GREEDY)


def test_eos_ends_a_completion_and_is_part_of_it():
    model = make_model("llama", seed=4, spread=3.0)
    tree, _ = random_tree(10, questions=6)
    first = generate(TreeModel(model), tree, GREEDY)[0]
    # Declare the third token EOS: every completion must now stop at its first occurrence.
    stop = GenerationOptions(eos_token_id=first[2], vocabulary_size=VOCABULARY, max_new_tokens=12)
    for completion in generate(TreeModel(model), tree, stop):
        assert completion.count(first[2]) <= 1
        assert len(completion) == 12 or completion[-1] == first[2]
    never = GenerationOptions(eos_token_id=VOCABULARY + 5, vocabulary_size=VOCABULARY, max_new_tokens=4)
    assert [len(completion) for completion in generate(TreeModel(model), tree, never)] == [4] * 6


def test_sampling_follows_the_distribution_and_never_takes_what_has_no_mass():
    logp = torch.log(torch.tensor([[0.5, 0.0, 0.3, 0.2]])).expand(20_000, -1)
    uniforms = np.random.default_rng(0).random(20_000)
    chosen = choose_tokens(logp, 1.0, uniforms)
    shares = torch.bincount(chosen, minlength=4) / len(chosen)
    assert shares.tolist() == pytest.approx([0.5, 0.0, 0.3, 0.2], abs=0.015)
    assert shares[1] == 0
    colder = torch.bincount(choose_tokens(logp, 0.5, uniforms), minlength=4) / len(chosen)
    assert colder[0] == pytest.approx(0.25 / 0.38, abs=0.015)
    assert choose_tokens(logp[:1], 1.0, np.array([0.0])).item() == 0
    assert choose_tokens(logp[:1], 1.0, np.array([1 - 1e-16])).item() == 3


def test_sampling_needs_a_stream_per_question():
    model = TreeModel(make_model("llama"))
    tree, _ = random_tree(11)
    with pytest.raises(ValueError, match="random stream"):
        generate(model, tree, SAMPLED)


def test_random_streams_depend_on_seed_and_example_alone():
    assert uniform_stream(0, 1, 2)(5).tolist() == uniform_stream(0, 1, 2)(5).tolist()
    assert uniform_stream(0, 1, 2)(5).tolist() != uniform_stream(1, 1, 2)(5).tolist()
    assert uniform_stream(0, 1, 2)(5).tolist()[:3] == uniform_stream(0, 1, 2)(3).tolist()


def test_sampling_inverts_the_cumulative_distribution():
    """Against a plain cumulative sum in float64, for sizes around the block and masses at its borders."""
    rng = np.random.default_rng(0)
    for size in (1, 7, 8, 9, 40):
        probabilities = rng.dirichlet(np.full(size, 0.2), 64) * rng.integers(0, 2, (64, size))
        probabilities[probabilities.sum(1) == 0, 0] = 1.0
        uniforms = rng.random(64)
        cumulative = probabilities.cumsum(1)
        expected = (cumulative <= uniforms[:, None] * cumulative[:, -1:]).sum(1)
        mine = sample(torch.from_numpy(probabilities), uniforms, block=8)
        assert mine.tolist() == expected.tolist()


def test_a_token_without_probability_is_never_drawn():
    probabilities = torch.zeros(3, 600)
    probabilities[:, 255] = 1e-20
    probabilities[:, 256] = 1.0
    probabilities[0, 256] = 0.0
    edges = np.array([np.nextafter(1.0, 0.0), 0.0, np.nextafter(1.0, 0.0)])
    assert sample(probabilities, edges).tolist() == [255, 255, 256]


@pytest.mark.parametrize("attention", ["parts", "dense"])
def test_rows_of_several_trees_may_be_reordered_and_repeated(attention):
    model = TreeModel(make_model("llama", seed=4), attention=attention)
    states = [model.run_prompts(random_tree(seed, questions=2)[0]) for seed in (1, 2)]
    decoding, _ = start_decoding(model, states, max_new_tokens=3)
    decoding.step(torch.tensor([10, 11, 12, 13]))
    as_they_were = decoding.extend(torch.tensor([[20], [21], [22], [23]]))[:, 0]
    decoding.rewind(torch.ones(4, dtype=torch.int64))
    order = torch.tensor([2, 0, 3, 0])
    decoding.keep(order)
    hidden = decoding.step(torch.tensor([22, 20, 23, 20]))
    torch.testing.assert_close(hidden, as_they_were[order], rtol=1e-4, atol=1e-5)


def test_nothing_to_write():
    model = TreeModel(make_model("llama", seed=4))
    assert generate_trees(model, [], SAMPLED) == []
    assert generate_trees(model, [PromptTree((5, 6), ())], SAMPLED) == [[]]
