"""SWITCH: drafted in blocks it writes what the sequential definition writes, at fewer teacher passes."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distilsql.models.generate import GenerationOptions, uniform_stream
from distilsql.models.tree import PromptTree
from distilsql.models.tree_model import TreeModel
from distilsql.training.sources.switch_engine import (
    BlockLength,
    SwitchOptions,
    ThresholdSchedule,
    switch_generate,
)
from families import VOCABULARY, generate, make_model, random_tree

EOS = 2
GREEDY = GenerationOptions(eos_token_id=EOS, vocabulary_size=VOCABULARY, max_new_tokens=12)
SAMPLED = replace(GREEDY, temperature=1.0)
BLOCKS = [1, 2, 5, 20, None]


def streams(count, seed=0):
    return [uniform_stream(seed, number) for number in range(count)]


def models(family, seed=5, spread=4.0, layout="tree"):
    """In float64: tokens are compared with those of other computations, and rounding must choose none."""
    student, teacher = (
        make_model(family, seed=number, spread=spread).double() for number in (seed, seed + 1)
    )
    return TreeModel(student, layout=layout), TreeModel(teacher, layout=layout)


def next_probabilities(model, ids):
    with torch.no_grad():
        return torch.softmax(model(input_ids=torch.tensor([ids])).logits[0, -1].double(), -1)


def switched(student, teacher, tree, options, switch, streams=None):
    """SWITCH's completions for one tree."""
    return switch_generate(student, teacher, [tree], options, switch, streams=streams and [streams])[0]


def jsd(p, q):
    m = (p + q) / 2
    return float(0.5 * (p * (p / m).log()).sum() + 0.5 * (q * (q / m).log()).sum())


def chosen_distribution(student, teacher, ids, threshold):
    """The definition at one position: whose distribution the token is drawn from, and whether it is the teacher's."""
    q, p = next_probabilities(student, ids), next_probabilities(teacher, ids)
    taken_over = jsd(p, q) > threshold
    return (p if taken_over else q), taken_over


def sequential_switch(student, teacher, prompt, options):
    """The definition, a token at a time, greedy, whole sequences through stock forwards."""
    written, taken = [], []
    for position in range(GREEDY.max_new_tokens):
        distribution, from_teacher = chosen_distribution(
            student, teacher, [*prompt, *written], options.at(position)
        )
        taken.append(from_teacher)
        written.append(int(distribution.argmax()))
        if written[-1] == EOS:
            break
    return tuple(written), tuple(taken)


@pytest.mark.parametrize(
    ("family_name", "block"),
    [
        *(("llama", block) for block in (1, 5, None)),
        ("gpt2", 2),
        *(pytest.param("llama", block, marks=pytest.mark.slow) for block in (2, 20)),
        *(pytest.param("gpt2", block, marks=pytest.mark.slow) for block in (1, 5, 20, None)),
    ],
)
def test_greedy_equals_the_sequential_definition(family_name, block):
    student, teacher = models(family_name)
    tree, _ = random_tree(12, questions=5)
    options = SwitchOptions(threshold=0.6, decay=0.04, block_length=block)
    expected = [
        sequential_switch(student.causal_lm, teacher.causal_lm, tree.prefix + question, options)
        for question in tree.questions
    ]
    written = switched(student, teacher, tree, GREEDY, options)
    assert [(each.tokens, each.from_teacher) for each in written] == expected
    shares = [sum(each.from_teacher) / len(each.tokens) for each in written]
    assert 0 < sum(shares) / len(shares) < 1, "the case must have both student and teacher tokens"


@pytest.mark.slow
@settings(max_examples=5)
@given(
    seed=st.integers(0, 10_000),
    block=st.sampled_from(BLOCKS[1:]),
    threshold=st.floats(0.05, 0.69),
    decay=st.floats(0.0, 0.3),
    temperature=st.sampled_from([0.0, 0.7, 1.0]),
)
def test_block_length_changes_nothing_but_the_cost(seed, block, threshold, decay, temperature):
    student, teacher = models("llama", seed=seed % 7, spread=3.0)
    tree, _ = random_tree(seed, questions=4)
    options = replace(GREEDY, temperature=temperature)
    literal = SwitchOptions(threshold, decay, block_length=1)
    sequential = switched(student, teacher, tree, options, literal, streams=streams(4, seed))
    drafted = switched(
        student, teacher, tree, options, replace(literal, block_length=block), streams=streams(4, seed)
    )
    for one, other in zip(sequential, drafted, strict=True):
        assert (one.tokens, one.from_teacher) == (other.tokens, other.from_teacher)
        assert np.allclose(one.divergence, other.divergence, atol=1e-5)
        assert one.teacher_passes == len(one.tokens), "the definition asks the teacher at every token"
        assert other.teacher_passes <= len(other.tokens)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1_000, 6_000])
def test_sampled_blocks_follow_the_definition_s_distribution(count):
    """Pairs of first tokens: as far from their exact distribution as chance explains, and no further."""
    student, teacher = models("llama", seed=8, spread=2.0)
    tree, _ = random_tree(3, questions=1)
    prompt = [*tree.prefix, *tree.questions[0]]
    divergences = [
        jsd(next_probabilities(teacher.causal_lm, ids), next_probabilities(student.causal_lm, ids))
        for ids in ([*prompt, token] for token in range(VOCABULARY))
    ]
    # Halfway between two of them: rounding decides at no prefix whether the teacher takes over.
    below, above = np.sort(divergences)[VOCABULARY // 2 :][:2]
    options = SwitchOptions(float(below + above) / 2, decay=0.0, block_length=2)
    at_once, short = 500, replace(SAMPLED, max_new_tokens=2)
    many = PromptTree(tree.prefix, tree.questions * at_once)
    draws = streams(count)
    written = [
        completion
        for start in range(0, count, at_once)
        for completion in switched(
            student, teacher, many, short, options, streams=draws[start : start + at_once]
        )
    ]
    first, taken = chosen_distribution(student.causal_lm, teacher.causal_lm, prompt, options.at(0))
    expected = np.zeros((VOCABULARY, VOCABULARY))
    takes = {taken}
    for token in range(VOCABULARY):
        second, taken = chosen_distribution(
            student.causal_lm, teacher.causal_lm, [*prompt, token], options.at(1)
        )
        takes.add(taken)
        expected[token] = float(first[token]) * second.numpy()
    expected[EOS] = 0
    expected[EOS, 0] = float(first[EOS])  # a completion of one token is counted in this cell
    assert takes == {True, False}, (
        "the case must have the teacher taking over at some prefixes and not at others"
    )
    counts = np.zeros_like(expected)
    for each in written:
        counts[each.tokens[0], each.tokens[1] if len(each.tokens) > 1 else 0] += 1
    likely = expected * count >= 5
    cells = int(likely.sum())
    chi_square = ((counts - expected * count)[likely] ** 2 / (expected * count)[likely]).sum()
    rest, rest_expected = counts[~likely].sum(), expected[~likely].sum() * count
    chi_square += (rest - rest_expected) ** 2 / rest_expected
    # Mean `cells`, standard deviation √(2·cells): five of them are not chance.
    assert chi_square < cells + 5 * math.sqrt(2 * cells)


@pytest.mark.parametrize("block", [1, *(pytest.param(b, marks=pytest.mark.slow) for b in (2, 5, 20)), None])
def test_at_its_ends_it_is_the_student_alone_or_the_teacher_alone(block):
    student, teacher = models("llama", spread=2.0)
    tree, _ = random_tree(13)
    never = SwitchOptions(threshold=math.log(2) + 1e-6, decay=0.0, block_length=block)
    always = SwitchOptions(threshold=0.0, decay=0.0, block_length=block)
    alone = switched(student, teacher, tree, SAMPLED, never, streams=streams(4))
    assert [each.tokens for each in alone] == generate(student, tree, SAMPLED, streams=streams(4))
    led = switched(student, teacher, tree, SAMPLED, always, streams=streams(4))
    assert [each.tokens for each in led] == generate(teacher, tree, SAMPLED, streams=streams(4))
    assert all(all(each.from_teacher) for each in led)


def test_a_teacher_that_never_takes_part_reads_long_blocks():
    student, teacher = models("llama", spread=2.0)
    tree, _ = random_tree(13)
    endless = replace(GREEDY, eos_token_id=-1, max_new_tokens=64)
    never = SwitchOptions(threshold=1.0, decay=0.0)
    for each in switched(student, teacher, tree, endless, never):
        assert each.teacher_passes / len(each.tokens) < 0.25


def test_eos_first_and_a_single_token():
    student, teacher = models("llama")
    tree, _ = random_tree(4)
    first = [generate(teacher, tree, replace(GREEDY, max_new_tokens=1))[row][0] for row in range(4)]
    for row, token in enumerate(first):
        alone = PromptTree(tree.prefix, (tree.questions[row],))
        ends_at_once = replace(GREEDY, eos_token_id=token)
        (written,) = switched(student, teacher, alone, ends_at_once, SwitchOptions(threshold=0.0, decay=0.0))
        assert written.tokens == (token,)
    one = switched(student, teacher, tree, replace(GREEDY, max_new_tokens=1), SwitchOptions())
    assert [len(each.tokens) for each in one] == [1] * 4


@pytest.mark.slow
@pytest.mark.parametrize("options", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("family_name", ["llama", "gpt2"])
def test_trees_written_together_equal_each_alone(family_name, options):
    student, teacher = models(family_name, spread=3.0)
    trees = [random_tree(seed, questions=count)[0] for seed, count in ((5, 3), (6, 1), (7, 4))]
    switch = SwitchOptions(threshold=0.4, decay=0.05)
    own = [streams(len(tree.questions), seed) for seed, tree in enumerate(trees)]
    together = switch_generate(student, teacher, trees, options, switch, streams=own)
    for seed, (tree, written) in enumerate(zip(trees, together, strict=True)):
        each = streams(len(tree.questions), seed)
        alone = switched(student, teacher, tree, options, switch, streams=each)
        assert [(one.tokens, one.from_teacher) for one in written] == [
            (one.tokens, one.from_teacher) for one in alone
        ]


def test_padded_layout_writes_the_same():
    tree, _ = random_tree(21)
    options = SwitchOptions(threshold=0.4)
    together = switched(*models("llama"), tree, SAMPLED, options, streams=streams(4))
    apart = switched(*models("llama", layout="padded"), tree, SAMPLED, options, streams=streams(4))
    assert [each.tokens for each in apart] == [each.tokens for each in together]


@pytest.mark.slow
@pytest.mark.parametrize("block", [None, 5])
def test_models_that_run_no_tree_follow_the_definition(block):
    student, teacher = models("mistral", layout="padded")
    tree, _ = random_tree(12)
    options = SwitchOptions(threshold=0.5, decay=0.02, block_length=block)
    written = switched(student, teacher, tree, GREEDY, options)
    assert [(each.tokens, each.from_teacher) for each in written] == [
        sequential_switch(student.causal_lm, teacher.causal_lm, tree.prefix + question, options)
        for question in tree.questions
    ]
    assert 0 < sum(sum(each.from_teacher) for each in written) < sum(len(each.tokens) for each in written)


def test_schedules():
    exponential, linear, constant = (SwitchOptions(0.4, 0.1, schedule) for schedule in ThresholdSchedule)
    assert [o.at(0) for o in (exponential, linear, constant)] == [0.4] * 3
    assert exponential.at(10) == pytest.approx(0.4 / math.e)
    assert linear.at(5) == pytest.approx(0.2)
    assert linear.at(20) == 0
    assert constant.at(100) == 0.4


def test_block_length_follows_how_often_the_teacher_takes_over():
    def settled(share, cost=1.0):
        length = BlockLength(cost)
        length.count(10_000, round(10_000 * share))
        return length.choose()

    assert settled(1.0) == 1
    assert settled(0.0) == max(BlockLength.CHOICES)
    assert settled(0.9) <= settled(0.5) <= settled(0.2) <= settled(0.02)
    assert settled(0.2, cost=10.0) >= settled(0.2, cost=1.0)
    assert BlockLength(1.0, fixed=7).choose() == 7
