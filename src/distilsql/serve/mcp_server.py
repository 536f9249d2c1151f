"""MCP: `list_tables`, `describe_table`, `ask` and `run_sql` for agents, on standard input and output or over HTTP."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

import mcp.types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.routing import BaseRoute

from distilsql import __version__
from distilsql.databases.job import Execution, Outcome
from distilsql.errors import DataError, DistilSQLError
from distilsql.serve.browse import shown_tables
from distilsql.serve.cells import json_cell
from distilsql.serve.service import Service
from distilsql.shown import shown

# An agent reads every row: more would fill its memory. It can ask for others with LIMIT and OFFSET.
MOST_ROWS = 100
_LONGEST = {"question": 4000, "evidence": 4000, "sql": 100_000, "table": 1000}


@dataclass(frozen=True)
class _Tool:
    """`arguments` are texts; those of `optional` may be left out."""

    description: str
    arguments: dict[str, str]
    call: Callable[..., Awaitable[dict[str, Any]]]
    optional: tuple[str, ...] = ()

    def listed(self, name: str) -> types.Tool:
        properties = {
            argument: {"type": "string", "description": text, "maxLength": _LONGEST[argument]}
            for argument, text in self.arguments.items()
        }
        required = [argument for argument in self.arguments if argument not in self.optional]
        schema = {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }
        hints = types.ToolAnnotations(read_only_hint=True, open_world_hint=False)
        return types.Tool(name=name, description=self.description, input_schema=schema, annotations=hints)

    def checked(self, arguments: dict[str, Any]) -> dict[str, str]:
        """Raises DataError for an argument that is missing, unknown, no text or too long."""
        for name, value in arguments.items():
            if name not in self.arguments or not isinstance(value, str) or len(value) > _LONGEST[name]:
                known = ", ".join(self.arguments) or "none"
                raise DataError(f"The argument {name!r} is not one of {known}, is no text, or is too long.")
        missing = [name for name in self.arguments if name not in self.optional and not arguments.get(name)]
        if missing:
            raise DataError(f"The argument {missing[0]!r} is missing.")
        return arguments


def mcp_server(service: Service) -> Server[Any]:
    tools = _tools(service)

    async def list_tools(context: Any, params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[tool.listed(name) for name, tool in tools.items()])

    async def call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        try:
            if params.name not in tools:
                raise DataError(f"There is no tool {params.name!r}; the tools are {', '.join(tools)}.")
            tool = tools[params.name]
            found = await tool.call(**tool.checked(params.arguments or {}))
        except DistilSQLError as error:
            return _result({"error": shown(error, keep_lines=True)}, is_error=True)
        return _result(found, is_error="error" in found)

    return Server(
        "distilsql",
        version=__version__,
        instructions=f"Questions about the database {service.database.db_id}. It can only be read. `ask` has the model "
        f"{service.name} write SQL for a question and runs it; `run_sql` runs a statement of yours.",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _result(found: dict[str, Any], *, is_error: bool) -> types.CallToolResult:
    text = types.TextContent(type="text", text=json.dumps(found, ensure_ascii=False))
    return types.CallToolResult(content=[text], structured_content=found, is_error=is_error)


def _tools(service: Service) -> dict[str, _Tool]:
    async def tables() -> list[Any]:
        return await service.in_thread(lambda: shown_tables(service.database))

    async def list_tables() -> dict[str, Any]:
        return {
            "tables": [
                {
                    "name": table.name,
                    "comment": table.comment,
                    "is_view": table.is_view,
                    "columns": [column.name for column in table.columns],
                }
                for table in await tables()
            ]
        }

    async def describe_table(table: str) -> dict[str, Any]:
        listed = await tables()
        for each in listed:
            if each.name.lower() == table.lower():
                return asdict(each)
        names = ", ".join(each.name for each in listed[:50])
        raise DataError(f"There is no table {table!r}; there are {names}.")

    async def ask(question: str, evidence: str = "") -> dict[str, Any]:
        reply = await service.ask(question, evidence=evidence)
        matched = [
            {"table": table, "column": column, "values": list(values)}
            for (table, column), values in reply.matched.items()
        ]
        chosen = reply.chosen
        how = {"candidates": chosen.candidates, "votes": chosen.votes, "retried": chosen.retried}
        return {"sql": reply.sql, "matched_values": matched, **how} | _rows(reply.execution)

    async def run_sql(sql: str) -> dict[str, Any]:
        return _rows(await service.run(sql))

    return {
        "list_tables": _Tool("The tables and views of the database, with their columns.", {}, list_tables),
        "describe_table": _Tool(
            "One table: its columns with types, keys, and sample values.",
            {"table": "its name"},
            describe_table,
        ),
        "ask": _Tool(
            "Answer a question about the database: the SQL that the model writes, and the rows it returns.",
            {"question": "in words", "evidence": "what the question takes for granted, if anything"},
            ask,
            optional=("evidence",),
        ),
        "run_sql": _Tool(
            f"Run one SELECT, read-only and under tight limits; returns at most {MOST_ROWS} rows.",
            {"sql": "one statement"},
            run_sql,
        ),
    }


def _rows(execution: Execution) -> dict[str, Any]:
    """Rows, at most `MOST_ROWS`, or the error."""
    if not execution.has_rows:
        message = shown(execution.message, keep_lines=True)
        return {"error": f"The SQL was not carried out ({execution.outcome.value}: {message})."}
    rows = [[json_cell(cell) for cell in row] for row in execution.rows[:MOST_ROWS]]
    is_cut = len(execution.rows) > MOST_ROWS or execution.outcome is Outcome.TOO_MANY_ROWS
    return {"columns": list(execution.columns), "rows": rows, "there_are_more_rows": is_cut}


def http_endpoint(server: Server[Any]) -> tuple[BaseRoute, StreamableHTTPSessionManager]:
    """The route `/mcp`, and the session manager to be run beside it. The guard in front has checked Host and Origin."""
    app = server.streamable_http_app(json_response=True, stateless_http=True, host="behind the guard")
    (route,) = app.routes
    return route, server.session_manager


async def serve_stdio(server: Server[Any]) -> None:
    """Until standard input ends."""
    async with stdio_server() as (reading, writing):
        await server.run(reading, writing, server.create_initialization_options())
