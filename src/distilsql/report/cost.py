"""× SFT: the cost of a method's training relative to plain fine-tuning. Defined here; see docs/performance.md.

The ratio is timed inside each run, on a few windows (`distilsql.training.calibration`), and its spread is that of the
windows. Where the whole runs' seconds per example, of the method and of sft in the same comparison, give a ratio
outside that spread, both are shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

BASELINE = "sft"
# Either way, of a ratio whose windows were not kept: what single ratios were seen to be off by (docs/performance.md).
_UNKNOWN_SPREAD = 0.2

MEANING = (
    "× SFT: training seconds per example relative to fine-tuning the same student, timed side by side on a few windows "
    "inside each run (a to b: over those windows)."
)
WHY_TWO = (
    "“runs”: the whole runs' seconds per example relative to the sft run's, shown where it lies outside that spread "
    "(a fifth either way where windows were not kept). The machine is not as fast at every moment, a few windows are "
    "not all, and what the teacher computed beforehand counts in × SFT even where an earlier run paid for it."
)


@dataclass(frozen=True)
class RunCost:
    """Of one run's summary.json: the ratio, its lowest and highest window, and seconds per example of the whole run."""

    seed: int
    x_sft: float | None
    x_sft_range: tuple[float, float] | None
    seconds_per_example: float | None

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> "RunCost":
        """Of summary.json's keys; those of earlier versions may lack the range."""
        spread = summary.get("x_sft_range")
        return cls(
            summary.get("seed", 0),
            summary.get("x_sft"),
            (spread[0], spread[1]) if spread else None,
            summary.get("seconds_per_example"),
        )


@dataclass(frozen=True)
class Cost:
    """`x_sft` is the mean of the runs, `spread` over their windows (None where they were not kept); `of_runs` is the
    ratio of whole runs where it disagrees."""

    x_sft: float
    spread: tuple[float, float] | None = None
    of_runs: float | None = None

    @property
    def text(self) -> str:
        """`3.80 (3.11 to 4.42); runs 2.36`."""
        return f"{self.x_sft:.2f}{self.spread_text}{self.of_runs_text}"

    @property
    def spread_text(self) -> str:
        return "" if self.spread is None else f" ({self.spread[0]:.2f} to {self.spread[1]:.2f})"

    @property
    def of_runs_text(self) -> str:
        return "" if self.of_runs is None else f"; runs {self.of_runs:.2f}"


def cost(method: str, runs: Sequence[RunCost], sft: Sequence[RunCost]) -> Cost | None:
    """× SFT of a method's runs, with `sft`, the fine-tuning runs to compare whole runs with, if there are any.

    1 for sft by definition; None if no run measured it.
    """
    if method == BASELINE:
        return Cost(1.0)
    timed = [(run.x_sft, run.x_sft_range) for run in runs if run.x_sft is not None]
    if not timed:
        return None
    known = [spread for _, spread in timed if spread is not None]
    assumed = [
        spread or (x_sft * (1 - _UNKNOWN_SPREAD), x_sft * (1 + _UNKNOWN_SPREAD)) for x_sft, spread in timed
    ]
    low, high = min(one for one, _ in assumed), max(one for _, one in assumed)
    whole = _ratios_of_runs(runs, sft)
    is_outside = bool(whole) and (min(whole) > high or max(whole) < low)
    return Cost(
        fmean(x_sft for x_sft, _ in timed),
        (low, high) if len(known) == len(timed) else None,
        fmean(whole) if is_outside else None,
    )


def _ratios_of_runs(runs: Sequence[RunCost], sft: Sequence[RunCost]) -> list[float]:
    """Seed by seed, or of every run with every other where they have no seed in common."""
    pairs = [
        (run.seed == other.seed, run.seconds_per_example / other.seconds_per_example)
        for run in runs
        for other in sft
        if run.seconds_per_example and other.seconds_per_example
    ]
    return [ratio for is_same, ratio in pairs if is_same] or [ratio for _, ratio in pairs]
