"""Options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from distilsql.data.benchmark import Benchmark
    from distilsql.databases.url import Place
    from distilsql.runs.folder import RunFolder

Root = Annotated[
    Path | None, typer.Option("--data", help="Folder that holds spider/, bird/, … [DISTILSQL_DATA]")
]
OwnDatabase = Annotated[
    str | None,
    typer.Option(
        "--database",
        help="Database of your own pairs: SQLite file, or duckdb://, postgresql:// or mysql:// URL",
    ),
]
On = Annotated[
    str, typer.Option("--on", help="Benchmark such as spider:dev or dolly:valid, or a file of own examples")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Override a recipe key: --set train.steps=200 (repeatable)")
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="Use only this many examples, drawn at random (fixed seed)"),
]
AskedDatabase = Annotated[
    str | None,
    typer.Option("--database", help="SQLite file or URL that questions are about; default: the run's own"),
]
Candidates = Annotated[
    int,
    typer.Option(
        "--candidates",
        min=1,
        help="Write this many queries, run them, and answer with the most frequent result",
    ),
]
Retry = Annotated[
    bool,
    typer.Option("--retry", help="If the query fails, write others, one of them told the error"),
]


def limited(benchmark: "Benchmark", limit: int | None) -> "Benchmark":
    return benchmark if limit is None else benchmark.take(limit, 0)


def own_place(database: str | None) -> "Place | None":
    """Raises DataError for a URL that cannot be read."""
    from distilsql.databases.url import place_of

    return None if database is None else place_of(database)


def folder_of(run: str) -> "RunFolder | None":
    """The folder of the run that is named; None for an embedded model. Raises RunError for a path that holds no
    run."""
    from distilsql.runs.folder import existing_run

    return None if run.startswith("demo:") else existing_run(Path(run))


def places(
    run: "RunFolder | None", data: Path | None, database: "Place | None"
) -> "tuple[Path | None, Place | None]":
    """The data folder and the database that were given, or else those of the run's recipe."""
    from distilsql.runs.recipe import load_recipe

    if run is None:
        return data, database
    recipe = load_recipe(run.recipe).data
    return data or recipe.root_path, database or recipe.database_place
