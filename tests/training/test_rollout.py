"""Rounds of generation: who writes which window, what a round costs, and that a run stopped inside one goes on."""

import json
from collections import Counter
from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distilsql.data.example import Example
from distilsql.inference.loading import load_engines
from distilsql.inference.prepare import TokenizedExample, load_data, prepare
from distilsql.models.batches import fill_batches
from distilsql.models.tree import PromptTree
from distilsql.training.ledger import Ledger, Phase
from distilsql.training.rollout import Rollout
from distilsql.training.sampling import Sampler, WindowStream
from distilsql.training.sources import writing
from distilsql.training.sources.decode_batches import decode_batches
from distilsql.training.sources.student import Student
from distilsql.training.train import train
from distilsql.training.window import WindowTrainer
from distilsql.training.window_tree import WindowTree
from run_folders import losses, whole_and_resumed

RESUMED = [("switch", 1), ("gkd-rkl", 2), ("imitkd", 1), ("imitkd", 2), ("f-distill", 2)]


def slowly(cases: list[tuple]) -> list:
    return [pytest.param(*case, marks=pytest.mark.slow) for case in cases]


# ---- what is written when ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("method", ["imitkd", "gkd-rkl", "f-distill", "switch"])
def test_a_student_that_stands_still_writes_the_same_in_rounds_of_any_length(recipe, tmp_path, method):
    """Random streams belong to examples: which of them share a round, or a batch, changes nothing."""
    still = ("train.learning_rate=1e-30", "train.steps=5")
    one = train(recipe(method, *still), tmp_path / "one")
    for name, keys in {
        "rounds": ("generation.rollout_window=3",),
        "small batches": ("generation.rollout_window=2", "generation.max_batch_rows=2"),
    }.items():
        assert losses(train(recipe(method, *still, *keys), tmp_path / name)) == pytest.approx(
            losses(one), rel=1e-4
        )


def test_a_round_serves_its_steps_and_the_last_one_ends_with_the_training(recipe, tmp_path, monkeypatch):
    done, rounds = [0], []
    real = Student.write

    def spy(self, items):
        if self.recipe.method == "gkd-rkl":
            rounds.append((done[-1], sum(len(item.examples) for item in items)))
        return real(self, items)

    monkeypatch.setattr(Student, "write", spy)
    train(
        recipe("gkd-rkl", "train.steps=6", "generation.rollout_window=4"),
        tmp_path / "run",
        on_step=lambda line: done.append(line["step"]),
    )
    assert rounds == [(0, 20), (4, 10)]  # windows of 6, 4, 6, 4 and 6, 4 examples


@pytest.mark.slow
def test_later_windows_of_a_round_are_written_by_an_older_student(recipe, tmp_path):
    on_policy = losses(train(recipe("gkd-rkl"), tmp_path / "one"))
    replayed = losses(train(recipe("gkd-rkl", "generation.rollout_window=4"), tmp_path / "four"))
    assert replayed[0] == pytest.approx(on_policy[0], rel=1e-5)
    assert replayed[2:] != pytest.approx(on_policy[2:], rel=1e-3)


def test_a_method_that_generates_nothing_has_no_rounds(recipe):
    assert recipe("kid", "generation.rollout_window=4").steps_per_round == 1
    assert recipe("switch", "generation.rollout_window=4").steps_per_round == 4


@pytest.mark.slow
@pytest.mark.parametrize(("method", "saved_after"), [("switch", 2), *slowly(RESUMED)])
def test_a_run_stopped_inside_a_round_resumes_to_the_same_bits(recipe, tmp_path, method, saved_after):
    settings = recipe(
        method,
        "train.steps=6",
        "generation.rollout_window=4",
        f"train.save_every_steps={saved_after}",
        "train.precision=bfloat16",
    )
    whole, resumed = whole_and_resumed(settings, tmp_path, killed_at=3)
    assert losses(resumed) == losses(whole)
    counts = [json.loads(run.summary.read_text())["counts"] for run in (whole, resumed)]
    assert counts[0] == counts[1]
    traces = [json.loads(run.summary.read_text()).get("switch") for run in (whole, resumed)]
    assert traces[0] == traces[1]
    assert (traces[0] is not None) == (method == "switch")


# ---- rounds themselves ---------------------------------------------------------------------------------------


@pytest.fixture
def make_rollout(recipe):
    """`make_rollout("gkd-rkl", steps=4, process=0, processes=2, …)` over the tiny world."""

    def make(method: str, *overrides: str, steps: int = 5, process: int = 0, processes: int = 1) -> Rollout:
        settings = recipe(method, *overrides)
        device = torch.device("cpu")
        engines = load_engines(settings, device)
        prepared = prepare(load_data(settings)[0], engines.tokenizer, settings.prompt, training=True)
        windows = WindowStream(
            Sampler(
                [one.prefix_key for one in prepared.examples],
                0,
                settings.train.questions_per_tree,
                settings.train.trees_per_step,
                settings.train.largest_tree,
            )
        )
        trainer = WindowTrainer(settings, engines, Ledger(device))
        return Rollout(trainer, windows, prepared, steps, process=process, processes=processes)

    return make


def test_the_cost_of_a_round_is_spread_over_its_windows_by_examples(make_rollout, monkeypatch):
    rollout = make_rollout("gkd-rkl", "generation.rollout_window=3", steps=5)
    ledger = rollout._trainer.ledger
    ready = [rollout.window(step) for step in range(3)]
    round_seconds = ledger.seconds[Phase.GENERATION]
    assert round_seconds > 0
    assert sum(each.generation_seconds for each in ready) == pytest.approx(round_seconds)
    sizes = [sum(len(item.examples) for item in each.items) for each in ready]
    assert sorted(sizes[:2]) == [4, 6]  # two windows an epoch, in either order
    per_example = [each.generation_seconds / size for each, size in zip(ready, sizes, strict=True)]
    assert all(one == pytest.approx(other) for one, other in pairwise(per_example))
    second = [rollout.window(step) for step in (3, 4)]
    assert sum(each.generation_seconds for each in second) == pytest.approx(
        ledger.seconds[Phase.GENERATION] - round_seconds
    )


def test_x_sft_charges_generation_to_windows_that_were_written_earlier(recipe, tmp_path, monkeypatch):
    """Generation made slow on purpose: × SFT shows it although the timed step itself generates nothing."""
    real, clock = writing.generate_trees, [0.0]

    def slow(*args, **kwargs):
        clock[0] += 100.0
        return real(*args, **kwargs)

    monkeypatch.setattr(writing, "generate_trees", slow)
    monkeypatch.setattr("distilsql.training.ledger.time.perf_counter", lambda: _tick(clock))
    keys = ("train.steps=4", "generation.rollout_window=4", "generation.max_batch_rows=100")
    run = train(recipe("gkd-rkl", *keys), tmp_path / "run")  # times step 2, in the middle of the only round
    summary = json.loads(run.summary.read_text())
    # The round is one batch: 100 s for 20 examples.
    assert summary["seconds_by_phase"]["generation"] == pytest.approx(100, rel=0.05)
    assert summary["x_sft"] * summary["sft_seconds_per_example"] >= 5


def _tick(clock: list[float]) -> float:
    clock[0] += 0.01
    return clock[0]


@pytest.mark.parametrize("method", ["gkd-rkl", "switch"])
@pytest.mark.parametrize("processes_after", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_pending_completions_survive_a_checkpoint_and_another_number_of_processes(
    make_rollout, method, processes_after
):
    keys = ("generation.rollout_window=4", "train.questions_per_tree=2", "train.trees_per_step=3")
    before = [make_rollout(method, *keys, process=process, processes=2) for process in (0, 1)]
    for rollout in before:
        rollout.window(0)
    saved = json.loads(json.dumps([entry for rollout in before for entry in rollout.state()]))
    expected = {
        (step, item.numbers): trained
        for step in (1, 2, 3)
        for rollout in before
        for ready in [rollout.window(step)]
        for item, trained in zip(ready.items, ready.trained, strict=True)
    }
    found = {}
    for process in range(processes_after):
        rollout = make_rollout(method, *keys, process=process, processes=processes_after)
        rollout.load(saved)
        for step in (1, 2, 3):
            ready = rollout.window(step)
            assert ready.generation_seconds > 0 or not ready.items
            found |= {
                (step, item.numbers): trained
                for item, trained in zip(ready.items, ready.trained, strict=True)
            }
        assert rollout._trainer.ledger.seconds[Phase.GENERATION] == 0, "nothing is written again"
    assert found == expected


# ---- batches -------------------------------------------------------------------------------------------------


# Per tree: number of its prefix, its epoch, and the lengths of its gold queries.
rounds = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 1), st.lists(st.integers(1, 9), min_size=1, max_size=5)),
    min_size=1,
    max_size=6,
)


def all_places(items) -> list[tuple[int, int]]:
    return [(tree, row) for tree, item in enumerate(items) for row in range(len(item.examples))]


def window_trees(shapes) -> list[WindowTree]:
    items, number = [], 0
    for prefix, epoch, golds in shapes:
        numbers = tuple(range(number, number + len(golds)))
        number += len(golds)
        examples = tuple(
            TokenizedExample(Example(str(n), "db", "?", "SELECT 1"), str(prefix), (n,), tuple(range(length)))
            for n, length in zip(numbers, golds, strict=True)
        )
        tree = PromptTree((100 + prefix,), tuple(example.question for example in examples))
        items.append(WindowTree(str(prefix), tree, examples, numbers, epoch))
    return items


@given(rounds, st.integers(1, 7), st.data())
def test_batches_hold_every_row_once_under_its_own_prefix_and_stream(shapes, max_rows, data):
    items = window_trees(shapes)
    wanted = data.draw(st.lists(st.sampled_from(all_places(items)), unique=True))
    batches = decode_batches(items, wanted, max_rows)
    assert sorted(place for batch in batches for part in batch for place in part.places) == sorted(wanted)
    for batch in batches:
        assert 1 <= sum(len(part.places) for part in batch) <= max_rows
        for part in batch:
            for row, (tree, own_row) in enumerate(part.places):
                item = items[tree]
                assert part.item.tree.prefix == item.tree.prefix
                assert part.item.tree.questions[row] == item.tree.questions[own_row]
                assert part.item.examples[row] == item.examples[own_row]
                assert (part.item.epoch, part.item.numbers[row]) == (item.epoch, item.numbers[own_row])


@given(rounds)
def test_one_batch_with_a_tree_per_prefix_and_epoch_where_they_fit(shapes):
    items = window_trees(shapes)
    (batch,) = decode_batches(items, all_places(items), 1000)
    assert len(batch) == len({(item.prefix_key, item.epoch) for item in items})


@given(st.lists(st.lists(st.integers(), min_size=1, max_size=9), max_size=8), st.integers(1, 6))
def test_groups_are_cut_only_where_they_do_not_fit_a_batch(groups, max_rows):
    batches = fill_batches(groups, max_rows)
    parts = [part for batch in batches for part in batch]
    assert len(parts) == sum(-(-len(group) // max_rows) for group in groups)
    assert sorted(row for part in parts for row in part) == sorted(row for group in groups for row in group)
    rows = [sum(map(len, batch)) for batch in batches]
    assert all(count <= max_rows for count in rows)
    # No two batches could have been one.
    assert all(one + other > max_rows for one, other in combinations(rows, 2))


@given(rounds, st.integers(1, 4))
def test_a_database_that_is_split_is_split_by_length(shapes, max_rows):
    items = window_trees(shapes)
    sizes: Counter[tuple[str, int]] = Counter()
    for item in items:
        sizes[item.prefix_key, item.epoch] += len(item.examples)
    parts: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for batch in decode_batches(items, all_places(items), max_rows):
        for part in batch:
            lengths = [len(example.gold) for example in part.item.examples]
            parts.setdefault((part.item.prefix_key, part.item.epoch), []).append((min(lengths), max(lengths)))
    for key, size in sizes.items():
        if size > max_rows:
            # Whatever batch a part went to: no part reaches into another's range of lengths.
            assert all(low[1] <= high[0] for low, high in pairwise(sorted(parts[key])))
