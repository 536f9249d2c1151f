"""atkd: which positions are hard is decided over a window, and the loss is the paper's on them."""

import math

import pytest

from distilsql.training.reading import hard_threshold
from distilsql.training.train import train
from references import alone
from run_folders import step_lines

STILL = "train.learning_rate=1e-30"


def by_hand(settings, easy_weight: float, hard_share: float) -> float:
    """Zhong et al. 2024, a token at a time: mean over a completion's tokens, then over completions."""
    models = alone(settings)
    rows = []  # (completion, token there, p, q)
    for number, example in enumerate(models.prepared.examples):
        p = models.log_probs("teacher", example, example.gold).exp().numpy()
        q = models.log_probs("student", example, example.gold).exp().numpy()
        rows += [(number, token, p[t], q[t]) for t, token in enumerate(example.gold)]
    by_uncertainty = sorted(range(len(rows)), key=lambda row: -(1 - rows[row][2][rows[row][1]]))
    hard = set(by_uncertainty[: math.ceil(hard_share * len(rows))])
    sums: dict[int, list[float]] = {}
    for row, (number, token, p, q) in enumerate(rows):
        rest_p, rest_q = 1 - p[token], 1 - q[token]
        target = p[token] * math.log(p[token] / q[token]) + rest_p * math.log(rest_p / rest_q)
        others = [v for v in range(len(p)) if v != token]
        diversity = sum(
            p[v] / rest_p * math.log((p[v] / rest_p) / (q[v] / rest_q)) for v in others if p[v] > 0
        )
        value = (1 - easy_weight) * (target + diversity) if row in hard else easy_weight * diversity
        sums.setdefault(number, []).append(value)
    return sum(sum(values) / len(values) for values in sums.values()) / len(sums)


@pytest.mark.parametrize("trees", [(3, 4), (10, 1)])
def test_the_loss_is_the_papers_whatever_the_trees(recipe, tmp_path, trees):
    keys = ("train.steps=1", f"train.questions_per_tree={trees[0]}", f"train.trees_per_step={trees[1]}")
    given = ("distill.hard_share=0.3", "distill.easy_weight=0.4", "distill.gold_weight=0")
    settings = recipe("atkd", *keys, *given, STILL)
    (line,) = step_lines(train(settings, tmp_path / "run"))
    assert line["examples_seen"] == 10
    assert line["loss"] == pytest.approx(by_hand(settings, 0.4, 0.3), rel=1e-4)


def test_it_can_be_put_on_completions_that_are_rewritten(recipe, tmp_path):
    """KID's completions are known one tree at a time."""
    run = train(recipe("kid", "distill.divergence=adaptive-teaching", "train.steps=2"), tmp_path / "run")
    assert all(line["divergence"] > 0 for line in step_lines(run))


def test_the_threshold_marks_the_share_rounded_up():
    logps = [-3.0, -1.0, -2.0, -0.5, -4.0]
    for share, count in ((0.2, 1), (0.21, 2), (0.5, 3), (1.0, 5)):
        assert sum(logp <= hard_threshold(logps, share) for logp in logps) == count
    assert hard_threshold([], 0.5) == hard_threshold(logps, 0.0) == -math.inf
