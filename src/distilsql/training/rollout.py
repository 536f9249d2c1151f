"""Rollout: the windows of a training, each with the completions to train on.

One round of generation serves `generation.rollout_window` optimizer steps. With 1 every window is written by the
student as it stands, which is on-policy as published; with more, the later windows of a round are written by a
student some steps old, which is cheaper (larger batches) and a form of replay (DistiLLM's trade-off). Rounds begin
at multiples of the key, so that step and recipe alone say which student wrote a completion.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from distilsql.inference.prepare import Prepared
from distilsql.training.ledger import Phase
from distilsql.training.sampling import TreeOfExamples, WindowStream
from distilsql.training.sources.source import Trained
from distilsql.training.window import StandIn, WindowTrainer
from distilsql.training.window_tree import WindowTree, as_window_trees


@dataclass(frozen=True)
class ReadyWindow:
    """This process's trees of one window and what they are trained on.

    `generation_seconds` is the window's part of its round: a window that was written in an earlier step still has
    a cost, in proportion to its examples.

    `stand_in`: where another process has one tree more, a tree to run beside it, which counts as nothing.
    """

    items: list[WindowTree]
    trained: list[Trained]
    generation_seconds: float
    stand_in: StandIn | None = None


class Rollout:
    """Windows by step, asked for in order. Process `process` of `processes` takes every `processes`-th tree."""

    def __init__(
        self,
        trainer: WindowTrainer,
        windows: WindowStream,
        prepared: Prepared,
        steps: int,
        *,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self._trainer, self._windows, self._prepared, self._steps = trainer, windows, prepared, steps
        self._process, self._processes = process, processes
        self._round_steps = trainer.recipe.steps_per_round
        self._pending: dict[int, ReadyWindow] = {}

    def window(self, step: int) -> ReadyWindow:
        """The window of a step. At the start of a round it generates for all steps of the round."""
        if step not in self._pending:
            last = min(step - step % self._round_steps + self._round_steps, self._steps)
            self._pending = self._round(range(step, last))
        return self._pending.pop(step)

    def _round(self, steps: Sequence[int]) -> dict[int, ReadyWindow]:
        ledger = self._trainer.ledger
        with ledger.phase(Phase.DATA):
            items = [self._items(step) for step in steps]
        self._trainer.source.share_done = steps[0] / self._steps
        before = ledger.seconds[Phase.GENERATION]
        with ExitStack() as stack:
            if self._trainer.recipe.row.source.is_on_policy:
                stack.enter_context(self._trainer.engines.generating())
            written = iter(self._trainer.source.write([item for window in items for item in window]))
        seconds = ledger.seconds[Phase.GENERATION] - before
        examples = sum(len(item.examples) for window in items for item in window)
        return {
            step: self._ready(
                step,
                window,
                [next(written) for _ in window],
                seconds * sum(len(item.examples) for item in window) / max(examples, 1),
            )
            for step, window in zip(steps, items, strict=True)
        }

    def _ready(
        self, step: int, items: list[WindowTree], trained: list[Trained], seconds: float
    ) -> ReadyWindow:
        """The window with the trees that its completions are about."""
        found = [
            item if each.about is None else as_window_trees(self._prepared, [each.about])[0]
            for item, each in zip(items, trained, strict=True)
        ]
        return ReadyWindow(found, trained, seconds, self._stand_in(step))

    def _items(self, step: int) -> list[WindowTree]:
        trees = self._windows.window(step)[self._process :: self._processes]
        return as_window_trees(self._prepared, trees)

    def _stand_in(self, step: int) -> StandIn | None:
        trees = self._windows.window(step)
        if len(trees[self._process :: self._processes]) == len(trees[:: self._processes]):
            return None
        (item,) = as_window_trees(self._prepared, [TreeOfExamples(trees[0].examples[:1], trees[0].epoch)])
        return StandIn(item, Trained(item.golds, logps=tuple((0.0,) * len(gold) for gold in item.golds)))

    # ---- for checkpoints ---------------------------------------------------------------------------------

    def state(self) -> list[dict[str, Any]]:
        """For a checkpoint: what this process has generated but not trained on yet.

        It holds the tokens, because the student that wrote them no longer exists after a resume.
        """
        return [
            {
                "step": step,
                "tree": self._process + index * self._processes,
                "generation_seconds": ready.generation_seconds,
                **trained.to_json(),
            }
            for step, ready in self._pending.items()
            for index, trained in enumerate(ready.trained)
        ]

    def load(self, states: Sequence[dict[str, Any]]) -> None:
        """Restore this process's part of what all processes had generated; their number may have changed."""
        by_tree = {(state["step"], state["tree"]): state for state in states}
        self._pending = {}
        for step in dict.fromkeys(state["step"] for state in states):
            items = self._items(step)
            own = [by_tree[step, self._process + i * self._processes] for i in range(len(items))]
            seconds = own[0]["generation_seconds"] if own else 0.0
            self._pending[step] = self._ready(
                step, items, [Trained.from_json(state) for state in own], seconds
            )
