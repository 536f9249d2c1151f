"""The command line: thin commands over `runs` and `report`. Nothing heavy is imported before a command needs it."""

import sys
from typing import Annotated

import typer

from distilsql import __version__
from distilsql.cli import answering, data, judging, training
from distilsql.errors import DistilSQLError
from distilsql.runs.allocator import keep_freed_memory
from distilsql.shown import shown

app = typer.Typer(
    help="Distil a large text-to-SQL language model into a small one, and judge it by running the SQL.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Look at benchmarks and own question/SQL pairs.", no_args_is_help=True)
suite_app = typer.Typer(
    help="Test suites: many databases that tell wrong queries from right ones.", no_args_is_help=True
)
# In the order in which help lists them.
for command in (
    training.demo,
    training.train,
    answering.predict,
    answering.ask,
    judging.evaluate,
    judging.compare,
    judging.exposure,
    training.reproduce,
    training.methods,
):
    app.command()(command)
data_app.command("check")(data.data_check)
suite_app.command("build")(data.suite_build)
app.add_typer(data_app, name="data")
app.add_typer(suite_app, name="suite")


# typer carries click inside itself; the root of its usage errors is reachable only through a public one.
_UsageError: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)


INTERRUPTED = 130


def main() -> None:
    """Run the command line; errors are a sentence and a non-zero exit status, never a traceback."""
    keep_freed_memory()
    try:
        status = app(standalone_mode=False)
        if status == INTERRUPTED:  # typer answers KeyboardInterrupt so
            raise KeyboardInterrupt
        sys.exit(status or 0)
    except _UsageError as error:
        error.show()  # type: ignore[attr-defined]
        sys.exit(2)
    except DistilSQLError as error:
        _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        anew = " without --overwrite" if "--overwrite" in sys.argv else ""
        _fail(
            f"stopped. Run the same command again{anew} to go on from where it was saved.", status=INTERRUPTED
        )
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _fail(f"{error.strerror or error}{where}. Check the path, its permissions and the free disk space.")


def _fail(message: str, status: int = 1) -> None:
    print(f"distilsql: {shown(message, keep_lines=True)}", file=sys.stderr)
    sys.exit(status)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"distilsql {__version__}")
        raise typer.Exit
