"""What people say of answers: pairs that the next training can learn from. Imports no torch.

`feedback.jsonl` holds questions with the SQL that is right for them, as own pairs do; what was called wrong and has no
right SQL yet is beside it, in `feedback.wrong.jsonl`. Lines are appended whole and flushed.
"""

import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from distilsql.errors import RunError

Verdict = Literal["right", "wrong", "corrected"]


class Feedback:
    """`pairs` is the file of pairs; several threads may add to it."""

    def __init__(self, pairs: Path) -> None:
        self.pairs = pairs
        self.wrong = pairs.with_suffix(".wrong" + pairs.suffix)
        self._lock = threading.Lock()

    def add(
        self,
        verdict: Verdict,
        question: str,
        written: str,
        *,
        right: str,
        evidence: str,
        database: str,
        model: str,
    ) -> Path:
        """Keep the judgement of `written`; `right` is the SQL that is right, '' where nobody knows. Returns the file.

        Raises:
            RunError: it cannot be written.
        """
        record = {"question": question, "sql": right, "evidence": evidence, "database": database}
        record = {key: value for key, value in record.items() if value}
        record |= {"verdict": verdict, "written": written, "model": model}
        record["time"] = datetime.now(UTC).isoformat(timespec="seconds")
        path = self.pairs if right else self.wrong
        line = (json.dumps(record, ensure_ascii=False) + "\n").encode()
        try:
            with self._lock, path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(
                f"{path} cannot be written ({error.strerror}), so this is not kept; make room, or start the server "
                "with another --feedback."
            ) from error
        return path
