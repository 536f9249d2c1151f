"""Training on a GPU gives the losses of a CPU, and goes on after a kill."""

import functools

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from distilsql.training import train as training
from distilsql.training.train import train
from run_folders import losses, train_killed_at

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

METHODS = ["sft", "rkd", "kid", "gkd-rkl", "imitkd", "f-distill", "switch", "distillm", "seqkd"]


@pytest.fixture(autouse=True)
def forgotten_device():
    """accelerate remembers its device for a whole process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("method", METHODS)
def test_losses_are_those_of_a_cpu(recipe, tmp_path, monkeypatch, method, tuning):
    # Standing still and greedy: what rounding changes is not made larger by another token or another step.
    still = ("train.steps=3", "train.learning_rate=1e-30", "generation.temperature=0")
    settings = recipe(method, *still, f"student.tuning={tuning}")
    on_gpu = losses(train(settings, tmp_path / "gpu"))
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr(training, "Accelerator", functools.partial(Accelerator, cpu=True))
    assert on_gpu == pytest.approx(losses(train(settings, tmp_path / "cpu")), rel=2e-3)


@pytest.mark.parametrize("method", ["sft", "kid", "gkd-rkl"])
def test_a_killed_run_goes_on(recipe, tmp_path, method):
    settings = recipe(method, "train.steps=6", "train.save_every_steps=2", "generation.temperature=0")
    whole = train(settings, tmp_path / "whole")
    train_killed_at(5, settings, tmp_path / "killed")
    resumed = train(settings, tmp_path / "killed")
    # Some kernels of a GPU add up in another order each time.
    assert losses(resumed) == pytest.approx(losses(whole), rel=1e-2)


def test_bfloat16_is_what_auto_chooses(recipe, tmp_path):
    run = train(recipe("sft", "train.precision=auto"), tmp_path / "run")
    assert 'precision = "bfloat16"' in run.recipe.read_text()
