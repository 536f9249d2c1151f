"""FlexAttention on a tree: the mask is `visible`, filling changes nothing, and the shapes are few.

On a CPU the same mask runs through SDPA, and torch's own FlexAttention is compared with it without gradient, which
is all it offers there. Tests marked `gpu` run the compiled kernels.
"""

import functools
from types import SimpleNamespace

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.nn.attention.flex_attention import create_block_mask, create_mask
from torch.nn.attention.flex_attention import flex_attention as eager_flex_attention

from distilsql.models import flex_attention, tree_model
from distilsql.models.flex_attention import BLOCK, bucket, fits_flex_attention, flex_pass, head_size
from distilsql.models.layout_check import tree_is_exact
from distilsql.models.tree import (
    Branch,
    Nodes,
    PassLayout,
    PromptTree,
    branch_nodes,
    prefix_nodes,
    question_nodes,
    visible,
)
from distilsql.models.tree_model import TreeModel, default_attention
from families import (
    VOCABULARY,
    assert_gradients_are_finite,
    assert_kernels_as_padded,
    make_model,
    random_tree,
    wide_tree,
    with_lora,
)

CPU = torch.device("cpu")
BLOCK_FAMILIES = ["llama", "qwen2", "gpt2", "opt"]


def pass_layouts(tree: PromptTree, branches: list[Branch]) -> dict[str, PassLayout]:
    """The passes a TreeModel runs, by name."""
    prefix, questions = prefix_nodes(len(tree.prefix)), question_nodes(tree)
    answers = branch_nodes(tree, branches)

    def layout(new: Nodes, **past: Nodes) -> PassLayout:
        return PassLayout(new.depth_T, new, **past)

    return {
        "one pass": layout(Nodes.joined([prefix, questions, answers])),
        "prefix": layout(prefix),
        "after a cached prefix": layout(Nodes.joined([questions, answers]), past_prefix=prefix),
        "branches": layout(answers, past_prefix=prefix, past=questions),
    }


@pytest.mark.parametrize("make_tree", [random_tree, wide_tree])
@pytest.mark.parametrize("kind", ["one pass", "prefix", "after a cached prefix", "branches"])
def test_the_mask_is_visible_and_filling_sees_itself_alone(kind, make_tree):
    layout = pass_layouts(*make_tree(1))[kind]
    filled, context = flex_pass(layout, None, None, CPU)
    queries, keys = context.mask.shape[-2:]
    assert queries % BLOCK == keys % BLOCK == 0
    assert len(filled.token_ids_T) == len(filled.nodes) == queries
    mask = create_mask(context.mask.mask_mod, None, None, queries, keys, device=CPU)[0, 0].numpy()

    past = Nodes.joined([layout.past_prefix, layout.past])
    new, old = len(layout.nodes), len(past)
    real_keys = Nodes.joined([past, layout.nodes])
    assert (mask[:new, : old + new] == visible(layout.nodes, real_keys)).all()
    assert not mask[:new, old + new :].any()
    assert mask[new:].sum() == queries - new
    assert mask[new:, old + new : old + queries].diagonal().all()


@pytest.mark.parametrize("most_pairs", [1, 2**27])
@pytest.mark.parametrize("kind", ["one pass", "prefix", "after a cached prefix", "branches"])
def test_the_block_mask_is_the_one_that_torch_makes(kind, most_pairs, monkeypatch):
    monkeypatch.setattr(flex_attention, "MOST_PAIRS", most_pairs)
    layout = pass_layouts(*wide_tree(3))[kind]
    _, context = flex_pass(layout, None, None, CPU)
    mine = context.mask
    theirs = create_block_mask(mine.mask_mod, None, None, *mine.shape[-2:], device=CPU, BLOCK_SIZE=BLOCK)
    for name in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
        assert getattr(mine, name).tolist() == getattr(theirs, name).tolist()
    for counts, name in (("kv_num_blocks", "kv_indices"), ("q_num_blocks", "q_indices")):
        for prefix in ("", "full_"):
            own, other = getattr(mine, prefix + name)[0, 0], getattr(theirs, prefix + name)[0, 0]
            for row, count in enumerate(getattr(mine, prefix + counts)[0, 0].tolist()):
                assert own[row, :count].tolist() == other[row, :count].tolist()


def test_blocks_that_nobody_sees_are_skipped():
    """Questions of 128 tokens each after a prefix of 256: every block is full, causal or skipped."""
    questions = 6
    tree = PromptTree((1,) * 256, ((2,) * BLOCK,) * questions)
    layout = pass_layouts(tree, [Branch(0, (3,))])["one pass"]
    _, context = flex_pass(layout, None, None, CPU)
    computed = context.mask.to_dense().sum()
    assert (
        computed == 3 + questions * 3
    )  # the prefix's triangle; each question on two prefix blocks and itself


def test_lengths_come_from_a_short_list():
    lengths = range(1, 8192 + 1)
    for steps, shapes in ((4, 19), (2, 11)):
        found = [bucket(count, steps) for count in lengths]
        assert all(count <= filled for count, filled in zip(lengths, found, strict=True))
        assert all(filled % BLOCK == 0 for filled in found)
        assert found == sorted(found)
        assert len(set(found)) == shapes
        # No more than one step of filling, or part of a block; two blocks at least.
        assert all(
            filled == 2 * BLOCK or filled - count < max(BLOCK, count / steps)
            for count, filled in zip(lengths, found, strict=True)
        )


@pytest.mark.compiled
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.slow
@pytest.mark.parametrize("family", BLOCK_FAMILIES)
def test_torchs_flex_attention_gives_what_padded_rows_give(family, monkeypatch):
    calls = []

    def attend(query, key, value, mask, scale):
        calls.append(query.shape)
        return eager_flex_attention(query, key, value, block_mask=mask, scale=scale, enable_gqa=True)

    monkeypatch.setattr(flex_attention, "attend_by_blocks", attend)
    model = TreeModel(make_model(family), attention="flex")
    tree, branches = random_tree(2)
    with torch.no_grad():
        hidden = model.completion_hidden(tree, branches)
        in_steps = model.run_branches(model.run_prompts(tree, model.run_prefix(tree.prefix)), branches)
        assert len(calls) == 4 * 3  # four passes through three layers
        model.layout = "padded"
        expected = model.completion_hidden(tree, branches)
    torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(in_steps, expected, atol=1e-5, rtol=1e-5)


def test_filling_leaves_no_keys_behind():
    model = TreeModel(make_model("llama"), attention="flex")
    tree, _ = random_tree(3)
    with torch.no_grad():
        state = model.run_prompts(tree)
    assert {key.shape[2] for key, _ in state.prefix.layers} == {len(tree.prefix)}
    assert {key.shape[2] for key, _ in state.rest} == {sum(map(len, tree.questions))}


LIMIT = 8  # torch's, before it compiles no more


@pytest.mark.compiled
@pytest.mark.slow
@torch._dynamo.config.patch(recompile_limit=LIMIT)
def test_one_compilation_per_bucket_not_per_tree(monkeypatch):
    """Trees of every length share a few compiled shapes, and torch's limit is not in the way."""
    count, counter = 12, CompileCounter()
    assert LIMIT < flex_attention.SHAPE_LIMIT
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter))
    flex_attention.compiled_flex_attention.cache_clear()
    torch._dynamo.reset()
    compiled = flex_attention.compiled_flex_attention()
    shapes = set()
    with torch.no_grad():
        for seed in range(count):
            for kind in ("one pass", "branches"):
                layout = pass_layouts(*wide_tree(seed, questions=2 + seed))[kind]
                _, context = flex_pass(layout, None, None, CPU)
                queries, keys = context.mask.shape[-2:]
                query, key = torch.randn(1, 2, queries, 16), torch.randn(1, 1, keys, 16)
                compiled(query, key, key.clone(), block_mask=context.mask, scale=0.25, enable_gqa=True)
                shapes.add((queries, keys))
    flex_attention.compiled_flex_attention.cache_clear()
    assert LIMIT < len(shapes) < 2 * count
    assert counter.frame_count == len(shapes)


def test_attention_is_chosen_by_device_model_and_head_size(monkeypatch):
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(flex_attention.importlib.util, "find_spec", lambda name: name)
    capability = (9, 0)

    def chosen(size: int, device=gpu, supports: bool = True):
        config = SimpleNamespace(head_dim=None, hidden_size=3 * size, num_attention_heads=3)
        weight = SimpleNamespace(device=device)
        return default_attention(
            SimpleNamespace(
                config=config, parameters=lambda: iter([weight]), _supports_attention_backend=supports
            )
        )

    assert [chosen(size) for size in (16, 64, 128, 256)] == ["flex"] * 4
    assert [chosen(size) for size in (8, 24, 80, 512)] == ["dense"] * 4
    assert chosen(64, supports=False) == "dense"
    assert chosen(64, device=CPU) == "parts"
    capability = (7, 5)
    assert chosen(64) == "dense"


def test_head_size_of_every_family(family):
    model = make_model(family)
    key = TreeModel(model, attention="dense").run_prefix((1, 2)).layers[0][0]
    assert head_size(model.config) == key.shape[-1]
    assert not fits_flex_attention(model.config, CPU)


def test_a_gpu_without_working_kernels_falls_back_to_the_dense_mask(monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(tree_model, "flex_pass", broken)
    model = TreeModel(make_model("llama"), attention="flex")
    tree, branches = random_tree(4)
    assert tree_is_exact(model, tree, branches, VOCABULARY)
    assert (model.layout, model.attention) == ("tree", "dense")


# ---- compiled, on a GPU --------------------------------------------------------------------------------------

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="FlexAttention's kernels need a CUDA device"
)


def gpu_model(family: str, dtype: torch.dtype, lora: bool = False):
    model = make_model(family, head_size=16)
    return (with_lora(model) if lora else model).to("cuda", dtype)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("family", BLOCK_FAMILIES)
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_compiled_equals_padded_in_loss_and_every_gradient(family, lora):
    model = TreeModel(gpu_model(family, torch.float32, lora))
    assert model.attention == "flex"
    for tree, branches in (random_tree(0), wide_tree(0, questions=4)):
        if family in ("gpt2", "opt") and len(tree.prefix) > 64:
            continue  # their position tables end at 128
        assert_kernels_as_padded(model, tree, branches)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("family", BLOCK_FAMILIES)
def test_compiled_is_exact_in_bfloat16(family):
    model = TreeModel(gpu_model(family, torch.bfloat16))
    for seed in range(8):
        tree, branches = random_tree(seed)
        assert tree_is_exact(model, tree, branches, VOCABULARY)
        assert (model.layout, model.attention) == ("tree", "flex")


@pytest.mark.gpu
@needs_gpu
def test_compiled_trains_on_trees_of_every_length_without_a_nan():
    model = TreeModel(gpu_model("llama", torch.bfloat16))
    assert_gradients_are_finite(model, trees=12)
