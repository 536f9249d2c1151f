"""BIRD's three metrics: EX, R-VES and soft-F1 (Li et al. 2023; the reward bands are mini-dev's revision)."""

import math
import statistics
from collections.abc import Sequence

from distilsql.databases.job import Row

BUDGET_S = 30.0
# (least ratio of gold seconds to predicted seconds, reward)
REWARD_BANDS = ((2.0, 1.25), (1.0, 1.0), (0.5, 0.75), (0.25, 0.5))
SLOWEST_REWARD = 0.25


def results_equal(gold: Sequence[Row], predicted: Sequence[Row]) -> bool:
    """Equal as sets of rows: column order matters, row order and repeated rows do not."""
    return set(predicted) == set(gold)


def reward(speed_ratio: float) -> float:
    """R-VES's reward for one correct prediction that takes 1/`speed_ratio` of the gold's time."""
    return next((value for least, value in REWARD_BANDS if speed_ratio >= least), SLOWEST_REWARD)


def speed_ratio(gold_seconds: Sequence[float], predicted_seconds: Sequence[float]) -> float:
    """The mean of the paired ratios, excluding those three or more standard deviations from the mean."""
    ratios = [g / p for g, p in zip(gold_seconds, predicted_seconds, strict=True)]
    mean, deviation = statistics.fmean(ratios), statistics.pstdev(ratios)
    kept = [ratio for ratio in ratios if abs(ratio - mean) < 3 * deviation]
    # ASSUMED: where all ratios are equal the strict comparison would leave none; then their mean stands.
    return statistics.fmean(kept) if kept else mean


def r_ves(rewards: Sequence[float]) -> float:
    """R-VES in percent. `rewards` holds one reward per example, 0 for a wrong prediction."""
    return 100 * statistics.fmean(math.sqrt(value) for value in rewards)


def soft_f1(gold: Sequence[Row], predicted: Sequence[Row]) -> float:
    """Soft-F1 of one prediction: cells shared between rows at the same position.

    Repeated rows are dropped keeping the first, as mini-dev's `evaluation_f1.py` does (revision 2932a2b); before, the
    official script dropped them through a set, whose order changes from run to run.
    """
    gold_rows, predicted_rows = list(dict.fromkeys(gold)), list(dict.fromkeys(predicted))
    if not gold_rows and not predicted_rows:
        return 1.0
    matched = predicted_only = gold_only = 0.0
    for gold_row, predicted_row in zip(gold_rows, predicted_rows, strict=False):
        found = sum(cell in gold_row for cell in predicted_row)
        matched += found / len(gold_row)
        predicted_only += (len(predicted_row) - found) / len(gold_row)
        gold_only += sum(cell not in predicted_row for cell in gold_row) / len(gold_row)
    gold_only += max(0, len(gold_rows) - len(predicted_rows))
    predicted_only += max(0, len(predicted_rows) - len(gold_rows))
    if matched == 0:
        return 0.0
    precision, recall = matched / (matched + predicted_only), matched / (matched + gold_only)
    return 2 * precision * recall / (precision + recall)
