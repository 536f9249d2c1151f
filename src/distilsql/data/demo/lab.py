"""The laboratory's questions: the demo's databases, with more questions about them, clean and noisy."""

from pathlib import Path

from distilsql.data.demo.build import write_splits
from distilsql.data.demo.databases import SEEN, UNSEEN

# Questions per database.
SEEN_QUESTIONS = {"train": 900, "valid": 50, "test": 240}
UNSEEN_QUESTIONS = {"test": 80}


def write_lab(folder: Path) -> None:
    """Write every database and `lab-train`, `lab-noisy`, `lab-valid` and `lab-test.jsonl` into an empty folder."""
    write_splits(folder, {SEEN: SEEN_QUESTIONS, UNSEEN: UNSEEN_QUESTIONS}, prefix="lab-")
