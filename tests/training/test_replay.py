"""distillm: how much is about what the student writes follows the validation loss, and what it wrote is replayed."""

import json
import logging

import pytest

from distilsql.inference.prepare import load_data
from distilsql.training import rollout as rollout_module
from distilsql.training import validation
from distilsql.training.sources.replay import Replay
from distilsql.training.train import train
from distilsql.training.validation import validation_loss
from references import alone
from run_folders import step_lines, whole_and_resumed

ALL = ("train.steps=1", "train.trees_per_step=4", "train.learning_rate=1e-30")


@pytest.fixture
def valid(world) -> tuple[str, ...]:
    """Validation examples: the training pairs, whose loss the tests say."""
    return (f"data.valid={world / 'pairs.jsonl'}",)


@pytest.fixture
def trees(monkeypatch) -> list:
    """Every tree that is trained on, as (example ids, completions, by_student)."""
    seen = []
    window = rollout_module.Rollout.window

    def recorded(self, step):
        ready = window(self, step)
        for item, trained in zip(ready.items, ready.trained, strict=True):
            ids = tuple(example.example.example_id for example in item.examples)
            seen.append((ids, tuple(trained.completions), trained.by_student))
        return ready

    monkeypatch.setattr(rollout_module.Rollout, "window", recorded)
    return seen


def test_the_share_grows_where_the_loss_has_grown(recipe, valid):
    source = Replay.__new__(Replay)
    source.recipe, source.share, source.last_loss = recipe("distillm", *valid), 0.85, None
    found = []
    for loss in (2.0, 1.5, 2.09, 2.2, 2.2, 2.35, 2.35, 3.0):
        source.hear(loss)
        found.append(source.share)
    assert found == pytest.approx([0.85, 0.85, 0.85, 0.95, 0.95, 1.0, 1.0, 1.0])


def test_it_hears_the_loss_before_the_first_step_and_every_epoch(recipe, valid, tmp_path, monkeypatch):
    """Two windows an epoch; a loss that grows each time adds a tenth each time but the first."""
    losses = iter(range(10))
    monkeypatch.setattr(validation, "validation_loss", lambda *rest: float(next(losses)))
    run = train(recipe("distillm", *valid, "train.steps=6"), tmp_path / "run")
    assert next(losses) == 4
    replay = json.loads(run.summary.read_text())["replay"]
    assert replay["share"] == pytest.approx(0.3)
    assert replay["gold"] + replay["written"] + replay["replayed"] == 12


def test_the_validation_loss_is_the_mean_negative_log_likelihood_of_gold(recipe, valid):
    settings = recipe("distillm", *valid)
    models = alone(settings)
    means = []
    for example in models.prepared.examples:
        logps = models.log_probs("student", example, example.gold)
        means.append(-sum(logps[t, token].item() for t, token in enumerate(example.gold)) / len(example.gold))
    benchmark = load_data(settings)[1]
    assert validation_loss(settings, models.engines, benchmark) == pytest.approx(sum(means) / 10, rel=1e-6)


def test_without_validation_the_share_stays_and_that_is_said(recipe, tmp_path, caplog, trees):
    with caplog.at_level(logging.WARNING):
        run = train(recipe("distillm", "replay.initial_share=0"), tmp_path / "run")
    assert "the share stays 0" in caplog.text
    assert json.loads(run.summary.read_text())["replay"] == {
        "share": 0,
        "gold": 8,
        "written": 0,
        "replayed": 0,
    }
    assert all(by_student is None for _, _, by_student in trees)


REPLAYING = ("replay.initial_share=1", "replay.capacity=4", "train.steps=8", "train.save_every_steps=2")


@pytest.mark.slow
def test_what_was_written_is_replayed_about_its_own_questions(recipe, tmp_path, trees):
    """Nothing is replayed that was not written before, each completion under the question that it answers."""
    run = train(recipe("distillm", *REPLAYING), tmp_path / "run")
    replay = json.loads(run.summary.read_text())["replay"]
    assert replay["gold"] == 0
    assert replay["written"] > 0 < replay["replayed"]
    first: dict[tuple, int] = {}
    for place, (ids, completions, by_student) in enumerate(trees):
        assert by_student == (True,) * len(ids)
        first.setdefault((ids, completions), place)
    assert len(first) == replay["written"]
    assert all(line["loss"] > 0 for line in step_lines(run))


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [1, 4])
def test_a_killed_run_goes_on_with_its_buffer(recipe, tmp_path, rounds):
    settings = recipe("distillm", *REPLAYING, f"generation.rollout_window={rounds}")
    whole, resumed = whole_and_resumed(settings, tmp_path, killed_at=7)
    replays = [json.loads(run.summary.read_text())["replay"] for run in (whole, resumed)]
    assert replays[0] == replays[1]
    assert replays[0]["replayed"] > 0


def test_the_loss_is_skewed_reverse_kl_on_gold_where_nothing_is_written(recipe, tmp_path):
    settings = recipe("distillm", *ALL, "replay.initial_share=0", "distill.skew=0.2")
    (line,) = step_lines(train(settings, tmp_path / "run"))
    models, means = alone(settings), []
    for example in models.prepared.examples:
        p, q = (models.log_probs(role, example, example.gold).exp() for role in ("teacher", "student"))
        means.append((q * (q / (0.8 * p + 0.2 * q)).log()).sum(-1).mean().item())
    assert line["loss"] == pytest.approx(sum(means) / 10, rel=1e-4)
