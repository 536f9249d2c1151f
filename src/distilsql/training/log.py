"""log.jsonl: one line per logged step and validation; before them, one about the quality of the teacher's queries."""

from typing import Any

from distilsql.training.environment import peak_memory_bytes
from distilsql.training.ledger import Ledger
from distilsql.training.window import WindowLoss


def step_line(
    done: int,
    loss: WindowLoss,
    learning_rate: float,
    gradient_norm: float,
    examples_seen: int,
    ledger: Ledger,
) -> dict[str, Any]:
    """The log line of a step. `done` counts from 1; the parts of the loss are means over their positions."""
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
