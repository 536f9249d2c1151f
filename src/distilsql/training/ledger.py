"""The cost ledger: seconds by phase, and token counts."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

import torch


class Phase(StrEnum):
    """Where training time goes. Evaluation and checkpoints are kept apart: they are not part of a method's cost."""

    DATA = "data"
    GENERATION = "generation"
    TEACHER = "teacher"
    STUDENT = "student"
    OPTIMIZER = "optimizer"
    EVALUATION = "evaluation"
    CHECKPOINT = "checkpoint"

    @property
    def is_training(self) -> bool:
        return self not in (Phase.EVALUATION, Phase.CHECKPOINT)


class Ledger:
    """Seconds by phase and counts by name, added up over a run and carried through checkpoints.

    Counts are of tokens: `generated_tokens` that student (and under SWITCH teacher) wrote, `masked_tokens` and
    `wrongly_rewritten_tokens` of KID, of both also those right after another mask (`adjacent_masked_tokens`,
    `wrongly_rewritten_adjacent_tokens`) and the `masks_out_of_reach` of masks apart, `teacher_tokens` of completions
    that the teacher read, `student_tokens` of completions that the student was trained on, gold's own branches
    included, and `prompt_tokens` above those, the prefix counted once a tree. Under `teacher.bridge`, `spans` that were
    compared, those of them that hold several tokens of a model (`merged_spans`), and the student's `tokens_in_no_span`,
    whose text the teacher's tokenizer changes. The teacher's cached states have counts
    of their own (`TeacherHidden`).
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.seconds = dict.fromkeys(Phase, 0.0)
        self.counts: dict[str, float] = {}
        self._device = device

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        self._wait()
        start = time.perf_counter()
        try:
            yield
        finally:
            self._wait()
            self.seconds[phase] += time.perf_counter() - start

    def count(self, name: str, amount: float = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + amount

    @property
    def training_seconds(self) -> float:
        return sum(seconds for phase, seconds in self.seconds.items() if phase.is_training)

    def state(self) -> dict[str, dict[str, float]]:
        return {
            "seconds": {phase.value: seconds for phase, seconds in self.seconds.items()},
            "counts": self.counts,
        }

    def load(self, state: dict[str, dict[str, float]]) -> None:
        self.seconds.update({Phase(name): seconds for name, seconds in state["seconds"].items()})
        self.counts = dict(state["counts"])

    def _wait(self) -> None:
        """GPU kernels run asynchronously; wait for them at the start and end of a phase."""
        if self._device is not None and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
