"""Commands that serve a model, on a page, to programs and to agents, or export it for other programs."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from distilsql.cli.answering import asked_of
from distilsql.cli.options import (
    AskedDatabase,
    Candidates,
    Limit,
    OwnDatabase,
    Retry,
    Root,
    folder_of,
    own_place,
    places,
)
from distilsql.errors import RunError
from distilsql.progress import duration, progress

if TYPE_CHECKING:
    from distilsql.inference.model import Model

KEY_VARIABLE = "DISTILSQL_API_KEY"
Served = Annotated[str, typer.Argument(help="A finished run, or demo:teacher")]


def serve(
    run: Served,
    database: AskedDatabase = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond this machine, an API key is needed")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one")] = 8642,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", help="Another name that clients use for this server (repeatable)"),
    ] = None,
    feedback: Annotated[Path, typer.Option(help="File to add right and corrected answers to")] = Path(
        "feedback.jsonl"
    ),
    at_once: Annotated[int, typer.Option(min=1, help="Most questions decoded together")] = 32,
    waiting: Annotated[int, typer.Option(min=0, help="Most questions that wait; more get status 429")] = 64,
    candidates: Candidates = 1,
    retry: Retry = False,
    weights: Annotated[
        Literal["auto", "whole", "float16", "int8"],
        typer.Option(
            help="What a CPU writes from. auto: float16, half of the bytes, where a float32 model can"
        ),
    ] = "auto",
    instead_of: Annotated[
        Path | None,
        typer.Option(help="The run served so far: compare the two on --on first, and refuse a worse one"),
    ] = None,
    on: Annotated[
        str | None, typer.Option("--on", help="Benchmark or file of own pairs, for --instead-of")
    ] = None,
) -> None:
    """Serve a page, the OpenAI API and MCP: questions about a database, answered by a run's student.

    The database is only read. With the variable DISTILSQL_API_KEY set, clients need that key.
    """
    _require("serve", "fastapi", "uvicorn")
    from distilsql.files import check_writable
    from distilsql.serve.browse import suggested_questions
    from distilsql.serve.feedback import Feedback
    from distilsql.serve.guard import is_loopback, names_of
    from distilsql.serve.server import listen, url_of
    from distilsql.serve.server import serve as serve_app

    key = os.environ.get(KEY_VARIABLE, "")
    if not is_loopback(host) and not key:
        raise RunError(
            f"{host} is reached from other machines, so clients need a key: set {KEY_VARIABLE} to a long random text, "
            "or serve this machine alone (--host 127.0.0.1)."
        )
    _refuse_other_ending(feedback)
    check_writable(feedback)
    if (instead_of is None) != (on is None):
        raise RunError(
            "--instead-of RUN and --on QUESTIONS go together: the runs are compared on those questions."
        )
    bound = listen(host, port)
    with bound:
        if instead_of is not None and on is not None:
            _refuse_a_worse_one(run, instead_of, on, database)
        model, recipe, served = asked_of(run, database)
        _decode_in(weights, model)
        with progress("starting"):
            from distilsql.inference.candidates import Choosing
            from distilsql.serve.app import make_app
            from distilsql.serve.service import Limits, Service

        choosing, limits = Choosing(candidates, retry), Limits(at_once, waiting)
        with Service(model, served, name=recipe.name, limits=limits, choosing=choosing) as service:
            with progress("reading the database's prompt"):
                warm_s = service.warm()
            app = make_app(
                service,
                feedback=Feedback(feedback),
                suggestions=suggested_questions(served, recipe),
                names=names_of(host, allow_host or ()),
                api_key=key,
            )

            def ready() -> None:
                url = url_of(bound)
                print(
                    f"{recipe.name} answers about {served.db_id}; its prompt was read in {duration(warm_s)}."
                )
                print(f"Page {url}   OpenAI API {url}v1   MCP {url}mcp   Ctrl-C stops.", flush=True)

            serve_app(app, bound, ready=ready)


def _decode_in(weights: Literal["auto", "whole", "float16", "int8"], model: "Model") -> None:
    """Raises ModelError where the model cannot be written from such weights here."""
    runner = model.decoder.model
    if weights == "auto":
        weights = "float16" if runner.can_decode_in("float16") else "whole"
    if weights != "whole":
        with progress(f"packing weights in {weights}"):
            runner.decode_in(weights)


def _refuse_a_worse_one(run: str, old: Path, on: str, database: str | None) -> None:
    """Say how the runs compare. Raises RunError if `run` answers fewer questions right than `old`."""
    from distilsql.runs.folder import RunFolder, existing_run

    new_run, old_run = (RunFolder(existing_run(Path(each)).path) for each in (run, old))
    with progress("starting"):
        from distilsql.inference.predict import recipe_of
        from distilsql.inference.replacement import compare_with_old
    from distilsql.data.load import load_sql_benchmark

    place, data = own_place(database), recipe_of(new_run).data
    benchmark = load_sql_benchmark(on, root=data.root_path, database=place or data.database_place)
    found = compare_with_old(old_run, new_run, benchmark)
    if found.is_worse:
        raise RunError(
            f"{found.sentence()} So it is not served in its place: serve {old}, or leave out --instead-of to serve "
            "this one all the same."
        )
    print(found.sentence(), flush=True)


def mcp(
    run: Served, database: AskedDatabase = None, candidates: Candidates = 1, retry: Retry = False
) -> None:
    """Serve MCP on standard input and output, for agents on this machine. (`serve` offers it over HTTP.)"""
    _require("mcp", "mcp")
    import asyncio

    model, recipe, served = asked_of(run, database)
    _decode_in("auto", model)
    from distilsql.inference.candidates import Choosing
    from distilsql.serve.mcp_server import mcp_server, serve_stdio
    from distilsql.serve.service import Service

    with Service(model, served, name=recipe.name, choosing=Choosing(candidates, retry)) as service:
        service.warm()
        asyncio.run(serve_stdio(mcp_server(service)))


def export(
    run: Served,
    out: Annotated[Path, typer.Option(help="Folder to create")],
    gguf: Annotated[list[str] | None, typer.Option(help="f16, bf16, q8_0, q5_1 or q4_0 (repeatable)")] = None,
    on: Annotated[
        str | None, typer.Option("--on", help="Benchmark or file of own pairs to check the files on")
    ] = None,
    data: Root = None,
    database: OwnDatabase = None,
    limit: Limit = None,
) -> None:
    """Write a run's student for other programs: safetensors, and GGUF for llama.cpp and Ollama, checked."""
    from distilsql.export.kinds import QUANTIZATIONS

    quantizations = [known for known in QUANTIZATIONS if known in (gguf or ())]
    for wanted in gguf or ():
        if wanted not in QUANTIZATIONS:
            raise RunError(f"There is no --gguf {wanted} here; use {', '.join(QUANTIZATIONS)}.")
    if out.exists():
        raise RunError(f"{out} is there already; name another folder, or remove it.")
    if gguf:
        _require("export", "gguf")
    benchmark = None
    if on is not None:
        from distilsql.data.load import load_sql_benchmark

        root, place = places(folder_of(run), data, own_place(database))
        benchmark = load_sql_benchmark(on, root=root, database=place, missing_databases="skip")
        benchmark = benchmark if limit is None else benchmark.take(limit, 0)
    with progress("starting"):
        from distilsql.export.export import export as export_model
        from distilsql.inference.predict import load_named
    model, recipe = load_named(run)
    exported = export_model(model, out, name=recipe.name, gguf=quantizations, benchmark=benchmark)
    for quantization, proof in exported.proofs.items():
        print(f"{quantization}: {proof.sentence()}")
    if exported.files and exported.unproved:
        print(f"Not proved: {exported.unproved}.")
    print(f"Wrote {out}. What is in it, and how to use it, is in {out / 'README.md'}.")


def _refuse_other_ending(feedback: Path) -> None:
    """Raises RunError unless pairs can be read from it again."""
    if feedback.suffix != ".jsonl":
        raise RunError(f"{feedback} is to hold pairs, one a line; give it the ending .jsonl.")


def _require(extra: str, *modules: str) -> None:
    """Raises RunError where an extra is not installed."""
    import importlib.util

    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise RunError(f"This needs the package {missing[0]}: pip install 'distilsql[{extra}]'.")
