"""Commands that ask a model questions: those of a benchmark, or a single one."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from distilsql.cli.options import (
    AskedDatabase,
    Candidates,
    Limit,
    On,
    OwnDatabase,
    Retry,
    Root,
    folder_of,
    limited,
    own_place,
    places,
)
from distilsql.errors import DataError
from distilsql.progress import progress
from distilsql.shown import shown

if TYPE_CHECKING:
    from distilsql.databases.database import Database
    from distilsql.inference.model import Model
    from distilsql.runs.recipe import Recipe


def predict(
    run: Annotated[Path, typer.Argument(help="A run folder, or any model folder together with --recipe")],
    on: On,
    data: Root = None,
    database: OwnDatabase = None,
    beams: Annotated[int, typer.Option(min=1, help="Beam width; 1 is greedy")] = 1,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="Sample at this temperature; 0 is greedy")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the samples; each has its own file")] = 0,
    candidates: Candidates = 1,
    retry: Retry = False,
    precision: Annotated[
        Literal["auto", "bfloat16", "float32"] | None,
        typer.Option(help="default: as in training; auto: the same, unless that is slow on this machine"),
    ] = None,
    limit: Limit = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Recipe with the prompt settings, for a model that is not a run")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Prediction file; default: inside the run")] = None,
) -> None:
    """Answer a benchmark's questions and write predictions/<benchmark>.jsonl."""
    from distilsql.errors import RunError
    from distilsql.files import check_writable
    from distilsql.runs.folder import RunFolder, existing_run
    from distilsql.runs.recipe import load_recipe

    is_chosen = candidates > 1 or retry
    if out is None and (beams > 1 or precision is not None or is_chosen):
        others = f"with {beams} beams" if beams > 1 else f"in {precision}"
        others = "chosen by what they return" if is_chosen else others
        raise RunError(
            "Predictions in a run folder are greedy or sampled, in the run's own precision, so that runs can be "
            f"compared. Say where to write predictions {others}: --out predictions.jsonl"
        )
    if out is not None:
        check_writable(out)
    folder, place = RunFolder(run), own_place(database)
    # What is quick to refuse is refused before torch is loaded.
    resolved = load_recipe(existing_run(run).recipe if recipe is None else recipe)
    with progress("starting"):
        from accelerate import Accelerator

        from distilsql.inference.candidates import Choosing
        from distilsql.inference.predict import benchmark_for, load_any, load_student
        from distilsql.inference.predict import predict as run_predict
        from distilsql.training.settle import settled_for_asking

    benchmark = limited(benchmark_for(resolved, on, data, place), limit)
    if recipe is None:
        model = load_student(folder, beams=beams, precision=precision, temperature=temperature, seed=seed)
    else:
        model = load_any(
            str(run),
            settled_for_asking(resolved, str(run), Accelerator().device),
            beams=beams,
            precision=precision or resolved.train.precision,
            temperature=temperature,
            seed=seed,
        )
        if out is None:
            raise RunError(
                f"{run} is not a run folder. Say where to write predictions: --out predictions.jsonl"
            )
    path = out or folder.predictions(benchmark.name, temperature, seed)
    run_predict(model, benchmark, path, choosing=Choosing(candidates, retry))
    by_file = out is not None or (temperature > 0 and benchmark.task == "sql")
    options = {
        "--data": data,
        "--database": place or (resolved.data.database_place if by_file else None),
        "--limit": limit,
        "--temperature": f"{temperature:g}" if temperature and not by_file else None,
    }
    given = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    command = ["distilsql", "evaluate", str(path if by_file else run), "--on", on, *given]
    print(f"Wrote {path}. Next: {shlex.join(command)}")


def ask(
    run: Annotated[str, typer.Argument(help="A finished run, or demo:teacher")],
    question: Annotated[str, typer.Argument(help="The question, in quotes")],
    database: AskedDatabase = None,
    evidence: Annotated[str, typer.Option(help="Background knowledge that the question needs")] = "",
    rows: Annotated[int, typer.Option(min=1, help="Show at most this many rows")] = 20,
    candidates: Candidates = 1,
    retry: Retry = False,
) -> None:
    """Answer one question: print the student's SQL and its result. The SQL is run read-only, under tight limits."""
    model, _, asked = asked_of(run, database)
    from rich.console import Console

    from distilsql.inference.ask import ask as ask_student
    from distilsql.inference.ask import rows_table
    from distilsql.inference.candidates import Choosing

    answer = ask_student(model, question, asked, evidence=evidence, choosing=Choosing(candidates, retry))
    print(shown(answer.sql, keep_lines=True))
    if answer.chosen is not None:
        print(answer.chosen.sentence())
    Console().print(rows_table(answer, rows))


def asked_of(run: str, database: str | None) -> "tuple[Model, Recipe, Database]":
    """The model, its recipe and the database: first what is quick to refuse, before torch is loaded."""
    from distilsql.databases.database import open_database
    from distilsql.databases.execute import refuse_powers
    from distilsql.models.embedded import resolve

    folder = folder_of(run)
    _, place = places(folder, None, own_place(database))
    if place is None:
        raise DataError(
            "The run's recipe names no database of its own; give one: --database shop.sqlite, or a URL."
        )
    served = open_database(place)
    refuse_powers(served.path)
    if folder is None:
        resolve(run)
    with progress("starting"):
        from distilsql.inference.predict import load_named

    model, recipe = load_named(run)
    return model, recipe, served
