"""Questions to a student about one database, asked one at a time: the SQL it writes, and what that returns."""

from dataclasses import dataclass

import torch
from rich.table import Table
from rich.text import Text

from distilsql.databases.database import Database, open_database
from distilsql.databases.job import Execution, Outcome
from distilsql.databases.url import Place
from distilsql.errors import DataError
from distilsql.inference.asker import Asker, carry_out
from distilsql.inference.candidates import GREEDY, Choosing, Chosen, choose
from distilsql.inference.decoder import write_answer
from distilsql.inference.model import Model
from distilsql.shown import shown


@dataclass(frozen=True)
class Answer:
    """The SQL, and its execution in serving mode (see docs/security.md): a person's question, not a benchmark's.
    `chosen` says how it was chosen among candidates, where there were some."""

    sql: str
    result: Execution
    chosen: Chosen | None = None


def ask(
    model: Model,
    question: str,
    database: Database | Place | str,
    *,
    evidence: str = "",
    choosing: Choosing = GREEDY,
) -> Answer:
    """Ask by the prompt that the model was trained on, about a database, or the one at a path or URL (see
    `databases.url`); `evidence` is what the question takes for granted, as BIRD's is. With `choosing`, the answer is
    chosen among several by what they return (see `inference.candidates`).

    Raises:
        DataError: there is no database at the path or URL, or it cannot be read.
    """
    if not isinstance(database, Database):
        database = open_database(database)
    if not choosing.is_greedy:
        chosen = choose(model, question, database, choosing, evidence=evidence)
        return Answer(chosen.answer.sql, chosen.answer.execution, chosen)
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
