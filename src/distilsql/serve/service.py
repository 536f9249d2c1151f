"""The answering service that every face stands on: a question → SQL, rows, matched values, times; or a sentence.

It holds the model, what was run of the database's prompt, and the limits on how much may be asked at once. What takes
long is a coroutine; what blocks runs in threads of the service's own.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import TypeVar

import anyio.to_thread
from anyio import CapacityLimiter

from distilsql.databases.database import Database
from distilsql.databases.job import Execution, Outcome
from distilsql.databases.values import ColumnName
from distilsql.errors import DistilSQLError, RunError
from distilsql.inference.ask import AskedQuestion, Asker, carry_out
from distilsql.inference.predict import Model
from distilsql.models.generate import uniform_stream
from distilsql.models.tree import Completion
from distilsql.serve.writer import Overloaded, Writer, Writing

Result = TypeVar("Result")


@dataclass(frozen=True)
class Limits:
    """`questions` are written at a time and `waiting` more may wait; so many statements may run or wait to be run."""

    questions: int = 32
    waiting: int = 64
    statements: int = 32


@dataclass(frozen=True)
class Reply:
    """What became of a question. `writing_s` and `running_s` are seconds by the clock, waiting included."""

    question: str
    sql: str
    matched: Mapping[ColumnName, tuple[str, ...]]
    execution: Execution
    prompt_tokens: int
    completion_tokens: int
    writing_s: float
    running_s: float


class _Gate:
    """Lets so many in and turns others away. Only the loop's thread counts."""

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

    `run_sql` is how a statement is carried out; it raises DatabaseUnavailable where no statement is to blame.
    """

    def __init__(
        self,
        model: Model,
        database: Database,
        *,
        name: str,
        limits: Limits | None = None,
        run_sql: Callable[[Database, str], Execution] = carry_out,
    ) -> None:
        limits = limits or Limits()
        self.model, self.database, self.name, self.limits = model, database, name, limits
        self.asker = Asker(model, database)
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

    def __enter__(self) -> "Service":
        self._writer.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._writer.__exit__(*exception)

    def warm(self, question: str = "How many are there?") -> float:
        """Run the prompt that all questions share; returns the seconds that took. Raises what the model raised."""
        started = time.monotonic()
        tree = self.asker.asked(question).tree
        self._writer.write(tree, max_new_tokens=1).done.result()
        return time.monotonic() - started

    # ---- what the faces call -----------------------------------------------------------------------------

    async def ask(self, question: str, *, evidence: str = "") -> Reply:
        """Write the SQL for a question and run it.

        Raises:
            Overloaded: too much is asked already.
            DataError: the database cannot be read.
        """
        started = time.monotonic()
        asked = await self.prompt(question, evidence=evidence)
        completion = await self.written(self.write(asked))
        sql = self.decoder.answer(completion, "sql", self.database.engine).text
        written = time.monotonic()
        execution = await self.run(sql)
        return Reply(
            question,
            sql,
            asked.matched,
            execution,
            asked.prompt_tokens,
            len(completion),
            written - started,
            time.monotonic() - written,
        )

    async def prompt(self, question: str, *, evidence: str = "") -> AskedQuestion:
        """What the model is asked with. Raises Overloaded, and DataError if the database cannot be read."""
        with self._asking:
            return await self.in_thread(lambda: self.asker.asked(question, evidence=evidence))

    def write(
        self,
        asked: AskedQuestion,
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        told: Callable[[int], object] | None = None,
    ) -> Writing:
        """Begin a completion. Raises Overloaded."""
        longest = min(max_new_tokens or self.decoder.max_new_tokens, self.decoder.max_new_tokens)
        uniforms = uniform_stream(seed)(longest).tolist() if temperature else ()
        return self._writer.write(
            asked.tree, max_new_tokens=longest, temperature=temperature, uniforms=uniforms, told=told
        )

    async def written(self, writing: Writing) -> Completion:
        """Wait for a completion; whoever stops waiting stops the writing. Raises RunError where the model failed."""
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
            if not sql.strip():
                return Execution(Outcome.SQL_ERROR, message="there is no statement")
            return await self.in_thread(lambda: self._run_sql(self.database, sql))

    async def in_thread(self, work: Callable[[], Result]) -> Result:
        if self._limiter is None:
            self._limiter = CapacityLimiter(self._threads)
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)
