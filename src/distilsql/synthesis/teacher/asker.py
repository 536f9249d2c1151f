"""Asker: whoever answers a request with texts, local or remote; Answers: what was asked once is not asked again."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from distilsql.files import lines_of

Message = Mapping[str, str]  # role, content
ANSWERS_FILE = "answers.jsonl"
# Of ordinary text, for estimates before anything is asked.
CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class Reply:
    """`tokens` are the request's and the answers', as the model counts them, or an estimate."""

    texts: tuple[str, ...]
    tokens: int


class Asker(Protocol):
    """`name` is the model's, and part of what an answer is kept under. `is_remote`: requests leave the machine."""

    name: str
    is_remote: bool

    def ask(self, messages: Sequence[Message], *, samples: int, temperature: float) -> Reply:
        """Raises ModelError where no answer is to be had."""
        ...


class BudgetSpent(Exception):
    """The next request would cost more than is left."""


class Answers:
    """Answers by request, appended to a file and flushed, so that nothing that ends the process costs one twice.

    `budget` is in tokens, those of kept answers included; None for no bound.
    """

    def __init__(self, file: Path, asker: Asker, budget: int | None = None) -> None:
        self._file, self._asker, self._budget = file, asker, budget
        self._known: dict[str, Reply] = {}
        self.spent = 0
        for line in lines_of(file) if file.is_file() else ():
            try:
                record = json.loads(line)
                self._keep(record["request"], Reply(tuple(record["texts"]), record["tokens"]))
            except (ValueError, KeyError, TypeError):
                continue  # the end of a line that a kill cut off
        self._needs_newline = (
            file.is_file() and not file.read_bytes().endswith(b"\n") and file.stat().st_size > 0
        )

    def ask(
        self, messages: Sequence[Message], *, samples: int = 1, temperature: float = 0.0
    ) -> tuple[str, ...]:
        """Raises BudgetSpent, and ModelError as the asker does."""
        asked = [self._asker.name, [dict(message) for message in messages], samples, temperature]
        ask = partial(self._asker.ask, messages, samples=samples, temperature=temperature)
        return self.once(asked, ask, cost=estimated(messages, samples))

    def once(self, asked: Any, ask: Callable[[], Reply], *, cost: int) -> tuple[str, ...]:
        """What `ask` replies, or replied when the same (`asked`, as JSON) was asked before. `cost` is what it may take,
        in tokens. Raises BudgetSpent, and what `ask` raises."""
        request = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        if request not in self._known:
            if self._budget is not None and self.spent + cost > self._budget:
                raise BudgetSpent
            reply = ask()
            line = json.dumps(
                {"request": request, "texts": reply.texts, "tokens": reply.tokens}, ensure_ascii=False
            )
            with self._file.open("a", encoding="utf-8") as file:
                file.write(("\n" if self._needs_newline else "") + line + "\n")
            self._needs_newline = False
            self._keep(request, reply)
        return self._known[request].texts

    def _keep(self, request: str, reply: Reply) -> None:
        self._known[request] = reply
        self.spent += reply.tokens


def estimated(messages: Sequence[Message], samples: int) -> int:
    """Tokens of a request and of answers of a few dozen tokens each."""
    return sum(len(message["content"]) for message in messages) // CHARACTERS_PER_TOKEN + 60 * samples
