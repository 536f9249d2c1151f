"""distillm-2's curriculum: the loss of two steps from whole sequences in float64, what is refused, and resuming."""

import json

import numpy as np
import pytest
import torch

from distilsql.errors import RecipeError
from distilsql.training import rollout as rollout_module
from distilsql.training.curriculum import Sides, SkewCurriculum, side_factors
from distilsql.training.train import train
from references import alone
from run_folders import losses, step_lines, whole_and_resumed

ADAPTIVE = "distill.skew_schedule=adaptive"
STILL = ("train.trees_per_step=4", "train.learning_rate=1e-30")


@pytest.fixture
def windows(monkeypatch) -> list:
    """Of every window, what each completion of it is: (example, by the student, tokens)."""
    seen = []
    window = rollout_module.Rollout.window

    def recorded(self, step):
        ready = window(self, step)
        seen.append(
            [
                (item.examples[question], own, tokens)
                for item, trained in zip(ready.items, ready.trained, strict=True)
                for question, own, tokens in zip(
                    trained.questions, trained.by_student, trained.completions, strict=True
                )
            ]
        )
        return ready

    monkeypatch.setattr(rollout_module.Rollout, "window", recorded)
    return seen


def gap_and_loss(models, example, own, tokens):
    """By whole sequences: the completion's gap, and its mean divergence as a function of its skew."""
    at = torch.arange(len(tokens)), torch.tensor(tokens)
    logp, logq = (models.log_probs(role, example, tokens) for role in ("teacher", "student"))
    gap = float(logp[at].mean().exp() - logq[at].mean().exp()) * (-1 if own else 1)
    p, q = logp.exp().numpy(), logq.exp().numpy()

    def loss(skew: float) -> float:
        left, right = (q, p) if own else (p, q)
        return float(np.mean(np.sum(left * np.log(left / (skew * left + (1 - skew) * right)), -1)))

    return gap, loss


@pytest.mark.slow
def test_the_losses_are_the_papers(recipe, tmp_path, windows):
    """The first step has the recipe's skew; the second, of the second epoch, one for each completion, measured against
    the first step's mean gap. The student stands still, so that all of it can be computed from the two models."""
    settings = recipe("distillm-2", ADAPTIVE, *STILL, "train.steps=2", "distill.skew=0.8")
    run = train(settings, tmp_path / "run")
    models = alone(settings)
    found = [
        [(own, *gap_and_loss(models, example, own, tokens)) for example, own, tokens in w] for w in windows
    ]
    reference = {side: np.mean([gap for own, gap, _ in found[0] if own == side]) for side in (False, True)}
    skews = [
        0.8 if gap <= 0 else min(max(1 - 0.2 * reference[own] / gap, 0.01), 0.8) for own, gap, _ in found[1]
    ]
    first, second = step_lines(run)
    assert first["loss"] == pytest.approx(np.mean([loss(0.8) for _, _, loss in found[0]]), rel=1e-3)
    expected = np.mean([loss(skew) for (_, _, loss), skew in zip(found[1], skews, strict=True)])
    assert second["loss"] == pytest.approx(expected, rel=1e-3)
    assert any(0.01 < skew < 0.8 for skew in skews), "a completion has a skew of its own"
    told = json.loads(run.summary.read_text())["skew"]
    for side, name in ((False, "teacher_side"), (True, "student_side")):
        own = [0.8] * 10 + [skew for skew, (by, *_) in zip(skews, found[1], strict=True) if by == side]
        assert told[name]["mean_skew"] == pytest.approx(np.mean(own), rel=1e-3)
        assert told[name]["reference_gap"] == pytest.approx(reference[side], rel=1e-2)


@pytest.mark.slow
def test_the_losses_do_not_depend_on_the_trees(recipe, tmp_path):
    keys = (
        "distillm-2",
        ADAPTIVE,
        "distill.side_weights=growing",
        "train.steps=2",
        "train.learning_rate=1e-30",
        "generation.temperature=0",
    )
    whole = train(recipe(*keys, "train.questions_per_tree=10", "train.trees_per_step=1"), tmp_path / "whole")
    parts = train(recipe(*keys, "train.questions_per_tree=3", "train.trees_per_step=4"), tmp_path / "parts")
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-4)


@pytest.mark.slow
def test_a_killed_run_goes_on_with_its_reference(recipe, tmp_path):
    settings = recipe(
        "distillm-2", ADAPTIVE, "distill.side_weights=growing", "train.steps=5", "train.save_every_steps=2"
    )
    whole, resumed = whole_and_resumed(settings, tmp_path, killed_at=3)
    assert losses(resumed) == losses(whole)
    told = [json.loads(run.summary.read_text())["skew"] for run in (whole, resumed)]
    assert told[0] == told[1]
    assert told[0]["student_side"]["reference_gap"] is not None


def test_the_reference_is_the_first_epochs():
    curriculum = SkewCurriculum(0.1)
    for gap, is_in_first_epoch in ((0.4, True), (0.2, True), (0.0, False)):
        sides = Sides([2 * gap, gap], [0.2, 0.1], [2.0, 1.0])
        curriculum.learn(sides, is_in_first_epoch=is_in_first_epoch)
    told = curriculum.summary()["skew"]["teacher_side"]
    assert told["reference_gap"] == pytest.approx(0.3)
    assert told["mean_skew"] == pytest.approx(0.1)


@pytest.mark.parametrize(("done", "factors"), [(0.0, (1.0, 1.0)), (0.25, (0.75, 1.25)), (0.8, (0.5, 1.5))])
def test_weights_grow_on_the_students_side(done, factors):
    assert side_factors(torch.tensor([False, True]), done).tolist() == pytest.approx(list(factors))


@pytest.mark.slow
def test_weights_move_the_loss_from_one_side_to_the_other(recipe, tmp_path, windows):
    """In the second of two steps half of the training is done: β = 1.5."""
    settings = recipe("distillm-2", "distill.side_weights=growing", *STILL, "train.steps=2")
    second = step_lines(train(settings, tmp_path / "run"))[1]
    models = alone(settings)
    values = [
        (1.5 if own else 0.5) * gap_and_loss(models, example, own, tokens)[1](0.1)
        for example, own, tokens in windows[1]
    ]
    assert second["loss"] == pytest.approx(np.mean(values), rel=1e-4)


def test_what_has_no_curriculum_is_refused(recipe):
    for method in ("distillm", "fkd"):
        with pytest.raises(RecipeError, match="two skewed divergences of distillm-2"):
            recipe(method, ADAPTIVE)
    with pytest.raises(RecipeError, match="two skewed divergences of distillm-2"):
        recipe("distillm-2", ADAPTIVE, "teacher.bridge=uld")
    for method in ("gkd-fkl", "f-distill", "imitkd"):
        with pytest.raises(RecipeError, match=rf"{method} has one of them"):
            recipe(method, "distill.side_weights=growing")
    assert recipe("f-distill", "distill.side_weights=growing", "distill.mixture=both").has_both_sides
