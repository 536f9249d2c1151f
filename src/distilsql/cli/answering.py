"""Commands that ask a model: a benchmark's questions, or one of your own."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from distilsql.cli.options import Limit, On, OwnDatabase, Root, limited
from distilsql.errors import DataError
from distilsql.progress import progress
from distilsql.shown import shown


def predict(
    run: Annotated[Path, typer.Argument(help="A run folder, or any model folder together with --recipe")],
    on: On,
    data: Root = None,
    database: OwnDatabase = None,
    beams: Annotated[int, typer.Option(min=1, help="1 is greedy")] = 1,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="Sample at this temperature; 0 is greedy")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples; each seed has its own file")] = 0,
    precision: Annotated[
        Literal["auto", "bfloat16", "float32"] | None,
        typer.Option(help="Compute in this one; default: as the run was trained. auto: but not slowly"),
    ] = None,
    limit: Limit = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Recipe whose prompt settings a plain model is asked with")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Prediction file; default: inside the run")] = None,
) -> None:
    """Answer a benchmark's questions and write predictions/<benchmark>.jsonl."""
    from accelerate import Accelerator

    from distilsql.errors import RunError
    from distilsql.files import refuse_unwritable
    from distilsql.runs.folder import RunFolder

    with progress("starting"):
        from distilsql.inference.predict import benchmark_for, load_any, load_student, recipe_of
        from distilsql.inference.predict import predict as run_predict
    from distilsql.runs.recipe import load_recipe
    from distilsql.training.settle import settled_for_asking

    if out is None and (beams > 1 or precision is not None):
        others = f"of {beams} beams" if beams > 1 else f"in {precision}"
        raise RunError(
            "The predictions in a run's folder are greedy or sampled ones, in the run's precision, and comparable with "
            f"other runs'. Say where those {others} go: --out predictions.jsonl"
        )
    if out is not None:
        refuse_unwritable(out)
    folder = RunFolder(run)
    if recipe is None:
        resolved = recipe_of(folder)
        benchmark = limited(benchmark_for(resolved, on, data, database), limit)
        model = load_student(folder, beams=beams, precision=precision, temperature=temperature, seed=seed)
    else:
        resolved = load_recipe(recipe)
        benchmark = limited(benchmark_for(resolved, on, data, database), limit)
        model = load_any(
            str(run),
            settled_for_asking(resolved, str(run), Accelerator().device),
            beams=beams,
            precision=precision or resolved.train.precision,
            temperature=temperature,
            seed=seed,
        )
        if out is None:
            raise RunError(f"{run} is not a run folder, so say where predictions go: --out predictions.jsonl")
    path = out or folder.predictions(benchmark.name, temperature, seed)
    run_predict(model, benchmark, path)
    by_file = out is not None or (temperature > 0 and benchmark.task == "sql")
    options = {
        "--data": data,
        "--database": database or (resolved.data.database_path if by_file else None),
        "--limit": limit,
        "--temperature": f"{temperature:g}" if temperature and not by_file else None,
    }
    given = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    command = ["distilsql", "evaluate", str(path if by_file else run), "--on", on, *given]
    print(f"Wrote {path}. Next: {shlex.join(command)}")


def ask(
    run: Annotated[str, typer.Argument(help="A finished run, or demo:teacher")],
    question: Annotated[str, typer.Argument(help="In quotes")],
    database: OwnDatabase = None,
    evidence: Annotated[str, typer.Option(help="What the question takes for granted")] = "",
    rows: Annotated[int, typer.Option(min=1, help="Show at most this many rows")] = 20,
) -> None:
    """Answer one question: the SQL that the student writes, and what it returns, read-only and under tight limits."""
    from rich.console import Console

    from distilsql.inference.ask import ask as ask_student
    from distilsql.inference.ask import own_database, rows_table
    from distilsql.inference.predict import load_named, recipe_of
    from distilsql.runs.folder import RunFolder

    if database is None and not run.startswith("demo:"):
        database = recipe_of(RunFolder(Path(run))).data.database_path
    if database is None:
        raise DataError("The run's recipe names no database of its own; give one: --database shop.sqlite.")
    asked = own_database(database)
    model, _ = load_named(run)
    answer = ask_student(model, question, asked, evidence=evidence)
    print(shown(answer.sql, keep_lines=True))
    Console().print(rows_table(answer, rows))
