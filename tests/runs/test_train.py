"""Training: every row of the table trains, resumes to the bit, and means the same however it is laid out."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file

from distilsql.databases.normalise import normalise_sql
from distilsql.distill.loss import Head
from distilsql.distill.methods import METHODS
from distilsql.errors import DataError, RunError, TrainingError
from distilsql.models.load import load_tokenizer
from distilsql.runs import checkpoint, window
from distilsql.runs import train as train_module
from distilsql.runs.folder import RunFolder
from distilsql.runs.prepare import prepare
from distilsql.runs.train import Progress, load_data, train
from distilsql.runs.window import WindowLoss


def log_of(run) -> list[dict]:
    lines = [json.loads(line) for line in run.log.read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def weights(run) -> dict[str, torch.Tensor]:
    return load_file(run.model / "model.safetensors")


def assert_same_weights(one, other):
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert torch.equal(tensor, theirs[name]), name


def test_a_model_that_cannot_be_written_costs_no_training(recipe, tmp_path, monkeypatch):
    """What safetensors says of a full disk is an error type of its own. The folder may move before the next start."""

    def full(*arguments, **options):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(train_module, "save_model", full)
    with pytest.raises(RunError, match=r"No space left on device.*only writes the model"):
        train(recipe("kid", "train.save_every_steps=100"), tmp_path / "run")
    monkeypatch.undo()
    (tmp_path / "run").rename(tmp_path / "moved")
    steps = []
    moved = recipe("kid", "train.save_every_steps=100", "name=moved")
    finished = train(
        moved,
        tmp_path / "moved",
        report=lambda progress: steps.append(progress.step),
        same=lambda one, other: True,
    )
    assert not any(steps)
    assert_same_weights(finished, train(recipe("kid", "train.save_every_steps=100"), tmp_path / "whole"))


def test_a_run_does_not_go_on_with_other_data(recipe, tmp_path, world, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    settings = recipe("sft", "train.save_every_steps=1")
    monkeypatch.setattr(train_module, "save_model", stop)
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "run")
    monkeypatch.undo()
    before = (tmp_path / "run" / "environment.json").read_text()
    pairs = (world / "pairs.jsonl").read_text()
    (world / "pairs.jsonl").write_text("".join(pairs.splitlines(keepends=True)[:5]))
    with pytest.raises(RunError, match="had 10 examples and has 5"):
        train(settings, tmp_path / "run")
    assert (tmp_path / "run" / "environment.json").read_text() == before
    (world / "pairs.jsonl").write_text(pairs)
    assert train(settings, tmp_path / "run").is_finished()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_accounts_for_its_cost(recipe, tmp_path, method, tiny_models):
    run = train(recipe(method), tmp_path / "run")
    summary = json.loads(run.summary.read_text())
    assert summary["method"] == method
    # Ten examples in trees of 3, 3, 3, 1 and two trees a step: 6 + 4 + 6 + 4.
    assert summary["examples_seen"] == 20
    assert summary["x_sft"] > 0
    assert summary["seconds_by_phase"]["student"] > 0
    assert (summary["seconds_by_phase"]["teacher"] > 0) == METHODS[method].needs_teacher
    log = log_of(run)
    assert [line["step"] for line in log] == [1, 2, 3, 4]
    assert all(line["loss"] > 0 for line in log)
    assert (log[0]["divergence"] is not None) == METHODS[method].needs_teacher
    assert (log[0]["negative_log_likelihood"] is not None) == (METHODS[method].gold_weight > 0)
    start = load_file(tiny_models["student"] / "model.safetensors")
    assert any(not torch.equal(tensor, start[name]) for name, tensor in weights(run).items())


def test_sft_learns_the_pairs(recipe, tmp_path):
    run = train(recipe("sft", "train.steps=60"), tmp_path / "run")
    losses = [line["negative_log_likelihood"] for line in log_of(run)]
    assert losses[-1] < 0.4 * losses[0]


@pytest.mark.parametrize("overrides", [("student.tuning=lora",), ("train.precision=bfloat16",)])
def test_lora_and_bfloat16_train(recipe, tmp_path, overrides):
    run = train(recipe("kid", *overrides), tmp_path / "run")
    assert json.loads(run.summary.read_text())["examples_seen"] == 20
    assert (run.model / "model.safetensors").exists()


@pytest.mark.parametrize("method", ["sft", "rkd", "kid", "kid-mask-only", "gkd-rkl", "f-distill"])
def test_shared_and_padded_layout_give_the_same_losses(recipe, tmp_path, method):
    greedy = ("generation.temperature=0",)
    tree = log_of(train(recipe(method, "train.share_prefix=on", *greedy), tmp_path / "tree"))
    padded = log_of(train(recipe(method, "train.share_prefix=off", *greedy), tmp_path / "padded"))
    for one, other in zip(tree, padded, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=2e-3)


def test_trees_per_step_do_not_change_the_loss_of_the_same_examples(recipe, tmp_path):
    """One window of ten examples as one tree or as four: the same loss and the same gradient."""
    whole = train(
        recipe("sft", "train.steps=1", "train.questions_per_tree=10", "train.trees_per_step=1"),
        tmp_path / "a",
    )
    parts = train(
        recipe("sft", "train.steps=1", "train.questions_per_tree=3", "train.trees_per_step=4"), tmp_path / "b"
    )
    one, other = log_of(whole)[0], log_of(parts)[0]
    assert one["examples_seen"] == other["examples_seen"] == 10
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
    assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-4)


def test_rkd_of_a_student_that_is_its_teacher_starts_at_zero_divergence(recipe, tmp_path, tiny_models):
    own = f"teacher.path='{tiny_models['student']}'"
    run = train(recipe("rkd", own, "train.steps=1", "distill.gold_weight=0"), tmp_path / "run")
    assert abs(log_of(run)[0]["divergence"]) < 1e-6


def test_the_loss_is_the_weighted_sum_of_its_logged_parts(recipe, tmp_path):
    run = train(recipe("kid", "distill.reduction=per_token", "distill.gold_weight=0.5"), tmp_path / "run")
    for line in log_of(run):
        assert line["loss"] == pytest.approx(
            line["divergence"] + 0.5 * line["negative_log_likelihood"], rel=1e-4
        )


def test_gold_context_gold_scores_the_gold_completion_itself(recipe, tmp_path):
    """With gold as context, KID's likelihood term is SFT's; with ŷ as context it is not."""
    sft = log_of(train(recipe("sft", "train.steps=1"), tmp_path / "sft"))[0]
    gold = log_of(train(recipe("kid", "train.steps=1", "distill.gold_context=gold"), tmp_path / "gold"))[0]
    imperfect = log_of(
        train(recipe("kid", "train.steps=1", "distill.mask_share=0.5"), tmp_path / "imperfect")
    )[0]
    assert gold["negative_log_likelihood"] == pytest.approx(sft["negative_log_likelihood"], rel=1e-5)
    assert imperfect["negative_log_likelihood"] != pytest.approx(sft["negative_log_likelihood"], rel=1e-4)


def test_kid_without_masks_is_rkd(recipe, tmp_path):
    kid = log_of(train(recipe("kid", "distill.mask_share=0"), tmp_path / "kid"))
    rkd = log_of(train(recipe("rkd"), tmp_path / "rkd"))
    for one, other in zip(kid, rkd, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


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


@pytest.mark.parametrize("strategy", ["random", "uniform", "hard", "easy"])
def test_kid_masks_the_ceiling_of_its_share_and_never_eos(recipe, world, tmp_path, strategy):
    settings = (f"distill.mask_strategy={strategy}", "distill.mask_share=0.3", "train.steps=2")
    run = train(recipe("kid", *settings), tmp_path / "run")
    golds = [json.loads(line)["sql"] for line in (world / "pairs.jsonl").read_text().splitlines()]
    tokenizer = load_tokenizer(run.model)
    lengths = [len(tokenizer(normalise_sql(sql)).input_ids) + 1 for sql in golds]
    expected = sum(-(-3 * length // 10) for length in lengths)
    assert json.loads(run.summary.read_text())["counts"]["masked_tokens"] == expected


@pytest.mark.parametrize("rewriting", ["greedy", "sampled"])
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
    assert [line["counts"] for line in log_of(chunked)] == [line["counts"] for line in log_of(whole)]


def test_the_start_up_check_runs_the_longest_tree_of_the_first_window(recipe, tmp_path, monkeypatch):
    checked = []
    check = train_module.tree_is_exact

    def recorded(model, tree, branches, *rest, **options):
        questions = [tree.questions[branch.question] + branch.tokens for branch in branches]
        checked.append((max(map(len, questions)), options["longest_tokens"]))
        return check(model, tree, branches, *rest, **options)

    monkeypatch.setattr(train_module, "tree_is_exact", recorded)
    trees = ("train.questions_per_tree=1", "train.trees_per_step=10", "train.steps=1")
    run = train(recipe("sft", *trees), tmp_path / "run")
    assert len(checked) == 1
    settings = recipe("sft")
    found = prepare(load_data(settings)[0], load_tokenizer(run.model), settings.prompt, training=True)
    longest = max(len(each.question) + len(each.gold) for each in found.examples)
    assert checked == [(longest, 400 + 40 - 1)]


def test_the_peak_of_a_run_is_not_that_of_its_start_up_check(recipe, tmp_path, monkeypatch):
    order = []
    check, reset = train_module.tree_is_exact, train_module.reset_peak_memory
    monkeypatch.setattr(
        train_module, "tree_is_exact", lambda *a, **k: order.append("check") or check(*a, **k)
    )
    monkeypatch.setattr(train_module, "reset_peak_memory", lambda: order.append("reset") or reset())
    train(recipe("sft", "train.steps=1"), tmp_path / "run")
    assert order == ["check", "reset"]


# ---- resuming ------------------------------------------------------------------------------------------------


class Killed(Exception):
    """Stands for a kill: raised where nothing catches it, between two steps."""


@pytest.mark.parametrize("method", ["kid", "gkd-rkl", "f-distill", "switch"])
def test_a_killed_run_resumes_to_the_same_bits(recipe, tmp_path, method):
    settings = recipe(method, "train.steps=6", "train.save_every_steps=2", "train.precision=bfloat16")
    whole = train(settings, tmp_path / "whole")

    def kill_at_5(progress: Progress) -> None:
        if progress.step == 5:
            raise Killed

    with pytest.raises(Killed):
        train(settings, tmp_path / "killed", report=kill_at_5)
    resumed = train(settings, tmp_path / "killed")
    assert_same_weights(whole, resumed)
    assert [line["step"] for line in log_of(resumed)] == [1, 2, 3, 4, 5, 6]
    assert [line["loss"] for line in log_of(resumed)] == [line["loss"] for line in log_of(whole)]


@pytest.mark.slow
def test_kill_minus_nine_and_ctrl_c_lose_nothing(recipe, tmp_path):
    settings = recipe("kid", "train.steps=400", "train.save_every_steps=50")
    whole = train(settings, tmp_path / "whole")
    (tmp_path / "recipe.toml").write_text(settings.to_toml())
    command = [sys.executable, "-m", "distilsql.cli", "train", "recipe.toml", "--out", "stopped"]

    def start_and_stop(number: signal.Signals, after_step: int) -> int:
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
        log = tmp_path / "stopped" / "log.jsonl"
        while process.poll() is None:
            if log.exists() and len(log.read_text().splitlines()) >= after_step:
                process.send_signal(number)
                break
        return process.wait()

    assert start_and_stop(signal.SIGKILL, 70) == -signal.SIGKILL
    assert start_and_stop(signal.SIGINT, 120) == 130
    state = json.loads((tmp_path / "stopped" / "checkpoints" / "last" / "state.json").read_text())
    assert state["step"] >= 120, "Ctrl-C saves the step it interrupts"
    assert subprocess.run(command, cwd=tmp_path, check=True, stderr=subprocess.DEVNULL).returncode == 0
    assert_same_weights(whole, RunFolder(tmp_path / "stopped"))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["kid", "gkd-rkl", "f-distill"])
def test_two_processes_give_the_loss_of_one(recipe, tmp_path, method):
    rounds = ("generation.rollout_window=2", "generation.temperature=0", "train.save_every_steps=1")
    settings = recipe(method, "train.steps=3", *rounds)
    alone = log_of(train(settings, tmp_path / "alone"))
    (tmp_path / "recipe.toml").write_text(settings.to_toml())
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--cpu"]
    command += [
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--num_cpu_threads_per_process",
        "1",
    ]
    command += ["-m", "distilsql.cli", "train", "recipe.toml", "--out", "both"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=dict(os.environ))
    assert result.returncode == 0, result.stderr[-2000:]
    both = log_of(RunFolder(tmp_path / "both"))
    assert [line["examples_seen"] for line in both] == [line["examples_seen"] for line in alone]
    for one, other in zip(alone, both, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-4)


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_stops_both_after_the_same_step(recipe, tmp_path):
    settings = recipe("sft", "train.steps=2000")
    (tmp_path / "recipe.toml").write_text(settings.to_toml())
    command = [sys.executable, "-m", "distilsql.cli", "train", "recipe.toml", "--out", "run"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = {"ACCELERATE_USE_CPU": "true", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    together |= {"MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            command,
            cwd=tmp_path,
            env=os.environ | together | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.DEVNULL,
        )
        for rank in range(2)
    ]
    run = RunFolder(tmp_path / "run")
    try:
        while processes[0].poll() is None and not (
            run.log.exists() and len(run.log.read_text().splitlines()) >= 3
        ):
            time.sleep(0.01)
        processes[0].send_signal(signal.SIGTERM)
        assert [process.wait(timeout=60) for process in processes] == [130, 130]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    state = json.loads((run.checkpoint / "state.json").read_text())
    assert state["step"] == log_of(run)[-1]["step"] >= 3


# ---- what goes wrong -----------------------------------------------------------------------------------------


def test_another_recipe_in_the_same_folder_is_refused(recipe, tmp_path):
    train(recipe("sft", "train.steps=1"), tmp_path / "run")
    with pytest.raises(RunError, match=r"steps = 1.*steps = 2"):
        train(recipe("sft", "train.steps=2"), tmp_path / "run")
    finished = weights(train(recipe("sft", "train.steps=2"), tmp_path / "run", overwrite=True))
    assert finished


def test_a_run_of_an_earlier_version_which_had_fewer_keys_goes_on(recipe, tmp_path):
    settings = recipe("sft", "train.steps=1")
    run = train(settings, tmp_path / "run")
    shorter = run.recipe.read_text().replace('template = "codes"\n', "")
    assert shorter != run.recipe.read_text()
    run.recipe.write_text(shorter)
    said = []
    train(settings, tmp_path / "run", report=said.append)
    assert "finished already" in said[0].message
    with pytest.raises(RunError, match="another recipe"):
        train(recipe("sft", "train.steps=1", "prompt.template=chatml"), tmp_path / "run")


def test_a_gold_that_does_not_run_is_said_before_training(recipe, world, tmp_path):
    valid = world / "valid.jsonl"
    valid.write_text(json.dumps({"question": "Names?", "sql": "SELECT nothing FROM singer"}) + "\n")
    settings = recipe("sft", f"data.valid={valid}", "train.evaluate_every_steps=3")
    with pytest.raises(DataError, match=r"gold query of valid/0 does not run"):
        train(settings, tmp_path / "run")
    assert not (tmp_path / "run/log.jsonl").exists()


def test_a_folder_that_is_no_run_is_left_alone(recipe, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(RunError, match="not"):
            train(recipe("sft"), tmp_path / "mine", overwrite=overwrite)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_a_loss_that_is_not_finite_stops_and_names_the_batch(recipe, tmp_path, monkeypatch):
    settings = recipe("sft", "train.steps=6", "train.save_every_steps=2", "train.calibration_windows=0")
    real, calls = window.completion_loss, []

    def poisoned(hidden_ND, *args, **kwargs):
        calls.append(1)
        return real(hidden_ND * float("nan") if len(calls) == 8 else hidden_ND, *args, **kwargs)

    monkeypatch.setattr(window, "completion_loss", poisoned)
    with pytest.raises(TrainingError, match=r"not finite \(examples pairs"):
        train(settings, tmp_path / "run")
    monkeypatch.setattr(window, "completion_loss", real)
    whole = train(settings, tmp_path / "whole")
    assert_same_weights(whole, train(settings, tmp_path / "run"))


def test_a_bad_loss_of_another_process_names_its_examples(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("distilsql.runs.train.sum_loss", lambda accelerator, loss: WindowLoss(finite=False))
    monkeypatch.setattr("distilsql.runs.train.gather_object", lambda own: [*own, "pairs/7"])
    with pytest.raises(TrainingError, match=r"\(examples pairs/7\)"):
        train(recipe("sft", "train.calibration_windows=0"), tmp_path / "run")


def test_training_that_runs_out_of_memory_says_what_to_lower(recipe, tmp_path, monkeypatch):
    def too_large(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7 GiB.\nProcess 1 has …")

    monkeypatch.setattr(window, "completion_loss", too_large)
    with pytest.raises(TrainingError, match=r"Tried to allocate 7 GiB\. Train .*train\.largest_tree"):
        train(recipe("sft"), tmp_path / "run")


def test_a_full_disk_keeps_the_previous_checkpoint(recipe, tmp_path, monkeypatch):
    settings = recipe("sft", "train.steps=6", "train.save_every_steps=2")
    real, calls = checkpoint.save_file, []

    def full(tensors, path):
        calls.append(1)
        if len(calls) == 2:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(RunError, match="previous checkpoint is kept"):
        train(settings, tmp_path / "run")
    state = json.loads((tmp_path / "run" / "checkpoints" / "last" / "state.json").read_text())
    assert state["step"] == 2
    monkeypatch.setattr(checkpoint, "save_file", real)
    assert_same_weights(train(settings, tmp_path / "whole"), train(settings, tmp_path / "run"))


@pytest.mark.parametrize("method", ["gkd-rkl", "imitkd", "switch"])
def test_generated_completions_are_counted_themselves(recipe, tmp_path, method):
    """Per token, the loss is the mean over the tokens that were generated, not over the dataset's."""
    run = train(recipe(method, "distill.reduction=per_token"), tmp_path / "run")
    for line in log_of(run):
        assert line["loss"] == pytest.approx(line["divergence"], rel=1e-4)
