"""Training: every row of the table trains, and means the same however it is laid out."""

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file

from distilsql.databases.normalise import normalise_sql
from distilsql.distill.head import Head
from distilsql.distill.methods import METHODS
from distilsql.inference.prepare import load_data, prepare
from distilsql.models.load import load_tokenizer
from distilsql.training import setup
from distilsql.training import train as train_module
from distilsql.training.train import train
from run_folders import step_lines, weights
from tiny_world import COMPLETION_TOKENS

# test_processes.py trains every method, too.
ACCOUNTED = ("kid", "gkd-rkl")


@pytest.mark.parametrize(
    "method", [name if name in ACCOUNTED else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
)
def test_every_method_trains_and_accounts_for_its_cost(recipe, tmp_path, method, tiny_models):
    run = train(recipe(method, "train.steps=2"), tmp_path / "run")
    summary = json.loads(run.summary.read_text())
    assert summary["method"] == method
    # Ten examples in four trees, and two trees a step.
    assert summary["examples_seen"] == 10
    assert summary["x_sft"] > 0
    assert summary["seconds_by_phase"]["student"] > 0
    row = METHODS[method]
    assert (summary["seconds_by_phase"]["teacher"] > 0) == (row.divergence is not None)
    assert summary["teacher"] == (str(tiny_models["teacher"]) if row.needs_teacher else None)
    log = step_lines(run)
    assert [line["step"] for line in log] == [1, 2]
    assert all(line["loss"] > 0 for line in log)
    assert (log[0]["divergence"] is not None) == (row.divergence is not None)
    assert (log[0]["negative_log_likelihood"] is not None) == (row.gold_weight + row.completion_weight > 0)
    start = load_file(tiny_models["student"] / "model.safetensors")
    assert any(not torch.equal(tensor, start[name]) for name, tensor in weights(run).items())


def test_sft_learns_the_pairs(learned):
    losses = [line["negative_log_likelihood"] for line in step_lines(learned)]
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [("student.tuning=lora",), ("train.precision=bfloat16",)])
def test_lora_and_bfloat16_train(recipe, tmp_path, overrides):
    run = train(recipe("kid", *overrides), tmp_path / "run")
    assert json.loads(run.summary.read_text())["examples_seen"] == 20
    assert (run.model / "model.safetensors").exists()


# Where two trainings are the same but for rounding, the student stands still: optimizer steps would make the rounding
# larger, until another token is chosen. Losses and gradients are compared window by window.
# Two windows have every example once.
STILL = ("train.learning_rate=1e-30", "generation.temperature=0", "train.steps=2")


def assert_same_windows(one, other):
    for mine, theirs in zip(step_lines(one), step_lines(other), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert mine["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-3)


@pytest.mark.parametrize(
    "method",
    [
        *("sft", "kid", "gkd-rkl"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("rkd", "kid-mask-only", "f-distill")),
    ],
)
def test_shared_and_padded_layout_give_the_same_losses_and_gradients(recipe, tmp_path, method):
    tree = train(recipe(method, "train.share_prefix=on", *STILL), tmp_path / "tree")
    padded = train(recipe(method, "train.share_prefix=off", *STILL), tmp_path / "padded")
    assert_same_windows(tree, padded)


def test_trees_per_step_do_not_change_the_loss_of_the_same_examples(recipe, tmp_path):
    """One window of ten examples as one tree or as four: the same loss and the same gradient."""
    whole = train(
        recipe("sft", "train.steps=1", "train.questions_per_tree=10", "train.trees_per_step=1"),
        tmp_path / "a",
    )
    parts = train(
        recipe("sft", "train.steps=1", "train.questions_per_tree=3", "train.trees_per_step=4"), tmp_path / "b"
    )
    one, other = step_lines(whole)[0], step_lines(parts)[0]
    assert one["examples_seen"] == other["examples_seen"] == 10
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
    assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-4)


def test_rkd_of_a_student_that_is_its_teacher_starts_at_zero_divergence(recipe, tmp_path, tiny_models):
    own = f"teacher.path='{tiny_models['student']}'"
    run = train(recipe("rkd", own, "train.steps=1", "distill.gold_weight=0"), tmp_path / "run")
    assert abs(step_lines(run)[0]["divergence"]) < 1e-6


def test_the_loss_is_the_weighted_sum_of_its_logged_parts(recipe, tmp_path):
    run = train(recipe("kid", "distill.reduction=per_token", "distill.gold_weight=0.5"), tmp_path / "run")
    for line in step_lines(run):
        assert line["loss"] == pytest.approx(
            line["divergence"] + 0.5 * line["negative_log_likelihood"], rel=1e-4
        )


def test_gold_context_gold_scores_the_gold_completion_itself(recipe, tmp_path):
    """With gold as context, KID's likelihood term is SFT's; with ŷ as context it is not."""
    sft = step_lines(train(recipe("sft", "train.steps=1"), tmp_path / "sft"))[0]
    gold = step_lines(train(recipe("kid", "train.steps=1", "distill.gold_context=gold"), tmp_path / "gold"))[
        0
    ]
    imperfect = step_lines(
        train(recipe("kid", "train.steps=1", "distill.mask_share=0.5"), tmp_path / "imperfect")
    )[0]
    assert gold["negative_log_likelihood"] == pytest.approx(sft["negative_log_likelihood"], rel=1e-5)
    assert imperfect["negative_log_likelihood"] != pytest.approx(sft["negative_log_likelihood"], rel=1e-4)


def test_kid_without_masks_is_rkd(recipe, tmp_path):
    kid = train(recipe("kid", "distill.mask_share=0", *STILL), tmp_path / "kid")
    assert_same_windows(kid, train(recipe("rkd", *STILL), tmp_path / "rkd"))


def test_tokens_are_counted_beside_the_seconds(recipe, world, tmp_path):
    """Two windows of everything: what each model reads in each."""
    counts = {}
    for method in ("sft", "rkd", "kid"):
        settings = ("train.steps=2", *(["distill.gold_context=gold"] if method == "kid" else []))
        run = train(recipe(method, *settings), tmp_path / method)
        counts[method] = json.loads(run.summary.read_text())["counts"]
    golds = [json.loads(line)["sql"] for line in (world / "pairs.jsonl").read_text().splitlines()]
    tokenizer = load_tokenizer(run.model)
    trained = sum(len(tokenizer(normalise_sql(sql)).input_ids) + 1 for sql in golds)
    assert counts["sft"].keys() == {"prompt_tokens", "student_tokens"}
    assert counts["sft"]["student_tokens"] == trained
    assert counts["rkd"] == counts["sft"] | {"teacher_tokens": trained}
    assert counts["kid"]["student_tokens"] == 2 * trained, "gold has branches of its own"
    assert counts["kid"]["teacher_tokens"] == trained
    assert counts["kid"]["prompt_tokens"] == counts["sft"]["prompt_tokens"] > 0


def test_a_finished_model_says_what_made_it(recipe, tmp_path):
    run = train(recipe("kid", "train.steps=1"), tmp_path / "run")
    card = (run.model / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "transformers"
    assert "by the method\n`kid`" in card
    seen = json.loads(run.summary.read_text())["examples_seen"]
    assert f"1 optimizer steps, {seen} examples" in card


@pytest.mark.parametrize(
    "strategy",
    ["random", "hard", *(pytest.param(name, marks=pytest.mark.slow) for name in ("uniform", "easy"))],
)
def test_kid_masks_the_ceiling_of_its_share_and_never_eos(recipe, world, tmp_path, strategy):
    settings = (f"distill.mask_strategy={strategy}", "distill.mask_share=0.3", "train.steps=2")
    run = train(recipe("kid", *settings), tmp_path / "run")
    golds = [json.loads(line)["sql"] for line in (world / "pairs.jsonl").read_text().splitlines()]
    tokenizer = load_tokenizer(run.model)
    lengths = [len(tokenizer(normalise_sql(sql)).input_ids) + 1 for sql in golds]
    expected = sum(-(-3 * length // 10) for length in lengths)
    assert json.loads(run.summary.read_text())["counts"]["masked_tokens"] == expected


@pytest.mark.parametrize("rewriting", ["greedy", pytest.param("sampled", marks=pytest.mark.slow)])
def test_kid_predicts_its_masks_in_chunks(recipe, tmp_path, monkeypatch, rewriting):
    """Never more logits than a loss chunk has, and the same predictions."""
    settings = (f"distill.rewriting={rewriting}", "distill.mask_share=0.5", "train.steps=2")
    whole = train(recipe("kid", *settings), tmp_path / "whole")
    rows = []
    inner = Head.logits

    def counted(self, hidden_ND, *rest):
        rows.append(len(hidden_ND))
        return inner(self, hidden_ND, *rest)

    monkeypatch.setattr(Head, "logits", counted)
    chunked = train(recipe("kid", *settings, "train.loss_chunk_rows=16"), tmp_path / "chunked")
    assert max(rows) == 16
    assert [line["counts"] for line in step_lines(chunked)] == [line["counts"] for line in step_lines(whole)]


def test_the_start_up_check_runs_the_longest_tree_of_the_first_window(recipe, tmp_path, monkeypatch):
    checked = []
    check = setup.tree_is_exact

    def recorded(model, tree, branches, *rest, **options):
        questions = [tree.questions[branch.question] + branch.tokens for branch in branches]
        checked.append((max(map(len, questions)), options["longest_tokens"]))
        return check(model, tree, branches, *rest, **options)

    monkeypatch.setattr(setup, "tree_is_exact", recorded)
    trees = ("train.questions_per_tree=1", "train.trees_per_step=10", "train.steps=1")
    run = train(recipe("sft", *trees), tmp_path / "run")
    assert len(checked) == 1
    settings = recipe("sft")
    found = prepare(load_data(settings)[0], load_tokenizer(run.model), settings.prompt, training=True)
    longest = max(len(each.question) + len(each.gold) for each in found.examples)
    assert checked == [(longest, 400 + COMPLETION_TOKENS - 1)]


def test_the_peak_of_a_run_is_not_that_of_its_start_up_check(recipe, tmp_path, monkeypatch):
    order = []
    check, reset = setup.tree_is_exact, train_module.reset_peak_memory
    monkeypatch.setattr(setup, "tree_is_exact", lambda *a, **k: order.append("check") or check(*a, **k))
    monkeypatch.setattr(train_module, "reset_peak_memory", lambda: order.append("reset") or reset())
    train(recipe("sft", "train.steps=1"), tmp_path / "run")
    assert order == ["check", "reset"]


@pytest.mark.parametrize("method", ["gkd-rkl", pytest.param("imitkd", marks=pytest.mark.slow), "switch"])
def test_generated_completions_are_counted_themselves(recipe, tmp_path, method):
    """Per token, the loss is the mean over the tokens that were generated, not over the dataset's."""
    run = train(recipe(method, "distill.reduction=per_token", "train.steps=2"), tmp_path / "run")
    for line in step_lines(run):
        assert line["loss"] == pytest.approx(line["divergence"], rel=1e-4)
