"""Print what can be reproduced, and the progress of a plan. Imports no torch."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from distilsql.experiments.experiment import Book
from distilsql.experiments.plan import Plan
from distilsql.experiments.state import NOTHING_TO_TRAIN, Standing, State, standings
from distilsql.progress import duration

_STYLES = {
    State.DONE: "green",
    State.MEASURED: "green",
    State.ANSWERED: "cyan",
    State.TRAINED: "cyan",
    State.PART_DONE: "yellow",
    State.OTHER: "bold red",
}


def print_experiments(book: Book) -> None:
    """One line for each table and figure, then the scales."""
    print("Tables and figures: distilsql reproduce NAME… [--scale SCALE] [--dry-run]")
    for line in book.lines():
        print(f"  {line}")
    print("Scales:")
    for name in book.scales():
        print(f"  {name:<14}{book.scale(name).title}")


def print_plan(plan: Plan, console: Console | None = None) -> None:
    """Print the runs of a plan, the progress of each, and an estimate of the time left if there is a basis for one."""
    console = console or Console()
    known = standings(plan.runs)
    table = Table(box=None, pad_edge=False)
    for title, justify in (("run", "left"), ("state", "left"), ("steps", "right"), ("judged", "right")):
        # In a narrow terminal it is names that go on in a second line.
        table.add_column(title, justify=justify, no_wrap=title != "run", overflow="fold")  # type: ignore[arg-type]
    table.add_column("training left", justify="right", no_wrap=True)
    for name, standing in known.items():
        table.add_row(
            Text(name),
            Text(standing.state.value, style=_STYLES.get(standing.state, "")),
            _steps(standing),
            f"{standing.judged}/{standing.wanted}" if standing.wanted else "",
            _left(standing),
        )
    console.print(table)
    console.print(_total(list(known.values())), highlight=False)


def _steps(standing: Standing) -> str:
    return f"{standing.steps_done}/{standing.steps if standing.steps is not None else '?'}"


def _left(standing: Standing) -> str:
    if standing.state in NOTHING_TO_TRAIN:
        return ""
    return "unknown" if standing.seconds_left is None else f"about {duration(standing.seconds_left)}"


def _total(known: list[Standing]) -> str:
    left = [one for one in known if one.state not in NOTHING_TO_TRAIN]
    finished = f"{len(known) - len(left)} of {len(known)} runs are trained."
    if not left:
        return finished
    estimates = [one.seconds_left for one in left if one.seconds_left is not None]
    if not estimates:
        return f"{finished} How long the others take is unknown until one like them has run."
    unknown = len(left) - len(estimates)
    more = f", and {unknown} more that are still unknown" if unknown else ""
    return (
        f"{finished} Training left: about {duration(sum(estimates))} for {len(estimates)} runs{more}, by what runs of "
        "the same method took; answering and judging come on top."
    )
