"""Every statement of the attack suite, sent over HTTP and through MCP as a client would."""

import pytest
from starlette.testclient import TestClient

from attacked import ATTACKS, SECRET, folder, snapshot
from distilsql.databases.database import open_database
from distilsql.databases.execute import execute
from distilsql.serve.service import Service

__all__ = ["folder"]

TIMEOUT_S = 0.25


@pytest.fixture(scope="module")
def attacked(model, folder):
    """Statements that would run on are stopped sooner than a person's, so that the suite takes seconds."""

    def run_sql(database, sql):
        return execute(database.path, sql, mode="serving", timeout_s=TIMEOUT_S)

    with Service(model, open_database(folder / "people.sqlite"), name="m", run_sql=run_sql) as service:
        yield service


def statement(attack, folder):
    return attack["sql"].replace("{folder}", str(folder))


def over_http(client, sql):
    """The outcome's name, and all that was sent back."""
    answer = client.post("/api/run", json={"sql": sql})
    if answer.status_code in (413, 422):
        return "REFUSED", answer.text
    assert answer.status_code == 200, answer.text
    outcome = answer.json()["outcome"]
    return outcome.upper().replace(" ", "_"), answer.text


def over_mcp(client, sql):
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "run_sql", "arguments": {"sql": sql}},
    }
    answer = client.post("/mcp", json=call, headers={"accept": "application/json, text/event-stream"})
    if answer.status_code == 413:
        return "REFUSED", answer.text
    assert answer.status_code == 200, answer.text
    result = answer.json()["result"]
    if not result.get("isError"):
        cut = result["structuredContent"]["there_are_more_rows"]
        return ("TOO_MANY_ROWS" if cut else "ROWS"), answer.text
    said = result["structuredContent"]["error"]
    if "too long" in said:
        return "REFUSED", answer.text
    return said.partition("(")[2].partition(":")[0].upper().replace(" ", "_"), answer.text


@pytest.mark.slow
@pytest.mark.parametrize("face", [over_http, over_mcp])
def test_no_attack_gets_further_than_through_execute(face, folder, attacked, app_of):
    before = snapshot(folder)
    seen = {}
    with TestClient(app_of(attacked), base_url="http://localhost") as client:
        for attack in ATTACKS:
            outcome, sent = face(client, statement(attack, folder))
            # The clock may cut short on a busy machine what would have ended otherwise.
            allowed = {*attack["serving"], "TIMEOUT"}
            if len(statement(attack, folder)) > 100_000:
                allowed.add("REFUSED")
            assert outcome in allowed, (attack["name"], sent[:300])
            assert SECRET not in sent
            seen[outcome] = seen.get(outcome, 0) + 1
            count = face(client, "SELECT count(*) FROM people WHERE name LIKE 'PERSON%'")
            assert count[0] in ("ROWS", "TIMEOUT"), attack["name"]
    assert snapshot(folder) == before
    assert seen["DENIED"] > 20
