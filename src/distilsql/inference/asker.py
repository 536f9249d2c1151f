"""Prompts for questions about one database, one at a time; and running single statements."""

from collections.abc import Mapping
from dataclasses import dataclass

from distilsql.data.example import Example
from distilsql.databases.database import Database
from distilsql.databases.execute import execute
from distilsql.databases.job import Execution, Outcome, require_available
from distilsql.databases.values import ColumnName
from distilsql.inference.model import Model
from distilsql.inference.prepare import PromptTokens, prompt_options, shown_first
from distilsql.models.tree import PromptTree
from distilsql.prompts.codes import matched_in, question_text
from distilsql.prompts.fit import fit_prompt, shared_prefix

# Most questions about a database share one prefix; those of a schema over budget may each have their own.
_KEPT_PREFIXES = 16


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
    if not sql.strip():
        return Execution(Outcome.SQL_ERROR, message="there is no statement")
    return require_available(execute(database.path, sql, mode="serving"), database.path)
