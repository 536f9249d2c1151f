"""A method of next year's paper is one row and one file: it trains, resumes and is reported."""

import json

import pytest

from distilsql.distill.methods import METHODS, Method, SourceSpec
from distilsql.report import comparison_table, load_runs
from distilsql.training.train import train
from run_folders import assert_same_weights, train_killed_at, weights

ROW = Method(
    "backwards",
    "forward-kl",
    SourceSpec("backwards", "gold, last token first", "toy_source:Backwards"),
    0.0,
    "nobody",
    "Gold backwards.",
)


@pytest.fixture(autouse=True)
def row(monkeypatch):
    monkeypatch.setitem(METHODS, "backwards", ROW)


def test_it_trains_resumes_and_is_reported(recipe, tmp_path):
    settings = recipe("backwards", "train.steps=4", "train.save_every_steps=2")
    whole = train(settings, tmp_path / "whole")
    summary = json.loads(whole.summary.read_text())
    assert summary["turned"] == summary["examples_seen"] == 20
    train_killed_at(4, settings, tmp_path / "killed")
    resumed = train(settings, tmp_path / "killed")
    assert json.loads(resumed.summary.read_text())["turned"] == 20, "the count went through the checkpoint"
    assert_same_weights(whole, resumed)
    table = comparison_table(load_runs([whole.path]))
    assert any("backwards" in str(row) for row in table.rows)


def test_it_trains_on_what_its_source_writes(recipe, tmp_path):
    ours = weights(train(recipe("backwards"), tmp_path / "backwards"))
    gold = weights(train(recipe("fkd", "distill.gold_weight=0.0"), tmp_path / "fkd"))
    assert any(not (ours[name] == gold[name]).all() for name in ours)
