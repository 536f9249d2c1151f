"""What tests do with run folders: stop a training on its way, and read what a run left."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from distilsql.runs.folder import RunFolder
from distilsql.training.train import train


class Killed(Exception):
    """Stands for a kill: raised where nothing catches it."""


def train_killed_at(step: int, settings, folder) -> None:
    """Train until `step` is done, which is before it is logged and saved."""

    def kill(line) -> None:
        if line["step"] == step:
            raise Killed

    with pytest.raises(Killed):
        train(settings, folder, on_step=kill)


def log_lines(run) -> list[dict]:
    return [json.loads(line) for line in run.log.read_text().splitlines()]


def step_lines(run) -> list[dict]:
    """The log without what is not of a step: evaluations, what the teacher wrote."""
    return [line for line in log_lines(run) if "loss" in line]


def losses(run) -> list[float]:
    return [line["loss"] for line in step_lines(run)]


def weights(run) -> dict[str, torch.Tensor]:
    return load_file(run.model / "model.safetensors")


def assert_equal(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """The same names and the same bits."""
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert torch.equal(tensor, theirs[name]), name


def assert_same_weights(one, other) -> None:
    assert_equal(weights(one), weights(other))


def whole_and_resumed(settings, folder: Path, *, killed_at: int) -> tuple[RunFolder, RunFolder]:
    """The run of `settings`, and one that was killed at a step and resumed, whose weights are the same to the bit."""
    whole = train(settings, folder / "whole")
    train_killed_at(killed_at, settings, folder / "killed")
    resumed = train(settings, folder / "killed")
    assert_same_weights(whole, resumed)
    return whole, resumed
