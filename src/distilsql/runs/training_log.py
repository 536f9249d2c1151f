"""log.jsonl: a line for each logged step and validation, and before them what the teacher's queries are worth."""

import json
from typing import Any

from distilsql.runs.environment import peak_memory_bytes
from distilsql.runs.folder import RunFolder, lines_of, write_text
from distilsql.runs.ledger import Ledger
from distilsql.runs.window import WindowLoss


def append_line(run: RunFolder, line: dict[str, Any]) -> None:
    with run.log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def drop_lines_after(run: RunFolder, step: int) -> None:
    """Forget what was logged after `step`: a run that resumes there logs those steps again."""
    if run.log.exists():
        kept = [line for line in lines_of(run.log) if _step_of(line) <= step]
        write_text(run.log, "".join(line + "\n" for line in kept))


def _step_of(line: str) -> int:
    """The step of a log line; a line that a kill cut off counts as never written."""
    try:
        return int(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return 2**62


def step_line(
    done: int,
    loss: WindowLoss,
    learning_rate: float,
    gradient_norm: float,
    examples_seen: int,
    ledger: Ledger,
) -> dict[str, Any]:
    """What is logged of a step. `done` counts from 1; the parts of the loss are means over their positions."""
    return {
        "step": done,
        "loss": loss.total,
        "divergence": loss.divergence / loss.divergence_positions if loss.divergence_positions else None,
        "negative_log_likelihood": (
            loss.negative_log_likelihood / loss.likelihood_positions if loss.likelihood_positions else None
        ),
        "learning_rate": learning_rate,
        "gradient_norm": gradient_norm,
        "examples_seen": examples_seen,
        "train_seconds": ledger.training_seconds,
        "seconds_by_phase": ledger.state()["seconds"],
        "counts": dict(ledger.counts),
        "teacher_share": loss.tokens_from_teacher / loss.tokens_written if loss.tokens_written else None,
        "memory_bytes": peak_memory_bytes(),
    }
