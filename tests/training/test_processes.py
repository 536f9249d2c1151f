"""Several processes train as one: real ones, on gloo. One launch goes through all trainings; each test looks at one."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from distilsql.distill.methods import METHODS
from distilsql.runs.folder import RunFolder
from distilsql.runs.recipe import Recipe
from distilsql.training.train import train
from processes import Job, do, environment, job, recording_steps, run_jobs, steps_of
from run_folders import assert_same_weights, losses, step_lines, weights
from tiny_world import make_tiny_recipe, make_world

pytestmark = [pytest.mark.launch, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def rounded_alike(request):
    """Processes of their own round as this processor does."""
    if request.config.getoption("--rounding") is not None:
        pytest.skip("--rounding changes this process alone")


# A window of three trees, so that a process has one less than the other, or none. Standing still, for a step makes
# what rounding changes larger, and then another token is chosen.
STILL = (
    "train.steps=1",
    "train.questions_per_tree=4",
    "train.trees_per_step=3",
    "train.learning_rate=1e-30",
    "generation.temperature=0",
)
LORA = ("student.tuning=lora", "student.lora_rank=4")
VARIANTS = {name: (name,) for name in METHODS} | {
    "kid-lora": ("kid", *LORA),
    "gkd-rkl-lora": ("gkd-rkl", *LORA),
    # One process pads two batches of rows where the other has one row.
    "kid-padded": ("kid", "train.share_prefix=off", "train.questions_per_tree=9"),
    "kid-recomputed": ("kid", "train.recompute_activations=true"),
    "switch-whole-teacher": ("switch", "teacher.across_processes=whole"),
    "rkd-kept-states": ("rkd", "train.teacher_hidden=on"),
    "kid-cut-teacher": ("kid", "teacher.across_processes=tensor_parallel"),
    "rkd-cut-kept-states": ("rkd", "train.teacher_hidden=on", "teacher.across_processes=tensor_parallel"),
}
LEARNING = ("train.steps=5", "train.save_every_steps=3", "train.learning_rate=1e-3")

MakeRecipe = Callable[..., Recipe]


@pytest.fixture(scope="module")
def make(tmp_path_factory, tiny_models) -> MakeRecipe:
    return partial(make_tiny_recipe, make_world(tmp_path_factory.mktemp("world")), tiny_models)


def still(make: MakeRecipe, name: str) -> Recipe:
    method, *overrides = VARIANTS[name]
    return make(method, *STILL, *overrides)


@pytest.fixture(scope="module")
def pair(make, tmp_path_factory) -> Path:
    """The folder of all runs of two processes."""
    folder = tmp_path_factory.mktemp("pair")
    jobs = [job(still(make, name), folder / name) for name in VARIANTS]
    on_policy, sft = make("gkd-rkl", *LEARNING, "generation.rollout_window=2"), make("sft", *LEARNING)
    jobs += [
        job(on_policy, folder / "whole"),
        job(on_policy, folder / "killed", stop_after=4),
        job(on_policy, folder / "killed"),
        job(sft, folder / "for-one", stop_after=4),
        job(sft, folder / "full", full_after=4),
    ]
    for name, options in {
        "bfloat16": ("train.precision=bfloat16",),
        "lora": LORA,
        "adapter": (*LORA, "student.save_merged=false"),
    }.items():
        jobs.append(job(make("sft", *LEARNING, *options), folder / name))
    of_one = job(sft, folder / "of-one", stop_after=4)
    do(of_one)
    run_jobs([*jobs, Job(of_one.recipe, of_one.out)], folder, processes=2)
    return folder


def assert_same_training(one: Path, other: Path) -> None:
    """Losses and every gradient are equal to rounding."""
    lines = [step_lines(RunFolder(folder)) for folder in (one, other)]
    for mine, theirs in zip(*lines, strict=True):
        assert mine["examples_seen"] == theirs["examples_seen"]
        for key in ("loss", "divergence", "negative_log_likelihood"):
            assert (mine[key] or 0.0) == pytest.approx(theirs[key] or 0.0, rel=1e-5)
        assert mine["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-4)
        kept = [load_file(steps_of(folder) / f"{mine['step']}.safetensors") for folder in (one, other)]
        for name in (name for name in kept[0] if name.startswith("gradient.")):
            largest = float(kept[0][name].abs().max())
            torch.testing.assert_close(kept[1][name], kept[0][name], rtol=1e-3, atol=1e-5 * largest + 1e-9)


def trained_alone(recipe: Recipe, out: Path) -> Path:
    with recording_steps(out):
        train(recipe, out)
    return out


@pytest.mark.parametrize("name", VARIANTS)
def test_two_processes_give_the_loss_and_the_gradient_of_one(pair, make, tmp_path, name):
    assert_same_training(trained_alone(still(make, name), tmp_path / "alone"), pair / name)


def test_two_processes_step_as_adamw_does(pair):
    """Fed with the gradients that they had, torch's AdamW moves the whole weights to the same place."""
    steps = [load_file(steps_of(pair / "whole") / f"{number}.safetensors") for number in range(1, 6)]
    names = [name.removeprefix("before.") for name in steps[0] if name.startswith("before.")]
    masters = [torch.nn.Parameter(steps[0][f"before.{name}"]) for name in names]
    optimizer = torch.optim.AdamW(masters, betas=(0.9, 0.999), weight_decay=0.0)
    rates = [line["learning_rate"] for line in step_lines(RunFolder(pair / "whole"))]
    for kept, rate in zip(steps, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        for name, master in zip(names, masters, strict=True):
            master.grad = kept[f"gradient.{name}"]
        optimizer.step()
        for name, master in zip(names, masters, strict=True):
            torch.testing.assert_close(master.detach(), kept[f"after.{name}"], rtol=1e-5, atol=1e-6)
    saved = weights(RunFolder(pair / "whole"))
    for name, tensor in saved.items():
        assert torch.equal(tensor, steps[-1][f"after.{name}"]), name


def moved(tiny_models, one: dict, other: dict) -> float:
    """How far apart two trainings ended, as a share of how far one moved from where both began."""
    start = load_file(tiny_models["student"] / "model.safetensors")
    apart = sum(float((one[name].float() - other[name].float()).square().sum()) for name in start)
    way = sum(float((one[name].float() - start[name]).square().sum()) for name in start)
    return (apart / way) ** 0.5


@pytest.mark.parametrize(("name", "options"), [("bfloat16", ("train.precision=bfloat16",)), ("lora", LORA)])
def test_the_finished_model_of_two_is_that_of_one(pair, make, tmp_path, tiny_models, name, options):
    alone = train(make("sft", *LEARNING, *options), tmp_path / "alone")
    mine, theirs = weights(alone), weights(RunFolder(pair / name))
    assert {key: tensor.dtype for key, tensor in mine.items()} == {
        key: tensor.dtype for key, tensor in theirs.items()
    }
    assert moved(tiny_models, mine, theirs) < (0.3 if name == "bfloat16" else 0.05)
    assert json.loads((alone.model / "config.json").read_text()) == json.loads(
        (pair / name / "model" / "config.json").read_text()
    )
    AutoModelForCausalLM.from_pretrained(pair / name / "model")


def test_an_adapter_is_saved_alone(pair, make, tmp_path):
    alone = train(make("sft", *LEARNING, *LORA, "student.save_merged=false"), tmp_path / "alone")
    mine, theirs = (
        load_file(folder / "model" / "adapter_model.safetensors") for folder in (alone.path, pair / "adapter")
    )
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert tensor.shape == theirs[name].shape


def test_two_killed_processes_resume_to_the_same_bits(pair):
    assert_same_weights(RunFolder(pair / "whole"), RunFolder(pair / "killed"))
    assert losses(RunFolder(pair / "whole")) == losses(RunFolder(pair / "killed"))


def test_one_process_goes_on_with_the_checkpoint_of_two_and_two_with_that_of_one(pair, make, tmp_path):
    settings = make("sft", *LEARNING)
    alone = train(settings, tmp_path / "alone")
    shutil.copytree(pair / "for-one", tmp_path / "for-one")
    steps: list[int] = []
    resumed = train(settings, tmp_path / "for-one", on_step=lambda line: steps.append(line["step"]))
    assert steps == [4, 5]
    for run in (resumed, RunFolder(pair / "of-one")):
        assert losses(run) == pytest.approx(losses(alone), rel=1e-3)
        assert AutoModelForCausalLM.from_pretrained(run.model)


def test_a_process_whose_disk_is_full_ends_all_and_nothing_is_lost(pair, make, tmp_path):
    errors = [(pair / f"full.error.{rank}").read_text() for rank in range(2)]
    assert errors[0] == errors[1]
    assert "could not be written" in errors[0]
    assert "previous checkpoint is kept" in errors[0]
    state = json.loads((pair / "full" / "checkpoints" / "last" / "state.json").read_text())
    assert state["step"] == 3
    assert not (pair / "full" / "checkpoints" / "last.part").exists()
    shutil.copytree(pair / "full", tmp_path / "full")
    assert train(make("sft", *LEARNING), tmp_path / "full").is_finished()


# ---- more processes, and real kills --------------------------------------------------------------------------


def test_four_processes_give_the_loss_and_the_gradient_of_one(make, tmp_path):
    names = ("kid", "gkd-rkl", "switch", "minillm", "distillm", "seqkd", "atkd", "kid-padded", "kid-lora")
    run_jobs(
        [job(still(make, name), tmp_path / "four" / name) for name in names],
        tmp_path,
        processes=4,
        torchrun=True,
    )
    for name in names:
        alone = trained_alone(still(make, name), tmp_path / "alone" / name)
        assert_same_training(alone, tmp_path / "four" / name)


@pytest.mark.parametrize("killed", [0, 1])
def test_where_one_is_killed_the_other_says_so_and_all_resume(make, tmp_path, killed):
    settings = make("kid", "train.steps=60", "train.save_every_steps=2", "train.learning_rate=1e-3")
    (tmp_path / "recipe.toml").write_text(settings.to_toml())
    processes = start_pair(tmp_path, "run")
    run = RunFolder(tmp_path / "run")
    try:
        while not (run.checkpoint / "state.json").exists():
            assert all(process.poll() is None for process in processes)
            time.sleep(0.01)
        processes[killed].send_signal(signal.SIGKILL)
        assert processes[1 - killed].wait(timeout=60) == 1
        said = said_by(tmp_path, 1 - killed).read_text()
        assert "Another of the 2 processes has ended" in said
        assert "Traceback" not in said
        shutil.copytree(run.path, tmp_path / "copy")
        again = start_pair(tmp_path, "run")
        processes += again
        assert [process.wait(timeout=300) for process in again] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert run.is_finished()
    assert train(settings, tmp_path / "copy").is_finished()


def start_pair(folder: Path, out: str) -> list[subprocess.Popen[bytes]]:
    """Two processes of a training, without a launcher that would end one when the other has ended."""
    command = [sys.executable, "-m", "distilsql.cli", "train", "recipe.toml", "--out", out]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = []
    for rank in range(2):
        with said_by(folder, rank).open("w") as said:
            processes.append(
                subprocess.Popen(
                    command,
                    cwd=folder,
                    env=environment(**together, RANK=str(rank), LOCAL_RANK=str(rank)),
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                )
            )
    return processes


def said_by(folder: Path, rank: int) -> Path:
    """Where a process of `start_pair` writes its messages."""
    return folder / f"said.{rank}.txt"
