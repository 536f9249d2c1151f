"""The teacher against a local HTTP server that answers well, late, with 429 or 500, or nonsense."""

import json
import re

import pytest

from distilsql.errors import ModelError
from distilsql.synthesis.source import open_source
from distilsql.synthesis.synthesise import synthesise
from distilsql.synthesis.teacher.asker import ANSWERS_FILE, Answers, BudgetSpent, Request
from distilsql.synthesis.teacher.endpoint import ATTEMPTS, Endpoint
from distilsql.synthesis.teacher.masking import mask
from distilsql.synthesis.teacher.wording import TeacherWording, question_in
from fake_api import FakeApi


@pytest.fixture
def api():
    api = FakeApi()
    yield api
    api.close()


@pytest.fixture(scope="module")
def known(shop, tmp_path_factory):
    """The query of each question of a synthesis."""
    folder = tmp_path_factory.mktemp("known") / "out"
    synthesise(open_source(shop), folder, pairs=40, workers=2)
    return {
        pair["question"]: pair["sql"]
        for split in ("train", "valid", "test")
        for pair in map(json.loads, (folder / f"{split}.jsonl").read_text().splitlines())
    }


def waits(endpoint_waits):
    return lambda seconds: endpoint_waits.append(seconds)


ASK = [Request([{"role": "user", "content": "hello"}])]


def asked(endpoint, **options):
    """The reply to one request."""
    replies = []
    request = Request(ASK[0].messages, **options)
    endpoint.ask([request], lambda number, reply: replies.append(reply))
    (reply,) = replies
    return reply


def test_busy_broken_and_nonsense_answers_are_asked_again(api):
    waited = []
    api.faults = [429, 500, "not json", '{"choices": []}']
    reply = asked(Endpoint(api.url, "m", wait=waits(waited)), samples=2, temperature=0.5)
    assert reply.texts == ("Tell me: hello",) * 2
    assert reply.tokens == 100
    assert waited == [7.0, 7.0, 4.0, 8.0]  # as the endpoint says, else longer each time


def test_an_endpoint_that_is_late_every_time_is_given_up(api):
    api.faults = ["late"] * ATTEMPTS
    endpoint = Endpoint(api.url, "m", timeout_s=0.2, wait=waits([]))
    with pytest.raises(ModelError, match=r"no answer in time.*same command again"):
        asked(endpoint)
    assert len(api.requests) == ATTEMPTS


def test_what_another_attempt_would_not_change_is_said_at_once(api):
    api.faults = [401]
    with pytest.raises(ModelError, match=r"status 401.*DISTILSQL_API_KEY"):
        asked(Endpoint(api.url, "m", wait=waits([])))
    assert len(api.requests) == 1


def test_no_server_and_no_address():
    endpoint = Endpoint("http://bob:secret@127.0.0.1:9/v1", "m", wait=waits([]))
    with pytest.raises(ModelError, match="no connection") as raised:
        asked(endpoint)
    assert "secret" not in str(raised.value)
    with pytest.raises(ModelError, match="no http"):
        Endpoint("localhost:8000", "m")


def test_the_key_is_sent_and_kept_nowhere(api, monkeypatch, tmp_path):
    monkeypatch.setenv("DISTILSQL_API_KEY", "sk-private")
    answers = Answers(tmp_path / "a.jsonl", Endpoint(api.url, "m"))
    answers.ask(ASK)
    assert api.keys == ["Bearer sk-private"]
    assert "sk-private" not in (tmp_path / "a.jsonl").read_text()


def test_what_was_asked_once_is_not_asked_again_even_after_a_kill(api, tmp_path):
    file = tmp_path / "a.jsonl"
    Answers(file, Endpoint(api.url, "m")).ask(ASK)
    with file.open("a") as opened:
        opened.write('{"request": "cut o')
    again = Answers(file, Endpoint(api.url, "m"))
    assert again.ask(ASK) == [("Tell me: hello",)]
    assert (len(api.requests), again.spent) == (1, 100)
    again.ask([Request([{"role": "user", "content": "other"}])])
    assert Answers(file, Endpoint(api.url, "m")).spent == 200


def test_the_budget_counts_what_was_spent_before(api, tmp_path):
    answers = Answers(tmp_path / "a.jsonl", Endpoint(api.url, "m"), budget=150)
    answers.ask(ASK)
    with pytest.raises(BudgetSpent):
        answers.ask([Request([{"role": "user", "content": "x" * 400}])])
    assert len(api.requests) == 1


def worded(api, shop, folder, *, shares_values, budget=None):
    answers = Answers(
        folder.parent / f"{folder.name}-{ANSWERS_FILE}", Endpoint(api.url, "m", wait=waits([])), budget
    )
    wording = TeacherWording(answers, shares_values=shares_values)
    synthesise(open_source(shop), folder, pairs=40, wording=wording, workers=2)
    lines = [(folder / f"{split}.jsonl").read_text().splitlines() for split in ("train", "valid", "test")]
    return wording, [json.loads(line) for part in lines for line in part]


@pytest.mark.slow
def test_paraphrases_that_are_answered_as_the_query_does_are_taken(api, shop, known, tmp_path):
    api.sql_for = lambda question: known.get(question.removeprefix("Tell me: "), "SELECT 1")
    wording, pairs = worded(api, shop, tmp_path / "out", shares_values=True)
    assert wording.accepted == 40
    assert all(pair["wording"] == "teacher" and pair["question"].startswith("Tell me: ") for pair in pairs)


@pytest.mark.slow
def test_paraphrases_that_ask_something_else_are_not_taken(api, shop, known, tmp_path):
    def forgetful(question):
        sql = known.get(question.removeprefix("Tell me: "), "SELECT 1")
        return sql.partition(" WHERE ")[0] if question.startswith("Tell me: ") else sql

    api.sql_for = forgetful
    wording, pairs = worded(api, shop, tmp_path / "out", shares_values=True)
    assert wording.refused > 5
    assert all(pair["wording"] == "template" for pair in pairs if " WHERE " in pair["sql"])


@pytest.mark.slow
def test_a_teacher_that_cannot_answer_is_refused(api, shop, tmp_path):
    with pytest.raises(ModelError, match=r"answers 0 of \d+ questions.*stronger"):
        worded(api, shop, tmp_path / "out", shares_values=True)


@pytest.mark.slow
def test_no_value_of_the_database_is_sent_unless_it_may_be(api, shop, known, tmp_path):
    """Values come back as placeholders, in the question and in the query, and are filled in here."""
    masked = {}

    def answer(question):
        asked = question.removeprefix("Tell me: ")
        for text, sql in known.items():
            if re.fullmatch(re.sub(r"VALUE_\d+", "(.+)", re.escape(asked).replace("VALUE_", "VALUE_")), text):
                masked[asked] = sql
                return sql
        return "SELECT 1"

    api.sql_for = answer
    wording, pairs = worded(api, shop, tmp_path / "out", shares_values=False)
    assert wording.accepted > 20
    sent = "\n".join(message["content"] for body in api.requests for message in body["messages"])
    assert "VALUE_1" in sent
    assert not re.search(r"Lisbon|Silva|returned|Lamp \d", sent)
    assert not any("VALUE_" in pair["question"] for pair in pairs)


@pytest.mark.slow
def test_a_spent_budget_leaves_the_rest_to_the_templates(api, shop, known, tmp_path):
    api.sql_for = lambda question: known.get(question.removeprefix("Tell me: "), "SELECT 1")
    wording, pairs = worded(api, shop, tmp_path / "out", shares_values=True, budget=6000)
    assert wording.is_spent
    assert len(pairs) == 40
    assert {pair["wording"] for pair in pairs} == {"teacher", "template"}
    assert wording.answers.spent <= 6000


@pytest.mark.parametrize(
    ("question", "constants", "sent", "sql", "filled"),
    [
        ("in New York or York", [("York", ("York",)), ("New York", ("New York",))], "in VALUE_1 or VALUE_2",
         "a = 'VALUE_1' OR a = VALUE_2", "a = 'New York' OR a = 'York'"),
        ("above 30", [("30", ("30",))], "above VALUE_1", "a > VALUE_1", "a > 30"),
        ("after March 5, 2020", [("2020-03-05", ("2020-03-05", "March 5, 2020"))], "after VALUE_1",
         "d > 'VALUE_1'", "d > '2020-03-05'"),
        ("has the text 'Al'", [("Al", ("'Al'",))], "has the text VALUE_1", "a LIKE '%VALUE_1%'", "a LIKE '%Al%'"),
        ("named O'Neil", [("O'Neil", ("O'Neil",))], "named VALUE_1", "a = 'VALUE_1'", "a = 'O''Neil'"),
    ],
)  # fmt: skip
def test_values_leave_and_come_back(question, constants, sent, sql, filled):
    masked = mask(question, constants)
    assert masked.question == sent
    assert masked.queried(sql) == filled
    assert masked.said(sent) == question
    assert not masked.holds("nothing of it")


def test_a_value_that_cannot_be_hidden_is_not_sent():
    assert mask("above thirty", [("30", ("30",))]) is None


@pytest.mark.parametrize(
    "written",
    [
        'Which "new" shops are open?',
        '"Which "new" shops are open?"',
        '**Question:** Which "new" shops are open?',
        '**Reworded question: Which "new" shops are open?**',
        'Here is the reworded question:\n\nWhich "new" shops are open?\n\nIt keeps the meaning.',
        '```\nWhich "new" shops are open?\n```',
        '<think>New, hm.\nSo:</think>\nQuestion: “Which "new" shops are open?”',
    ],
)
def test_the_question_is_found_in_what_a_teacher_wrote(written):
    assert question_in(written) == 'Which "new" shops are open?'


def test_a_constant_at_the_end_keeps_its_quotes():
    assert question_in("Whose name is 'Al'") == "Whose name is 'Al'"
    assert question_in("Question:\n") == question_in("<think>never ends\nWhich?") == ""
