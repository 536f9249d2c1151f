"""The command that makes pairs from a database."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distilsql.errors import ModelError

if TYPE_CHECKING:
    from distilsql.synthesis.teacher.asker import Asker


def synth(
    database: Annotated[str, typer.Argument(help="SQLite file, or duckdb://, postgresql:// or mysql:// URL")],
    out: Annotated[Path, typer.Option(help="Folder for the pairs; an existing one is continued")],
    pairs: Annotated[int, typer.Option(min=1, help="Number of pairs, all splits together")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same pairs")] = 0,
    names: Annotated[
        Path | None, typer.Option(help="An edited names.toml; default: the folder's, or a draft")
    ] = None,
    names_only: Annotated[
        bool, typer.Option("--names-only", help="Write names.toml for editing, and stop")
    ] = False,
    teacher: Annotated[
        str | None,
        typer.Option(help="Local model that rewords the questions, checked by answering them"),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(help="Base URL of an OpenAI-compatible API to use as the teacher [DISTILSQL_API_KEY]"),
    ] = None,
    model: Annotated[str, typer.Option(help="Name of the model at the endpoint")] = "",
    at_once: Annotated[int, typer.Option(min=1, help="Most requests that the endpoint gets at once")] = 8,
    budget: Annotated[int | None, typer.Option(min=1, help="Limit on the teacher's tokens")] = None,
    share_values: Annotated[
        bool,
        typer.Option("--share-values", help="Send an endpoint the values in questions, not placeholders"),
    ] = False,
) -> None:
    """Make question/SQL pairs from a database alone: train.jsonl, valid.jsonl, test.jsonl, names.toml."""
    from distilsql.databases.url import without_passwords
    from distilsql.interrupt import say_kept
    from distilsql.lock import hold
    from distilsql.synthesis.source import open_source
    from distilsql.synthesis.synthesise import named, synthesise

    source, shown = open_source(database), without_passwords(database)
    say_kept(f"What whole batches have made is kept in {out}.")
    if names_only:
        with hold(out):
            named(source, out, names)
        command = shlex.join(["distilsql", "synth", shown, "--out", str(out), "--pairs", str(pairs)])
        print(f"Wrote {out / 'names.toml'}. Edit what is wrong in it, then: {command}")
        return
    asker = _asker(teacher, endpoint, model, at_once)
    wording = None
    if asker is not None:
        from distilsql.synthesis.teacher.asker import ANSWERS_FILE, Answers
        from distilsql.synthesis.teacher.wording import GROUP, TeacherWording

        answers = Answers(out / ANSWERS_FILE, asker, budget)
        wording = TeacherWording(
            answers, shares_values=share_values or not asker.is_remote, group=max(GROUP, 4 * at_once)
        )
        say_kept(f"What whole batches have made, and what the teacher answered, is kept in {out}.")
    made = synthesise(source, out, pairs=pairs, seed=seed, names=names, wording=wording)
    if wording is not None:
        print(
            f"{wording.accepted} questions are in the teacher's words; it cost {wording.answers.spent:,} tokens."
        )
    counts = ", ".join(f"{count} {split}" for split, count in made.pairs.items())
    print(f"{sum(made.pairs.values())} pairs of {made.queries} queries in {out}: {counts}.")
    if made.is_exhausted:
        print(f"The database has no more to ask that the checks would keep; {pairs} were wanted.")
    print(
        f"Next: distilsql data check {shlex.quote(str(out / 'train.jsonl'))} --database {shlex.quote(shown)}"
    )


def _asker(teacher: str | None, endpoint: str | None, model: str, at_once: int) -> "Asker | None":
    if teacher and endpoint:
        raise ModelError("A teacher is local or behind an endpoint; give one of --teacher and --endpoint.")
    if teacher:
        from distilsql.inference.writer import LocalWriter

        return LocalWriter(teacher)
    if endpoint:
        from distilsql.synthesis.teacher.endpoint import Endpoint

        if not model:
            raise ModelError("An endpoint serves several models; say which: --model NAME")
        return Endpoint(endpoint, model, at_once=at_once)
    return None
