"""Questions to a student about one database, asked one at a time: the SQL it writes, and what that returns."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from rich.table import Table
from rich.text import Text

from distilsql.data.example import Example
from distilsql.databases.database import Database, open_database
from distilsql.databases.execute import execute
from distilsql.databases.job import Execution, Outcome, require_available
from distilsql.databases.url import Place
from distilsql.databases.values import ColumnName
from distilsql.errors import DataError
from distilsql.inference.decoder import write_answer
from distilsql.inference.predict import Model
from distilsql.inference.prepare import PromptTokens, prompt_options, shown_first
from distilsql.models.tree import PromptTree
from distilsql.prompts.codes import matched_in, question_text
from distilsql.prompts.fit import fit_prompt, shared_prefix
from distilsql.shown import shown

# Most questions about a database share one prefix; those of a schema over budget may each have their own.
_KEPT_PREFIXES = 16


@dataclass(frozen=True)
class Answer:
    """The SQL, and its execution in serving mode (see docs/security.md): a person's question, not a benchmark's."""

    sql: str
    result: Execution


@dataclass(frozen=True)
class AskedQuestion:
    """A question as the model reads it: one question under its prefix. `matched` are the values of the database that
    it spells out, by column; `example_id` names its random stream."""

    tree: PromptTree
    matched: Mapping[ColumnName, tuple[str, ...]]
    example_id: str

    @property
    def prompt_tokens(self) -> int:
        return self.tree.prompt_tokens


class Asker:
    """Makes the prompts of questions about one database, as the model was trained on; safe to call from threads."""

    def __init__(self, model: Model, database: Database) -> None:
        self.database = database
        self._settings = model.prompt
        self._text = PromptTokens(model.decoder.tokenizer)
        self._options = prompt_options(model.prompt, special_tokens=self._text.special)
        self._prefixes: dict[str, tuple[int, ...]] = {}
        self._shared = None
        if self._options.schema_filter in ("fixed", "never"):
            first = shown_first(model.prompt, database)
            self._shared = shared_prefix(database, self._options, self._text.count, first)

    def asked(self, question: str, *, evidence: str = "") -> AskedQuestion:
        """`evidence` is what the question takes for granted, as BIRD's is. Raises DataError if the database cannot be
        read."""
        example = Example("question", self.database.db_id, question, gold_sql="", evidence=evidence)
        prompt = fit_prompt(
            example,
            self.database,
            self._options,
            self._text.count,
            self._settings.budget_tokens - self._text.special,
            shared=self._shared,
        )
        matched: Mapping[ColumnName, tuple[str, ...]] = {}
        if self._options.include_matched_values:
            matched = matched_in(self.database, question_text(example), self._options)
        tree = PromptTree(self._prefix(prompt.prefix), (self._text.plain(prompt.suffix),))
        return AskedQuestion(tree, matched, example.example_id)

    def _prefix(self, text: str) -> tuple[int, ...]:
        """The tokens of a prefix: one object for one text, by which the engine knows what it has run already."""
        tokens = self._prefixes.get(text)
        if tokens is None:
            tokens = self._text.prefix(text)
            if len(self._prefixes) >= _KEPT_PREFIXES:
                self._prefixes = {}
            self._prefixes[text] = tokens
        return tokens


def carry_out(database: Database, sql: str) -> Execution:
    """Run one statement in serving mode. Raises DatabaseUnavailable if the database cannot be read."""
    return require_available(execute(database.path, sql, mode="serving"), database.path)


def ask(model: Model, question: str, database: Database | Place | str, *, evidence: str = "") -> Answer:
    """Ask by the prompt that the model was trained on, about a database, or the one at a path or URL (see
    `databases.url`); `evidence` is what the question takes for granted, as BIRD's is.

    Raises:
        DataError: there is no database at the path or URL, or it cannot be read.
    """
    if not isinstance(database, Database):
        database = open_database(database)
    asked = Asker(model, database).asked(question, evidence=evidence)
    with torch.no_grad():
        answer = write_answer(model.decoder, asked.tree, asked.example_id, database.engine)
    return Answer(answer.text, carry_out(database, answer.text))


def rows_table(answer: Answer, most: int) -> Table:
    """The first `most` rows for the terminal. Raises DataError if the SQL was not carried out."""
    result = answer.result
    if not result.has_rows:
        raise DataError(f"The SQL was not carried out ({result.outcome.value}: {result.message}).")
    is_cut = result.outcome is Outcome.TOO_MANY_ROWS
    found = f"{'more than ' if is_cut else ''}{len(result.rows)} rows"
    table = Table(caption=f"the first {most} of {found}" if is_cut or len(result.rows) > most else found)
    for name in result.columns:
        # Text, not markup: a name or a cell may hold brackets
        table.add_column(Text(shown(name)), overflow="fold")
    for row in result.rows[:most]:
        table.add_row(*(Text("NULL" if cell is None else shown(cell)) for cell in row))
    return table
