"""summary.json: what a finished training was and what it cost."""

import time
from collections.abc import Mapping
from typing import Any

from distilsql.inference.loading import Engines
from distilsql.runs.recipe import Recipe
from distilsql.runs.records import Summary
from distilsql.training.calibration import Calibration
from distilsql.training.environment import peak_memory_bytes
from distilsql.training.ledger import Ledger, Phase
from distilsql.training.optimizer import MasterAdamW


def training_summary(
    recipe: Recipe,
    engines: Engines,
    optimizer: MasterAdamW,
    ledger: Ledger,
    calibration: Calibration,
    *,
    steps: int,
    examples_seen: int,
    beforehand_seconds: float,
    of_method: Mapping[str, Any],
) -> Summary:
    """`beforehand_seconds` is what the method needed before its first step, per process: × SFT is charged with it.
    `of_method` is what the method adds."""
    seconds = ledger.training_seconds
    return Summary(
        method=recipe.method,
        name=recipe.name,
        seed=recipe.seed,
        student_parameters=sum(p.numel() for p in engines.student.causal_lm.parameters()),
        trained_parameters=sum(master.numel() for master in optimizer.masters),
        teacher=recipe.teacher.path if recipe.row.needs_teacher and recipe.teacher else None,
        steps=steps,
        examples_seen=examples_seen,
        train_seconds=seconds,
        samples_per_second=examples_seen / seconds if seconds else None,
        seconds_per_example=seconds / examples_seen if examples_seen else None,
        seconds_by_phase=ledger.state()["seconds"],
        **calibration.summary(
            ledger.seconds[Phase.OPTIMIZER] / max(examples_seen, 1),
            beforehand_seconds / max(examples_seen, 1),
        ),
        **of_method,
        counts=ledger.counts,
        layout=engines.student.layout,
        peak_memory_bytes=peak_memory_bytes(),
        finished=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )
