"""Questions that arrive at any time are decoded together, and answered as if each were asked alone."""

import threading
from types import SimpleNamespace

import pytest

from distilsql.cli.serving import _decode_in
from distilsql.errors import ModelError
from distilsql.inference.asker import Asker
from distilsql.inference.prepare import prepare
from distilsql.models.generate import GenerationOptions, generate_trees, uniform_stream
from distilsql.models.half_linear import has_half_products
from distilsql.models.lean_decoder import LeanDecoder
from distilsql.models.load import load_model
from distilsql.models.tree import PromptTree
from distilsql.models.tree_model import TreeModel
from distilsql.serve.writer import Overloaded, Writer
from families import PlainWeight

EOS, SIZE, LONGEST = 0, 300, 12


@pytest.fixture
def tree_model(tiny_models):
    """In float64, so that what shares a batch changes no token."""
    return TreeModel(load_model(str(tiny_models["student"]), "float32").double())


def questions(count, prefix=(5, 6, 7, 8)):
    return [PromptTree(prefix, ((20 + number, 30, 40 + number % 3),)) for number in range(count)]


def alone(model, tree, longest=LONGEST):
    return generate_trees(model, [tree], GenerationOptions(EOS, SIZE, longest))[0][0]


@pytest.mark.parametrize("is_lean", [False, True])
def test_rows_that_join_while_others_are_written_change_nothing(tree_model, is_lean):
    trees = [*questions(6), *questions(3, prefix=(9, 9, 10)), *questions(2)]
    expected = [alone(tree_model, tree) for tree in trees]
    if is_lean:
        tree_model.lean = LeanDecoder(tree_model.decoder, PlainWeight)
    arrived, order = threading.Event(), []

    def told(token):
        order.append(token)
        arrived.set()

    with Writer(tree_model, eos_token_id=EOS, vocabulary_size=SIZE, most_rows=4) as writer:
        first = writer.write(trees[0], max_new_tokens=LONGEST, told=told)
        assert arrived.wait(60)
        others = [writer.write(tree, max_new_tokens=LONGEST) for tree in trees[1:]]
        found = [writing.done.result(60) for writing in (first, *others)]
    assert found == expected
    assert tuple(order) == expected[0]


def test_each_row_has_its_own_length_and_randomness(tree_model):
    (tree,) = questions(1)
    sampled = GenerationOptions(EOS, SIZE, LONGEST, temperature=1.0)
    expected = generate_trees(tree_model, [tree], sampled, streams=[[uniform_stream(3)]])[0][0]
    with Writer(tree_model, eos_token_id=EOS, vocabulary_size=SIZE) as writer:
        short = writer.write(tree, max_new_tokens=2)
        uniforms = uniform_stream(3)(LONGEST).tolist()
        drawn = writer.write(tree, max_new_tokens=LONGEST, temperature=1.0, uniforms=uniforms)
        whole = writer.write(tree, max_new_tokens=LONGEST)
        assert short.done.result(60) == alone(tree_model, tree)[:2]
        assert drawn.done.result(60) == expected
        assert whole.done.result(60) == alone(tree_model, tree)


def test_a_padded_model_writes_one_at_a_time(tree_model):
    tree_model.layout = "padded"
    trees = questions(3)
    expected = [alone(tree_model, tree) for tree in trees]
    with Writer(tree_model, eos_token_id=EOS, vocabulary_size=SIZE) as writer:
        writings = [writer.write(tree, max_new_tokens=LONGEST) for tree in trees]
        assert [writing.done.result(60) for writing in writings] == expected


def test_more_than_may_wait_are_turned_away_and_whoever_goes_makes_room(tree_model):
    held, begun = threading.Event(), threading.Event()

    def hold(token):
        begun.set()
        held.wait(60)

    trees = questions(4)
    with Writer(tree_model, eos_token_id=EOS, vocabulary_size=SIZE, most_rows=1, most_waiting=2) as writer:
        first = writer.write(trees[0], max_new_tokens=LONGEST, told=hold)
        assert begun.wait(60)
        left, stays = (writer.write(tree, max_new_tokens=LONGEST) for tree in trees[1:3])
        with pytest.raises(Overloaded, match="3 questions are under way"):
            writer.write(trees[3], max_new_tokens=LONGEST)
        assert left.done.cancel()
        first.done.cancel()
        held.set()
        assert stays.done.result(60) == alone(tree_model, trees[2])
    assert first.done.cancelled()
    assert len(first.tokens) < LONGEST or first.tokens[-1] == EOS


def test_a_failure_is_told_to_those_it_met_and_to_no_other(tree_model):
    with Writer(tree_model, eos_token_id=EOS, vocabulary_size=SIZE) as writer:
        broken = writer.write(PromptTree((5,), ((10**9,),)), max_new_tokens=LONGEST)
        with pytest.raises((IndexError, RuntimeError)):
            broken.done.result(60)
        (tree,) = questions(1)
        assert writer.write(tree, max_new_tokens=LONGEST).done.result(60) == alone(tree_model, tree)
    with pytest.raises(Overloaded, match="stopping"):
        writer.write(tree, max_new_tokens=LONGEST)


@pytest.mark.parametrize("is_lean", [False, True])
def test_drafts_change_no_token_and_are_used(tree_model, is_lean):
    """The same questions again, beside new ones: what was written before is drafted, and kept as far as it is right."""
    trees = [*questions(4), *questions(4), *questions(8)]
    expected = [alone(tree_model, tree) for tree in trees]
    if is_lean:
        tree_model.lean = LeanDecoder(tree_model.decoder, PlainWeight)
    sampled = GenerationOptions(EOS, SIZE, LONGEST, temperature=1.0)
    drawn = [
        generate_trees(tree_model, [tree], sampled, streams=[[uniform_stream(7)]])[0][0] for tree in trees[:4]
    ]
    uniforms = uniform_stream(7)(LONGEST).tolist()
    with Writer(tree_model, eos_token_id=EOS, vocabulary_size=SIZE) as writer:
        for tree, tokens in zip(trees[:8], expected[:8], strict=True):
            assert writer.write(tree, max_new_tokens=LONGEST).done.result(60) == tokens
        assert writer.accepted, "what was written before is a good draft"
        others = [writer.write(tree, max_new_tokens=LONGEST) for tree in trees[8:]]
        samples = [
            writer.write(tree, max_new_tokens=LONGEST, temperature=1.0, uniforms=uniforms)
            for tree in trees[:4]
        ]
        assert [writing.done.result(60) for writing in others] == expected[8:]
        assert [writing.done.result(60) for writing in samples] == drawn
        for longest in range(1, LONGEST + 1):  # a draft ends where a completion must
            found = writer.write(trees[0], max_new_tokens=longest).done.result(60)
            assert found == alone(tree_model, trees[0], longest)


def test_a_wrong_draft_is_forgotten(tree_model):
    trees = questions(3)
    with Writer(tree_model, eos_token_id=EOS, vocabulary_size=SIZE) as writer:
        for tree in trees:
            expected = alone(tree_model, tree)
            writer._lookup.learn((*tree.questions[0], expected[0], expected[1], SIZE - 1, SIZE - 2))
            assert writer.write(tree, max_new_tokens=LONGEST).done.result(60) == expected
    assert 0 < writer.accepted < writer.proposed


def test_drafts_that_are_never_right_are_seldom_tried(tree_model):
    (tree,) = questions(1)
    expected = alone(tree_model, tree)
    with Writer(tree_model, eos_token_id=EOS, vocabulary_size=SIZE) as writer:
        tried = []
        for _ in range(30):
            writer._lookup.draft = lambda written, most: (SIZE - 1,) * min(most, 1)  # nobody's token
            before = writer.proposed
            assert writer.write(tree, max_new_tokens=LONGEST).done.result(60) == expected
            tried.append(writer.proposed - before)
    assert writer.accepted == 0
    assert sum(tried[-10:]) < sum(tried[:10])


def test_without_drafts_nothing_is_proposed(tree_model):
    with Writer(tree_model, eos_token_id=EOS, vocabulary_size=SIZE, drafted=0) as writer:
        for tree in questions(3) * 2:
            assert writer.write(tree, max_new_tokens=LONGEST).done.result(60) == alone(tree_model, tree)
    assert writer.proposed == 0


def test_prefixes_of_rows_that_left_are_not_kept(tree_model):
    trees = [PromptTree((number, 5, 6), ((20,),)) for number in range(1, 9)]
    with Writer(tree_model, eos_token_id=EOS, vocabulary_size=SIZE, most_rows=2) as writer:
        sizes = []

        def told(token):
            if writer._decoding is not None:
                sizes.append(len(writer._decoding._prefixes))

        writings = [writer.write(tree, max_new_tokens=3 + n, told=told) for n, tree in enumerate(trees)]
        for writing in writings:
            writing.done.result(60)
    assert max(sizes) <= 3


def test_a_question_is_prompted_as_a_benchmark_is(model, benchmark, examples):
    prepared = prepare(benchmark, model.decoder.tokenizer, model.prompt, training=False)
    by_id = {example.example.example_id: example for example in prepared.examples}
    asker = Asker(model, benchmark.databases["shop"])
    for example in examples[:20]:
        expected = by_id[example.example_id]
        asked = asker.asked(example.question)
        assert asked.tree.prefix == prepared.prefixes[expected.prefix_key]
        assert asked.tree.questions == (expected.question,)


def test_auto_writes_from_float16_where_it_can_be_had(tree_model):
    model = SimpleNamespace(decoder=SimpleNamespace(model=tree_model))
    _decode_in("auto", model)
    assert tree_model.lean is None, "float64 stays as it is"
    with pytest.raises(ModelError, match="leave out --weights float16"):
        _decode_in("float16", model)
    tree_model.model.float()
    _decode_in("whole", model)
    assert tree_model.lean is None
    _decode_in("auto", model)
    assert (tree_model.lean is not None) == has_half_products()
