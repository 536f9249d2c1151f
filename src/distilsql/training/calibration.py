"""× SFT: what a method's step costs relative to plain fine-tuning of the same student on the same windows.

A few windows, spread over the run, are timed twice: as SFT (forward and backward only, gradients discarded)
and as the method. The optimizer step costs the same for both and is added to both. The ratio is therefore
paired, by window and by moment.
"""

from collections.abc import Sequence
from typing import Any

from distilsql.inference.loading import Engines
from distilsql.runs.recipe import Recipe
from distilsql.training.ledger import Ledger
from distilsql.training.optimizer import MasterAdamW
from distilsql.training.window import WindowTrainer
from distilsql.training.window_tree import WindowTree


class Calibration:
    """Timings of SFT and of the method on the same windows. `steps` says which windows."""

    def __init__(self, recipe: Recipe, engines: Engines, steps: int) -> None:
        count = min(recipe.train.calibration_windows, steps)
        # The middle of each of `count` equal parts of the run; step 0, which warms everything up, is left out.
        self.steps = {max(int((part + 0.5) * steps / count), min(1, steps - 1)) for part in range(count)}
        options = recipe.model_copy(
            update={"method": "sft", "distill": recipe.distill.model_copy(update={"gold_weight": None})}
        )
        self._ledger = Ledger(engines.student.device)
        self._sft = WindowTrainer(options, engines, self._ledger)
        self.sft_seconds = self.method_seconds = self.examples = 0.0
        # (SFT's seconds, the method's, examples) of each window: their spread says what the ratio is worth.
        self.windows: list[tuple[float, float, float]] = []
        self._sft_of_window = 0.0

    def time_sft(self, items: Sequence[WindowTree], optimizer: MasterAdamW) -> None:
        before = self._ledger.training_seconds
        trained = self._sft.source.write(items)
        self._sft.accumulate(items, trained, self._sft.denominators(items, trained))
        optimizer.zero_grad()
        self._sft_of_window = self._ledger.training_seconds - before
        self.sft_seconds += self._sft_of_window

    def time_method(self, seconds: float, examples: int) -> None:
        self.method_seconds += seconds
        self.examples += examples
        self.windows.append((self._sft_of_window, seconds, examples))

    def summary(
        self, optimizer_seconds_per_example: float = 0.0, beforehand_seconds_per_example: float = 0.0
    ) -> dict[str, Any]:
        """`x_sft`, its lowest and highest window, and the SFT seconds per example it is relative to; None if nothing
        was timed, and of the range where there is one window only.

        What the method needed beforehand (the teacher's cached hidden states) is charged to every example seen, and
        in full even where an earlier run computed it: × SFT is what the method costs from an empty disk.
        """
        if not self.examples:
            return {"x_sft": None, "x_sft_range": None, "sft_seconds_per_example": None}

        def per_example(sft: float, method: float, examples: float) -> tuple[float, float]:
            return (
                sft / examples + optimizer_seconds_per_example,
                method / examples + beforehand_seconds_per_example,
            )

        sft, method = per_example(self.sft_seconds, self.method_seconds, self.examples)
        ratios = [m / s for s, m in (per_example(*window) for window in self.windows)]
        return {
            "x_sft": method / sft,
            "x_sft_range": [min(ratios), max(ratios)] if len(ratios) > 1 else None,
            "sft_seconds_per_example": sft,
        }

    def state(self) -> dict[str, Any]:
        return {
            "sft": self.sft_seconds,
            "method": self.method_seconds,
            "examples": self.examples,
            "windows": self.windows,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Checkpoints of earlier versions have no windows; the range then covers only the windows timed since."""
        self.windows = [tuple(window) for window in state.get("windows", [])]
        self.sft_seconds, self.method_seconds, self.examples = (
            state["sft"],
            state["method"],
            state["examples"],
        )
