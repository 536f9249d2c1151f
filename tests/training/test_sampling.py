"""Windows: every example once an epoch, trees of one database, a pure function of the seed."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from distilsql.training.sampling import Sampler, WindowStream

KEYS = st.lists(st.sampled_from("abcde"), min_size=1, max_size=60)


@given(KEYS, st.integers(0, 99), st.integers(1, 7), st.integers(1, 4), st.integers(0, 20))
def test_each_epoch_sees_each_example_once_in_trees_of_one_prefix(keys, seed, questions, trees, largest):
    sampler = Sampler(keys, seed, questions, trees, largest)
    for epoch in (0, 3):
        windows = sampler.epoch(epoch)
        flat = [tree for window in windows for tree in window]
        assert sorted(example for tree in flat for example in tree.examples) == list(range(len(keys)))
        for tree in flat:
            assert len({keys[example] for example in tree.examples}) == 1
            assert 1 <= len(tree.examples) <= max(questions, largest)
            assert tree.epoch == epoch
        assert all(sum(len(tree.examples) for tree in window) <= questions * trees for window in windows)
        assert sampler.epoch(epoch) == windows


@given(KEYS, st.integers(0, 99), st.integers(1, 7), st.integers(1, 4), st.integers(1, 20))
def test_joining_trees_changes_which_share_a_pass_and_not_which_share_a_step(
    keys, seed, questions, trees, largest
):
    apart = Sampler(keys, seed, questions, trees, 0).epoch(0)
    joined = Sampler(keys, seed, questions, trees, largest).epoch(0)
    for one, other in zip(apart, joined, strict=True):
        assert sorted(n for tree in one for n in tree.examples) == sorted(
            n for t in other for n in t.examples
        )
        # As few trees as first fit makes: no two of one prefix could have been one.
        for prefix in set(keys):
            sizes = [len(tree.examples) for tree in other if keys[tree.examples[0]] == prefix]
            assert all(size + more > largest for size, more in combinations(sizes, 2))


def test_a_step_of_one_database_is_one_tree():
    (window, *_) = Sampler(["a"] * 48, 0, 4, 4, 16).epoch(0)
    assert [len(tree.examples) for tree in window] == [16]


@given(KEYS, st.integers(0, 99), st.integers(1, 7), st.integers(1, 4))
def test_no_two_windows_could_have_been_one(keys, seed, questions, trees):
    sizes = [
        sum(len(t.examples) for t in window) for window in Sampler(keys, seed, questions, trees, 0).epoch(0)
    ]
    assert all(one + other > questions * trees for one, other in combinations(sizes, 2))


def test_small_trees_share_a_window():
    sampler = Sampler([str(number) for number in range(32)], 0, 8, 1, 8)
    assert [len(window) for window in sampler.epoch(0)] == [8, 8, 8, 8]


def test_orders_differ_between_seeds_and_epochs():
    keys = ["a"] * 20 + ["b"] * 20
    assert Sampler(keys, 0, 4, 2, 4).epoch(0) != Sampler(keys, 1, 4, 2, 4).epoch(0)
    epochs = [Sampler(keys, 0, 4, 2, 4).epoch(number) for number in (0, 1)]
    assert [[t.examples for t in w] for w in epochs[0]] != [[t.examples for t in w] for w in epochs[1]]


@given(KEYS, st.integers(0, 9))
def test_a_stream_joined_anywhere_goes_on_the_same(keys, seed):
    sampler = Sampler(keys, seed, 3, 2, 6)
    from_start = WindowStream(sampler)
    whole = [from_start.window(step) for step in range(from_start.steps(3))]
    assert sum(len(tree.examples) for window in whole for tree in window) == 3 * len(keys)
    assert from_start.first_epoch_steps == len(sampler.epoch(0))
    middle = len(whole) // 2
    joined = WindowStream(sampler)
    assert [joined.window(step) for step in range(middle, len(whole))] == whole[middle:]
    assert joined.window(0) == whole[0]
