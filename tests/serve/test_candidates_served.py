"""Candidates and retries of a server: the answers that `predict` and `ask` give, and limits that hold for them too."""

import threading
from collections import Counter

import pytest
from starlette.testclient import TestClient

from distilsql.databases.job import Execution, Outcome
from distilsql.errors import RunError
from distilsql.inference.asker import carry_out
from distilsql.inference.candidates import RETRY_SAMPLES, Choosing, choose
from distilsql.serve.service import Limits, Service
from references import in_float64


@pytest.fixture(scope="module")
def exact(model):
    """In float64, so that what shares a batch changes no token."""
    return in_float64(model)


@pytest.fixture
def client_of(exact, database, app_of):
    """`with client_of(…) as client:` of a service that chooses."""

    def make(choosing, **options):
        service = Service(exact, database, name="teacher", choosing=choosing, **options)
        return service, TestClient(app_of(service), base_url="http://localhost")

    return make


@pytest.mark.slow
def test_an_answer_is_the_one_that_ask_gives(client_of, exact, database, examples):
    choosing = Choosing(4, retry=True, temperature=1.2)
    service, client = client_of(choosing)
    with service, client:
        answers = [client.post("/api/ask", json={"question": each.question}).json() for each in examples[:8]]
    for example, answer in zip(examples[:8], answers, strict=True):
        chosen = choose(exact, example.question, database, choosing)
        assert answer["sql"] == chosen.answer.sql
        assert (answer["votes"], answer["candidates"], answer["retried"]) == (
            chosen.votes,
            chosen.candidates,
            chosen.retried,
        )
    assert any(answer["votes"] < 4 for answer in answers), "the candidates disagree somewhere"
    assert all(answer["completion_tokens"] > 4 for answer in answers)


@pytest.mark.slow
def test_where_all_fail_others_are_written_and_the_first_that_runs_is_the_answer(client_of, examples):
    tried = Counter()
    first = []

    def only_others_run(database, sql):
        first[:] = first or [sql]
        tried[sql] += 1
        if sql == first[0]:
            return Execution(Outcome.SQL_ERROR, message="no such table: here")
        return carry_out(database, sql)

    service, client = client_of(Choosing(retry=True, temperature=1.5), run_sql=only_others_run)
    with service, client:
        answers = [
            client.post("/api/ask", json={"question": each.question}).json()
            for each in examples[:6]
            if not first.clear()
        ]
    assert any(answer["retried"] for answer in answers)
    for answer in answers:
        if answer["retried"]:
            assert answer["result"]["outcome"] in ("rows", "too many rows")
            assert answer["candidates"] == 1 + RETRY_SAMPLES + 1
            assert answer["votes"] >= 1
        else:
            assert answer["result"]["outcome"] != "rows"


def test_without_retry_what_fails_is_the_answer(client_of, examples):
    def failing(database, sql):
        return Execution(Outcome.SQL_ERROR, message="no such table: here")

    service, client = client_of(Choosing(3), run_sql=failing)
    with service, client:
        answer = client.post("/api/ask", json={"question": examples[0].question}).json()
    assert (answer["votes"], answer["retried"], answer["result"]["message"]) == (
        0,
        False,
        "no such table: here",
    )


def test_candidates_count_towards_what_may_be_under_way(client_of, examples):
    with pytest.raises(RunError, match="fewer --candidates"):
        client_of(Choosing(8), limits=Limits(questions=4, waiting=3))
    service, client = client_of(Choosing(4), limits=Limits(questions=4, waiting=2))
    with service, client:
        statuses = []

        def ask(question):
            statuses.append(client.post("/api/ask", json={"question": question}).status_code)

        threads = [threading.Thread(target=ask, args=(each.question,)) for each in examples[:6]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(statuses) <= {200, 429}
        assert 200 in statuses
        # What was begun of a question that was turned away is given up: there is room again.
        assert client.post("/api/ask", json={"question": examples[0].question}).status_code == 200
