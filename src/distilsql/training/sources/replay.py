"""DistiLLM's adaptive off-policy training (Ko et al. 2024): gold, what the student writes, or a replay of it.

A share φ of trees holds what the student has written; the others are gold. φ begins low and grows by 0.1 whenever
the validation loss has grown: the student is shown its own mistakes as far as gold alone no longer helps. Of these
trees a falling share, 1 − s with s the share of steps that are done, is newly written and kept in a buffer; the others
are drawn from the buffer, so that what was once written is trained on several times.

The authors' code draws for a micro-batch, and draws a micro-batch of its own from the buffer; here it is a tree, which
is drawn from the buffer with its questions (ASSUMED). The buffer is drawn from once it is full, as in that code.
"""

import logging
from collections.abc import Sequence
from typing import Any

from distilsql.inference.loading import Engines
from distilsql.runs.recipe import Recipe
from distilsql.training.ledger import Ledger
from distilsql.training.sampling import TreeOfExamples
from distilsql.training.sources.source import Beforehand, Trained
from distilsql.training.sources.student import Student
from distilsql.training.window_tree import Use, WindowTree

log = logging.getLogger(__name__)
_LARGER_BY = 0.1  # of φ, as in the authors' code
_SHARE_WITHOUT_VALIDATION = 0.5


class Replay(Student):
    """Gold, the student's own completions, or a replay of them. With several processes each has its own buffer."""

    def __init__(self, recipe: Recipe, engines: Engines, ledger: Ledger) -> None:
        super().__init__(recipe, engines, ledger)
        given = recipe.replay.initial_share
        self.share = (0.0 if recipe.data.valid else _SHARE_WITHOUT_VALIDATION) if given is None else given
        self.last_loss: float | None = None
        self.buffer: list[Trained] = []  # the oldest first, each with the examples it is about
        self.trees = {"gold": 0, "written": 0, "replayed": 0}
        self._steps_per_epoch = 1

    def prepare(self, beforehand: Beforehand) -> None:
        self._steps_per_epoch = beforehand.steps_per_epoch
        if self.recipe.data.valid is None:
            log.warning(
                f"{self.recipe.method} learns from the loss on data.valid how much of its training is about what the "
                f"student writes. There is no data.valid: the share stays {self.share:g} (replay.initial_share)."
            )
        super().prepare(beforehand)

    # ---- how much is about what the student writes -------------------------------------------------------

    @property
    def validates_every(self) -> int | None:
        if self.recipe.data.valid is None:
            return None
        return self.recipe.replay.validate_every_steps or self._steps_per_epoch

    def hear(self, validation_loss: float) -> None:
        """φ grows where the loss has grown by `replay.loss_margin` since it last did."""
        if self.last_loss is None:
            self.last_loss = validation_loss
        elif validation_loss >= self.last_loss + self.recipe.replay.loss_margin:
            self.share = min(self.share + _LARGER_BY, 1.0)
            self.last_loss = validation_loss

    # ---- what is trained on ------------------------------------------------------------------------------

    def write(self, items: Sequence[WindowTree]) -> list[Trained]:
        kinds = [self._kind(item) for item in items]
        anew = iter(
            super().write([item for item, kind in zip(items, kinds, strict=True) if kind == "written"])
        )
        found = []
        for item, kind in zip(items, kinds, strict=True):
            self.trees[kind] += 1
            if kind == "gold":
                found.append(Trained(item.golds))
            elif kind == "written":
                found.append(next(anew))
            else:
                place = int(item.rng(self.recipe.seed, Use.REPLAYING, 0).integers(len(self.buffer)))
                found.append(self.buffer[place])
        for item, kind, trained in zip(items, kinds, found, strict=True):
            if kind == "written":
                self._keep(item, trained)
        return found

    def _kind(self, item: WindowTree) -> str:
        draw = item.rng(self.recipe.seed, Use.MIXING, 0).random()
        if draw >= self.share:
            return "gold"
        if draw < self.share * (1 - self.share_done) or not self._is_full:
            return "written"
        return "replayed"

    @property
    def _is_full(self) -> bool:
        return self._kept >= self.recipe.replay.capacity

    @property
    def _kept(self) -> int:
        return sum(len(trained.completions) for trained in self.buffer)

    def _keep(self, item: WindowTree, trained: Trained) -> None:
        """The oldest leave once as many completions as fit are there without them."""
        about = TreeOfExamples(item.numbers, item.epoch)
        self.buffer.append(Trained(trained.completions, by_student=trained.by_student, about=about))
        while self._kept - len(self.buffer[0].completions) >= self.recipe.replay.capacity:
            self.buffer.pop(0)

    # ---- for checkpoints and the summary -----------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        return {
            "share": self.share,
            "last_loss": self.last_loss,
            "buffer": [trained.to_json() for trained in self.buffer],
            "trees": self.trees,
        }

    def load(self, state: dict[str, Any]) -> None:
        if state:
            self.share, self.last_loss, self.trees = state["share"], state["last_loss"], dict(state["trees"])
            self.buffer = [Trained.from_json(trained) for trained in state["buffer"]]

    def summary(self) -> dict[str, Any]:
        """`replay`: φ at the end, and how many trees were gold, written and replayed."""
        return {"replay": {"share": self.share, **self.trees}}
