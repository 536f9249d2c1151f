"""The web application behind one guard: the page and what it calls (`/api`), the OpenAI API (`/v1`), MCP (`/mcp`)."""

import hashlib
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import asdict
from importlib import resources
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from distilsql import __version__
from distilsql.databases.job import Execution
from distilsql.databases.url import absolute
from distilsql.errors import DatabaseUnavailable, DataError, DistilSQLError
from distilsql.serve.browse import shown_tables
from distilsql.serve.cells import JsonCell, Kind, column_kinds, csv_text, json_cell
from distilsql.serve.chart import choose_chart
from distilsql.serve.feedback import Feedback
from distilsql.serve.guard import Guard, error_body
from distilsql.serve.openai_api import openai_routes
from distilsql.serve.service import Reply, Service
from distilsql.serve.writer import Overloaded
from distilsql.shown import shown

_PAGE = {
    "": ("index.html", "text/html; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "show.js": ("show.js", "text/javascript; charset=utf-8"),
    "chart.js": ("chart.js", "text/javascript; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
_RETRY_S = 3

Question = Annotated[str, Field(min_length=1, max_length=4000, description="in words")]
Evidence = Annotated[str, Field(max_length=4000, description="what the question takes for granted")]
Sql = Annotated[str, Field(min_length=1, max_length=100_000, description="one statement")]


class Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")
    question: Question
    evidence: Evidence = ""


class Statement(BaseModel):
    model_config = ConfigDict(extra="forbid")
    sql: Sql


class Said(BaseModel):
    """What a person says of `sql`, which the model wrote; `right` is the SQL that is right, for `corrected` alone."""

    model_config = ConfigDict(extra="forbid")
    question: Question
    evidence: Evidence = ""
    sql: Sql
    verdict: Literal["right", "wrong", "corrected"]
    right: Annotated[str, Field(max_length=100_000)] = ""


class ChartOut(BaseModel):
    kind: Literal["bar", "line", "points"]
    x: int
    y: int


class Rows(BaseModel):
    """The result of a statement. Only the outcome `rows` is complete; `too many rows` are the first ones."""

    outcome: str
    message: str
    columns: list[str]
    kinds: list[Kind]
    rows: list[list[JsonCell]]
    chart: ChartOut | None
    seconds: float


class Matched(BaseModel):
    table: str
    column: str
    values: list[str]


class Answered(BaseModel):
    """`votes` of the `candidates` return this result; a `retried` query was written after others had failed."""

    question: str
    sql: str
    matched: list[Matched]
    result: Rows
    candidates: int
    votes: int
    retried: bool
    prompt_tokens: int
    completion_tokens: int
    writing_s: float
    running_s: float


class Error(BaseModel):
    error: str


def make_app(
    service: Service,
    *,
    feedback: Feedback,
    suggestions: Collection[str] = (),
    names: Collection[str],
    api_key: str = "",
) -> Guard:
    """The whole application; `names` are the hosts it answers to, and with `api_key` all but the bare page needs it."""
    app = _application(service)
    _page_routes(app, service)
    _api_routes(app, service, feedback, list(suggestions))
    openai_routes(app, service)
    return Guard(app, names=names, api_key=api_key)


def _application(service: Service) -> FastAPI:
    try:
        from distilsql.serve.mcp_server import http_endpoint, mcp_server
    except ImportError:  # the extra `mcp` is not installed
        app = FastAPI(lifespan=None, **_SETTINGS)
    else:
        server = mcp_server(service)
        endpoint, manager = http_endpoint(server)

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            async with manager.run():
                yield

        app = FastAPI(lifespan=lifespan, **_SETTINGS)
        app.router.routes.append(endpoint)
    app.add_exception_handler(DistilSQLError, _said)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _refused)
    return app


_SETTINGS: dict[str, Any] = {
    "title": "distilsql",
    "version": __version__,
    "docs_url": None,  # those pages load scripts from elsewhere
    "redoc_url": None,
    "responses": {
        status: {"model": Error, "description": description}
        for status, description in {
            401: "the API key is missing or wrong",
            413: "the body is too long",
            415: "the body is no JSON",
            421: "the server has another name",
            403: "a page of another origin asks",
            422: "a field is missing or malformed",
            429: "too much is asked already",
            503: "the database cannot be read, or the server is stopping",
        }.items()
    },
}


def _page_routes(app: FastAPI, service: Service) -> None:
    folder = resources.files("distilsql.serve") / "page"

    def add(path: str, name: str, kind: str) -> None:
        content = (folder / name).read_bytes()
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'

        async def file() -> Response:
            return Response(content, media_type=kind, headers={"ETag": tag, "Cache-Control": "no-cache"})

        app.add_api_route(path, file, methods=["GET"], include_in_schema=False)

    for path, (name, kind) in _PAGE.items():
        add(f"/page/{path}" if path else "/", name, kind)

    @app.get("/health", include_in_schema=False)
    async def health() -> dict[str, str]:
        return {"status": "ok", "model": service.name, "version": __version__}


def _api_routes(app: FastAPI, service: Service, feedback: Feedback, suggestions: list[str]) -> None:
    @app.get("/api/database")
    async def describe() -> dict[str, Any]:
        """Tables with sample values, suggested questions, and what is served."""
        database = service.database
        tables = await service.in_thread(lambda: shown_tables(database))
        return {
            "model": service.name,
            "version": __version__,
            "database": database.db_id,
            "tables": [asdict(table) for table in tables],
            "suggestions": suggestions,
            "feedback": str(feedback.pairs),
        }

    @app.post("/api/ask")
    async def ask(asked: Asked) -> Answered:
        """Write the SQL for a question, and run it."""
        return _answered(await service.ask(asked.question, evidence=asked.evidence))

    @app.post("/api/run")
    async def run(statement: Statement) -> Rows:
        """Run one statement, read-only and under tight limits."""
        return rows_out(await service.run(statement.sql))

    @app.post("/api/csv", response_class=Response, responses={200: {"content": {"text/csv": {}}}})
    async def csv(statement: Statement) -> Response:
        """Run one statement and return its rows as CSV."""
        execution = await service.run(statement.sql)
        if not execution.has_rows:
            raise DataError(f"The SQL was not carried out ({execution.outcome.value}: {execution.message}).")
        headers = {"Content-Disposition": 'attachment; filename="rows.csv"'}
        text = csv_text(execution.columns, execution.rows)
        return Response(text, media_type="text/csv; charset=utf-8", headers=headers)

    @app.post("/api/feedback")
    async def say(said: Said) -> dict[str, str]:
        """Keep what a person says of an answer; a correction is kept if it runs."""
        right = (
            said.sql if said.verdict == "right" else said.right.strip() if said.verdict == "corrected" else ""
        )
        if said.verdict != "wrong":
            execution = await service.run(right)
            if not execution.has_rows:
                raise DataError(
                    f"This SQL does not run ({execution.outcome.value}: {execution.message}), so it is not kept."
                )
        file = await service.in_thread(
            lambda: feedback.add(
                said.verdict,
                said.question,
                said.sql,
                right=right,
                evidence=said.evidence,
                database=str(absolute(service.database.path)),
                model=service.name,
            )
        )
        return {"kept_in": str(file)}


def _answered(reply: Reply) -> Answered:
    matched = [
        Matched(table=table, column=column, values=list(values))
        for (table, column), values in reply.matched.items()
    ]
    return Answered(
        question=reply.question,
        sql=reply.sql,
        matched=matched,
        result=rows_out(reply.execution),
        candidates=reply.chosen.candidates,
        votes=reply.chosen.votes,
        retried=reply.chosen.retried,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        writing_s=reply.writing_s,
        running_s=reply.running_s,
    )


def rows_out(execution: Execution) -> Rows:
    kinds = column_kinds(execution.columns, execution.rows)
    chart = choose_chart(execution.columns, kinds, execution.rows)
    return Rows(
        outcome=execution.outcome.value,
        message=shown(execution.message, keep_lines=True),
        columns=list(execution.columns),
        kinds=kinds,
        rows=[[json_cell(cell) for cell in row] for row in execution.rows],
        chart=None if chart is None else ChartOut(**asdict(chart)),
        seconds=execution.seconds,
    )


# ---- errors, as sentences ------------------------------------------------------------------------------------


async def _said(request: Request, error: Exception) -> Response:
    status, headers = 422, {}
    if isinstance(error, Overloaded):
        status, headers = 429, {"Retry-After": str(_RETRY_S)}
    elif isinstance(error, DatabaseUnavailable) or not isinstance(error, DataError):
        status = 503
    return JSONResponse(error_body(request.url.path, status, shown(error, keep_lines=True)), status, headers)


async def _malformed(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [f"{'.'.join(map(str, fault['loc'][1:])) or 'body'}: {fault['msg']}" for fault in error.errors()]
    status = 400 if request.url.path.startswith("/v1/") else 422
    return JSONResponse(error_body(request.url.path, status, shown("; ".join(faults))), status)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    body = error_body(request.url.path, error.status_code, str(error.detail))
    return JSONResponse(body, error.status_code, error.headers)
