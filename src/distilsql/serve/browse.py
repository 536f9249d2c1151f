"""What the page shows of a database before the first question: its tables with sample values, and suggestions.

Imports no torch.
"""

from dataclasses import dataclass

from distilsql.data.benchmark import SqlBenchmark
from distilsql.data.load import is_own, load_benchmark
from distilsql.data.plural import plural
from distilsql.databases.database import Database
from distilsql.databases.schema import Table
from distilsql.databases.url import same_database
from distilsql.databases.values import ColumnName, sample_values
from distilsql.errors import DistilSQLError
from distilsql.runs.recipe import Recipe

SAMPLES = 4
_MOST_CHARACTERS = 40
_SUGGESTED = 6
_NUMBERS = ("int", "real", "num", "dec", "double", "float")


@dataclass(frozen=True)
class ShownColumn:
    """`refers_to` is `table.column`, or ''."""

    name: str
    type: str
    comment: str
    is_primary_key: bool
    refers_to: str
    samples: tuple[str, ...]


@dataclass(frozen=True)
class ShownTable:
    name: str
    comment: str
    is_view: bool
    columns: tuple[ShownColumn, ...]


def shown_tables(database: Database) -> list[ShownTable]:
    """Tables, then views, with sample values. Raises DataError if the database cannot be read."""
    samples = sample_values(database.path, database.schema, SAMPLES)
    keys = {
        (key.table, key.column): f"{key.referred_table}.{key.referred_column}"
        for key in database.schema.foreign_keys
    }
    return [
        ShownTable(
            table.name,
            table.comment,
            table.is_view,
            tuple(
                ShownColumn(
                    column.name,
                    column.type,
                    column.comment,
                    column.is_primary_key,
                    keys.get((table.name, column.name), ""),
                    tuple(map(_short, samples.get((table.name, column.name), ()))),
                )
                for column in table.columns
            ),
        )
        for table in database.schema.tables
    ]


def _short(value: str) -> str:
    return value if len(value) <= _MOST_CHARACTERS else value[: _MOST_CHARACTERS - 1] + "…"


def suggested_questions(database: Database, recipe: Recipe | None = None) -> list[str]:
    """Questions to begin with: some that the model was trained on where they are about this database, else such as its
    tables suggest."""
    known = _trained_on(database, recipe) if recipe is not None else []
    return known[:_SUGGESTED] or _from_schema(database)[:_SUGGESTED]


def _trained_on(database: Database, recipe: Recipe) -> list[str]:
    """One question of each kind, as it begins, short ones first."""
    options = recipe.data
    if not is_own(options.train) or not options.database:
        return []
    try:
        place = options.database_place
        if place is None or not same_database(place, database.path):
            return []
        benchmark = load_benchmark(options.train, database=place, needs_gold=False)
    except (DistilSQLError, OSError):  # moved away since, or its URL's variable is not set
        return []
    if not isinstance(benchmark, SqlBenchmark):
        return []
    questions = sorted(
        {example.question for example in benchmark.examples}, key=lambda text: (len(text), text)
    )
    by_beginning = {" ".join(question.lower().split()[:2]): question for question in reversed(questions)}
    return sorted(by_beginning.values(), key=lambda text: (len(text), text))


def _from_schema(database: Database) -> list[str]:
    tables = [table for table in database.schema.tables if not table.is_view]
    keys: set[ColumnName] = {(key.table, key.column) for key in database.schema.foreign_keys}
    found = [f"How many {_plural(table.name)} are there?" for table in tables[:3]]
    for table in tables:
        number = _column(table, keys, is_number=True)
        text = _column(table, keys, is_number=False)
        if number:
            found.append(f"What is the average {_words(number)} of {_plural(table.name)}?")
        if number and text:
            found.append(f"List the {_words(text)} of {_plural(table.name)} by {_words(number)}.")
        elif text:
            found.append(f"List the {_words(text)} of all {_plural(table.name)}.")
    return found


def _column(table: Table, keys: set[ColumnName], *, is_number: bool) -> str:
    for column in table.columns:
        name = column.name.lower()
        is_key = column.is_primary_key or (table.name, column.name) in keys or name.endswith(("id", "year"))
        if not is_key and column.type.startswith(_NUMBERS) == is_number:
            return column.name
    return ""


def _words(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).lower()


def _plural(name: str) -> str:
    words = _words(name)
    return words if words.endswith("s") else plural(words)  # tables are often called so already
