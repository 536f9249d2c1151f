"""One question to a student about one database: the SQL it writes, and what that returns."""

from dataclasses import dataclass

import torch
from rich.table import Table
from rich.text import Text

from distilsql.data.benchmark import SqlBenchmark
from distilsql.data.example import Example
from distilsql.databases.database import Database, open_database
from distilsql.databases.execute import execute
from distilsql.databases.job import Execution, Outcome, require_available
from distilsql.databases.url import Place
from distilsql.errors import DataError
from distilsql.inference.decoder import answer_all
from distilsql.inference.predict import Model
from distilsql.inference.prepare import prepare
from distilsql.shown import shown


@dataclass(frozen=True)
class Answer:
    """The SQL, and its execution in serving mode (see docs/security.md): a person's question, not a benchmark's."""

    sql: str
    result: Execution


def ask(model: Model, question: str, database: Database | Place | str, *, evidence: str = "") -> Answer:
    """Ask by the prompt that the model was trained on, about a database, or the one at a path or URL (see
    `databases.url`); `evidence` is what the question takes for granted, as BIRD's is.

    Raises:
        DataError: there is no database at the path or URL, or it cannot be read.
    """
    if not isinstance(database, Database):
        database = open_database(database)
    example = Example("question", database.db_id, question, gold_sql="", evidence=evidence)
    benchmark = SqlBenchmark("the question", (example,), {database.db_id: database}, "plain")
    prepared = prepare(benchmark, model.decoder.tokenizer, model.prompt, training=False)
    with torch.no_grad():
        ((_, answered),) = answer_all(model.decoder, prepared)
    sql = answered.text
    return Answer(sql, require_available(execute(database.path, sql, mode="serving"), database.path))


def rows_table(answer: Answer, most: int) -> Table:
    """The first `most` rows for the terminal. Raises DataError if the SQL was not carried out."""
    result = answer.result
    if result.outcome not in (Outcome.ROWS, Outcome.TOO_MANY_ROWS):
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
