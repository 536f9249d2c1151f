"""Methods on completions of two sides: distillm-2, and f-distill and imitkd as their own papers have them."""

import json

import numpy as np
import pytest

from distilsql.training import rollout as rollout_module
from distilsql.training.sources.student import GoldAndStudent
from distilsql.training.train import train
from references import alone
from run_folders import step_lines

ALL = ("train.steps=1", "train.trees_per_step=4", "train.learning_rate=1e-30")


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float(np.sum(p * np.log(p / q)))


SIDES = {
    "distillm-2": (
        lambda p, q: kl(p, 0.3 * p + 0.7 * q),
        lambda p, q: kl(q, 0.7 * p + 0.3 * q),
    ),
    "f-distill": (lambda p, q: 0.5 * float(np.abs(p - q).sum()),) * 2,
}


@pytest.fixture
def student_wrote(monkeypatch) -> dict:
    """Of every tree of a window, its examples and what it was trained on."""
    seen = {}
    window = rollout_module.Rollout.window

    def recorded(self, step):
        ready = window(self, step)
        for item, trained in zip(ready.items, ready.trained, strict=True):
            for question, own, tokens in zip(
                trained.questions, trained.by_student, trained.completions, strict=True
            ):
                seen[item.examples[question].example.example_id, own] = tokens
        return ready

    monkeypatch.setattr(rollout_module.Rollout, "window", recorded)
    return seen


@pytest.mark.parametrize("method", ["distillm-2", pytest.param("f-distill", marks=pytest.mark.slow)])
def test_the_loss_is_the_mean_of_both_sides(recipe, tmp_path, student_wrote, method):
    """½ on the teacher's completion and ½ on the student's, each the mean over its tokens."""
    settings = recipe(method, *ALL, "distill.mixture=both", "distill.skew=0.3")
    run = train(settings, tmp_path / "run")
    models, values = alone(settings), []
    records = map(json.loads, run.teacher_completions.read_text().splitlines())
    teacher_wrote = {record["example_id"]: tuple(record["tokens"]) for record in records}
    for example in models.prepared.examples:
        name = example.example.example_id
        assert student_wrote[name, False] == teacher_wrote[name]
        for side, divergence in enumerate(SIDES[method]):
            completion = student_wrote[name, bool(side)]
            p, q = (
                models.log_probs(role, example, completion).exp().numpy() for role in ("teacher", "student")
            )
            values.append(np.mean([divergence(*rows) for rows in zip(p, q, strict=True)]))
    (line,) = step_lines(run)
    assert line["examples_seen"] == 10, "a question counts once"
    assert len(values) == 20
    assert line["loss"] == pytest.approx(np.mean(values), rel=1e-4)


@pytest.mark.slow
def test_drawn_sides_take_one_completion_each(recipe, tmp_path, monkeypatch):
    counts = []
    window = rollout_module.Rollout.window

    def recorded(self, step):
        ready = window(self, step)
        counts.extend(
            len(trained.completions) - len(item.examples)
            for item, trained in zip(ready.items, ready.trained, strict=True)
        )
        return ready

    monkeypatch.setattr(rollout_module.Rollout, "window", recorded)
    train(recipe("f-distill", *ALL), tmp_path / "drawn")
    assert set(counts) == {0}
    counts.clear()
    train(recipe("imitkd", *ALL, "distill.mixture=both"), tmp_path / "both")
    assert sum(counts) == 10


@pytest.mark.slow
def test_imitkd_as_its_own_code_has_it_begins_with_gold_and_ends_with_the_student(
    recipe, tmp_path, monkeypatch
):
    """1 − 0.005^s: none of the student's in the first step, all but a few in the last. On gold the loss is its own
    likelihood, as fine-tuning's."""
    own = ("distill.divergence=oracle-likelihood", "distill.mixture_schedule=exponential")
    keys = (*ALL, "train.calibration_windows=0", "prompt.max_completion_tokens=24")
    sft = step_lines(train(recipe("sft", *keys), tmp_path / "sft"))
    shares = []
    window = rollout_module.Rollout.window

    def recorded(self, step):
        ready = window(self, step)
        shares.append(np.mean([own for trained in ready.trained for own in trained.by_student]))
        return ready

    monkeypatch.setattr(rollout_module.Rollout, "window", recorded)
    lines = step_lines(train(recipe("imitkd", *keys, *own, "train.steps=20"), tmp_path / "run"))
    assert shares[0] == 0
    assert np.mean(shares[:2]) < 0.5 < 0.9 < np.mean(shares[-10:])
    assert lines[0]["loss"] == pytest.approx(sft[0]["loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("schedule", "share"), [("constant", 0.3), ("linear", 0.5), ("exponential", 0.929289)]
)
def test_the_students_share_follows_its_schedule(recipe, schedule, share):
    source = GoldAndStudent.__new__(GoldAndStudent)
    source.recipe = recipe("imitkd", "distill.mixture_share=0.3", f"distill.mixture_schedule={schedule}")
    source.share_done = 0.5
    assert source.student_share == pytest.approx(share, rel=1e-4)
