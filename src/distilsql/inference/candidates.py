"""Choosing an answer by its result: several candidates vote, and if all fail, more are written.

Candidates are run before anyone knows whether they are right, so they run like a person's question: in serving mode,
read-only and under its limits (docs/security.md). The benchmark's gold queries are never used.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from distilsql.data.benchmark import SqlBenchmark
from distilsql.data.example import Example
from distilsql.databases.database import Database
from distilsql.databases.execute import shared_pool
from distilsql.databases.job import Execution
from distilsql.databases.sql_tokens import orders_its_rows
from distilsql.databases.url import Engine
from distilsql.inference.asker import AskedQuestion, Asker, carry_out
from distilsql.inference.model import Model
from distilsql.metrics.execution import results_equal
from distilsql.models.batches import fill_batches
from distilsql.models.generate import Stream, generate_trees
from distilsql.models.prefix_cache import PrefixCache
from distilsql.models.tree import Completion, PromptTree

# What a retry shows of a query and of its error: a loop that ran to the longest completion would fill the prompt.
_SHOWN_SQL, _SHOWN_MESSAGE = 300, 200
RETRY_SAMPLES = 8
PREFIX_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Choosing:
    """How an answer is chosen. Of `candidates` queries the first is the greedy one and the others are sampled at
    `temperature`. With `retry`, where all of them fail, `RETRY_SAMPLES` more are sampled, and one is written greedily
    with the error in sight: a small model seldom makes anything of an error that it was not trained to read."""

    candidates: int = 1
    retry: bool = False
    temperature: float = 1.0

    @property
    def is_greedy(self) -> bool:
        """Whether the answer is the greedy query, whatever becomes of it."""
        return self.candidates == 1 and not self.retry

    @property
    def rows(self) -> int:
        """The most queries of one question that are written together."""
        return max(self.candidates, RETRY_SAMPLES if self.retry else 0)

    @property
    def samples(self) -> range:
        """The numbers of the samples beside the greedy query; `retry_samples` are those of a retry."""
        return range(1, self.candidates)

    @property
    def retry_samples(self) -> range:
        return range(self.candidates, self.candidates + RETRY_SAMPLES)


GREEDY = Choosing()


@dataclass(frozen=True)
class Tried:
    """A query and what became of it."""

    sql: str
    execution: Execution


@dataclass(frozen=True)
class Chosen:
    """The answer. `votes` of the `candidates` return what it returns, itself among them: 0 where it fails. `retried`:
    all that were written first fail."""

    answer: Tried
    votes: int
    candidates: int
    retried: bool = False

    @property
    def fails(self) -> bool:
        return not self.answer.execution.has_rows

    def sentence(self) -> str:
        """How the answer was chosen, for a person."""
        if self.retried:
            return f"Written again, as what was written first fails. {self.votes} of {self.candidates} return this."
        if self.fails:
            return "It fails, and so did every other query that was tried."
        return f"{self.votes} of {self.candidates} candidates return this."


def elect(tried: Sequence[Tried], engine: Engine) -> Chosen:
    """The first query of the largest group that returns the same, by the rules for own pairs; `tried` begins with the
    greedy one. Of groups of one size, the one whose first query was written first is taken, so the greedy query's.
    Queries that fail have no vote. Where all fail, the greedy one is the answer."""
    groups: list[list[Tried]] = []
    for each in tried:
        if not each.execution.has_rows:
            continue
        for group in groups:
            if _return_the_same(group[0], each, engine):
                group.append(each)
                break
        else:
            groups.append([each])
    largest: list[Tried] = max(groups, key=len, default=[])
    return Chosen(largest[0] if largest else tried[0], len(largest), len(tried))


def _return_the_same(one: Tried, other: Tried, engine: Engine) -> bool:
    """Rows count in their order only where both queries give one. Results that were cut off are compared as cut."""
    if one.execution.outcome is not other.execution.outcome:
        return False
    ordered = all(orders_its_rows(each.sql, engine) for each in (one, other))
    return results_equal(one.execution.rows, other.execution.rows, ordered=ordered, official=False)


def with_error(evidence: str, failed: Tried) -> str:
    """The evidence of a question that is asked once more: what was written before, and why it fails."""
    message = " ".join(failed.execution.message.split()) or failed.execution.outcome.value
    said = f"{failed.sql[:_SHOWN_SQL]} fails: {message[:_SHOWN_MESSAGE]}."
    return f"{evidence} {said}".strip()


def elect_again(first: Chosen, again: Sequence[Tried], engine: Engine) -> Chosen:
    """What a retry makes of an answer that fails; where the new queries fail, too, it stays."""
    found = replace(elect(again, engine), candidates=first.candidates + len(again), retried=True)
    return first if found.fails else found


# ---- many questions, asked one batch after another -----------------------------------------------------------


def choose_all(model: Model, benchmark: SqlBenchmark, choosing: Choosing) -> Iterator[tuple[Example, Chosen]]:
    """Each example with its answer, those of one database together.

    Raises:
        DatabaseUnavailable: a database cannot be read.
    """
    choice = _Choice(model, choosing)
    by_database: dict[str, list[Example]] = {}
    for example in benchmark.examples:
        by_database.setdefault(example.db_id, []).append(example)
    askers = {db_id: Asker(model, benchmark.databases[db_id]) for db_id in by_database}
    rows = max(1, model.decoder.questions_per_batch // choosing.candidates)
    for batch in fill_batches(list(by_database.values()), rows):
        examples = [example for group in batch for example in group]
        chosen = choice.of([(askers[example.db_id], example) for example in examples])
        yield from zip(examples, chosen, strict=True)


def choose(
    model: Model, question: str, database: Database, choosing: Choosing, *, evidence: str = ""
) -> Chosen:
    """The answer to one question. Raises DatabaseUnavailable if the database cannot be read."""
    example = Example("question", database.db_id, question, gold_sql="", evidence=evidence)
    (chosen,) = _Choice(model, choosing).of([(Asker(model, database), example)])
    return chosen


class _Choice:
    """Writes, runs and chooses. What it has run of prompts it keeps."""

    def __init__(self, model: Model, choosing: Choosing) -> None:
        self._decoder, self._choosing = model.decoder, choosing
        self._prefixes = PrefixCache(model.decoder.model, PREFIX_BYTES)

    def of(self, questions: Sequence[tuple[Asker, Example]]) -> list[Chosen]:
        asked = [asker.asked(each.question, evidence=each.evidence) for asker, each in questions]
        keys = [sample_key(each.question, each.evidence) for _, each in questions]
        databases = [asker.database for asker, _ in questions]
        written = self._written(asked, keys, self._choosing.samples, greedy_first=True)
        tried = self._tried(databases, written)
        chosen = [elect(each, database.engine) for each, database in zip(tried, databases, strict=True)]
        if self._choosing.retry:
            failed = [row for row, each in enumerate(chosen) if each.fails]
            at_once = max(1, self._decoder.questions_per_batch // RETRY_SAMPLES)
            for start in range(0, len(failed), at_once):
                rows = failed[start : start + at_once]
                found = self._again(
                    [questions[row] for row in rows],
                    [asked[row] for row in rows],
                    [chosen[row] for row in rows],
                )
                for row, each in zip(rows, found, strict=True):
                    chosen[row] = each
        return chosen

    def _again(
        self,
        questions: Sequence[tuple[Asker, Example]],
        asked: Sequence[AskedQuestion],
        failed: Sequence[Chosen],
    ) -> list[Chosen]:
        """The retries of questions whose answers fail."""
        keys = [sample_key(each.question, each.evidence) for _, each in questions]
        sampled = self._written(asked, keys, self._choosing.retry_samples)
        shown = [
            asker.asked(each.question, evidence=with_error(each.evidence, one.answer))
            for (asker, each), one in zip(questions, failed, strict=True)
        ]
        last = self._written(shown, keys, (), greedy_first=True)
        databases = [asker.database for asker, _ in questions]
        again = self._tried(databases, [[*one, *other] for one, other in zip(sampled, last, strict=True)])
        return [
            elect_again(one, each, database.engine)
            for one, each, database in zip(failed, again, databases, strict=True)
        ]

    def _written(
        self,
        asked: Sequence[AskedQuestion],
        keys: Sequence[str],
        samples: Sequence[int],
        *,
        greedy_first: bool = False,
    ) -> list[list[Completion]]:
        """Completions of each question: the greedy one if it is wanted, then its samples by their numbers."""
        written: list[list[Completion]] = [[] for _ in asked]
        if greedy_first:
            self._write(written, asked, [[self._decoder.stream(key)] for key in keys], 0.0)
        if samples:
            streams = [[self._decoder.stream(key, number) for number in samples] for key in keys]
            self._write(written, asked, streams, self._choosing.temperature)
        return written

    def _write(
        self,
        written: list[list[Completion]],
        asked: Sequence[AskedQuestion],
        streams: Sequence[Sequence[Stream]],
        temperature: float,
    ) -> None:
        """Add a completion of each question for each of its streams, those of one prefix decoded together."""
        by_prefix: dict[tuple[int, ...], list[int]] = {}
        for row, each in enumerate(asked):
            by_prefix.setdefault(each.tree.prefix, []).append(row)
        trees = [
            PromptTree(prefix, tuple(asked[row].tree.questions[0] for row in rows for _ in streams[row]))
            for prefix, rows in by_prefix.items()
        ]
        completions = generate_trees(
            self._decoder.model,
            trees,
            replace(self._decoder.options(), temperature=temperature),
            streams=[[stream for row in rows for stream in streams[row]] for rows in by_prefix.values()],
            prefixes=[self._prefixes.get(tree.prefix, tree.prefix) for tree in trees],
        )
        for rows, found in zip(by_prefix.values(), completions, strict=True):
            left = iter(found)
            for row in rows:
                written[row] += [next(left) for _ in streams[row]]

    def _tried(
        self, databases: Sequence[Database], written: Sequence[Sequence[Completion]]
    ) -> list[list[Tried]]:
        """Every completion read and run; equal queries about one database once."""
        queries = [
            [self._decoder.answer(completion, "sql", database.engine).text for completion in completions]
            for database, completions in zip(databases, written, strict=True)
        ]
        todo = {
            (str(database.path), sql): database
            for database, each in zip(databases, queries, strict=True)
            for sql in each
        }
        statements = list(todo.items())
        executions = shared_pool().each(
            len(statements), lambda number: carry_out(statements[number][1], statements[number][0][1])
        )
        done = dict(zip(todo, executions, strict=True))
        return [
            [Tried(sql, done[str(database.path), sql]) for sql in each]
            for database, each in zip(databases, queries, strict=True)
        ]


def sample_key(question: str, evidence: str) -> str:
    """What names the random streams of a question's candidates: the same wherever it is asked."""
    return f"{evidence}\n{question}"
