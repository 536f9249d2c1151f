"""The precision of a run: chosen once where the recipe leaves it open, kept by its folder, and what it is asked in."""

import json
import os
import subprocess
import sys

import pytest
import torch

from distilsql.data.load import load_benchmark
from distilsql.errors import RunError
from distilsql.experiments.plan import PlannedRun
from distilsql.experiments.state import State, say_the_same, state_of
from distilsql.inference import predict as predict_module
from distilsql.inference.exposure import ExposureOptions, expose_run
from distilsql.inference.predict import load_student
from distilsql.models.load import load_model
from distilsql.models.precision import PrecisionChoice
from distilsql.runs.folder import RunFolder
from distilsql.runs.recipe import load_recipe
from distilsql.training import settle as settle_module
from distilsql.training.train import train
from run_folders import assert_same_weights, train_killed_at

AUTO = "train.precision=auto"


@pytest.fixture
def machine(monkeypatch):
    """`machine("bfloat16")` makes this machine one that is to compute so. Returns the paths of models it was asked
    for."""

    def become(precision):
        asked = []

        def choose(path, device):
            asked.append(path)
            return PrecisionChoice(precision, "this machine is like that")

        for module in (settle_module, predict_module):
            monkeypatch.setattr(module, "choose_precision", choose)
        return asked

    return become


def precision_in(run):
    return load_recipe(run.recipe).train.precision


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_what_is_chosen_is_said_written_and_computed_in(recipe, tmp_path, machine, precision, caplog):
    asked = machine(precision)
    caplog.set_level("INFO", "distilsql")
    run = train(
        recipe("kid", AUTO, "train.steps=1"),
        tmp_path / "auto",
    )
    assert asked == [recipe("kid").student.path]
    assert caplog.messages.count(f"Computes in {precision}: this machine is like that.") == 1
    assert f'precision = "{precision}"' in run.recipe.read_text()

    machine("neither: the recipe says it")
    told = train(recipe("kid", f"train.precision={precision}", "train.steps=1"), tmp_path / "told")
    assert told.recipe.read_text() == run.recipe.read_text()
    assert_same_weights(run, told)
    assert load_recipe(run.recipe).train.precision == precision, "run elsewhere, it is this run"


def test_a_resumed_run_goes_on_in_its_own_precision(recipe, tmp_path, machine):
    settings = recipe("sft", AUTO, "train.steps=3", "train.save_every_steps=1")
    machine("bfloat16")
    whole = train(settings, tmp_path / "whole")
    train_killed_at(3, settings, tmp_path / "killed")
    asked = machine("float32")
    resumed = train(settings, tmp_path / "killed")
    assert asked == []
    assert precision_in(resumed) == "bfloat16"
    assert_same_weights(whole, resumed)
    train(settings, tmp_path / "killed")  # finished, and by the same recipe

    with pytest.raises(RunError, match="a different recipe"):
        train(
            recipe("sft", "train.precision=float32", "train.steps=3", "train.save_every_steps=1"),
            tmp_path / "killed",
        )
    assert precision_in(train(settings, tmp_path / "killed", overwrite=True)) == "float32"


def test_a_training_that_never_began_decides_anew(recipe, tmp_path, machine):
    settings = recipe("sft", AUTO, "train.steps=1")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").write_text(recipe("sft", "train.precision=bfloat16").to_toml())
    machine("float32")
    assert precision_in(train(settings, tmp_path / "run")) == "float32"


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_planned_run_is_known_by_whatever_precision_it_was_made_in(recipe, tmp_path, precision):
    planned = PlannedRun("run", recipe("sft", AUTO), RunFolder(tmp_path / "run"), ())
    made = recipe("sft", f"train.precision={precision}")
    planned.folder.path.mkdir()
    planned.folder.recipe.write_text(made.to_toml())
    assert state_of(planned) is State.PART_DONE
    other = recipe("sft", f"train.precision={precision}", "train.steps=9")
    assert not say_the_same(other, planned.recipe)
    assert say_the_same(made, recipe("sft", "train.precision=bfloat16")) is (precision == "bfloat16")


def test_a_run_is_asked_in_its_own_precision_unless_another_is_asked_for(recipe, tmp_path, machine, caplog):
    trained = {
        name: train(recipe("sft", f"train.precision={name}", "train.steps=1"), tmp_path / name)
        for name in ("bfloat16", "float32")
    }
    caplog.set_level("INFO", "distilsql")

    def asked(name, precision=None):
        caplog.clear()
        return load_student(trained[name], precision=precision).decoder.model.precision

    machine("float32")
    assert asked("bfloat16") == "bfloat16"
    assert [
        "slow here" in sentence and "--precision float32" in sentence for sentence in caplog.messages
    ] == [True]
    assert asked("bfloat16", "auto") == "float32"
    assert caplog.messages == ["Computes in float32: this machine is like that."]
    assert asked("bfloat16", "bfloat16") == "bfloat16"
    assert asked("float32") == asked("float32", "auto") == "float32"
    machine("bfloat16")
    assert asked("bfloat16") == asked("bfloat16", "auto") == "bfloat16"
    assert caplog.messages == []
    assert asked("float32", "auto") == "float32", "never less exact than it was trained"
    one, other = (load_student(trained["float32"], precision=name) for name in ("float32", "bfloat16"))
    assert one.fingerprint() != other.fingerprint(), "answers of one are no unfinished answers of the other"


def test_the_teacher_of_an_exposure_computes_as_the_student_does(recipe, world, tmp_path, monkeypatch):
    run = train(recipe("kid", "train.precision=bfloat16", "train.steps=1"), tmp_path / "run")
    loaded = []

    def load(path, precision, **options):
        loaded.append(precision)
        return load_model(path, precision, **options)

    monkeypatch.setattr("distilsql.inference.loading.load_model", load)
    benchmark = load_benchmark(str(world / "pairs.jsonl"), database=world / "singers.sqlite").take(2, 0)
    expose_run(run, benchmark, ExposureOptions(length=3))
    assert loaded == ["bfloat16", "bfloat16"]


# Each process would choose otherwise; the first decides for both.
TWO = """
import os, sys
from pathlib import Path
from distilsql.models.precision import PrecisionChoice
from distilsql.training import settle as settle_module
from distilsql.training import setup as setup_module
from distilsql.training import train as train_module
from distilsql.runs.recipe import load_recipe
own = {"0": "bfloat16", "1": "float32"}[os.environ["RANK"]]
settle_module.choose_precision = lambda path, device: PrecisionChoice(own, "of this process")
seen = []
load_engines = setup_module.load_engines
def loading(recipe, device, **options):
    seen.append(recipe.train.precision)
    return load_engines(recipe, device, **options)
setup_module.load_engines = loading
train_module.train(load_recipe(Path("recipe.toml")), Path("run"))
Path("seen" + os.environ["RANK"]).write_text(" ".join(seen))
"""


@pytest.mark.slow
def test_several_processes_compute_as_the_first_decides(recipe, tmp_path):
    (tmp_path / "recipe.toml").write_text(recipe("sft", AUTO, "train.steps=2").to_toml())
    (tmp_path / "two.py").write_text(TWO)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
    result = subprocess.run(
        [*command, "two.py"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert [(tmp_path / f"seen{rank}").read_text() for rank in (0, 1)] == ["bfloat16"] * 2
    assert precision_in(RunFolder(tmp_path / "run")) == "bfloat16"


def test_environment_says_how_many_threads_computed(recipe, tmp_path):
    run = train(recipe("sft", "train.steps=1"), tmp_path / "run")
    described = json.loads(run.environment.read_text())
    assert described["torch_threads"] == torch.get_num_threads()
    assert set(described["threads_set_by"]) <= {"OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
