"""What goes wrong in training is said with what to do, and loses nothing."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from distilsql.errors import DataError, RunError, TrainingError
from distilsql.training import checkpoint, finished_model, window
from distilsql.training.train import train
from distilsql.training.window import WindowLoss
from run_folders import assert_same_weights, weights


@pytest.mark.slow
def test_a_model_that_cannot_be_written_costs_no_training(recipe, tmp_path, monkeypatch):
    """What safetensors says of a full disk is an error type of its own. The folder may move before the next start."""

    def full(*arguments, **options):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(finished_model, "save_model", full)
    with pytest.raises(RunError, match=r"No space left on device.*only writes the model"):
        train(recipe("kid", "train.save_every_steps=100"), tmp_path / "run")
    monkeypatch.undo()
    (tmp_path / "run").rename(tmp_path / "moved")
    steps = []
    moved = recipe("kid", "train.save_every_steps=100", "name=moved")
    finished = train(
        moved,
        tmp_path / "moved",
        on_step=lambda line: steps.append(line["step"]),
        same=lambda one, other: True,
    )
    assert steps == []
    assert_same_weights(finished, train(recipe("kid", "train.save_every_steps=100"), tmp_path / "whole"))


def test_another_recipe_in_the_same_folder_is_refused(recipe, tmp_path):
    train(recipe("sft", "train.steps=1"), tmp_path / "run")
    with pytest.raises(RunError, match=r"steps = 1.*steps = 2"):
        train(recipe("sft", "train.steps=2"), tmp_path / "run")
    finished = weights(train(recipe("sft", "train.steps=2"), tmp_path / "run", overwrite=True))
    assert finished


def test_a_run_of_an_earlier_version_which_had_fewer_keys_goes_on(recipe, tmp_path, caplog):
    settings = recipe("sft", "train.steps=1")
    run = train(settings, tmp_path / "run")
    shorter = run.recipe.read_text().replace('template = "codes"\n', "")
    assert shorter != run.recipe.read_text()
    run.recipe.write_text(shorter)
    caplog.set_level("INFO", "distilsql")
    train(settings, tmp_path / "run")
    assert "already finished" in caplog.text
    with pytest.raises(RunError, match="a different recipe"):
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
    monkeypatch.setattr(
        "distilsql.training.train.sum_loss", lambda accelerator, loss: WindowLoss(finite=False)
    )
    monkeypatch.setattr("distilsql.training.train.gather_object", lambda own: [*own, "pairs/7"])
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
