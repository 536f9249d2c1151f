"""The client of the `mcp` SDK, over HTTP and over the pipes of `distilsql mcp`."""

import json
import os
import sys

import anyio
import pytest

from distilsql.inference.ask import ask

mcp = pytest.importorskip("mcp")


async def talk(client, examples, table):
    """What an agent does; returns what it was told."""
    told = {"tools": sorted(tool.name for tool in (await client.list_tools()).tools)}
    for name, arguments in (
        ("list_tables", {}),
        ("describe_table", {"table": table.upper()}),
        ("ask", {"question": examples[0].question}),
        (
            "run_sql",
            {
                "sql": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n LIMIT 150"
            },
        ),
    ):
        result = await client.call_tool(name, arguments)
        assert not result.is_error, result
        assert json.loads(result.content[0].text) == result.structured_content
        told[name] = result.structured_content
    for name, arguments, words in (
        ("run_sql", {"sql": f"DROP TABLE {table}"}, "denied"),
        ("run_sql", {"sql": "SELECT nothing"}, "sql error"),
        ("run_sql", {}, "'sql' is missing"),
        ("run_sql", {"sql": 3}, "is no text"),
        ("run_sql", {"sql": "SELECT 1", "database": "other"}, "'database' is not one of sql"),
        ("describe_table", {"table": "nowhere"}, "There is no table 'nowhere'"),
        ("drop_table", {}, "There is no tool 'drop_table'"),
    ):
        result = await client.call_tool(name, arguments)
        assert result.is_error, (name, arguments)
        assert words in result.content[0].text
    return told


def check(told, model, database, examples):
    assert told["tools"] == ["ask", "describe_table", "list_tables", "run_sql"]
    assert [table["name"] for table in told["list_tables"]["tables"]] == [
        t.name for t in database.schema.tables
    ]
    assert told["describe_table"]["columns"][0]["is_primary_key"]
    answer = ask(model, examples[0].question, database)
    assert told["ask"]["sql"] == answer.sql
    assert told["ask"]["rows"] == [list(row) for row in answer.result.rows]
    assert (len(told["run_sql"]["rows"]), told["run_sql"]["there_are_more_rows"]) == (100, True)


def test_over_http(served, model, database, examples):
    async def main(url):
        async with mcp.Client(f"{url}mcp") as client:
            return await talk(client, examples, database.schema.tables[0].name)

    with served() as url:
        check(anyio.run(main, url), model, database, examples)


@pytest.mark.slow
def test_over_pipes(model, database, examples, tmp_path):
    arguments = ["-m", "distilsql.cli", "mcp", "demo:teacher", "--database", str(database.path)]
    server = mcp.StdioServerParameters(command=sys.executable, args=arguments, env=dict(os.environ))

    async def main():
        with (tmp_path / "errors.txt").open("w") as errors:
            async with mcp.Client(mcp.stdio_client(server, errlog=errors)) as client:
                return await talk(client, examples, database.schema.tables[0].name)

    check(anyio.run(main), model, database, examples)
