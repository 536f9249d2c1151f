"""Runs whose teacher is loaded by a device_map, and the ones that are refused."""

import pytest
import torch

from distilsql.data.load import load_benchmark
from distilsql.errors import ModelError, RecipeError
from distilsql.inference.exposure import ExposureOptions, expose_run
from distilsql.inference.loading import load_engines
from distilsql.models.load import Placement, load_model
from distilsql.training.train import train

CPU = torch.device("cpu")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["kid", "switch"])
def test_a_run_with_a_placed_teacher_is_the_same_run(recipe, tmp_path, method):
    whole = train(recipe(method, "train.steps=2"), tmp_path / "whole")
    placed = train(recipe(method, "train.steps=2", "teacher.device_map=cpu"), tmp_path / "placed")
    mine, theirs = ((run.model / "model.safetensors").read_bytes() for run in (whole, placed))
    assert mine == theirs


def test_a_teacher_on_another_device_than_the_student_is_refused(recipe, monkeypatch):
    monkeypatch.setattr("distilsql.inference.loading._teacher_weights", _on_meta)
    with pytest.raises(ModelError, match="compared on one device"):
        load_engines(recipe("kid"), CPU)


def _on_meta(options, precision, device):
    return load_model(options.path, precision).to("meta")


def test_an_adapter_for_a_quantised_teacher_is_refused(recipe):
    with pytest.raises(RecipeError, match="save the merged model"):
        recipe("kid", "teacher.adapter=some/adapter", "teacher.quantization=8bit")


def test_exposure_loads_the_teacher_as_training_does(recipe, world, tmp_path, monkeypatch):
    run = train(recipe("rkd", "train.steps=1", "teacher.device_map=cpu"), tmp_path / "run")
    placed = []

    def watched(path, precision, *, adapter=None, placement=None):
        placed.append(placement)
        return load_model(path, precision, adapter=adapter, placement=placement)

    monkeypatch.setattr("distilsql.inference.loading.load_model", watched)
    benchmark = load_benchmark(str(world / "pairs.jsonl"), database=world / "singers.sqlite")
    expose_run(run, benchmark, ExposureOptions(length=2))
    assert placed == [None, Placement(CPU, "cpu")]  # the student's and the teacher's
