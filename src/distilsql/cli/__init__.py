"""The command line: thin commands over the library. Heavy modules are imported only by the commands that need them."""

import shlex
import sys
import warnings
from typing import Annotated

import typer
from rich.console import Console

from distilsql import __version__
from distilsql.allocator import keep_freed_memory
from distilsql.cli import answering, data, judging, serving, synthesis, training
from distilsql.cli.display import displaying
from distilsql.databases.url import without_passwords
from distilsql.errors import DistilSQLError
from distilsql.interrupt import StopRequest, watched
from distilsql.shown import shown
from distilsql.threads import wait_briefly

app = typer.Typer(
    help="Distil a large text-to-SQL language model into a small one, and evaluate it by running the SQL.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Check benchmarks and your own question/SQL pairs.", no_args_is_help=True)
suite_app = typer.Typer(
    help="Build test suites: many databases that distinguish wrong queries from right ones.",
    no_args_is_help=True,
)
# In the order in which help lists them.
for command in (
    training.demo,
    synthesis.synth,
    training.train,
    answering.predict,
    answering.ask,
    serving.serve,
    serving.mcp,
    serving.export,
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


# typer bundles click; the base class of its usage errors is reachable only through a public subclass.
_UsageError: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)


TYPER_INTERRUPTED = 130

# Warnings of libraries about each other, which users of this command line can do nothing about: the beginning of each
# message, and the module that issues it.
_LIBRARIES_OWN_WARNINGS = (
    (r"`is_gradient_checkpointing` is deprecated", r"transformers\.modeling_utils"),  # peft, adding LoRA
    (r"fan_in_fan_out is set to", r"peft\."),  # peft, adding LoRA to GPT-2
)


def main() -> None:
    """Run the command line. An expected error is printed as a sentence, without a traceback; the status is non-zero."""
    keep_freed_memory()
    wait_briefly()
    _keep_libraries_quiet()
    with displaying(), watched(_say_stopped) as stop:
        try:
            status = app(standalone_mode=False)
            if status == TYPER_INTERRUPTED:  # typer answers KeyboardInterrupt so
                raise KeyboardInterrupt
            sys.exit(status or 0)
        except _UsageError as error:
            error.show()  # type: ignore[attr-defined]
            sys.exit(2)
        except DistilSQLError as error:
            _fail(str(error))
        except (KeyboardInterrupt, typer.Abort):
            _say_stopped(stop)
            sys.exit(stop.status)
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            _fail(
                f"{error.strerror or error}{where}. Check the path, its permissions and the free disk space."
            )


def _say_stopped(stop: StopRequest) -> None:
    """Say what is saved, and which command resumes."""
    words = [without_passwords(word) for word in sys.argv[1:] if word != "--overwrite"]
    kept = f" {stop.kept}" if stop.kept else ""
    if sys.stderr.isatty():
        Console(stderr=True).show_cursor()  # a bar that was cut off has hidden it
    _say(f"stopped.{kept} To resume: {shlex.join(['distilsql', *words])}")


def _keep_libraries_quiet() -> None:
    """Hide the warnings that users can do nothing about, unless they asked for warnings (`python -W`)."""
    if not sys.warnoptions:
        for message, module in _LIBRARIES_OWN_WARNINGS:
            warnings.filterwarnings("ignore", message=message, module=module)


def _fail(message: str) -> None:
    _say(message)
    sys.exit(1)


def _say(message: str) -> None:
    print(f"distilsql: {shown(message, keep_lines=True)}", file=sys.stderr, flush=True)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"distilsql {__version__}")
        raise typer.Exit
