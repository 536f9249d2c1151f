"""A step of fixed shapes writes what row-by-row decoding writes; on a GPU, recorded, too.

A CPU runs the same step without recording it.
"""

import pytest
import torch

from distilsql.models import graph_writing
from distilsql.models.generate import GenerationOptions, generate_trees, uniform_stream
from distilsql.models.graph_writing import Grid, TokenStep, can_record, ended_at
from distilsql.models.tree import PromptTree
from distilsql.models.tree_model import TreeModel
from families import VOCABULARY, make_model, random_tree

GREEDY = GenerationOptions(eos_token_id=2, vocabulary_size=VOCABULARY, max_new_tokens=12)
SAMPLED = GenerationOptions(eos_token_id=2, vocabulary_size=VOCABULARY, max_new_tokens=12, temperature=0.7)
BLOCK_FAMILIES = ["llama", "qwen2", "gpt2", "opt"]


@pytest.fixture
def trees():
    """Of different prefixes and numbers of questions; one has no prefix."""
    made = [random_tree(seed, questions=count)[0] for seed, count in ((5, 3), (6, 1), (7, 6))]
    made[1] = PromptTree((), made[1].questions)
    return made


def streams(trees):
    return [
        [uniform_stream(seed, number) for number in range(len(tree.questions))]
        for seed, tree in enumerate(trees)
    ]


@pytest.fixture
def unrecorded(monkeypatch):
    """Steps are run as they are; the grids that were made, in order."""
    made = []
    monkeypatch.setattr(graph_writing.TokenStep, "record", lambda step: made.append(step.grid))
    monkeypatch.setattr("distilsql.models.generate.can_record", lambda model: True)
    return made


def both(model, trees, options, monkeypatch):
    by_graph = generate_trees(model, trees, options, streams=streams(trees))
    with monkeypatch.context() as patch:
        patch.setattr("distilsql.models.generate.can_record", lambda model: False)
        return by_graph, generate_trees(model, trees, options, streams=streams(trees))


@pytest.mark.parametrize("options", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("family", BLOCK_FAMILIES)
def test_a_grid_writes_what_decoding_row_by_row_writes(family, options, trees, unrecorded, monkeypatch):
    model = TreeModel(make_model(family, seed=2, spread=3.0).double())
    by_graph, expected = both(model, trees, options, monkeypatch)
    assert by_graph == expected


def test_rows_that_end_early_end_there(trees, unrecorded, monkeypatch):
    model = TreeModel(make_model("llama", seed=2, spread=3.0).double())
    third = generate_trees(model, trees, GREEDY)[0][0][2]
    options = GenerationOptions(eos_token_id=third, vocabulary_size=VOCABULARY, max_new_tokens=12)
    by_graph, expected = both(model, trees, options, monkeypatch)
    assert by_graph == expected
    assert by_graph[0][0][-1] == third
    alone = [PromptTree(trees[0].prefix, trees[0].questions[:1])]
    steps = []
    step = TokenStep.step
    monkeypatch.setattr(TokenStep, "step", lambda self: steps.append(step(self)))
    assert generate_trees(model, alone, options) == [[by_graph[0][0]]]
    assert len(steps) == graph_writing.LOOK_EVERY


def test_one_grid_serves_prompts_of_like_size_and_leaves_nothing_of_the_last_ones(
    trees, unrecorded, monkeypatch
):
    model = TreeModel(make_model("llama", seed=2, spread=3.0).double())
    others = [random_tree(seed, questions=count)[0] for seed, count in ((15, 2), (16, 5), (17, 1))]
    for each in (trees, others, trees):
        by_graph, expected = both(model, each, SAMPLED, monkeypatch)
        assert by_graph == expected
    assert len(unrecorded) == 1


def test_weights_may_change_in_place_and_are_found_where_they_have_moved(trees, unrecorded, monkeypatch):
    network = make_model("llama", seed=2, spread=3.0).double()
    model = TreeModel(network)
    both(model, trees, GREEDY, monkeypatch)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.9)
    by_graph, expected = both(model, trees, GREEDY, monkeypatch)
    assert by_graph == expected
    assert len(unrecorded) == 1
    for parameter in network.parameters():
        parameter.data = parameter.data.clone()
    both(model, trees, GREEDY, monkeypatch)
    assert len(unrecorded) == 2


def test_a_step_that_cannot_be_recorded_is_not_tried_again(trees, monkeypatch, caplog):
    tried = []

    def fails(step):
        tried.append(step)
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(graph_writing.TokenStep, "record", fails)
    monkeypatch.setattr("distilsql.models.generate.can_record", lambda model: True)
    model = TreeModel(make_model("llama").double())
    for _ in range(2):
        by_graph, expected = both(model, trees, GREEDY, monkeypatch)
        assert by_graph == expected
    assert len(tried) == 1
    assert "one kernel at a time" in caplog.text


def test_a_record_that_gives_something_else_is_not_used():
    hidden = torch.randn(4, 8)
    TokenStep.check(hidden + 1e-4, hidden)
    for other in (hidden.flip(0), torch.full_like(hidden, torch.nan)):
        with pytest.raises(RuntimeError, match="differs from what it was recorded from"):
            TokenStep.check(other, hidden)


def test_grids_too_large_are_left_to_decoding(trees, unrecorded, monkeypatch):
    monkeypatch.setattr(graph_writing, "MOST_BYTES", 1000)
    model = TreeModel(make_model("llama").double())
    by_graph, expected = both(model, trees, GREEDY, monkeypatch)
    assert by_graph == expected
    assert unrecorded == []


def test_prompts_are_run_once_where_nothing_is_recorded(trees, unrecorded, monkeypatch):
    monkeypatch.setattr(graph_writing, "MOST_BYTES", 1000)
    run = []
    run_prompts = TreeModel.run_prompts
    monkeypatch.setattr(
        TreeModel, "run_prompts", lambda model, *given: run.append(given) or run_prompts(model, *given)
    )
    generate_trees(TreeModel(make_model("llama").double()), trees, GREEDY)
    assert len(run) == len(trees)


def test_only_some_grids_are_kept(trees, unrecorded, monkeypatch):
    monkeypatch.setattr(graph_writing, "MOST_GRIDS", 2)
    model = TreeModel(make_model("llama").double())
    for options in (GREEDY, SAMPLED, GREEDY):
        both(model, trees, options, monkeypatch)
    assert len(unrecorded) == 2
    both(model, trees[:1], GREEDY, monkeypatch)
    both(model, trees, SAMPLED, monkeypatch)
    assert len(unrecorded) == 4


def test_grids_are_rounded_up():
    model = TreeModel(make_model("llama"))
    states = [model.run_prompts(random_tree(seed, questions=5)[0]) for seed in (1, 2)]
    grid = Grid.holding(states, 12, VOCABULARY, 0.0)
    assert (grid.trees, grid.rows, grid.prefix, grid.columns, grid.tokens) == (2, 8, 256, 256, 12)
    step = TokenStep(model, grid, states[0])
    held = [*step.prefix_keys, *step.prefix_values, *step.keys, *step.values]
    assert grid.bytes(states) == sum(tensor.nbytes for tensor in held)


def test_what_follows_the_end_is_cut_off():
    assert ended_at([5, 2, 7, 2], 2) == (5, 2)
    assert ended_at([5, 7], 2) == (5, 7)


def test_a_cpu_records_nothing():
    assert not can_record(TreeModel(make_model("llama")))


# ---- recorded, on a GPU --------------------------------------------------------------------------------------

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("options", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("family", BLOCK_FAMILIES)
def test_recorded_steps_write_what_a_cpu_writes(family, options, trees):
    network = make_model(family, seed=2, spread=3.0, head_size=16)
    expected = generate_trees(TreeModel(network), trees, options, streams=streams(trees))
    on_gpu = TreeModel(network.to("cuda"))
    for _ in range(2):
        assert generate_trees(on_gpu, trees, options, streams=streams(trees)) == expected
    assert on_gpu in graph_writing._RECORDED
    assert on_gpu not in graph_writing._UNFIT


@pytest.mark.gpu
@needs_gpu
def test_recorded_steps_read_the_weights_of_the_moment(trees):
    network = make_model("llama", seed=2, spread=3.0, head_size=16).to("cuda")
    model = TreeModel(network)
    before = generate_trees(model, trees, GREEDY, streams=streams(trees))
    with torch.no_grad():
        network.get_output_embeddings().weight.neg_()
    after = generate_trees(model, trees, GREEDY, streams=streams(trees))
    assert before != after
    fresh = generate_trees(TreeModel(network), trees, GREEDY, streams=streams(trees))
    assert after == fresh
