"""Commands that train (a recipe, the demo, the papers' tables), and the table of methods."""

from pathlib import Path
from typing import Annotated

import typer

from distilsql.cli.display import is_first_process
from distilsql.cli.options import Settings
from distilsql.progress import progress


def demo(
    out: Annotated[Path, typer.Option(help="Where to write the demo's runs and report")] = Path("runs/demo"),
    train_teacher: Annotated[
        bool, typer.Option("--train-teacher", help="Train a new teacher (an hour) instead of using ours")
    ] = False,
) -> None:
    """Train, evaluate and compare four methods on a small benchmark: minutes on a CPU. Run it again to resume."""
    with progress("starting"):
        from distilsql.experiments.demo.demo import run_demo

    run_demo(out, train_teacher=train_teacher)


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe (TOML); see recipes/")],
    out: Annotated[Path | None, typer.Option(help="Run folder; default: runs/<recipe's name>")] = None,
    settings: Settings = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the existing run and start over")
    ] = False,
) -> None:
    """Train a student as the recipe says, by any method, sft included. Run it again to resume."""
    from distilsql.runs.recipe import load_recipe

    resolved = load_recipe(recipe, settings or [])
    folder = out or Path("runs") / (resolved.name or recipe.stem)
    with progress("starting"):
        from distilsql.training.train import train as run_training

    run = run_training(resolved, folder, overwrite=overwrite)
    if is_first_process():
        print(
            f"Finished: {run.path}. Next: distilsql predict {run.path} --on {resolved.data.valid or 'QUESTIONS'}"
        )


def reproduce(
    what: Annotated[
        list[str] | None,
        typer.Argument(help="Names such as table3 figure1, or all; without any, lists them"),
    ] = None,
    scale: Annotated[str, typer.Option(help="paper (its models, on GPUs), cpu or lab (two cores)")] = "cpu",
    runs: Annotated[
        Path | None, typer.Option(help="Where to write the runs; default: runs/reproduce/<scale>")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write tables and figures; default: report/ beside the runs")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Make only the runs of this row, such as kid (repeatable)")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs, their progress, and the time still needed")
    ] = False,
    render_only: Annotated[
        bool, typer.Option("--render", help="Render from the existing runs; make no new ones")
    ] = False,
    power: Annotated[
        bool,
        typer.Option(
            "--power", help="Print how well each difference is known, and the seeds that one point needs"
        ),
    ] = False,
    claims: Annotated[
        bool,
        typer.Option(
            "--claims", help="Print which of the scale's claims the existing runs confirm or refute"
        ),
    ] = False,
    recipes: Annotated[
        Path | None, typer.Option(help="Folder of experiments to use instead of the papers'")
    ] = None,
) -> None:
    """Reproduce the papers' tables and figures: make the missing runs and show them beside the published numbers."""
    from distilsql.experiments.experiment import Book
    from distilsql.experiments.listing import print_experiments, print_plan
    from distilsql.experiments.plan import make_plan

    book = Book(recipes) if recipes else Book()
    folder = runs or Path("runs") / "reproduce" / scale
    if claims:
        from distilsql.experiments.power import claim_lines

        print("\n".join(claim_lines(book, scale, folder)))
        return
    if not what:
        print_experiments(book)
        return
    plan = make_plan(book, book.names_at(scale) if what == ["all"] else what, scale, folder, only=only or ())
    if dry_run:
        print_plan(plan)
        return
    if power:
        from distilsql.experiments.power import power_lines

        print("\n".join(power_lines(plan)))
        return
    from distilsql.experiments.render import render

    if render_only:
        paths = render(plan, out or folder / "report")
    else:
        with progress("starting"):
            from distilsql.experiments.reproduce import reproduce as run_reproduction

        paths = run_reproduction(plan, out or folder / "report")
    print("\n".join(f"Wrote {path}" for path in paths))


def methods(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the method reference, docs/methods.md")
    ] = False,
) -> None:
    """List the methods: divergence, completions trained on, weight of the gold likelihood."""
    from distilsql.cli.method_reference import method_reference, print_methods

    if markdown:
        print(method_reference(), end="")
    else:
        print_methods()
