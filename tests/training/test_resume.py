"""Training that is stopped goes on to the same bits; several processes train as one, and stop as one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from distilsql.distill.methods import METHODS
from distilsql.errors import RunError
from distilsql.runs.folder import RunFolder
from distilsql.training import finished_model
from distilsql.training.train import train
from run_folders import assert_same_weights, losses, step_lines, whole_and_resumed

# The others are slow tests. test_rollout.py and test_replay.py stop runs inside what a round or a buffer holds.
FAST = ("gkd-rkl",)


@pytest.mark.parametrize(
    "method", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
)
def test_a_killed_run_resumes_to_the_same_bits(recipe, tmp_path, method):
    settings = recipe(method, "train.steps=4", "train.save_every_steps=2", "train.precision=bfloat16")
    whole, resumed = whole_and_resumed(settings, tmp_path, killed_at=3)
    assert [line["step"] for line in step_lines(resumed)] == [1, 2, 3, 4]
    assert losses(resumed) == losses(whole)


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
def test_two_processes_of_accelerate_launch_give_the_loss_of_one(recipe, tmp_path):
    """tests/training/test_processes.py has every method, under torchrun."""
    settings = recipe("kid", "train.steps=3", "train.learning_rate=1e-30", "train.save_every_steps=1")
    alone = step_lines(train(settings, tmp_path / "alone"))
    (tmp_path / "recipe.toml").write_text(settings.to_toml())
    launch = "-m accelerate.commands.launch --num_processes 2 --cpu --num_machines 1 --mixed_precision no"
    launch += " --dynamo_backend no --num_cpu_threads_per_process 1"
    launch += " -m distilsql.cli train recipe.toml --out both"
    result = subprocess.run([sys.executable, *launch.split()], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    both = step_lines(RunFolder(tmp_path / "both"))
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
        assert [process.wait(timeout=600) for process in processes] == [143, 143]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    state = json.loads((run.checkpoint / "state.json").read_text())
    assert state["step"] == step_lines(run)[-1]["step"] >= 3


def test_a_run_does_not_go_on_with_other_data(recipe, tmp_path, world, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    settings = recipe("sft", "train.save_every_steps=1")
    monkeypatch.setattr(finished_model, "save_model", stop)
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "run")
    monkeypatch.undo()
    before = (tmp_path / "run" / "environment.json").read_text()
    pairs = (world / "pairs.jsonl").read_text()
    (world / "pairs.jsonl").write_text("".join(pairs.splitlines(keepends=True)[:5]))
    with pytest.raises(RunError, match="had 10 examples and now has 5"):
        train(settings, tmp_path / "run")
    assert (tmp_path / "run" / "environment.json").read_text() == before
    (world / "pairs.jsonl").write_text(pairs)
    assert train(settings, tmp_path / "run").is_finished()
