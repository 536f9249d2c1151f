"""Commands that train: by a recipe, the demo, the papers' tables; and the table of methods."""

from pathlib import Path
from typing import Annotated

import typer

from distilsql.cli.options import Settings
from distilsql.progress import progress


def demo(
    out: Annotated[Path, typer.Option(help="Where the demo's runs and report go")] = Path("runs/demo"),
    train_teacher: Annotated[
        bool, typer.Option("--train-teacher", help="Train the teacher anew (an hour) rather than use ours")
    ] = False,
) -> None:
    """The whole story on an embedded benchmark, in minutes, on a CPU. The same command resumes it."""
    with progress("starting"):
        from distilsql.runs.demo import run_demo

    run_demo(out, train_teacher=train_teacher)


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe (TOML); see recipes/")],
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/<recipe's name>")] = None,
    settings: Settings = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the run that is there and start anew")
    ] = False,
) -> None:
    """Train by a recipe: any method, sft included. The same command resumes an interrupted run."""
    from distilsql.runs.recipe import load_recipe

    resolved = load_recipe(recipe, settings or [])
    folder = out or Path("runs") / (resolved.name or recipe.stem)
    with progress("starting"):
        from distilsql.runs.train import train as run_training

    run = run_training(resolved, folder, overwrite=overwrite)
    print(
        f"Finished: {run.path}. Next: distilsql predict {run.path} --on {resolved.data.valid or 'QUESTIONS'}"
    )


def reproduce(
    what: Annotated[
        list[str] | None,
        typer.Argument(help="Such as table3 figure1, or all; without any, what there is is listed"),
    ] = None,
    scale: Annotated[str, typer.Option(help="paper (its models, on GPUs) or cpu (two cores)")] = "cpu",
    runs: Annotated[
        Path | None, typer.Option(help="Where the runs go; default runs/reproduce/<scale>")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where tables and figures go; default report/ beside the runs")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Make only this row's runs, such as kid; may be repeated")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs, how far each is, and how long the rest may take")
    ] = False,
    render_only: Annotated[
        bool, typer.Option("--render", help="Render from the runs that are there; make none")
    ] = False,
    recipes: Annotated[Path, typer.Option(help="Folder of the experiments")] = Path("recipes/paper"),
) -> None:
    """The papers' tables and figures: make the runs that are missing, and show them beside the published numbers."""
    from distilsql.runs.experiment import Book
    from distilsql.runs.listing import print_experiments, print_plan
    from distilsql.runs.plan import make_plan

    book = Book(recipes)
    if not what:
        print_experiments(book)
        return
    folder = runs or Path("runs") / "reproduce" / scale
    plan = make_plan(book, book.names_at(scale) if what == ["all"] else what, scale, folder, only=only or ())
    if dry_run:
        print_plan(plan)
        return
    from distilsql.runs.render import render

    if render_only:
        paths = render(plan, out or folder / "report")
    else:
        with progress("starting"):
            from distilsql.runs.reproduce import reproduce as run_reproduction

        paths = run_reproduction(plan, out or folder / "report")
    print("\n".join(f"Wrote {path}" for path in paths))


def methods(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the method reference, docs/methods.md")
    ] = False,
) -> None:
    """The table of methods: divergence, completions trained on, gold likelihood."""
    from distilsql.method_reference import method_reference, print_methods

    if markdown:
        print(method_reference(), end="")
    else:
        print_methods()
