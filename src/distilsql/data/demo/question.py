"""One line of a generated split's file."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """A question and its gold query. `pattern` names the form that both were made by."""

    db_id: str
    question: str
    gold_sql: str
    pattern: str
    difficulty: str
