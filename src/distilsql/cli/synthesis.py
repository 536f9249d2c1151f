"""The command that makes pairs from a database."""

import shlex
from pathlib import Path
from typing import Annotated

import typer


def synth(
    database: Annotated[str, typer.Argument(help="A SQLite file")],
    out: Annotated[Path, typer.Option(help="Folder of the pairs; what it holds is gone on with")],
    pairs: Annotated[int, typer.Option(min=1, help="How many pairs, all splits together")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same pairs")] = 0,
    names: Annotated[
        Path | None, typer.Option(help="An edited names.toml; default: the folder's own, or a draft")
    ] = None,
    names_only: Annotated[
        bool, typer.Option("--names-only", help="Write names.toml, to be edited, and stop")
    ] = False,
) -> None:
    """Make question/SQL pairs from a database alone: train.jsonl, valid.jsonl, test.jsonl, names.toml."""
    from distilsql.interrupt import say_kept
    from distilsql.lock import hold
    from distilsql.synthesis.source import open_source
    from distilsql.synthesis.synthesise import named, synthesise

    source = open_source(Path(database))
    say_kept(f"What whole batches have made is kept in {out}.")
    if names_only:
        with hold(out):
            named(source, out, names)
        command = shlex.join(["distilsql", "synth", database, "--out", str(out), "--pairs", str(pairs)])
        print(f"Wrote {out / 'names.toml'}. Edit what is wrong in it, then: {command}")
        return
    made = synthesise(source, out, pairs=pairs, seed=seed, names=names)
    counts = ", ".join(f"{count} {split}" for split, count in made.pairs.items())
    print(f"{sum(made.pairs.values())} pairs of {made.queries} queries in {out}: {counts}.")
    if made.is_exhausted:
        print(f"The database has no more to ask that the checks would keep; {pairs} were wanted.")
    print(
        f"Next: distilsql data check {shlex.quote(str(out / 'train.jsonl'))} --database {shlex.quote(database)}"
    )
