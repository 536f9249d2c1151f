"""Asker: whoever answers requests with texts, local or remote; Answers: what was asked once is not asked again."""

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from distilsql.databases.written_sql import without_thoughts
from distilsql.files import lines_of

Message = Mapping[str, str]  # role, content
ANSWERS_FILE = "answers.jsonl"
# Of ordinary text, for estimates before anything is asked.
CHARACTERS_PER_TOKEN = 4
# What a chat template may put around a message, at most (ASSUMED).
TEMPLATE_TOKENS = 64


@dataclass(frozen=True)
class Request:
    """`reads` is what of an answer is read: the whole, the first line that says something (`lines_said`), or the query
    in it. A model need not write more."""

    messages: Sequence[Message]
    samples: int = 1
    temperature: float = 0.0
    reads: Literal["whole", "line", "query"] = "whole"


@dataclass(frozen=True)
class Reply:
    """`tokens` are the request's and the answers', as the model counts them, or an estimate."""

    texts: tuple[str, ...]
    tokens: int


def lines_said(text: str) -> list[str]:
    """The lines of an answer that say something: no thoughts, blank lines, fences or announcements of what comes."""
    lines = [line.strip() for line in without_thoughts(text).splitlines()]
    return [line for line in lines if line and not line.startswith("```") and not line.endswith(":")]


# Called with the number of a request and its reply, from any thread.
Replied = Callable[[int, Reply], object]


class Asker(Protocol):
    """`name` is the model's, and part of what an answer is kept under. `is_remote`: requests leave the machine.
    `max_answer_tokens` are the most of one sample."""

    name: str
    is_remote: bool
    max_answer_tokens: int

    def ask(self, requests: Sequence[Request], replied: Replied) -> None:
        """Calls `replied` for each request as its reply comes, in any order.

        Raises ModelError where one of them has no answer; what was answered until then has been passed on.
        """
        ...


@dataclass(frozen=True)
class Cost:
    """Tokens that a request takes: about, and at most."""

    about: int
    most: int


class BudgetSpent(Exception):
    """The next request would cost more than is left."""


class Answers:
    """Answers by request, appended to a file and flushed as they come, so that nothing that ends the process costs one
    twice.

    `budget` is in tokens, those of kept answers included; None for no bound. What is asked within it is what would be
    if each request were asked after the reply to the one before.
    """

    def __init__(self, file: Path, asker: Asker, budget: int | None = None) -> None:
        self._file, self._asker, self._budget = file, asker, budget
        self._known: dict[str, Reply] = {}
        self._keeping = threading.Lock()
        self.spent = 0
        for line in lines_of(file) if file.is_file() else ():
            try:
                record = json.loads(line)
                reply = Reply(tuple(record["texts"]), record["tokens"])
                self._known[record["request"]] = reply
                self.spent += reply.tokens
            except (ValueError, KeyError, TypeError):
                continue  # the end of a line that a kill cut off
        self._needs_newline = (
            file.is_file() and not file.read_bytes().endswith(b"\n") and file.stat().st_size > 0
        )

    def ask(
        self, requests: Sequence[Request], answered: Callable[[], object] = lambda: None
    ) -> list[tuple[str, ...]]:
        """The texts of each request. `answered` is called for each of them, as `Replied` is.

        Raises BudgetSpent when all that fits has been asked and kept, and ModelError as the asker does.
        """

        def ask(numbers: Sequence[int], replied: Replied) -> None:
            self._asker.ask(
                [requests[number] for number in numbers],
                lambda place, reply: replied(numbers[place], reply),
            )

        asked = [self._asked(request) for request in requests]
        return self.once(asked, ask, [self.cost(request) for request in requests], answered)

    def kept(self, request: Request) -> tuple[str, ...] | None:
        """The texts of a request that was answered."""
        reply = self._known.get(_key(self._asked(request)))
        return None if reply is None else reply.texts

    def once(
        self,
        asked: Sequence[Any],
        ask: Callable[[Sequence[int], Replied], None],
        costs: Sequence[Cost],
        answered: Callable[[], object] = lambda: None,
    ) -> list[tuple[str, ...]]:
        """What `ask` replies, or replied when the same (`asked`, as JSON) was asked before. It is called with numbers
        of those that were not, and does as `Asker.ask` does. Raises BudgetSpent, and what `ask` raises."""
        keys = [_key(each) for each in asked]
        places: dict[str, list[int]] = {}
        for number, key in enumerate(keys):
            places.setdefault(key, []).append(number)

        def replied(number: int, reply: Reply) -> None:
            self._keep(keys[number], reply)
            for _ in places[keys[number]]:
                answered()

        todo: list[int] = []
        for key, numbers in places.items():
            if key in self._known:
                for _ in numbers:
                    answered()
            else:
                todo.append(numbers[0])
        while todo:
            count = self.affordable([costs[number] for number in todo])
            if count == 0:
                raise BudgetSpent
            ask(todo[:count], replied)
            todo = todo[count:]
        return [self._known[key].texts for key in keys]

    def affordable(self, costs: Sequence[Cost]) -> int:
        """How many of these, from the first on, can be asked at once: as many as fit whatever each of them takes, so
        that no reply decides on another request; or the first alone, where it fits by what it takes about."""
        if self._budget is None:
            return len(costs)
        left = self._budget - self.spent
        count, most = 0, 0
        for cost in costs:
            most += cost.most
            if most > left:
                break
            count += 1
        return count or int(bool(costs) and costs[0].about <= left)

    def cost(self, request: Request) -> Cost:
        """A text has no more tokens than bytes, however it is cut."""
        bytes_sent = sum(len(message["content"].encode()) + TEMPLATE_TOKENS for message in request.messages)
        answers = request.samples * self._asker.max_answer_tokens
        return Cost(estimated(request), bytes_sent + answers)

    def _asked(self, request: Request) -> list[Any]:
        messages = [dict(message) for message in request.messages]
        return [self._asker.name, messages, request.samples, request.temperature]

    def _keep(self, key: str, reply: Reply) -> None:
        line = json.dumps({"request": key, "texts": reply.texts, "tokens": reply.tokens}, ensure_ascii=False)
        with self._keeping:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(("\n" if self._needs_newline else "") + line + "\n")
            self._needs_newline = False
            self._known[key] = reply
            self.spent += reply.tokens


def _key(asked: Any) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def estimated(request: Request) -> int:
    """Tokens of a request and of answers of a few dozen tokens each."""
    characters = sum(len(message["content"]) for message in request.messages)
    return characters // CHARACTERS_PER_TOKEN + 60 * request.samples
