"""The answering service behind every interface: a question → SQL, rows, matched values, times; or a sentence.

It holds the model, the state of the database's prompt, and the limits on how much may be asked at once. Slow calls are
coroutines; blocking work runs in threads of the service's own.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import TypeVar

import anyio.to_thread
from anyio import CapacityLimiter

from distilsql.databases.database import Database
from distilsql.databases.job import Execution
from distilsql.databases.values import ColumnName
from distilsql.errors import DistilSQLError, RunError
from distilsql.inference.asker import AskedQuestion, Asker, carry_out
from distilsql.inference.candidates import (
    GREEDY,
    Choosing,
    Chosen,
    Tried,
    elect,
    elect_again,
    sample_key,
    with_error,
)
from distilsql.inference.model import Model
from distilsql.models.generate import Stream
from distilsql.models.tree import Completion
from distilsql.serve.live import LiveDatabase
from distilsql.serve.writer import Overloaded, Writer, Writing

Result = TypeVar("Result")


@dataclass(frozen=True)
class Limits:
    """At most `questions` are decoded at once and `waiting` more may wait; at most `statements` run or wait to run."""

    questions: int = 32
    waiting: int = 64
    statements: int = 32


@dataclass(frozen=True)
class Reply:
    """What became of a question. `writing_s` and `running_s` are seconds by the clock, waiting included;
    `completion_tokens` are those of all candidates."""

    question: str
    chosen: Chosen
    matched: Mapping[ColumnName, tuple[str, ...]]
    prompt_tokens: int
    completion_tokens: int
    writing_s: float
    running_s: float

    @property
    def sql(self) -> str:
        return self.chosen.answer.sql

    @property
    def execution(self) -> Execution:
        return self.chosen.answer.execution


@dataclass
class _Spent:
    """What the candidates of one question have cost so far."""

    tokens: int = 0
    writing_s: float = 0.0
    running_s: float = 0.0


class _Gate:
    """Lets a fixed number in and turns the rest away. Only the loop's thread counts."""

    def __init__(self, most: int, what: str) -> None:
        self._most, self._what, self._inside = most, what, 0

    def __enter__(self) -> None:
        if self._inside >= self._most:
            raise Overloaded(
                f"{self._most} {self._what} are under way or waiting; ask again in a few seconds."
            )
        self._inside += 1

    def __exit__(self, *exception: object) -> None:
        self._inside -= 1


class Service:
    """A context manager; `name` is what clients call the model.

    `choosing` is how answers of `ask` are chosen (see `inference.candidates`). `run_sql` is how a statement is carried
    out; it raises DatabaseUnavailable where no statement is to blame.

    Raises:
        RunError: a question has more candidates than may be written and wait.
    """

    def __init__(
        self,
        model: Model,
        database: Database,
        *,
        name: str,
        limits: Limits | None = None,
        choosing: Choosing = GREEDY,
        run_sql: Callable[[Database, str], Execution] = carry_out,
    ) -> None:
        limits = limits or Limits()
        if choosing.rows > limits.questions + limits.waiting:
            raise RunError(
                f"One question's {choosing.rows} queries are more than may be written and wait "
                f"({limits.questions} and {limits.waiting}): ask for fewer --candidates, or raise --at-once."
            )
        self.choosing = choosing
        self.model, self.name, self.limits = model, name, limits
        self._live = LiveDatabase(model, database)
        self.decoder = model.decoder
        self.started_s = time.time()
        self._run_sql = run_sql
        self._writer = Writer(
            model.decoder.model,
            eos_token_id=int(model.decoder.tokenizer.eos_token_id),
            vocabulary_size=model.decoder.vocabulary_size,
            most_rows=limits.questions,
            most_waiting=limits.waiting,
        )
        self._asking = _Gate(limits.questions + limits.waiting, "questions")
        self._running = _Gate(limits.statements, "statements")
        self._threads = limits.questions + limits.waiting + limits.statements
        self._limiter: CapacityLimiter | None = None

    @property
    def asker(self) -> Asker:
        """Makes prompts from the schema as last read."""
        return self._live.asker

    @property
    def database(self) -> Database:
        return self.asker.database

    def __enter__(self) -> "Service":
        self._writer.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._writer.__exit__(*exception)

    def warm(self, question: str = "How many are there?") -> float:
        """Run the prompt that all questions share; returns the seconds it took. Raises what the model raised."""
        started = time.monotonic()
        tree = self.asker.asked(question).tree
        self._writer.write(tree, max_new_tokens=1).done.result()
        return time.monotonic() - started

    def drafted_tokens(self) -> dict[str, int]:
        """How many tokens drafts proposed so far, and how many of them were kept (see `serve.writer`)."""
        return {"proposed": self._writer.proposed, "kept": self._writer.accepted}

    # ---- what the interfaces call ------------------------------------------------------------------------

    async def ask(self, question: str, *, evidence: str = "") -> Reply:
        """Write the SQL for a question and run it.

        Raises:
            Overloaded: too much is asked already.
            DataError: the database cannot be read.
        """
        spent = _Spent()
        started = time.monotonic()
        asked = await self.prompt(question, evidence=evidence)
        spent.writing_s = time.monotonic() - started
        engine, key = self.database.engine, sample_key(question, evidence)
        chosen = elect(await self._tried(asked, spent, key, self.choosing.samples, greedy=True), engine)
        if self.choosing.retry and chosen.fails:
            again = await self._tried(asked, spent, key, self.choosing.retry_samples)
            shown = await self.prompt(question, evidence=with_error(evidence, chosen.answer))
            again += await self._tried(shown, spent, key, greedy=True)
            chosen = elect_again(chosen, again, engine)
        return Reply(
            question,
            chosen,
            asked.matched,
            asked.prompt_tokens,
            spent.tokens,
            spent.writing_s,
            spent.running_s,
        )

    async def _tried(
        self,
        asked: AskedQuestion,
        spent: _Spent,
        key: str,
        samples: Sequence[int] = (),
        *,
        greedy: bool = False,
    ) -> list[Tried]:
        """The greedy query if it is wanted and the samples of these numbers, with what they return."""
        started = time.monotonic()
        streams: list[Stream | None] = [None] if greedy else []
        streams += [self.decoder.stream(key, number) for number in samples]
        completions = await self._all_written(asked, streams)
        queries = [self.decoder.answer(each, "sql", self.database.engine).text for each in completions]
        written = time.monotonic()
        # One after the other: a question takes no more of the database than it would with one candidate.
        executions = {sql: await self.run(sql) for sql in dict.fromkeys(queries)}
        spent.tokens += sum(map(len, completions))
        spent.writing_s += written - started
        spent.running_s += time.monotonic() - written
        return [Tried(sql, executions[sql]) for sql in queries]

    async def _all_written(self, asked: AskedQuestion, streams: Sequence[Stream | None]) -> list[Completion]:
        """A completion for each stream, greedy for None."""
        writings: list[Writing] = []
        try:
            for stream in streams:
                temperature = 0.0 if stream is None else self.choosing.temperature
                writings.append(self.write(asked, temperature=temperature, stream=stream))
            return [await self.written(writing) for writing in writings]
        finally:
            for writing in writings:  # what nobody waits for any more
                writing.done.cancel()

    async def prompt(self, question: str, *, evidence: str = "") -> AskedQuestion:
        """The prompt for a question, from the database as it is now. Raises Overloaded, and DataError if the database
        cannot be read."""
        with self._asking:
            return await self.in_thread(lambda: self._live.current().asked(question, evidence=evidence))

    def write(
        self,
        asked: AskedQuestion,
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        stream: Stream | None = None,
        told: Callable[[int], object] | None = None,
    ) -> Writing:
        """Begin a completion; at a `temperature` above 0 it is sampled by `stream`. Raises Overloaded."""
        longest = min(max_new_tokens or self.decoder.max_new_tokens, self.decoder.max_new_tokens)
        uniforms = stream(longest).tolist() if temperature and stream is not None else ()
        return self._writer.write(
            asked.tree, max_new_tokens=longest, temperature=temperature, uniforms=uniforms, told=told
        )

    async def written(self, writing: Writing) -> Completion:
        """Wait for a completion; a caller that stops waiting stops the writing. Raises RunError if the model failed."""
        try:
            return await asyncio.wrap_future(writing.done)
        except CancelledError as error:
            raise RunError("The server is stopping; ask again when it is back.") from error
        except DistilSQLError:
            raise
        except Exception as error:
            raise RunError(f"The model failed on this question ({error}); ask it again.") from error

    async def run(self, sql: str) -> Execution:
        """Carry out one statement, read-only and under the limits of serving.

        Raises:
            Overloaded: too many statements are running already.
            DatabaseUnavailable: the database cannot be read.
        """
        with self._running:
            return await self.in_thread(lambda: self._run_sql(self.database, sql))

    async def in_thread(self, work: Callable[[], Result]) -> Result:
        if self._limiter is None:
            self._limiter = CapacityLimiter(self._threads)
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)
